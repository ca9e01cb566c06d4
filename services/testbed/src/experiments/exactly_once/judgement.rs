//! Figures of the run, and the verdicts. Pure.

use contract::SEGMENTS;
use report::{Verdict, numbers::count};
use serde::Serialize;

use super::{
    cached::Lists,
    faults::Imposed,
    oracle::{Compared, Findings, Tally},
};
use crate::instruments::file_readers::Files;

/// Of segments, among the files that are compared: of each more than one.
pub const LEAST_VERSIONS: u64 = 2 * SEGMENTS as u64;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Measured {
    /// Different events that the clients sent; all of them were acknowledged.
    pub events: u64,
    /// Positions that were acknowledged: repeated events have two.
    pub acknowledged: u64,
    pub requests: u64,
    /// Requests without an acknowledgement, and the events in them, which were sent again.
    pub failed_requests: u64,
    pub resent: u64,
    /// Events that were sent again although they were acknowledged.
    pub repeated: u64,
    /// Messages written past the API, by the acknowledgements of the broker.
    pub poison: u64,
    /// Of all partitions, by the recomputation.
    pub topic: Tally,
    pub planned_faults: usize,
    pub faults: Vec<Imposed>,
    pub seconds: f64,
    /// From the last acknowledgement until all messages were processed.
    pub drained_s: f64,
    /// The longest time without an acknowledgement.
    pub longest_gap_s: f64,
    /// The longest time in which a partition had waiting events and none was written.
    pub longest_stall_s: f64,
    pub findings: Findings,
    /// Poison whose position is among the dead letters.
    pub poison_found: Compared,
    pub lists: Lists,
    /// Files of the model's segments that workers sent during the faults, beside the fold of the logs.
    pub files: Files,
    /// Copies of a partition's state with one defect each, and the defects that the comparison did not find.
    pub mutants: usize,
    pub missed_mutants: Vec<String>,
}

pub fn verdicts(measured: &Measured) -> Vec<Verdict> {
    let Findings { acknowledged, log, counts, features, positions, dead_letters } = &measured.findings;
    let mut dead = dead_letters.clone();
    dead.add(measured.poison_found.clone());
    let lists = &measured.lists;
    let mut verdicts = vec![
        judged("Acknowledged events", "each at its position in the topic, and in the log", acknowledged),
        judged("Log", "each event of the topic once, with its weight and arrival number; nothing else", log),
        judged("Counts of users", "equal to the recomputation", counts),
        judged("Features", "equal to the recomputation, byte for byte", features),
        judged("Positions", "the end of each partition", positions),
        judged("Dead letters", "exactly the messages that are no events, each with a reason", &dead),
        judged("Arrival numbers of lists", "none greater than that of the user's features", &lists.not_newer),
        judged("Lists", "equal to the answer of a miss", &lists.as_on_miss),
    ];
    let Files { compared, wrong, versions, .. } = measured.files;
    verdicts.push(Verdict::new(
        "Files of segments",
        "equal to the fold of the logs at their version, byte for byte".to_owned(),
        format!("{} of {} differ", count(wrong as f64), count(compared as f64)),
        wrong == 0 && versions >= LEAST_VERSIONS,
        &format!("{} versions", count(versions as f64)),
    ));
    let (planned, imposed) = (measured.planned_faults, measured.faults.len());
    verdicts.push(Verdict::new("Faults", format!("{planned}"), format!("{imposed}"), imposed == planned, ""));
    let found = measured.mutants - measured.missed_mutants.len();
    verdicts.push(Verdict::new(
        "Planted defects",
        format!("{} found", measured.mutants),
        format!("{found} found"),
        measured.mutants > 0 && measured.missed_mutants.is_empty(),
        &measured.missed_mutants.join("; "),
    ));
    verdicts
}

/// Something must have been compared.
fn judged(name: &str, expected: &str, compared: &Compared) -> Verdict {
    let [of, different] = [compared.compared, compared.different].map(|n| count(n as f64));
    let passed = compared.different == 0 && compared.compared > 0;
    let measured = format!("{different} of {of} differ");
    Verdict::new(name, expected.to_owned(), measured, passed, &compared.described.join("; "))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::experiments::exactly_once::faults::Fault;

    pub fn measured() -> Measured {
        let same = Compared { compared: 5, ..Compared::default() };
        let findings = Findings {
            acknowledged: same.clone(),
            log: same.clone(),
            counts: same.clone(),
            features: same.clone(),
            positions: same.clone(),
            dead_letters: same.clone(),
        };
        let lists = Lists { not_newer: same.clone(), as_on_miss: same.clone(), older: 0 };
        let fault = Imposed { fault: Fault::KillBroker, process: "kafka".into(), at_s: 3.0, lasts_s: 1.0 };
        Measured {
            events: 1_000,
            planned_faults: 1,
            faults: vec![fault],
            findings,
            poison_found: same,
            lists,
            files: Files { compared: 50, versions: 40, ..Files::default() },
            mutants: 12,
            ..Measured::default()
        }
    }

    #[test]
    fn one_difference_fails_its_verdict_only() {
        let good = measured();
        assert!(verdicts(&good).iter().all(|verdict| verdict.passed == Some(true)), "{:?}", verdicts(&good));
        let changes: [fn(&mut Measured); 11] = [
            |m| m.findings.acknowledged.different = 1,
            |m| m.findings.log.different = 1,
            |m| m.findings.features.compared = 0,
            |m| m.findings.positions.different = 1,
            |m| m.poison_found.different = 1,
            |m| m.lists.not_newer.different = 1,
            |m| m.lists.as_on_miss.different = 1,
            |m| m.files.wrong = 1,
            |m| m.files.versions = 31,
            |m| m.planned_faults = 2,
            |m| m.missed_mutants = vec!["a user is lost".into()],
        ];
        for change in changes {
            let mut bad = measured();
            change(&mut bad);
            let failed = verdicts(&bad).iter().filter(|verdict| verdict.passed == Some(false)).count();
            assert_eq!(failed, 1, "{bad:?}");
        }
    }
}
