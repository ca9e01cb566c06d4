//! Figures of the deaths, and the verdicts. Pure.

use std::time::Duration;

use report::Verdict;
use serde::Serialize;
use statistics::{median, percentile};

/// Freshness after a failover: the same bound as without one.
pub const FRESH_S: f64 = 2.0;
/// Freshness must be good again this much after the failure is confirmed.
pub const AFTER_DETECTION_S: f64 = 2.0;
const WINDOW: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Death {
    Kill,
    Stop,
    /// Stopped while MySQL holds its transaction: another session has locked the partition's row.
    StopInTransaction,
}

impl Death {
    pub const ALL: [Self; 3] = [Self::Kill, Self::Stop, Self::StopInTransaction];

    pub fn text(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Stop => "-STOP",
            Self::StopInTransaction => "-STOP in a transaction",
        }
    }
}

/// A plain consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Client and broker with their defaults: a session of 45 s.
    Default,
    /// The shortest session that a broker with its defaults allows: 6 s.
    ShortSession,
    /// The protocol of KIP-848. The shortest session that a broker with its defaults allows is 45 s.
    Kip848,
    /// The same, with a broker whose operator has lowered the limit to 6 s.
    Kip848Short,
}

impl Group {
    pub const ALL: [Self; 4] = [Self::Default, Self::ShortSession, Self::Kip848, Self::Kip848Short];

    pub fn text(self) -> &'static str {
        match self {
            Self::Default => "group, defaults (45 s)",
            Self::ShortSession => "group, session 6 s",
            Self::Kip848 => "group, KIP-848 (45 s)",
            Self::Kip848Short => "group, KIP-848, lowered to 6 s",
        }
    }
}

/// Who consumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owners {
    /// The workers, by the table of the monitors.
    Workers {
        interval_ms: u64,
    },
    Group(Group),
}

/// An event whose list appeared. Times since the begin of the load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fresh {
    pub sent: Duration,
    pub visible: Duration,
}

/// One death. Seconds from the signal; `None`: not while it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub death: Death,
    pub process: String,
    /// Partitions of the dead process.
    pub partitions: usize,
    /// A monitor published a table without it. Only for workers.
    pub detected_s: Option<f64>,
    /// All of its partitions are consumed again: an event that was sent after the signal is processed.
    pub consumed_s: Option<f64>,
    /// From then on the p99 of the freshness is at most 2 s. Only for workers.
    pub fresh_s: Option<f64>,
    /// The oldest event that became visible in that time, in seconds. Only for workers.
    pub stalest_s: f64,
    pub reads: u64,
    pub failed_reads: u64,
    pub events: u64,
    pub failed_events: u64,
}

