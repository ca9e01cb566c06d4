//! Figures of the experiment, and the verdicts. Pure.

use std::collections::BTreeMap;

use report::{
    Verdict,
    numbers::{NO_FIGURE, count, ms, pct, per_request},
};
use serde::Serialize;

/// Events per second during the load. A debug build takes fewer.
pub const EVENTS_PER_S: u32 = if cfg!(debug_assertions) { 200 } else { 2_000 };
/// Share of the offered events that must be accepted: fewer are another load.
const MIN_ACCEPTED: f64 = 0.95;
const MIN_FRESH: f64 = 0.99;
/// A bound of the workers' histogram, so that the share of events within it is exact.
pub const FRESH_WITHIN_S: f64 = 2.0;
/// Consumed per second while a backlog is drained, over the events per second that come in.
const MIN_DRAIN: f64 = 3.0;
/// A user's features are one row.
const MAX_ROWS: f64 = 1.5;
/// Reads that failed or were no misses, at most: others make other figures.
const MAX_OTHER_READS: f64 = 0.01;

/// Response times of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StoreLaw {
    /// Its real ones.
    None,
    /// Those of the scenario `overload`, without their random spread.
    Modelled,
}

/// How events get into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventPath {
    /// The replica appends them.
    Direct,
    /// Over Kafka and the workers.
    Kafka,
}

/// What a replica ranks from on a miss: the setting `features`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Features {
    Inline,
    Kafka,
}

/// One stack under one law.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub law: StoreLaw,
    pub path: EventPath,
    pub ingest: Ingest,
    /// By the setting `features`; the same reads, in turns.
    pub misses: Vec<Misses>,
    pub first_reads: FirstReads,
    /// Null without Kafka, as is the backlog.
    pub freshness: Option<Freshness>,
    pub backlog: Option<Backlog>,
    /// Of all cores, during the load.
    pub cpu_pct: f64,
}

/// Events that were sent during the load.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Ingest {
    pub offered_per_s: f64,
    pub accepted_per_s: f64,
    /// Requests that failed, by class.
    pub errors: BTreeMap<String, u64>,
    /// Of `POST /events`; null without an answer.
    pub p99_ms: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Misses {
    pub features: Features,
    /// That computed the list.
    pub reads: u64,
    /// Answered from elsewhere, or not at all.
    pub others: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Rows that MySQL read for one miss, without other load.
    pub rows: f64,
}

/// A user acts, and reads the own list at once and again until it shows the action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct FirstReads {
    pub users: u64,
    /// Share of the first reads that show the action.
    pub shows_pct: f64,
    /// Latency of the first read.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// From the acknowledgement of the event to the begin of the first read that shows it.
    pub age_p50_ms: Option<f64>,
    pub age_p99_ms: Option<f64>,
    /// Users whose list did not show it within 10 s.
    pub never: u64,
    /// Users with a failed request, who are not among `users`.
    pub failed: u64,
}

/// Time from sending an event until the list that contains it is in Redis, by the workers' histogram.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Freshness {
    pub events: u64,
    /// Interpolated within a bucket.
    pub p50_s: f64,
    pub p99_s: f64,
    /// Exact.
    pub within_pct: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Backlog {
    /// Without workers.
    pub away_s: f64,
    /// When the workers were started.
    pub messages: u64,
    /// From the start of the workers to the first event consumed.
    pub resumed_s: f64,
    /// From there until none was behind.
    pub drained_s: f64,
    /// Accepted meanwhile.
    pub ingest_per_s: f64,
    pub consumed_per_s: f64,
}

impl Measured {
    pub fn name(&self) -> String {
        let law = match self.law {
            StoreLaw::None => "no law",
            StoreLaw::Modelled => "modelled law",
        };
        match self.path {
            EventPath::Direct => format!("{law}, without Kafka"),
            EventPath::Kafka => law.to_owned(),
        }
    }

    pub fn misses_of(&self, features: Features) -> Option<&Misses> {
        self.misses.iter().find(|misses| misses.features == features)
    }

