//! Figures of the switch-overs, and their verdicts. Pure.

use std::fmt;

use heartbeat::assign::NodeId;
use report::{Validity, Verdict};
use serde::Serialize;
use statistics::percentile;

use super::{
    fence_off::FenceOff,
    recorder::CounterCheck,
    traces::{Parts, Slowest},
};

/// How a worker's failure is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// A fixed silence, decided by one monitor.
    Fixed,
    /// A silence that adapts to the heartbeats, decided by one monitor.
    Dynamic,
    /// A fixed silence, decided by two of three monitors.
    Majority,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kill {
    /// `SIGKILL`: its connections are closed.
    Kill,
    /// `SIGSTOP`: its connections stay, and it does not answer.
    Stop,
}

/// One switch-over. From the signal; `None`: not within 30 s.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub kill: Kill,
    pub worker: NodeId,
    /// Partitions of which it was the primary.
    pub partitions: usize,
    /// A monitor publishes a table without it.
    pub confirmed_ms: Option<f64>,
    /// The last of its partitions was written to by its new primary.
    pub primary_ms: Option<f64>,
    /// A client that asked another worker was redirected and its write done, for the last of the partitions.
    pub redirected_ms: Option<f64>,
    /// The longest pause of a monitor's process until the confirmation; 0 without any.
    pub longest_pause_ms: f64,
    /// `None`: the receiver of traces has no trace of it.
    pub parts: Option<Parts>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Series {
    pub strategy: Strategy,
    pub interval_ms: u64,
    pub samples: Vec<Sample>,
    /// Workers declared offline that were neither killed nor stopped.
    pub false_alarms: usize,
    /// Of the other clients.
    pub writes: u64,
    pub refused: u64,
    /// Done under an epoch that was known to be old.
    pub stale_writes: u64,
    /// Afterwards, if it was tried.
    pub etcd_away: Option<EtcdAway>,
    /// Of the writes of all clients.
    pub check: CounterCheck,
    /// `None`: no worker was failed.
    pub slowest: Option<Slowest>,
    /// Of this process, which writes and watches, and of the machine, from the first death on.
    #[serde(skip)]
    pub validity: Validity,
}

/// The registry was stopped while all workers lived, which must have no effect.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct EtcdAway {
    pub seconds: u64,
    /// Workers declared offline.
    pub offline: usize,
    /// Partitions with another primary than before.
    pub moved: usize,
    /// Done meanwhile.
    pub writes: u64,
}

impl EtcdAway {
    pub fn text(&self) -> String {
        let Self { seconds, offline, moved, writes } = self;
        format!(
            "etcd stopped for {seconds} s: {offline} workers offline, {moved} partitions moved, {writes} writes meanwhile"
        )
    }
}

impl Strategy {
    pub const ALL: [Self; 3] = [Self::Fixed, Self::Dynamic, Self::Majority];

    /// Settings of the monitors.
    pub fn sets(self) -> &'static [&'static str] {
        match self {
            Self::Dynamic => &["detect.detector=ewma"],
            Self::Fixed | Self::Majority => &[],
        }
    }

    /// The switch-over's latency in the article's table 2.4, which has no figures.
    pub fn article(self) -> &'static str {
        match self {
            Self::Fixed => "low",
            Self::Dynamic => "medium",
            Self::Majority => "high",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed => "fixed",
            Self::Dynamic => "dynamic",
            Self::Majority => "majority",
        })
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill -9",
            Self::Stop => "kill -STOP",
        })
    }
}

impl Sample {
    /// Nothing has happened yet.
    pub fn of(kill: Kill, worker: NodeId, partitions: usize) -> Self {
        Self {
            kill,
            worker,
            partitions,
            confirmed_ms: None,
            primary_ms: None,
            redirected_ms: None,
            longest_pause_ms: 0.0,
            parts: None,
        }
    }

    pub fn text(&self) -> String {
        let paused = match self.longest_pause_ms {
            0.0 => String::new(),
            ms => format!("; a monitor paused for {ms:.0} ms"),
        };
        let [confirmed, primary, redirected] = [self.confirmed_ms, self.primary_ms, self.redirected_ms]
            .map(|ms| ms.map_or("-".into(), |ms| format!("{ms:.0}")));
        let Self { kill, worker, partitions, .. } = self;
        format!(
            "{kill} {worker}, {partitions} partitions: confirmed {confirmed}, new primaries {primary}, redirected {redirected} ms{paused}"
        )
    }
}

/// The limit at this interval for the slowest of the three instants: 3 s at 1 s, 350 ms at 100 ms.
fn allowed_ms(interval_ms: u64) -> Option<f64> {
    match interval_ms {
        1_000 => Some(3_000.0),
        100 => Some(350.0),
        _ => None,
    }
}

