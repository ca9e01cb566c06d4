//! Counts and histograms of a step. Pure: every instant is an argument. Each shard records a part of the users; the shards are merged
//! at the end of the step.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use anyhow::Result;
use contract::http::Source;
use hdrhistogram::Histogram;

use crate::{
    figures::{Second, Sources},
    plan::{Latency, Progress, SendLag, StepOutcome, StepPlan, curve, hdr_log, millis},
};

const SECOND_US: u64 = 1_000_000;
const MAX_US: u64 = 60_000_000;

pub(crate) struct Recorder {
    /// Measured part, in µs since the common start.
    window: Range<u64>,
    /// Longest good latency, in µs; without an objective none is longer.
    slo_us: u64,
    sent: u64,
    skipped: u64,
    good: u64,
    beyond_slo: u64,
    errors: BTreeMap<Cow<'static, str>, u64>,
    all_us: Histogram<u64>,
    good_us: Histogram<u64>,
    lag_us: Histogram<u64>,
    known: Sources,
    unknown: Sources,
    known_answered: u64,
    /// One element per second since the common start, warm-up included.
    seconds: Vec<SecondCounts>,
}

/// Counts and latencies of one second.
struct SecondCounts {
    sent: u64,
    good: u64,
    errors: u64,
    beyond_slo: u64,
    /// Two significant digits: only the 99th percentile is read, and every second of every shard has a histogram.
    latency_us: Histogram<u32>,
}

/// A completed request.
pub(crate) struct Completed {
    /// Planned instant, in µs since the common start.
    pub(crate) planned_us: u64,
    /// End, in µs since the common start.
    pub(crate) ended_us: u64,
    /// Whether the id belongs to an existing user.
    pub(crate) known: bool,
    /// Source of a good response, or the class of the error.
    pub(crate) result: Result<Source, Cow<'static, str>>,
}

impl Recorder {
    pub(crate) fn new(plan: &StepPlan) -> Result<Self> {
        let start = plan.warm_up_ms * 1000;
        let window = start..start + plan.measure_ms * 1000;
        Ok(Self {
            slo_us: plan.slo_ms.map_or(u64::MAX, |slo_ms| slo_ms * 1000),
            sent: 0,
            skipped: 0,
            good: 0,
            beyond_slo: 0,
            errors: BTreeMap::new(),
            all_us: Histogram::new_with_bounds(1, MAX_US, 3)?,
            good_us: Histogram::new_with_bounds(1, MAX_US, 3)?,
            lag_us: Histogram::new_with_bounds(1, MAX_US, 3)?,
            known: Sources::default(),
            unknown: Sources::default(),
            known_answered: 0,
            // Allocated in advance: an allocation during the step would delay a recording.
            seconds: (0..window.end.div_ceil(SECOND_US)).map(|_| SecondCounts::none()).collect::<Result<_>>()?,
            window,
        })
    }

    pub(crate) fn sent(&mut self, planned_us: u64, sent_us: u64) {
        if let Some(second) = self.seconds.get_mut((sent_us / SECOND_US) as usize) {
            second.sent += 1;
        }
        if self.window.contains(&sent_us) {
            self.sent += 1;
            self.lag_us.saturating_record(sent_us.saturating_sub(planned_us));
        }
    }

    pub(crate) fn skipped(&mut self, instants_us: impl Iterator<Item = u64>) {
        self.skipped += instants_us.filter(|instant| self.window.contains(instant)).count() as u64;
    }

    pub(crate) fn completed(&mut self, request: Completed) {
        let took_us = request.ended_us.saturating_sub(request.planned_us);
        let latency_us = took_us.clamp(1, MAX_US);
        let beyond_slo = u64::from(took_us > self.slo_us || request.result.is_err());
        if let Some(second) = self.seconds.get_mut((request.ended_us / SECOND_US) as usize) {
            second.latency_us.saturating_record(latency_us);
            *(if request.result.is_ok() { &mut second.good } else { &mut second.errors }) += 1;
            second.beyond_slo += beyond_slo;
        }
        if !self.window.contains(&request.ended_us) {
            return;
        }
        self.all_us.saturating_record(latency_us);
        self.beyond_slo += beyond_slo;
        self.known_answered += u64::from(request.known);
        match request.result {
            Ok(source) => {
                self.good += 1;
                self.good_us.saturating_record(latency_us);
                let sources = if request.known { &mut self.known } else { &mut self.unknown };
                *(match source {
                    Source::Cache => &mut sources.cache,
                    Source::Store => &mut sources.store,
                    Source::Popular => &mut sources.popular,
                    Source::Stale => &mut sources.stale,
                }) += 1;
            }
            Err(class) => *self.errors.entry(class).or_default() += 1,
        }
    }

