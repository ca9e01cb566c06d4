//! What the parts of the experiment have to show. Pure.

use std::collections::BTreeMap;

use report::{Validity, Verdict, not_judged};

use super::{
    Measured,
    amdahl::serial_share,
    even::{self, Operation},
    modelled::ModelledStore,
    rounds::{Estimate, Run, gains, validity as of_windows},
    skew::{self, Skew},
};

/// Of a prediction.
const TOLERANCE: f64 = 0.1;
/// The article's: reads and writes became nearly this much faster.
pub const ARTICLE_GAIN: f64 = 5.0;

/// Gain over one server, by rounds.
pub fn gain(runs: &[Run<even::Variant>], operation: Operation, servers: u16) -> Estimate {
    let [variant, one] = [servers, 1].map(|servers| even::Variant { operation, servers });
    Estimate::of(&gains(runs, &variant, &one))
}

/// The serial share that Amdahl's law fits to the gains of each round.
pub fn serial(runs: &[Run<even::Variant>], operation: Operation) -> Estimate {
    let rounds = runs.iter().map(|run| run.round).max().unwrap_or(0);
    let one = even::Variant { operation, servers: 1 };
    let of_round = |round: u32| {
        let runs: Vec<_> = runs.iter().filter(|run| run.round == round).cloned().collect();
        let points = runs.iter().filter(|run| run.variant.operation == operation).flat_map(|run| {
            gains(&runs, &run.variant, &one).into_iter().map(|gain| (f64::from(run.variant.servers), gain))
        });
        serial_share(&points.collect::<Vec<_>>())
    };
    Estimate::of(&(1..=rounds).filter_map(of_round).collect::<Vec<_>>())
}

pub fn skewed_gain(skew: &Skew, variant: &skew::Variant) -> Estimate {
    Estimate::of(&gains(&skew.runs, variant, &skew::ONE))
}

/// By part and variant.
pub fn validity(measured: &Measured) -> BTreeMap<String, Validity> {
    let even = |part: &str, runs: &[Run<even::Variant>]| {
        even::variants(&measured.counts)
            .into_iter()
            .filter(|variant| runs.iter().any(|run| run.variant == *variant))
            .map(|variant| (format!("{part}, {}", variant.name()), of_windows(runs, &variant)))
            .collect::<Vec<_>>()
    };
    let mut all = BTreeMap::new();
    if let Some(quota) = &measured.quota {
        all.extend(even("equal quotas", &quota.runs));
    }
    if let Some(law) = &measured.law {
        all.extend(even("modelled store", &law.runs));
    }
    if let Some(skew) = &measured.skew {
        let variants = [skew::ONE].into_iter().chain(skew.cases.iter().map(|case| case.variant));
        all.extend(variants.map(|variant| (format!("skew, {}", variant.name()), of_windows(&skew.runs, &variant))));
    }
    all
}

pub fn verdicts(measured: &Measured) -> Vec<Verdict> {
    let most = measured.counts.last().copied().unwrap_or(1);
    let mut verdicts = Vec::new();
    if let Some(quota) = &measured.quota {
        match &quota.skipped {
            Some(reason) => verdicts.push(Verdict {
                note: format!("skipped: {reason}"),
                ..stated(
                    &format!("{most} real servers with equal CPU quotas"),
                    "a figure beside the article's",
                    String::new(),
                )
            }),
            None => verdicts.extend(Operation::ALL.map(|operation| by_quota(&quota.runs, operation, most))),
        }
    }
    if let Some(law) = &measured.law {
        verdicts.extend(Operation::ALL.map(|operation| by_law(&law.store, &law.runs, operation, most)));
    }
    if let Some(skew) = &measured.skew {
        verdicts.extend(skew.cases.iter().map(|case| by_skew(skew, case)));
    }
    verdicts
}