impl Sample {
    pub fn text(&self) -> String {
        let s = |figure: Option<f64>| figure.map_or("-".to_owned(), |s| format!("{s:.2} s"));
        format!(
            "{} of {}: detected {}, consumed again {}, fresh again {}, {} of {} reads failed",
            self.death.text(),
            self.process,
            s(self.detected_s),
            s(self.consumed_s),
            s(self.fresh_s),
            self.failed_reads,
            self.reads
        )
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Series {
    pub owners: Owners,
    pub samples: Vec<Sample>,
}

impl Series {
    /// Median and maximum of a figure over the deaths of this kind; `None`: without a figure, or not reached by one of them.
    pub fn figure(&self, death: Death, figure: fn(&Sample) -> Option<f64>) -> Option<(f64, f64)> {
        let of_kind = self.samples.iter().filter(|sample| sample.death == death);
        let all: Vec<f64> = of_kind.map(figure).collect::<Option<_>>()?;
        Some((median(&all)?, percentile(&all, 100.0)?))
    }
}

/// Seconds from `killed` until the p99 of the freshness stays at most 2 s, up to `end`. The freshness of a window has all events that became
/// visible in it, and the age of those that wait at its end. `waiting`: when the events were sent that are not visible at `end`. `None`: the
/// last window is not good.
pub fn fresh_again_s(fresh: &[Fresh], waiting: &[Duration], killed: Duration, end: Duration) -> Option<f64> {
    let windows = (1..).map(|n| killed + WINDOW * n).take_while(|until| *until <= end);
    let ends: Vec<Duration> = windows.collect();
    let is_good = |until: Duration| {
        let visible = fresh.iter().filter(|one| (until - WINDOW..until).contains(&one.visible));
        let late = fresh.iter().filter(|one| one.sent < until && one.visible >= until).map(|one| one.sent);
        let never = waiting.iter().copied().filter(|sent| *sent < until);
        let ages = late.chain(never).map(|sent| until - sent);
        let all: Vec<f64> =
            visible.map(|one| one.visible - one.sent).chain(ages).map(|age| age.as_secs_f64()).collect();
        // A window without events shows nothing good.
        percentile(&all, 99.0).is_some_and(|p99| p99 <= FRESH_S)
    };
    let good: Vec<bool> = ends.iter().map(|until| is_good(*until)).collect();
    let after_last_bad = good.iter().rposition(|good| !good).map_or(0, |bad| bad + 1);
    // From the begin of the first good window.
    ends.get(after_last_bad).map(|until| (*until - WINDOW - killed).as_secs_f64())
}

/// The stalest event that became visible between the two instants.
pub fn stalest_s(fresh: &[Fresh], from: Duration, until: Duration) -> f64 {
    let visible = fresh.iter().filter(|one| (from..until).contains(&one.visible));
    visible.map(|one| (one.visible - one.sent).as_secs_f64()).fold(0.0, f64::max)
}

pub fn verdicts(all: &[Series]) -> Vec<Verdict> {
    let workers: Vec<&Series> = all.iter().filter(|series| matches!(series.owners, Owners::Workers { .. })).collect();
    let samples = || workers.iter().flat_map(|series| &series.samples);
    let (reads, failed) = samples().fold((0, 0), |(reads, failed), one| (reads + one.reads, failed + one.failed_reads));
    let mut verdicts =
        vec![Verdict::new("Failed reads", "0".into(), format!("{failed} of {reads}"), failed == 0 && reads > 0, "")];
    for series in &workers {
        let Owners::Workers { interval_ms } = series.owners else { continue };
        for death in Death::ALL {
            let of_kind: Vec<&Sample> = series.samples.iter().filter(|sample| sample.death == death).collect();
            let over = |one: &&Sample| one.fresh_s.zip(one.detected_s).map(|(fresh, detected)| fresh - detected);
            let worst = of_kind.iter().map(over).try_fold(f64::MIN, |worst, over| Some(worst.max(over?)));
            verdicts.push(Verdict::new(
                &format!("Freshness after {}, heartbeats every {interval_ms} ms", death.text()),
                format!("p99 at most {FRESH_S} s again, at most {AFTER_DETECTION_S} s after the detection"),
                worst.map_or("not reached".into(), |worst| format!("{worst:+.1} s at worst")),
                !of_kind.is_empty() && worst.is_some_and(|worst| worst <= AFTER_DETECTION_S),
                "",
            ));
        }
    }
    verdicts
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn sample(death: Death, detected_s: f64, consumed_s: f64, fresh_s: Option<f64>) -> Sample {
        Sample {
            death,
            process: "worker-0".into(),
            partitions: 5,
            detected_s: Some(detected_s),
            consumed_s: Some(consumed_s),
            fresh_s,
            stalest_s: 2.5,
            reads: 100,
            failed_reads: 0,
            events: 500,
            failed_events: 0,
        }
    }

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// 100 events a second, visible after 0.1 s; those sent from `down` to `up` appear a little after `up`.
    fn fresh(down: f64, up: f64, end: f64) -> Vec<Fresh> {
        let sent = (0..).map(|n| f64::from(n) * 0.01).take_while(|at| *at < end);
        let all =
            sent.map(|at| Fresh { sent: s(at), visible: s(if (down..up).contains(&at) { up } else { at } + 0.1) });
        all.collect()
    }

    #[test]
    fn freshness_is_back_when_no_window_has_old_events() {
        let of = |down, up| fresh_again_s(&fresh(down, up, 20.0), &[], s(10.0), s(18.0));
        assert_eq!(of(10.0, 10.5), Some(0.0), "never older than 2 s");
        let late = of(10.0, 15.0).unwrap();
        assert!((5.0..=6.0).contains(&late), "{late}");
        assert_eq!(of(10.0, 19.0), None);
        let lost: Vec<Duration> = (0..200).map(|n| s(10.0 + f64::from(n) * 0.01)).collect();
        assert_eq!(fresh_again_s(&fresh(0.0, 0.0, 20.0), &lost, s(10.0), s(18.0)), None, "never visible");
        assert!((stalest_s(&fresh(10.0, 15.0, 20.0), s(10.0), s(18.0)) - 5.1).abs() < 0.01);
    }

    #[test]
    fn medians_and_verdicts() {
        let samples = Death::ALL.into_iter().flat_map(|death| {
            [1.5, 1.9, 1.7].map(|detected| sample(death, detected, detected + 0.2, Some(detected + 0.5)))
        });
        let mut series = Series { owners: Owners::Workers { interval_ms: 1_000 }, samples: samples.collect() };
        assert_eq!(series.figure(Death::Kill, |one| one.detected_s), Some((1.7, 1.9)));
        let passed =
            |series: &Series| verdicts(std::slice::from_ref(series)).iter().filter(|v| v.passed == Some(true)).count();
        assert_eq!(passed(&series), 4);
        series.samples[0].fresh_s = None;
        assert_eq!(series.figure(Death::Kill, |one| one.fresh_s), None);
        assert_eq!(passed(&series), 3);
        series.samples[4].fresh_s = Some(9.0);
        series.samples[4].failed_reads = 1;
        assert_eq!(passed(&series), 1);
    }
}
