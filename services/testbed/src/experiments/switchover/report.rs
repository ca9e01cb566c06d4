//! What the switch-overs came to: percentiles, a table beside the article's, verdicts. Pure.

use std::{fmt, fmt::Write as _};

use heartbeat::assign::NodeId;
use report::{Machine, Revision, Verdict};
use serde::Serialize;

/// What confirms that a worker has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// A fixed silence, by the word of one monitor.
    Fixed,
    /// A silence that follows the beats, by the word of one monitor.
    Dynamic,
    /// A fixed silence, by the word of two of three monitors.
    Majority,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kill {
    /// `SIGKILL`: its connections are closed.
    Kill,
    /// `SIGSTOP`: its connections stay, and nobody answers.
    Stop,
}

/// One switch-over. From the signal; `None`: not within 30 s.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub kill: Kill,
    pub worker: NodeId,
    /// How many it was the primary of.
    pub partitions: usize,
    /// A monitor tells of a table without it.
    pub confirmed_ms: Option<f64>,
    /// The last of its partitions was written to by its new primary.
    pub primary_ms: Option<f64>,
    /// A client that asks some other worker was sent on, and its write done, for the last of the partitions.
    pub redirected_ms: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Series {
    pub strategy: Strategy,
    pub interval_ms: u64,
    pub samples: Vec<Sample>,
    /// Workers taken off-line that nobody had touched.
    pub false_alarms: usize,
    /// Of the clients beside it.
    pub writes: u64,
    pub refused: u64,
    /// Done under an epoch that was known to be over.
    pub stale_writes: u64,
    /// Afterwards, if it was tried.
    pub etcd_away: Option<EtcdAway>,
}

/// The registry stood still while all workers lived. Nothing is to come of it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct EtcdAway {
    pub seconds: u64,
    /// Workers taken off-line.
    pub offline: usize,
    /// Partitions that have another primary than before.
    pub moved: usize,
    /// Done meanwhile.
    pub writes: u64,
}

impl EtcdAway {
    pub fn text(&self) -> String {
        let Self { seconds, offline, moved, writes } = self;
        format!(
            "etcd stood still for {seconds} s: {offline} workers off-line, {moved} partitions moved, {writes} writes meanwhile"
        )
    }
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub created: String,
    pub machine: Machine,
    pub revision: Revision,
    pub quick: bool,
    pub series: Vec<Series>,
    pub verdicts: Vec<Verdict>,
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
    fn article(self) -> &'static str {
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
    pub fn text(&self) -> String {
        let [confirmed, primary, redirected] = [self.confirmed_ms, self.primary_ms, self.redirected_ms]
            .map(|ms| ms.map_or("-".into(), |ms| format!("{ms:.0}")));
        let Self { kill, worker, partitions, .. } = self;
        format!(
            "{kill} {worker}, {partitions} partitions: confirmed {confirmed}, new primaries {primary}, redirected {redirected} ms"
        )
    }
}

/// What the issue allows at this interval, for the slowest of the three instants: 3 s at 1 s beats, 350 ms at 100 ms beats.
fn allowed_ms(interval_ms: u64) -> Option<f64> {
    match interval_ms {
        1_000 => Some(3_000.0),
        100 => Some(350.0),
        _ => None,
    }
}

type Figure = fn(&Sample) -> Option<f64>;
const FIGURES: [(&str, Figure); 3] = [
    ("confirmed", |sample| sample.confirmed_ms),
    ("new primaries", |sample| sample.primary_ms),
    ("redirected", |sample| sample.redirected_ms),
];

impl Series {
    /// Of those samples; a switch-over that did not happen is later than any.
    fn percentile(&self, kill: Option<Kill>, figure: Figure, percent: f64) -> f64 {
        let of = self.samples.iter().filter(|sample| kill.is_none_or(|kill| sample.kill == kill));
        let mut values: Vec<f64> = of.map(|sample| figure(sample).unwrap_or(f64::INFINITY)).collect();
        values.sort_by(f64::total_cmp);
        let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
        values.get(rank.max(1) - 1).copied().unwrap_or(f64::INFINITY)
    }
}