fn by_quota(runs: &[Run<even::Variant>], operation: Operation, most: u16) -> Verdict {
    let measured =
        format!("{} ×, serial share {} %", gain(runs, operation, most), serial(runs, operation).text(100.0, 1));
    let name = format!("{} of {most} real servers with equal CPU quotas, over one", operation.name());
    let reasons = reasons(&windows(runs, operation, most));
    let note = if reasons.is_empty() { "stated, not judged".to_owned() } else { not_judged(&reasons) };
    Verdict { note, ..stated(&name, &format!("the article: nearly {ARTICLE_GAIN} ×"), measured) }
}

fn stated(name: &str, expected: &str, measured: String) -> Verdict {
    Verdict { name: name.to_owned(), expected: expected.to_owned(), measured, ..Verdict::default() }
}

fn by_law(store: &ModelledStore, runs: &[Run<even::Variant>], operation: Operation, most: u16) -> Verdict {
    let name = format!("{} of {most} modelled instances at equal connections in all, over one", operation.name());
    near(&name, store.gain(most), &gain(runs, operation, most), &windows(runs, operation, most))
}

fn by_skew(skew: &Skew, case: &skew::Case) -> Verdict {
    let name = format!("reads over those of one server: {}", case.variant.name());
    let windows = [skew::ONE, case.variant].map(|variant| (variant.name(), of_windows(&skew.runs, &variant)));
    near(&name, case.gain, &skewed_gain(skew, &case.variant), &windows)
}

/// Those of one server and of the most: a gain is their ratio.
fn windows(runs: &[Run<even::Variant>], operation: Operation, most: u16) -> [(String, Validity); 2] {
    let variants = [1, most].map(|servers| even::Variant { operation, servers });
    variants.map(|variant| (variant.name(), of_windows(runs, &variant)))
}

/// Why windows are not valid, with their names.
fn reasons(windows: &[(String, Validity)]) -> Vec<String> {
    let of_window = |(name, validity): &(String, Validity)| {
        validity.reasons.iter().map(|reason| format!("{name}, {reason}")).collect::<Vec<_>>()
    };
    windows.iter().flat_map(of_window).collect()
}