pub type Figure = fn(&Sample) -> Option<f64>;
pub const FIGURES: [(&str, Figure); 3] = [
    ("confirmed", |sample| sample.confirmed_ms),
    ("new primaries", |sample| sample.primary_ms),
    ("redirected", |sample| sample.redirected_ms),
];

impl Series {
    pub fn name(&self) -> String {
        format!("{}, a heartbeat every {} ms", self.strategy, self.interval_ms)
    }

    /// Of the samples of this kind.
    pub fn percentile(&self, kill: Option<Kill>, figure: Figure, percent: f64) -> f64 {
        self.percentile_of(|sample| kill.is_none_or(|kill| sample.kill == kill), figure, percent)
    }

    /// A switch-over that did not happen is later than all others; infinite without samples.
    pub fn percentile_of(&self, counts: impl Fn(&Sample) -> bool, figure: Figure, percent: f64) -> f64 {
        let of = self.samples.iter().filter(|sample| counts(sample));
        let values: Vec<f64> = of.map(|sample| figure(sample).unwrap_or(f64::INFINITY)).collect();
        percentile(&values, percent).unwrap_or(f64::INFINITY)
    }
}

/// Only the majority is judged: the others are there to compare with.
pub fn verdicts(series: &[Series], fence_off: &FenceOff, quick: bool) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for one in series.iter().filter(|one| one.strategy == Strategy::Majority) {
        let first = verdicts.len();
        let judged = |passed| (!quick).then_some(passed);
        let why = if quick { "quick run, not judged" } else { "" };
        if let Some(allowed) = allowed_ms(one.interval_ms) {
            for (name, figure) in FIGURES {
                let p99 = one.percentile(None, figure, 99.0);
                verdicts.push(Verdict {
                    name: format!("{name}, p99 at a heartbeat every {} ms", one.interval_ms),
                    expected: format!("≤ {allowed} ms"),
                    measured: if p99.is_finite() { format!("{} ms", ms(p99)) } else { ms(p99) },
                    passed: judged(p99 <= allowed),
                    note: why.into(),
                    undecided: false,
                });
            }
        }
        verdicts.push(Verdict {
            name: format!("false alarms at a heartbeat every {} ms", one.interval_ms),
            expected: "0".into(),
            measured: one.false_alarms.to_string(),
            passed: judged(one.false_alarms == 0),
            note: why.into(),
            undecided: false,
        });
        if let Some(EtcdAway { seconds, offline, moved, writes }) = one.etcd_away {
            verdicts.push(Verdict {
                name: format!("etcd stopped for {seconds} s at a heartbeat every {} ms", one.interval_ms),
                expected: "no worker offline, no partition moved, writes go on".into(),
                measured: format!("{offline} offline, {moved} moved, {writes} writes"),
                passed: judged(offline == 0 && moved == 0 && writes > 0),
                note: why.into(),
                undecided: false,
            });
        }
        // How long it took, and who was taken for dead, may be the machine's fault. The history below is right or wrong on any machine.
        verdicts.iter_mut().skip(first).for_each(|verdict| *verdict = std::mem::take(verdict).within(&one.validity));
    }
    let stale: u64 = series.iter().map(|one| one.stale_writes).sum();
    let writes: u64 = series.iter().map(|one| one.writes).sum();
    verdicts.push(Verdict {
        name: "writes done under an old epoch".into(),
        expected: "0".into(),
        measured: stale.to_string(),
        passed: Some(stale == 0),
        note: format!("of {writes} writes"),
        undecided: false,
    });
    verdicts.extend([counter_check(series), mutants(series), positive_control(fence_off)]);
    verdicts
}

fn counter_check(series: &[Series]) -> Verdict {
    let violations: Vec<&str> = series.iter().flat_map(|one| &one.check.violations).map(String::as_str).collect();
    let sum = |count: fn(&CounterCheck) -> u64| series.iter().map(|one| count(&one.check)).sum::<u64>();
    let [acknowledged, unknown] = [sum(|check| check.acknowledged), sum(|check| check.unknown)];
    let scope = format!("{acknowledged} acknowledged writes and {unknown} without an answer");
    Verdict {
        name: "counter check: the history of each partition is linearizable, and no write is lost".into(),
        expected: "no violation".into(),
        measured: format!("{} violations", violations.len()),
        passed: Some(violations.is_empty()),
        note: std::iter::once(scope.as_str()).chain(violations).collect::<Vec<_>>().join("; "),
        undecided: false,
    }
}