/// Only the majority is judged: the others are there to compare with.
pub fn verdicts(series: &[Series], quick: bool) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for one in series.iter().filter(|one| one.strategy == Strategy::Majority) {
        let judged = |passed| (!quick).then_some(passed);
        let why = if quick { "quick run, not judged" } else { "" };
        if let Some(allowed) = allowed_ms(one.interval_ms) {
            for (name, figure) in FIGURES {
                let p99 = one.percentile(None, figure, 99.0);
                verdicts.push(Verdict {
                    name: format!("{name}, p99 at a beat every {} ms", one.interval_ms),
                    expected: format!("≤ {allowed} ms"),
                    measured: ms(p99),
                    passed: judged(p99 <= allowed),
                    note: why.into(),
                    undecided: false,
                });
            }
        }
        verdicts.push(Verdict {
            name: format!("false alarms at a beat every {} ms", one.interval_ms),
            expected: "0".into(),
            measured: one.false_alarms.to_string(),
            passed: judged(one.false_alarms == 0),
            note: why.into(),
            undecided: false,
        });
        if let Some(EtcdAway { seconds, offline, moved, writes }) = one.etcd_away {
            verdicts.push(Verdict {
                name: format!("etcd stopped for {seconds} s at a beat every {} ms", one.interval_ms),
                expected: "no worker off-line, no partition moved, writes go on".into(),
                measured: format!("{offline} off-line, {moved} moved, {writes} writes"),
                passed: judged(offline == 0 && moved == 0 && writes > 0),
                note: why.into(),
                undecided: false,
            });
        }
    }
    let stale: u64 = series.iter().map(|one| one.stale_writes).sum();
    let writes: u64 = series.iter().map(|one| one.writes).sum();
    verdicts.push(Verdict {
        name: "writes done under an epoch that was over".into(),
        expected: "0".into(),
        measured: stale.to_string(),
        passed: Some(stale == 0),
        note: format!("of {writes} writes"),
        undecided: false,
    });
    verdicts
}

impl Report {
    /// As Markdown, which a terminal shows as well.
    pub fn text(&self) -> String {
        let mut text = String::from("# Experiment: switchover\n\n");
        let Self { machine, revision, created, .. } = self;
        // Writing to a string cannot fail.
        _ = writeln!(
            text,
            "{created}, revision `{}`{}, {} cores, {}.\n",
            short(&revision.git),
            if revision.dirty { " with changes" } else { "" },
            machine.cores,
            machine.cpu
        );
        if self.quick {
            text += "**Quick run: only stale writes are judged.**\n\n";
        }
        text +=
            "ms from the signal, p50 / p99 over the switch-overs. Article: its table 2.4 has words, no figures.\n\n";
        text += "| strategy | beat, ms | death | times | confirmed | new primaries | redirected | false alarms | article |\n";
        text += "|---|---|---|---|---|---|---|---|---|\n";
        for one in &self.series {
            for kill in [Kill::Kill, Kill::Stop] {
                let times = one.samples.iter().filter(|sample| sample.kill == kill).count();
                let cells = FIGURES.map(|(_, figure)| {
                    let [p50, p99] = [50.0, 99.0].map(|percent| ms(one.percentile(Some(kill), figure, percent)));
                    format!("{p50} / {p99}")
                });
                let Series { strategy, interval_ms, false_alarms, .. } = one;
                let (cells, article) = (cells.join(" | "), strategy.article());
                _ = writeln!(
                    text,
                    "| {strategy} | {interval_ms} | {kill} | {times} | {cells} | {false_alarms} | {article} |"
                );
            }
        }
        text += "\n| result | check | wanted | measured | |\n|---|---|---|---|---|\n";
        for Verdict { name, expected, measured, passed, note, .. } in &self.verdicts {
            let result = match passed {
                Some(true) => "✓ passed",
                Some(false) => "✗ failed",
                None => "– not judged",
            };
            _ = writeln!(text, "| {result} | {name} | {expected} | {measured} | {note} |");
        }
        text
    }
}

fn ms(value: f64) -> String {
    if value.is_finite() { format!("{value:.0}") } else { "never".into() }
}

fn short(revision: &str) -> &str {
    revision.get(..7).unwrap_or(revision)
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
        }
    }

    #[test]
    fn percentiles_are_nearest_ranks_and_what_never_came_is_the_latest() {
        let one = series(&[Some(3.0), Some(1.0), None, Some(2.0)]);
        let confirmed = FIGURES[0].1;
        let of = |percent| one.percentile(None, confirmed, percent);
        assert_eq!((of(50.0), of(75.0), of(99.0)), (2.0, 3.0, f64::INFINITY));
        assert_eq!(one.percentile(Some(Kill::Stop), confirmed, 50.0), f64::INFINITY, "none at all");
    }

    #[test]
    fn the_slowest_counts_and_quick_runs_are_judged_for_stale_writes_only() {
        let passed = |series: &Series, quick| -> Vec<Option<bool>> {
            verdicts(std::slice::from_ref(series), quick).iter().map(|verdict| verdict.passed).collect()
        };
        let mut one = series(&[Some(200.0), Some(351.0)]);
        assert_eq!(passed(&one, false), [Some(false), Some(true), Some(true), Some(true), Some(true)]);
        one.etcd_away = Some(EtcdAway { seconds: 60, offline: 0, moved: 1, writes: 100 });
        assert_eq!(passed(&one, false)[4..], [Some(false), Some(true)], "a partition moved");
        (one.etcd_away, one.stale_writes) = (None, 1);
        assert_eq!(passed(&one, true), [None, None, None, None, Some(false)]);
        let text = Report {
            created: "now".into(),
            machine: Machine::default(),
            revision: Revision { git: "0123456789".into(), dirty: true },
            quick: true,
            series: vec![one],
            verdicts: Vec::new(),
        }
        .text();
        assert!(text.contains("revision `0123456` with changes,"), "{text}");
        assert!(text.contains("| majority | 100 | kill -9 | 2 | 200 / 351 |"), "{text}");
    }
}
