//! Counts and histograms of a step. Pure: every instant is an argument. Each shard records a part of the users; the shards are merged
//! at the end of the step.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use anyhow::{Result, ensure};
use contract::http::{Criticality, Source};
use hdrhistogram::Histogram;
use statistics::has_percentile;

use crate::{
    criticality::CriticalityFigures,
    figures::{LATE_MS, RetryFigures, Second, Sources, Tries},
    latency_bands,
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
    dropped: u64,
    /// Of the whole step.
    tries: Tries,
    retries: u64,
    budget_spent: u64,
    throttled: u64,
    good: u64,
    beyond_slo: u64,
    errors: BTreeMap<Cow<'static, str>, u64>,
    all_us: Histogram<u64>,
    good_us: Histogram<u64>,
    /// For each skipped instant, the time to the end of the request that its user waited for.
    skipped_us: Histogram<u64>,
    lag_us: Histogram<u64>,
    known: Sources,
    unknown: Sources,
    known_answered: u64,
    criticalities: [CriticalityFigures; Criticality::ALL.len()],
    /// One element per second since the common start, warm-up included.
    seconds: Vec<SecondCounts>,
}

/// Counts and latencies of one second.
struct SecondCounts {
    sent: u64,
    retries: u64,
    good: u64,
    errors: u64,
    beyond_slo: u64,
    /// See `Second::late`.
    late: u64,
    late_max_us: u64,
    /// Two significant digits, because every second of every shard has a histogram; percentiles and bands of latency are read.
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
    pub(crate) criticality: Option<Criticality>,
    /// Source of a good response that names one, or the class of the error.
    pub(crate) result: Result<Option<Source>, Cow<'static, str>>,
}

impl Recorder {
    pub(crate) fn new(plan: &StepPlan) -> Result<Self> {
        let start = plan.warm_up_ms * 1000;
        let window = start..start + plan.measure_ms * 1000;
        Ok(Self {
            slo_us: plan.slo_ms.map_or(u64::MAX, |slo_ms| slo_ms * 1000),
            sent: 0,
            skipped: 0,
            dropped: 0,
            tries: Tries::default(),
            retries: 0,
            budget_spent: 0,
            throttled: 0,
            good: 0,
            beyond_slo: 0,
            errors: BTreeMap::new(),
            all_us: Histogram::new_with_bounds(1, MAX_US, 3)?,
            good_us: Histogram::new_with_bounds(1, MAX_US, 3)?,
            skipped_us: Histogram::new_with_bounds(1, MAX_US, 3)?,
            lag_us: Histogram::new_with_bounds(1, MAX_US, 3)?,
            known: Sources::default(),
            unknown: Sources::default(),
            known_answered: 0,
            criticalities: CriticalityFigures::none(),
            // Allocated in advance: an allocation during the step would delay a recording.
            seconds: (0..window.end.div_ceil(SECOND_US)).map(|_| SecondCounts::none()).collect::<Result<_>>()?,
            window,
        })
    }

    /// Ends the measured part at this instant, in µs since the common start, if its planned end is later. The seconds are then whole ones.
    ///
    /// # Errors
    /// The measured part has not begun.
    pub(crate) fn cut(&mut self, at_us: u64) -> Result<()> {
        ensure!(at_us > self.window.start, "the step was ended before its measured part began");
        self.window.end = self.window.end.min(at_us);
        self.seconds.truncate((self.window.end / SECOND_US) as usize);
        Ok(())
    }

    /// The first try of a request.
    pub(crate) fn sent(&mut self, planned_us: u64, sent_us: u64) {
        self.tries.first += 1;
        if let Some(second) = self.seconds.get_mut((sent_us / SECOND_US) as usize) {
            second.sent += 1;
        }
        let lag_us = sent_us.saturating_sub(planned_us);
        if lag_us > LATE_MS * 1000 {
            // Late in each second from its planned instant: a generator that stands still sends nothing in these seconds.
            let last = self.seconds.len().saturating_sub(1);
            let [from, to] = [planned_us, sent_us].map(|at_us| ((at_us / SECOND_US) as usize).min(last));
            for second in self.seconds.get_mut(from..=to).into_iter().flatten() {
                second.late += 1;
                second.late_max_us = second.late_max_us.max(lag_us);
            }
        }
        if self.window.contains(&sent_us) {
            self.sent += 1;
            self.lag_us.saturating_record(lag_us);
        }
    }

    /// A further try of a request.
    pub(crate) fn retried(&mut self, sent_us: u64) {
        self.tries.retries += 1;
        self.retries += u64::from(self.window.contains(&sent_us));
        if let Some(second) = self.seconds.get_mut((sent_us / SECOND_US) as usize) {
            second.retries += 1;
        }
    }

    /// A request that gets no further try because the budget is spent.
    pub(crate) fn budget_spent(&mut self, now_us: u64) {
        self.budget_spent += u64::from(self.window.contains(&now_us));
    }

    /// A request that the client's own throttle did not send.
    pub(crate) fn throttled(&mut self, now_us: u64) {
        self.throttled += u64::from(self.window.contains(&now_us));
    }

    /// Instants that passed while their user waited for a request that ended at `ended_us`. Returns their number. An instant counts by itself,
    /// its latency by the end, as that of a completed request.
    pub(crate) fn skipped(&mut self, instants_us: impl Iterator<Item = u64>, ended_us: u64) -> u64 {
        let mut count = 0;
        for instant in instants_us {
            count += 1;
            self.skipped += u64::from(self.window.contains(&instant));
            if self.window.contains(&ended_us) {
                self.skipped_us.saturating_record(ended_us.saturating_sub(instant).clamp(1, MAX_US));
            }
        }
        count
    }