fn mutants(series: &[Series]) -> Verdict {
    let mutants: u64 = series.iter().map(|one| one.check.mutants).sum();
    let missed: Vec<&str> = series.iter().flat_map(|one| &one.check.missed_mutants).map(String::as_str).collect();
    Verdict {
        name: "counter check on these histories with one defect each".into(),
        expected: "it rejects all".into(),
        measured: format!("{} of {mutants} accepted", missed.len()),
        passed: (mutants > 0).then_some(missed.is_empty()),
        note: if mutants == 0 { "no history to change".into() } else { missed.join("; ") },
        undecided: mutants == 0,
    }
}

fn positive_control(fence_off: &FenceOff) -> Verdict {
    let is_provoked = fence_off.stale_writes > 0;
    Verdict {
        name: "counter check with fences switched off".into(),
        expected: "it finds a stale write".into(),
        measured: fence_off.text(),
        passed: is_provoked.then_some(fence_off.found),
        note: if is_provoked { String::new() } else { "no attempt provoked a stale write".into() },
        undecided: !is_provoked,
    }
}

/// In ms.
pub fn ms(value: f64) -> String {
    if value.is_finite() { format!("{value:.0}") } else { "never".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(confirmed_ms: &[Option<f64>]) -> Series {
        let sample = |confirmed_ms: &Option<f64>| Sample {
            kill: Kill::Kill,
            worker: "w".into(),
            partitions: 5,
            confirmed_ms: *confirmed_ms,
            primary_ms: Some(100.0),
            redirected_ms: Some(100.0),
            longest_pause_ms: 0.0,
            parts: None,
        };
        Series {
            strategy: Strategy::Majority,
            interval_ms: 100,
            samples: confirmed_ms.iter().map(sample).collect(),
            false_alarms: 0,
            writes: 10,
            refused: 0,
            stale_writes: 0,
            etcd_away: None,
            check: CounterCheck { mutants: 6, ..CounterCheck::default() },
            slowest: None,
            validity: Validity::default(),
        }
    }

    fn fence_off(stale_writes: usize, found: bool) -> FenceOff {
        FenceOff { attempts: 1, stale_writes, found, violations: Vec::new() }
    }

    #[test]
    fn percentiles_are_nearest_ranks_and_a_missing_switch_over_is_the_latest() {
        let one = series(&[Some(3.0), Some(1.0), None, Some(2.0)]);
        let confirmed = FIGURES[0].1;
        let of = |percent| one.percentile(None, confirmed, percent);
        assert_eq!((of(50.0), of(75.0), of(99.0)), (2.0, 3.0, f64::INFINITY));
        assert_eq!(one.percentile(Some(Kill::Stop), confirmed, 50.0), f64::INFINITY, "none at all");
    }

    #[test]
    fn the_slowest_counts_and_quick_runs_are_judged_for_stale_writes_only() {
        let passed = |series: &Series, quick| -> Vec<Option<bool>> {
            verdicts(std::slice::from_ref(series), &fence_off(1, true), quick).iter().map(|one| one.passed).collect()
        };
        let mut one = series(&[Some(200.0), Some(351.0)]);
        assert_eq!(passed(&one, false), [false, true, true, true, true, true, true, true].map(Some));
        one.etcd_away = Some(EtcdAway { seconds: 60, offline: 0, moved: 1, writes: 100 });
        assert_eq!(passed(&one, false)[4..], [false, true, true, true, true].map(Some), "a partition moved");
        one.validity = Validity::of(1.0, 97.0);
        let busy = verdicts(std::slice::from_ref(&one), &fence_off(1, true), false);
        assert!(busy[..5].iter().all(|verdict| verdict.passed.is_none() && verdict.undecided), "{busy:?}");
        assert!(busy[5..].iter().all(|verdict| verdict.passed == Some(true)), "{busy:?}");
        (one.etcd_away, one.stale_writes, one.validity) = (None, 1, Validity::default());
        assert_eq!(passed(&one, true), [None, None, None, None, Some(false), Some(true), Some(true), Some(true)]);
        (one.stale_writes, one.check.violations) = (0, vec!["partition 3: lost".into()]);
        assert_eq!(passed(&one, true)[4..], [true, false, true, true].map(Some));
        one.check.missed_mutants = vec!["partition 3: a counter twice".into()];
        assert_eq!(passed(&one, true)[4..], [true, false, false, true].map(Some));
    }

    #[test]
    fn a_control_that_provokes_nothing_decides_nothing() {
        let control = |stale, found| {
            let verdict = positive_control(&fence_off(stale, found));
            (verdict.passed, verdict.undecided)
        };
        assert_eq!(control(0, false), (None, true));
        assert_eq!(control(2, true), (Some(true), false));
        assert_eq!(control(2, false), (Some(false), false), "the check is blind");
    }
}
