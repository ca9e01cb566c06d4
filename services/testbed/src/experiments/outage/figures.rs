//! The figures of an outage.

use std::collections::BTreeMap;

use report::{Second, Sources, Validity};
use serde::Serialize;

/// A server that is killed under load and started again on its data and port: how one variant came through. Instants are seconds
/// since the measured part began, as in `series`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Outage {
    pub profile: String,
    pub repeat: u32,
    /// `MySQL` or `Redis`.
    pub server: String,
    pub offered_per_s: f64,
    pub killed_s: f64,
    /// Its start begins.
    pub restarted_s: f64,
    /// It answers; since `restarted_s` it recovered.
    pub answering_s: f64,
    /// Median of the seconds' p99 before the kill; null when too few requests ended in them.
    pub normal_p99_ms: Option<f64>,
    /// Instead of it, the median of the seconds' longest requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normal_max_ms: Option<f64>,
    /// From the second of the restart to the first of three normal seconds in a row, as in `report::trend`.
    pub back_after_s: Option<u32>,
    /// The same if each second that is not valid had been normal.
    pub earliest_back_s: Option<u32>,
    /// Of the load over the whole run, by class. Each known user of the load had a list in Redis when it began.
    pub errors: BTreeMap<String, u64>,
    pub known_answered: u64,
    pub known_sources: Sources,
    pub unknown_sources: Sources,
    pub before: OutagePhase,
    pub during: OutagePhase,
    pub after: OutagePhase,
    /// Single requests during the load, for users with a list in Redis when it began.
    pub listed: Probes,
    /// For users without a list, each asked for once.
    pub unlisted: Probes,
    /// Of the seconds until the restart. The later ones are judged one by one.
    #[serde(skip)]
    pub validity: Validity,
    pub series: Vec<Second>,
}

/// Before, during or after the time that the server was away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct OutagePhase {
    pub store_queries_per_s: f64,
    /// Attempts to open a connection to the store.
    pub store_connects_per_s: f64,
    /// Of all cores of the machine.
    pub cpu_pct: f64,
}

/// Counts while the server was away; `compared` and `wrong` count over the whole run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Probes {
    pub asked: u64,
    pub good: u64,
    /// 503.
    pub refused: u64,
    /// Another error.
    pub failed: u64,
    /// Of all asked; null without any.
    pub p99_ms: Option<f64>,
    /// Good answers that could be compared.
    pub compared: u64,
    /// Other items than before the outage, or an unknown user's items.
    pub wrong: u64,
}

/// Percent of the requests that ended in this second; `None` if none did.
pub fn error_pct(second: &Second) -> Option<f64> {
    let ended = second.good + second.errors;
    (ended > 0).then(|| 100.0 * second.errors as f64 / ended as f64)
}

impl Outage {
    /// With the profile and the repeat, where there are several.
    pub fn name(&self, profiles: usize, repeats: u32) -> String {
        let profile = if profiles > 1 { format!("{}, ", self.profile) } else { String::new() };
        let repeat = if repeats > 1 { format!(" ({})", self.repeat) } else { String::new() };
        format!("{profile}{}{repeat}", self.server)
    }
}

#[cfg(test)]
pub mod sample {
    use super::*;

    fn series() -> Vec<Second> {
        let second = |second| Second { second, sent: 3000, good: 3000, p99_ms: Some(120.0), ..Second::default() };
        (0..60).map(second).collect()
    }

    /// Twenty seconds without a server, which only users without a list notice.
    pub fn outage(server: &str) -> Outage {
        let phase = |store_queries_per_s| OutagePhase { store_queries_per_s, store_connects_per_s: 4.0, cpu_pct: 60.0 };
        let probes = Probes { asked: 500, good: 500, p99_ms: Some(4.0), compared: 1400, ..Probes::default() };
        Outage {
            profile: "protected".into(),
            repeat: 1,
            server: server.into(),
            offered_per_s: 3000.0,
            killed_s: 15.1,
            restarted_s: 35.1,
            answering_s: 35.6,
            normal_p99_ms: Some(120.0),
            normal_max_ms: None,
            back_after_s: Some(2),
            earliest_back_s: Some(2),
            known_answered: 82_500,
            known_sources: Sources { cache: 60_000, store: 12_500, popular: 0, stale: 10_000 },
            unknown_sources: Sources { popular: 82_500, ..Sources::default() },
            before: phase(500.0),
            during: phase(2.0),
            after: phase(600.0),
            listed: probes,
            unlisted: Probes { good: 0, refused: 500, ..probes },
            series: series(),
            ..Outage::default()
        }
    }
}