    /// An open arrival that was not sent because all slots were busy.
    pub(crate) fn dropped(&mut self, planned_us: u64) {
        self.dropped += u64::from(self.window.contains(&planned_us));
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
        if let Some(criticality) = request.criticality {
            let figures = &mut self.criticalities[criticality as usize];
            figures.answered += 1;
            figures.good += u64::from(request.result.is_ok());
        }
        match request.result {
            Ok(source) => {
                self.good += 1;
                self.good_us.saturating_record(latency_us);
                let sources = if request.known { &mut self.known } else { &mut self.unknown };
                match source {
                    Some(Source::Cache) => sources.cache += 1,
                    Some(Source::Store) => sources.store += 1,
                    Some(Source::Popular) => sources.popular += 1,
                    Some(Source::Stale) => sources.stale += 1,
                    None => {}
                }
            }
            Err(class) => *self.errors.entry(class).or_default() += 1,
        }
    }

    pub(crate) fn merge(mut self, other: &Self) -> Result<Self> {
        self.sent += other.sent;
        self.skipped += other.skipped;
        self.dropped += other.dropped;
        self.tries.first += other.tries.first;
        self.tries.retries += other.tries.retries;
        self.retries += other.retries;
        self.budget_spent += other.budget_spent;
        self.throttled += other.throttled;
        self.good += other.good;
        self.beyond_slo += other.beyond_slo;
        for (class, count) in &other.errors {
            *self.errors.entry(class.clone()).or_default() += count;
        }
        self.all_us.add(&other.all_us)?;
        self.good_us.add(&other.good_us)?;
        self.skipped_us.add(&other.skipped_us)?;
        self.lag_us.add(&other.lag_us)?;
        self.known = sum(&self.known, &other.known);
        self.unknown = sum(&self.unknown, &other.unknown);
        self.known_answered += other.known_answered;
        for (mine, theirs) in self.criticalities.iter_mut().zip(&other.criticalities) {
            mine.answered += theirs.answered;
            mine.good += theirs.good;
        }
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.add(theirs)?;
        }
        Ok(self)
    }

    /// Latency of all requests and skipped instants; `None` with open arrivals, of which none waits for an answer.
    fn corrected_us(&self, plan: &StepPlan) -> Result<Option<Histogram<u64>>> {
        if !plan.arrivals.is_closed() {
            return Ok(None);
        }
        let mut corrected = self.all_us.clone();
        corrected.add(&self.skipped_us)?;
        Ok(Some(corrected))
    }

    /// Tries of the whole step.
    pub(crate) fn tries(&self) -> Tries {
        self.tries
    }

    fn retry_figures(&self) -> RetryFigures {
        let (first_tries, retries) = (self.sent, self.retries);
        RetryFigures {
            first_tries,
            retries,
            tries_per_request: (first_tries > 0).then(|| (first_tries + retries) as f64 / first_tries as f64),
            budget_spent: self.budget_spent,
            throttled: self.throttled,
            zombie_share: None,
        }
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
        let series = self.seconds[first..].iter().enumerate().map(|(second, bucket)| Second {
            beyond_slo: counted(bucket.beyond_slo),
            retries: plan.retry.as_ref().map(|_| bucket.retries),
            ..bucket.second(second as u32)
        });
        let corrected_us = self.corrected_us(plan)?;
        let mut tagged = vec![("all", &self.all_us), ("good", &self.good_us)];
        tagged.extend(corrected_us.iter().map(|corrected| ("corrected", corrected)));
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
            hdr_log: hdr_log(&plan.name, started, length, &tagged)?,
            arrivals: plan.arrivals.describe(),
            dropped: self.dropped,
            corrected: corrected_us.as_ref().map(Latency::of),
            retries: plan.retry.as_ref().map(|_| self.retry_figures()),
            errors: self.errors.into_iter().map(|(class, count)| (class.into_owned(), count)).collect(),
            known_sources: self.known,
            unknown_sources: self.unknown,
            requests: None,
            criticalities: plan.criticality.map(|_| self.criticalities.to_vec()).unwrap_or_default(),
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
        p50_ms: figures.p50_ms,
        max_ms: figures.max_ms,
        offered_per_s: plan.offered_per_s_at(u64::from(second) * 1000),
    })
}

impl SecondCounts {
    fn none() -> Result<Self> {
        let latency_us = Histogram::new_with_bounds(1, MAX_US, 2)?;
        Ok(Self { sent: 0, retries: 0, good: 0, errors: 0, beyond_slo: 0, late: 0, late_max_us: 0, latency_us })
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.sent += other.sent;
        self.retries += other.retries;
        self.good += other.good;
        self.errors += other.errors;
        self.beyond_slo += other.beyond_slo;
        self.late += other.late;
        self.late_max_us = self.late_max_us.max(other.late_max_us);
        self.latency_us.add(&other.latency_us)?;
        Ok(())
    }

    /// Without `beyond_slo` and `retries`: only the plan says whether they were counted.
    fn second(&self, second: u32) -> Second {
        let latency_us = (!self.latency_us.is_empty()).then_some(&self.latency_us);
        let at = |quantile| latency_us.map(|latency_us| millis(latency_us.value_at_quantile(quantile)));
        let ended = self.latency_us.len();
        Second {
            second,
            sent: self.sent,
            good: self.good,
            errors: self.errors,
            p99_ms: at(0.99).filter(|_| has_percentile(99.0, ended)),
            max_ms: latency_us.map(|latency_us| millis(latency_us.max())),
            mean_ms: latency_us.map(|latency_us| latency_us.mean() / 1000.0),
            p50_ms: at(0.5),
            latency_counts: latency_bands::counts(&self.latency_us),
            late: Some(self.late),
            send_lag_max_ms: (self.late > 0).then(|| millis(self.late_max_us)),
            ..Second::default()
        }
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
mod tests;