    pub(crate) fn merge(mut self, other: &Self) -> Result<Self> {
        self.sent += other.sent;
        self.skipped += other.skipped;
        self.good += other.good;
        self.beyond_slo += other.beyond_slo;
        for (class, count) in &other.errors {
            *self.errors.entry(class.clone()).or_default() += count;
        }
        self.all_us.add(&other.all_us)?;
        self.good_us.add(&other.good_us)?;
        self.lag_us.add(&other.lag_us)?;
        self.known = sum(&self.known, &other.known);
        self.unknown = sum(&self.unknown, &other.unknown);
        self.known_answered += other.known_answered;
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.add(theirs)?;
        }
        Ok(self)
    }

    /// Figures of the step; `wall_start` is the Unix time of the common start.
    pub(crate) fn outcome(
        self,
        plan: &StepPlan,
        wall_start: std::time::Duration,
        repeated_ids: u64,
    ) -> Result<StepOutcome> {
        let micros = std::time::Duration::from_micros;
        let started = wall_start + micros(self.window.start);
        let length = micros(self.window.end - self.window.start);
        let measured_s = length.as_secs_f64();
        let answered = self.all_us.len();
        let personal = self.known.cache + self.known.store + self.known.stale;
        let pct = |part: u64, whole: u64| (whole > 0).then(|| 100.0 * part as f64 / whole as f64);
        let first = (self.window.start / SECOND_US) as usize;
        // The counts are those of all failures without an objective: such a figure would mean nothing.
        let counted = |beyond_slo: u64| plan.slo_ms.map(|_| beyond_slo);
        let series = self.seconds[first..]
            .iter()
            .enumerate()
            .map(|(second, bucket)| Second { beyond_slo: counted(bucket.beyond_slo), ..bucket.second(second as u32) });
        let lag = |quantile| millis(self.lag_us.value_at_quantile(quantile));
        Ok(StepOutcome {
            name: plan.name.clone(),
            users: plan.users,
            started_ms: started.as_millis() as u64,
            ended_ms: (started + length).as_millis() as u64,
            measured_s,
            offered_per_s: plan.offered_per_s(),
            sent: self.sent,
            answered,
            good: self.good,
            skipped: self.skipped,
            beyond_slo: counted(self.beyond_slo),
            error_pct: pct(answered - self.good, answered).unwrap_or_default(),
            sent_per_s: self.sent as f64 / measured_s,
            answered_per_s: answered as f64 / measured_s,
            good_per_s: self.good as f64 / measured_s,
            latency: Latency::of(&self.all_us),
            good_latency: Latency::of(&self.good_us),
            send_lag: SendLag { p50_ms: lag(0.5), p99_ms: lag(0.99), max_ms: millis(self.lag_us.max()) },
            known_personal_pct: pct(personal, self.known_answered),
            known_answered: self.known_answered,
            repeated_ids,
            series: series.collect(),
            latency_curve: curve(&self.all_us),
            hdr_log: hdr_log(&plan.name, started, length, &[("all", &self.all_us), ("good", &self.good_us)])?,
            errors: self.errors.into_iter().map(|(class, count)| (class.into_owned(), count)).collect(),
            known_sources: self.known,
            unknown_sources: self.unknown,
            requests: None,
        })
    }
}

/// Figures of one second over all shards.
pub(crate) fn progress<'a>(
    plan: &StepPlan,
    second: u32,
    shards: impl Iterator<Item = impl std::ops::Deref<Target = Recorder> + 'a>,
) -> Result<Progress> {
    let mut total = SecondCounts::none()?;
    for shard in shards {
        if let Some(bucket) = shard.seconds.get(second as usize) {
            total.add(bucket)?;
        }
    }
    let figures = total.second(second);
    Ok(Progress {
        phase: if u64::from(second) * 1000 < plan.warm_up_ms {
            crate::plan::Phase::WarmUp
        } else {
            crate::plan::Phase::Measure
        },
        elapsed_s: second + 1,
        total_s: (plan.warm_up_ms + plan.measure_ms).div_ceil(1000) as u32,
        sent: figures.sent,
        good: figures.good,
        errors: figures.errors,
        p99_ms: figures.p99_ms,
    })
}

