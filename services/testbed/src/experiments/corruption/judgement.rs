//! Figures of the run, and the verdicts. Pure.

use contract::SEGMENTS;
use report::{Verdict, numbers::count};
use segments::BLOCK_BYTES;
use serde::Serialize;
use statistics::percentile;

use super::{TRANSFER_BYTES_PER_S, answers::Answers, damage::Damage};
use crate::instruments::file_readers::Files;

/// Each damage is found and repaired within this time: a pass of the scrubber every 5 s, a report, transfers at the limit.
const REPAIRED_WITHIN_S: f64 = 30.0;
/// Beside the bytes at the limit: the failure is detected, the table changes, the new holders report.
const BACK_BESIDES_S: f64 = 15.0;
const P99_RATIO: f64 = 1.5;
/// Of each segment more than one.
const LEAST_VERSIONS: u64 = 2 * SEGMENTS as u64;
/// A p99 of fewer reads says little.
const LEAST_READS: u64 = 500;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Measured {
    pub repairs: Vec<Repair>,
    pub deaths: Vec<Death>,
    /// Reads before the deaths, and from each death until all copies are back.
    pub before_deaths: Latencies,
    pub during_deaths: Latencies,
    pub switches: Switches,
    pub files: Files,
    pub answers: Answers,
    pub list_reads: u64,
    pub failed_list_reads: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Repair {
    pub damage: String,
    /// Copies that were damaged.
    pub segments: usize,
    /// Blocks damaged or lost.
    pub damaged: u64,
    /// Copies without the right manifest.
    pub manifests: u64,
    /// Bytes that workers received for orders, also for those that failed.
    pub received: u64,
    /// Segments whose version was published again meanwhile, by a new primary.
    pub published_again: usize,
    /// The damaged blocks and manifests, and the manifests of versions that were published again.
    pub allowed: u64,
    pub found_s: f64,
    pub repaired_s: f64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Death {
    /// Copies that the worker held, and their blocks.
    pub copies: usize,
    pub blocks: u64,
    /// Bytes that the others received.
    pub received: u64,
    /// Until the monitors failed the worker.
    pub failed_s: f64,
    /// Until three copies of each segment were complete again.
    pub back_s: f64,
    /// The slowest reads from the death on, by the time of their request: what takes time from readers is seen by when it does.
    pub slowest_reads: Vec<SlowRead>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct SlowRead {
    /// After the death.
    pub at_s: f64,
    pub ms: f64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Switches {
    pub switches: u64,
    /// Reads while a replica fetches a version, builds its model and switches; and all others, with the same events.
    pub near: Latencies,
    pub others: Latencies,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Latencies {
    pub reads: u64,
    pub failed: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl Latencies {
    /// Latencies in milliseconds, and whether there was an answer.
    pub fn of(reads: impl Iterator<Item = (f64, bool)>) -> Self {
        let (mut answered, mut failed) = (Vec::new(), 0);
        for (ms, is_answered) in reads {
            if is_answered { answered.push(ms) } else { failed += 1 }
        }
        let at = |percent| percentile(&answered, percent).unwrap_or_default();
        Self { reads: answered.len() as u64 + failed, failed, p50_ms: at(50.0), p99_ms: at(99.0) }
    }
}

impl Repair {
    pub fn text(&self) -> String {
        let Self { found_s, repaired_s, damaged, received, .. } = self;
        let again = match self.published_again {
            0 => String::new(),
            segments => format!("; {segments} segments were published again by new primaries"),
        };
        format!(
            "found after {found_s:.1} s, repaired after {repaired_s:.1} s, {damaged} blocks damaged, {received} bytes moved{again}"
        )
    }
}

impl Death {
    pub fn text(&self) -> String {
        let Self { copies, blocks, failed_s, back_s, .. } = self;
        format!("failed after {failed_s:.1} s, its {copies} copies ({blocks} blocks) back after {back_s:.1} s")
    }

    /// The stated time: the bytes at the limit of one worker, and what comes before.
    pub fn back_within_s(&self) -> f64 {
        (self.blocks * BLOCK_BYTES as u64) as f64 / TRANSFER_BYTES_PER_S as f64 + BACK_BESIDES_S
    }
}

pub fn verdicts(measured: &Measured) -> Vec<Verdict> {
    let Measured {
        repairs,
        deaths,
        before_deaths,
        during_deaths,
        switches,
        files,
        answers,
        list_reads,
        failed_list_reads,
    } = measured;
    let slowest = repairs.iter().map(|repair| repair.repaired_s).fold(0.0, f64::max);
    let all = Damage::ALL.len();
    let longest = deaths.iter().map(|death| death.back_s).fold(0.0, f64::max);
    let stated = deaths.iter().map(Death::back_within_s).fold(0.0, f64::max);
    let excess: Vec<&str> =
        repairs.iter().filter(|repair| repair.received > repair.allowed).map(|repair| &*repair.damage).collect();
    let ratio = |during: &Latencies, before: &Latencies| during.p99_ms / before.p99_ms;
    let enough = |one: &Latencies| one.reads >= LEAST_READS;
    let p99 = |name: &str, during: &Latencies, before: &Latencies| {
        let found = ratio(during, before);
        let measured = format!("{found:.2} × ({:.1} against {:.1} ms)", during.p99_ms, before.p99_ms);
        let passed = found <= P99_RATIO && enough(during) && enough(before);
        let reads = format!("{} and {} reads", count(during.reads as f64), count(before.reads as f64));
        Verdict::new(name, format!("at most {P99_RATIO} ×"), measured, passed, &reads)
    };
    vec![
        Verdict::new(
            "Damages repaired",
            format!("{all}, each within {REPAIRED_WITHIN_S} s"),
            format!("{}, the slowest within {slowest:.1} s", repairs.len()),
            repairs.len() == all && slowest <= REPAIRED_WITHIN_S,
            "",
        ),
        Verdict::new(
            "Bytes moved",
            "no more than the damaged blocks and manifests".to_owned(),
            format!("{} of {all} damages moved more", excess.len()),
            excess.is_empty() && !repairs.is_empty(),
            &excess.join("; "),
        ),
        Verdict::new(
            "Files read from workers",
            "equal to the fold of the logs".to_owned(),
            format!("{} of {} differ", count(files.wrong as f64), count(files.compared as f64)),
            files.wrong == 0 && files.compared > 0 && files.versions >= LEAST_VERSIONS && files.refused > 0,
            &format!("{} versions; {} refused", count(files.versions as f64), count(files.refused as f64)),
        ),
        Verdict::new(
            "Lists read through the gateway",
            "none without an answer".to_owned(),
            format!("{} of {}", count(*failed_list_reads as f64), count(*list_reads as f64)),
            *failed_list_reads == 0 && *list_reads > 0,
            "",
        ),
        Verdict::new(
            "Neighbours read from the API",
            "equal to the fold of the logs at one of its versions".to_owned(),
            format!("{} of {} differ", count(answers.wrong as f64), count(answers.compared as f64)),
            answers.wrong == 0 && answers.compared > 0 && answers.lists > 1,
            "",
        ),
        Verdict::new(
            "Copies of a killed worker",
            format!("back within {stated:.0} s"),
            format!("{longest:.1} s at most, of {} deaths", deaths.len()),
            !deaths.is_empty() && deaths.iter().all(|death| death.copies > 0 && death.back_s <= death.back_within_s()),
            "",
        ),
        p99("p99 of reads while copies are made", during_deaths, before_deaths),
        p99("p99 of reads near a switch of the version", &switches.near, &switches.others),
    ]
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn measured() -> Measured {
        let reads = || Latencies { reads: 1_000, failed: 0, p50_ms: 1.0, p99_ms: 4.0 };
        let repair = |damage: &Damage| Repair {
            damage: damage.to_string(),
            segments: 1,
            damaged: 3,
            manifests: 0,
            received: 12_288,
            published_again: 0,
            allowed: 12_288,
            found_s: 1.0,
            repaired_s: 2.0,
        };
        Measured {
            repairs: Damage::ALL.iter().map(repair).collect(),
            deaths: vec![Death {
                copies: 12,
                blocks: 512,
                received: 2 << 20,
                failed_s: 2.0,
                back_s: 10.0,
                slowest_reads: vec![],
            }],
            before_deaths: reads(),
            during_deaths: reads(),
            switches: Switches { switches: 9, near: reads(), others: reads() },
            files: Files { compared: 500, versions: 40, refused: 9, ..Files::default() },
            answers: Answers { compared: 900, wrong: 0, lists: 300 },
            list_reads: 9_000,
            failed_list_reads: 0,
        }
    }

    #[test]
    fn one_fault_fails_its_verdict_only() {
        let good = measured();
        assert!(verdicts(&good).iter().all(|verdict| verdict.passed == Some(true)), "{:?}", verdicts(&good));
        let changes: [fn(&mut Measured); 15] = [
            |m| drop(m.repairs.pop()),
            |m| m.repairs[0].repaired_s = 31.0,
            |m| m.repairs[3].received = 12_289,
            |m| m.files.wrong = 1,
            |m| m.files.compared = 0,
            |m| m.files.versions = 31,
            |m| m.files.refused = 0,
            |m| m.answers.wrong = 1,
            |m| m.answers.compared = 0,
            |m| m.failed_list_reads = 1,
            |m| m.deaths[0].back_s = 20.0,
            |m| m.during_deaths.p99_ms = 6.1,
            |m| m.deaths.clear(),
            |m| m.switches.near.p99_ms = 6.1,
            |m| m.switches.near.reads = 499,
        ];
        for change in changes {
            let mut bad = measured();
            change(&mut bad);
            let failed = verdicts(&bad).iter().filter(|verdict| verdict.passed == Some(false)).count();
            assert_eq!(failed, 1, "{bad:?}");
        }
    }

    #[test]
    fn latencies_are_those_of_answers() {
        let found = Latencies::of((1..=200).map(|n| (f64::from(n), n != 200)));
        assert_eq!((found.reads, found.failed, found.p50_ms, found.p99_ms), (200, 1, 100.0, 198.0));
        assert_eq!(Latencies::of([].into_iter()).reads, 0);
    }
}