    /// Whether the load was the intended one.
    fn is_valid(&self) -> bool {
        let accepted = self.ingest.accepted_per_s >= MIN_ACCEPTED * self.ingest.offered_per_s;
        let others = |misses: &Misses| misses.others as f64 > MAX_OTHER_READS * (misses.reads + misses.others) as f64;
        accepted && !self.misses.iter().any(others)
    }
}

impl Backlog {
    pub fn ratio(&self) -> f64 {
        self.consumed_per_s / self.ingest_per_s
    }
}

/// As Prometheus interpolates: linear within a bucket, and the last bound for what lies beyond it. `buckets`: upper bound and cumulative
/// count, ascending. NaN without values.
pub fn histogram_quantile(buckets: &[(f64, f64)], share: f64) -> f64 {
    let all = buckets.last().map_or(0.0, |(_, count)| *count);
    if all <= 0.0 {
        return f64::NAN;
    }
    let (mut below, mut bound) = (0.0, 0.0);
    for &(upper, count) in buckets {
        if count >= share * all && count > below {
            if upper.is_infinite() {
                return bound;
            }
            return bound + (upper - bound) * (share * all - below) / (count - below);
        }
        if upper.is_finite() {
            bound = upper;
        }
        below = count;
    }
    bound
}

/// Every run with Kafka is judged; the one without is there to compare with.
pub fn verdicts(all: &[Measured]) -> Vec<Verdict> {
    all.iter().filter(|one| one.path == EventPath::Kafka).flat_map(of_run).collect()
}

fn of_run(run: &Measured) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    if let (Some(inline), Some(kafka)) = (run.misses_of(Features::Inline), run.misses_of(Features::Kafka)) {
        verdicts.push(latency(run, "p50", inline.p50_ms, kafka.p50_ms));
        verdicts.push(latency(run, "p99", inline.p99_ms, kafka.p99_ms));
        verdicts.push(verdict(
            run,
            "store rows read per miss",
            format!("≤ {MAX_ROWS}, and fewer than inline"),
            format!("{}; inline {}", per_request(kafka.rows), per_request(inline.rows)),
            kafka.rows <= MAX_ROWS && kafka.rows < inline.rows,
        ));
    }
    let age = run.first_reads.age_p99_ms;
    verdicts.push(verdict(
        run,
        "age of what a read does not show, p99",
        format!("≤ {FRESH_WITHIN_S} s"),
        age.map_or_else(|| NO_FIGURE.into(), |age| format!("{} ms", ms(age))),
        run.first_reads.never + run.first_reads.failed == 0 && age.is_some_and(|age| age <= 1000.0 * FRESH_WITHIN_S),
    ));
    if let Some(freshness) = run.freshness {
        verdicts.push(verdict(
            run,
            &format!("list in Redis within {FRESH_WITHIN_S} s at {} events/s", count(f64::from(EVENTS_PER_S))),
            format!("≥ {} % of the events", pct(100.0 * MIN_FRESH)),
            format!("{} %, p99 {:.2} s", pct(freshness.within_pct), freshness.p99_s),
            freshness.events > 0 && freshness.within_pct >= 100.0 * MIN_FRESH,
        ));
    }
    if let Some(backlog) = run.backlog {
        let measured = format!(
            "{:.1} ×: {} of {} events/s",
            backlog.ratio(),
            count(backlog.consumed_per_s),
            count(backlog.ingest_per_s)
        );
        let name = format!("a backlog of {:.0} s is drained", backlog.away_s);
        let expected = format!("≥ {MIN_DRAIN} × the events that come in meanwhile");
        verdicts.push(verdict(run, &name, expected, measured, backlog.ratio() >= MIN_DRAIN));
    }
    verdicts
}

fn latency(run: &Measured, figure: &str, inline_ms: f64, kafka_ms: f64) -> Verdict {
    let ratio = kafka_ms / inline_ms;
    let measured = format!("{ratio:.3} × ({} of {} ms)", ms(kafka_ms), ms(inline_ms));
    verdict(run, &format!("{figure} of a miss"), "below inline".to_owned(), measured, ratio < 1.0)
}