/// Decided only if all windows are valid, and the whole interval lies within the tolerance or the whole interval outside of it.
fn near(name: &str, predicted: f64, gain: &Estimate, windows: &[(String, Validity)]) -> Verdict {
    let reasons = reasons(windows);
    let within = gain.is_within((1.0 - TOLERANCE) * predicted, (1.0 + TOLERANCE) * predicted);
    let passed = within.filter(|_| reasons.is_empty());
    Verdict {
        name: name.to_owned(),
        expected: format!("{predicted:.2} × ± {:.0} %, predicted before the run", 100.0 * TOLERANCE),
        measured: format!("{gain} ×"),
        passed,
        undecided: passed.is_none(),
        note: not_judged(&reasons),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::experiments::sharding::{ByLaw, ByQuota, rounds::tests::run};

    const COUNTS: [u16; 5] = [1, 2, 4, 8, 16];

    /// Three rounds, in which all throughputs differ a little.
    fn runs(per_s: impl Fn(u16) -> f64) -> Vec<Run<even::Variant>> {
        let of_round = |round: u32| {
            let speed = 1.0 + 0.01 * f64::from(round);
            even::variants(&COUNTS).into_iter().map(move |variant| (round, variant, speed))
        };
        let all = (1..=3).flat_map(of_round);
        all.map(|(round, variant, speed)| run(variant, round, (speed * per_s(variant.servers)) as u64)).collect()
    }

    pub fn measured() -> Measured {
        let store = ModelledStore::article(1).unwrap();
        let mut skew = Skew::predicted(&store, 16).unwrap();
        let one = skew.predicted_per_s;
        let mut variants = vec![(skew::ONE, 1.0)];
        variants.extend(skew.cases.iter().map(|case| (case.variant, case.gain)));
        let all = (1..=3).flat_map(|round| variants.iter().map(move |&(variant, gain)| (variant, round, gain)));
        skew.runs = all.map(|(variant, round, gain)| run(variant, round, (gain * one) as u64)).collect();
        let amdahl = |servers: u16| 10_000.0 * crate::experiments::sharding::amdahl::gain(0.01, servers.into());
        Measured {
            counts: COUNTS.to_vec(),
            quota: Some(ByQuota {
                quotas: "kernel (cgroup v1)".into(),
                skipped: None,
                cores: 0.05,
                connections: 64,
                runs: runs(amdahl),
            }),
            law: Some(ByLaw { store, runs: runs(|servers| store.per_s(servers)) }),
            skew: Some(skew),
        }
    }

    fn passed(change: impl Fn(&mut Measured)) -> Vec<Option<bool>> {
        let mut measured = measured();
        change(&mut measured);
        verdicts(&measured).iter().map(|verdict| verdict.passed).collect()
    }

    #[test]
    fn what_is_predicted_passes_and_the_quotas_are_stated() {
        let found = passed(|_| ());
        assert_eq!((&found[..2], &found[2..]), (&[None; 2][..], &[Some(true); 10][..]));
        let all = verdicts(&measured());
        assert_eq!(all[0].measured, "13.91 (13.91 to 13.91) ×, serial share 1.0 (1.0 to 1.0) %");
        assert_eq!(all[2].expected, "2.79 × ± 10 %, predicted before the run");
        assert!(all[6].name.contains("Zipf 1.2, without Redis"), "{:?}", all[6]);
        assert_eq!(validity(&measured()).len(), 10 + 10 + 9);
    }

    #[test]
    fn a_gain_beyond_the_tolerance_fails_and_one_across_its_end_decides_nothing() {
        type Change = fn(&mut Measured);
        let slower = |all: &mut Measured, servers: u16, factors: [f64; 3]| {
            let runs = &mut all.law.as_mut().unwrap().runs;
            for run in
                runs.iter_mut().filter(|run| run.variant == even::Variant { operation: Operation::Reads, servers })
            {
                run.window.by_shard[0] = (run.window.by_shard[0] as f64 * factors[run.round as usize - 1]) as u64;
            }
        };
        let found = |factors: [f64; 3]| passed(|all| slower(all, 16, factors))[2];
        assert_eq!(found([0.92; 3]), Some(true));
        assert_eq!(found([0.88; 3]), Some(false));
        assert_eq!(found([1.12; 3]), Some(false));
        assert_eq!(found([0.92, 0.86, 0.98]), None);
        let invalid: [(usize, Change); 2] = [
            (2, |all| {
                let run = all.law.as_mut().unwrap().runs.iter_mut().find(|run| run.variant.servers == 16);
                run.unwrap().window.validity = Validity::of(1.0, 95.0);
            }),
            (4, |all| {
                let skew = all.skew.as_mut().unwrap();
                let variant = skew.cases[0].variant;
                let run = skew.runs.iter_mut().find(|run| run.variant == variant);
                run.unwrap().window.validity = Validity::of(1.0, 95.0);
            }),
        ];
        for (at, change) in invalid {
            let mut all = measured();
            change(&mut all);
            let verdicts = verdicts(&all);
            let undecided: Vec<usize> = (0..verdicts.len()).filter(|n| verdicts[*n].undecided).collect();
            assert!(undecided.contains(&at), "{undecided:?}");
            let note = &verdicts[at].note;
            assert!(note.contains("16 servers, round 1: 95 % CPU"), "{note}");
        }
    }

    #[test]
    fn without_kernel_quotas_the_part_is_skipped_with_its_reason() {
        let mut all = measured();
        let quota = all.quota.as_mut().unwrap();
        (quota.skipped, quota.runs) = (Some("the directory /c is read-only".into()), Vec::new());
        let found = verdicts(&all);
        assert_eq!((found[0].passed, found[0].note.as_str()), (None, "skipped: the directory /c is read-only"));
        assert_eq!(found.len(), 11);
    }
}
