//! What the kernel gives the processes under load: time in the run queue, quotas, policies.

use std::collections::BTreeMap;

use launcher::scheduling::{Priority, ProcessQuota, RunQueue};
use report::Scheduling;

/// Kind of the load generator.
pub const LOAD: &str = "load";
/// What the load generator asks for, relative to this process.
pub const NICE: i32 = -10;

/// The kernel's accounts at an instant, by kind of process.
#[derive(Debug, Default)]
pub struct Accounts {
    run_queue: BTreeMap<String, RunQueue>,
    quota: BTreeMap<String, ProcessQuota>,
    policy: BTreeMap<String, String>,
    nice_granted: Option<bool>,
}

impl Accounts {
    /// A process that has ended has none.
    pub fn read<'a>(processes: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let mut all = Self::default();
        for (kind, pid) in processes {
            if let Some(waited) = RunQueue::of_tree(pid) {
                *all.run_queue.entry(kind.to_owned()).or_default() += waited;
            }
            if let Some(quota) = ProcessQuota::of(pid) {
                let of_kind = all.quota.entry(kind.to_owned()).or_insert(quota);
                if quota.throttled_s > of_kind.throttled_s {
                    *of_kind = quota;
                }
            }
            if let Some(priority) = Priority::of(pid) {
                all.policy.insert(kind.to_owned(), priority.to_string());
                if kind == LOAD {
                    let own = Priority::of(std::process::id());
                    all.nice_granted = own.map(|own| priority.nice <= (own.nice + NICE).max(-20));
                }
            }
        }
        all
    }

    /// `seconds` after `earlier`.
    pub fn since(&self, earlier: &Self, seconds: f64) -> Scheduling {
        let waited = |kind: &String| {
            let now = self.run_queue.get(kind).copied().unwrap_or_default();
            now.since(earlier.run_queue.get(kind).copied().unwrap_or_default())
        };
        let per_s = |kind: &String| (kind.clone(), 1000.0 * waited(kind).waited_s / seconds.max(f64::MIN_POSITIVE));
        let generator = self.run_queue.contains_key(LOAD).then(|| waited(&LOAD.to_owned()));
        let throttled = |(kind, now): (&String, &ProcessQuota)| {
            let before = earlier.quota.get(kind).map_or(0.0, |before| before.throttled_s);
            (kind.clone(), 1000.0 * (now.throttled_s - before).max(0.0))
        };
        Scheduling {
            run_queue_ms_per_s: self.run_queue.keys().map(per_s).collect(),
            generator_wait_ms: generator.filter(|it| it.runs > 0).map(|it| 1000.0 * it.waited_s / it.runs as f64),
            quota_cores: self.quota.iter().map(|(kind, quota)| (kind.clone(), quota.cores)).collect(),
            throttled_ms: self.quota.iter().map(throttled).collect(),
            policy: self.policy.clone(),
            nice_granted: self.nice_granted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_per_second_and_the_generators_per_wake_up() {
        let accounts = |waited_s: f64, runs: u64, throttled_s: f64| Accounts {
            run_queue: [(LOAD.to_owned(), RunQueue { waited_s, runs })].into(),
            quota: [(LOAD.to_owned(), ProcessQuota { cores: 0.5, used_s: 0.0, throttled_s })].into(),
            policy: BTreeMap::new(),
            nice_granted: Some(true),
        };
        let given = accounts(3.0, 1500, 0.25).since(&accounts(1.0, 500, 0.0), 10.0);
        assert_eq!((given.run_queue_ms_per_s[LOAD], given.generator_wait_ms), (200.0, Some(2.0)));
        assert_eq!((given.quota_cores[LOAD], given.throttled_ms[LOAD], given.nice_granted), (0.5, 250.0, Some(true)));
        assert_eq!(Accounts::default().since(&Accounts::default(), 10.0), Scheduling::default());
    }

    #[test]
    fn this_process_has_accounts() {
        let own = Accounts::read([("testbed", std::process::id()), ("gone", u32::MAX >> 2)]);
        assert!(own.policy["testbed"].starts_with("SCHED_") && !own.policy.contains_key("gone"), "{own:?}");
        assert_eq!(own.nice_granted, None, "no load generator");
    }
}