fn verdict(run: &Measured, name: &str, expected: String, measured: String, passed: bool) -> Verdict {
    let valid = run.is_valid();
    let note = if valid {
        String::new()
    } else {
        format!(
            "the load was another one: {} of {} events/s were accepted, {} reads were no misses",
            count(run.ingest.accepted_per_s),
            count(run.ingest.offered_per_s),
            run.misses.iter().map(|misses| misses.others).sum::<u64>()
        )
    };
    Verdict {
        passed: valid.then_some(passed),
        undecided: !valid,
        ..Verdict::new(&format!("{}: {name}", run.name()), expected, measured, passed, &note)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn measured(law: StoreLaw, path: EventPath) -> Measured {
        let misses =
            |features, p50_ms, rows| Misses { features, reads: 6_000, others: 3, p50_ms, p99_ms: 4.0 * p50_ms, rows };
        let with_kafka = path == EventPath::Kafka;
        Measured {
            law,
            path,
            ingest: Ingest { offered_per_s: 2_000.0, accepted_per_s: 1_990.0, p99_ms: Some(9.0), ..Ingest::default() },
            misses: std::iter::once(misses(Features::Inline, 2.0, 180.0))
                .chain(with_kafka.then(|| misses(Features::Kafka, 1.5, 1.0)))
                .collect(),
            first_reads: FirstReads {
                users: 300,
                shows_pct: 3.0,
                p50_ms: Some(0.8),
                p99_ms: Some(2.0),
                age_p50_ms: Some(90.0),
                age_p99_ms: Some(240.0),
                never: 0,
                failed: 0,
            },
            freshness: with_kafka.then_some(Freshness { events: 120_000, p50_s: 0.08, p99_s: 0.4, within_pct: 99.99 }),
            backlog: with_kafka.then_some(Backlog {
                away_s: 60.0,
                messages: 126_000,
                resumed_s: 3.1,
                drained_s: 25.0,
                ingest_per_s: 2_000.0,
                consumed_per_s: 7_000.0,
            }),
            cpu_pct: 60.0,
        }
    }

    fn passed(one: &Measured) -> Vec<Option<bool>> {
        verdicts(std::slice::from_ref(one)).iter().map(|verdict| verdict.passed).collect()
    }

    #[test]
    fn everything_is_judged_with_kafka_and_nothing_without() {
        let run = measured(StoreLaw::None, EventPath::Kafka);
        assert_eq!(passed(&run), [Some(true); 6]);
        assert!(passed(&measured(StoreLaw::None, EventPath::Direct)).is_empty());
        let mut bad = run.clone();
        bad.misses[1] = Misses { p50_ms: 2.0, p99_ms: 8.0, rows: 1.6, ..run.misses[1].clone() };
        bad.first_reads.never = 1;
        bad.freshness = Some(Freshness { within_pct: 98.9, ..run.freshness.unwrap() });
        bad.backlog = Some(Backlog { consumed_per_s: 5_900.0, ..run.backlog.unwrap() });
        assert_eq!(passed(&bad), [Some(false); 6], "as slow as inline is not below it");
    }

    #[test]
    fn another_load_is_not_judged() {
        let run = measured(StoreLaw::None, EventPath::Kafka);
        let slow = Measured { ingest: Ingest { accepted_per_s: 1_800.0, ..run.ingest.clone() }, ..run.clone() };
        let mut hits = run;
        hits.misses[0].others = 600;
        for run in [slow, hits] {
            let verdicts = verdicts(std::slice::from_ref(&run));
            assert!(verdicts.iter().all(|verdict| verdict.passed.is_none() && verdict.undecided), "{verdicts:?}");
        }
    }

    #[test]
    fn quantiles_of_histograms() {
        let buckets = [(0.1, 50.0), (0.5, 50.0), (1.0, 99.0), (f64::INFINITY, 100.0)];
        assert_eq!([0.25, 0.5, 1.0].map(|share| histogram_quantile(&buckets, share)), [0.05, 0.1, 1.0]);
        assert!((histogram_quantile(&buckets, 0.745) - 0.75).abs() < 1e-9);
        assert!(histogram_quantile(&[(1.0, 0.0)], 0.5).is_nan() && histogram_quantile(&[], 0.5).is_nan());
    }
}