impl SecondCounts {
    fn none() -> Result<Self> {
        Ok(Self { sent: 0, good: 0, errors: 0, beyond_slo: 0, latency_us: Histogram::new_with_bounds(1, MAX_US, 2)? })
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.sent += other.sent;
        self.good += other.good;
        self.errors += other.errors;
        self.beyond_slo += other.beyond_slo;
        self.latency_us.add(&other.latency_us)?;
        Ok(())
    }

    /// Without `beyond_slo`: only the plan says whether it was counted.
    fn second(&self, second: u32) -> Second {
        let p99_ms = (!self.latency_us.is_empty()).then(|| millis(self.latency_us.value_at_quantile(0.99)));
        Second { second, sent: self.sent, good: self.good, errors: self.errors, beyond_slo: None, p99_ms }
    }
}

fn sum(a: &Sources, b: &Sources) -> Sources {
    Sources {
        cache: a.cache + b.cache,
        store: a.store + b.store,
        popular: a.popular + b.popular,
        stale: a.stale + b.stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Phase, scenario::KnownIds};

    /// One second of warm-up, two measured; one user a second.
    fn plan() -> StepPlan {
        StepPlan {
            name: "test".into(),
            base_url: String::new(),
            users: 1,
            curve: None,
            interval_ms: 1000,
            arrival_grid_ms: 0,
            timeout_ms: 3000,
            slo_ms: None,
            warm_up_ms: 1000,
            measure_ms: 2000,
            unknown_share: 0.5,
            known: KnownIds::Once,
            known_ids: "-".into(),
            seed: 1,
            worker_threads: 1,
            metrics: None,
            telemetry: None,
        }
    }

    fn request(recorder: &mut Recorder, known: bool, times_ms: [u64; 3], result: Result<Source, &'static str>) {
        let [planned_us, sent_us, ended_us] = times_ms.map(|ms| ms * 1000);
        recorder.sent(planned_us, sent_us);
        recorder.completed(Completed { planned_us, ended_us, known, result: result.map_err(Cow::Borrowed) });
    }

    fn outcome(recorder: Recorder) -> StepOutcome {
        recorder.outcome(&plan(), std::time::Duration::from_secs(1_700_000_000), 3).unwrap()
    }

    #[test]
    fn a_request_belongs_to_the_window_by_its_end() {
        let mut recorder = Recorder::new(&plan()).unwrap();
        request(&mut recorder, true, [100, 101, 999], Ok(Source::Cache)); // before
        request(&mut recorder, true, [900, 902, 1000], Ok(Source::Cache)); // sent before, ended within
        request(&mut recorder, false, [2500, 2510, 2999], Ok(Source::Popular)); // within
        request(&mut recorder, true, [2900, 2900, 3000], Ok(Source::Store)); // sent within, ended after
        recorder.skipped([999_999, 1_000_000, 2_999_999, 3_000_000].into_iter());
        let outcome = outcome(recorder);
        assert_eq!((outcome.sent, outcome.answered, outcome.good, outcome.skipped), (2, 2, 2, 2));
        assert_eq!((outcome.known_answered, outcome.known_sources.cache, outcome.unknown_sources.popular), (1, 1, 1));
        assert_eq!((outcome.started_ms, outcome.ended_ms), (1_700_000_001_000, 1_700_000_003_000));
        assert_eq!((outcome.offered_per_s, outcome.answered_per_s, outcome.repeated_ids), (1.0, 1.0, 3));
        // From the plan, not from the send: 100 ms and 499 ms.
        assert!((outcome.latency.mean_ms - 299.5).abs() < 1.0, "{:?}", outcome.latency);
        assert!((outcome.send_lag.max_ms - 10.0).abs() < 0.1, "{:?}", outcome.send_lag);
        let series: Vec<_> = outcome.series.iter().map(|second| (second.second, second.sent, second.good)).collect();
        assert_eq!(series, [(0, 0, 1), (1, 2, 1)]);
    }

    #[test]
    fn errors_count_by_class_and_against_personal_answers() {
        let mut recorder = Recorder::new(&plan()).unwrap();
        for (known, result) in [
            (true, Ok(Source::Store)),
            (true, Ok(Source::Stale)),
            (true, Ok(Source::Popular)),
            (true, Err("client_timeout")),
            (false, Err("client_timeout")),
            (false, Err("connect")),
        ] {
            request(&mut recorder, known, [1000, 1000, 1500], result);
        }
        let outcome = outcome(recorder);
        assert_eq!((outcome.errors["client_timeout"], outcome.errors["connect"], outcome.error_pct), (2, 1, 50.0));
        assert_eq!((outcome.known_answered, outcome.known_personal_pct), (4, Some(50.0)));
        assert_eq!(outcome.series[0].errors, 3);
    }

    #[test]
    fn shards_add_up_and_seconds_are_told_while_they_pass() {
        let shards = [1, 2].map(|count| {
            let mut recorder = Recorder::new(&plan()).unwrap();
            for _ in 0..count {
                request(&mut recorder, true, [1000, 1001, 1100], Ok(Source::Cache));
                request(&mut recorder, false, [1000, 1001, 1200], Err("connect"));
            }
            recorder
        });
        let second = progress(&plan(), 1, shards.iter()).unwrap();
        assert_eq!((second.phase, second.elapsed_s, second.total_s), (Phase::Measure, 2, 3));
        assert_eq!((second.sent, second.good, second.errors), (6, 3, 3));
        assert_eq!(progress(&plan(), 0, shards.iter()).unwrap().p99_ms, None);
        let [first, second] = shards;
        let outcome = outcome(first.merge(&second).unwrap());
        assert_eq!((outcome.sent, outcome.answered, outcome.good, outcome.errors["connect"]), (6, 6, 3, 3));
        assert_eq!(outcome.known_sources.cache, 3);
        assert!((outcome.series[0].p99_ms.unwrap() - 200.0).abs() < 4.0);
    }

    #[test]
    fn late_and_failed_requests_are_beyond_the_slo() {
        let plan = StepPlan { slo_ms: Some(200), ..plan() };
        let shards = [(); 2].map(|()| {
            let mut recorder = Recorder::new(&plan).unwrap();
            request(&mut recorder, true, [100, 100, 900], Ok(Source::Cache)); // late, in the warm-up
            request(&mut recorder, true, [1000, 1150, 1200], Ok(Source::Cache)); // in time
            request(&mut recorder, true, [1000, 1150, 1201], Ok(Source::Cache)); // late by its plan, not by its sending
            request(&mut recorder, true, [2000, 2000, 2100], Err("connect"));
            request(&mut recorder, true, [2000, 2000, 2900], Err("client_timeout"));
            request(&mut recorder, true, [2000, 2000, 3000], Ok(Source::Cache)); // late, after the window
            recorder
        });
        let [first, second] = shards;
        let merged = first.merge(&second).unwrap();
        let outcome = merged.outcome(&plan, std::time::Duration::ZERO, 0).unwrap();
        assert_eq!(outcome.beyond_slo, Some(6));
        assert_eq!(outcome.series.iter().map(|second| second.beyond_slo).collect::<Vec<_>>(), [Some(2), Some(4)]);
    }

    #[test]
    fn nothing_is_beyond_an_slo_that_is_not_there() {
        let mut recorder = Recorder::new(&plan()).unwrap();
        request(&mut recorder, true, [1000, 1000, 2500], Err("client_timeout"));
        let outcome = outcome(recorder);
        assert_eq!((outcome.beyond_slo, outcome.series[1].beyond_slo), (None, None));
        assert!(!serde_json::to_string(&outcome).unwrap().contains("beyond_slo"));
    }

    #[test]
    fn nothing_measured_is_all_zeros() {
        let outcome = outcome(Recorder::new(&plan()).unwrap());
        assert_eq!((outcome.answered, outcome.error_pct, outcome.known_personal_pct), (0, 0.0, None));
        assert_eq!(outcome.latency, Latency::default());
        assert_eq!(outcome.latency_curve, []);
        assert!(serde_json::to_string(&outcome).unwrap().contains("\"p99_ms\":null"));
    }
}
