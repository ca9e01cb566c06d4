//! What is measured of each policy. Pure, apart from its data.

use contract::http::Criticality;
use loadtest::plan::StepOutcome;
use report::{Second, Validity};
use serde::Serialize;
use statistics::median;

use super::windows::Lengths;

/// One policy in one round.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PolicyFigures {
    pub policy: String,
    pub repeat: u32,
    pub loads: Vec<LoadFigures>,
    pub changes: ChangeFigures,
    /// At 0.7 × capacity with one slow replica.
    pub slow_replica: LoadFigures,
}

/// A window of constant load.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LoadFigures {
    /// Multiple of the capacity.
    pub load: f64,
    pub offered_per_s: f64,
    /// Good answers within the deadline of the request.
    pub good_per_s: f64,
    /// Those that needed a query: the share of cheap requests grows with the load, as only the others have to wait.
    pub store_good_per_s: f64,
    /// Tries that admission refused, or that got no connection to the store in time.
    pub rejected_per_s: f64,
    /// Null if no request was sent.
    pub tries_per_request: Option<f64>,
    /// 99th percentile of the good answers.
    pub good_p99_ms: f64,
    /// Good share of the requests of each criticality, the most critical first; null without requests.
    pub criticalities: Vec<CriticalityShare>,
    #[serde(skip)]
    pub validity: Validity,
}

#[derive(Debug, Clone, Serialize)]
pub struct CriticalityShare {
    pub criticality: Criticality,
    pub good_pct: Option<f64>,
}

/// The window with a spike and with half the capacity.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ChangeFigures {
    /// From the end of the spike to the first of three normal seconds in a row; null: not within the calm time.
    pub settled_after_s: Option<u32>,
    /// The same if each second that is not valid had been normal.
    pub settled_earliest_s: Option<u32>,
    /// From the halving to the first second from which the mean of three seconds stays at 90 % of what half the store serves, or above, until the
    /// end; null: not within the window.
    pub adapted_after_s: Option<u32>,
    /// Good answers in the time with half the capacity.
    pub halved_good_per_s: f64,
    /// Mean limit of the replicas at each second of the window; 0: no limit.
    pub limit: Vec<(f64, f64)>,
    pub series: Vec<Second>,
    #[serde(skip)]
    pub validity: Validity,
}

/// CPU time of the replicas, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Cost {
    /// Of a request that is answered from Redis.
    pub hit_us: f64,
    /// Of a request that is answered from the replica's memory: little more than HTTP.
    pub memory_us: f64,
    /// Of a request that admission refuses.
    pub rejection_us: f64,
}

/// The mean of as many seconds is compared: a second has fewer than a hundred good answers.
const ADAPTED_SECONDS: usize = 3;

impl LoadFigures {
    pub fn of(load: f64, outcome: &StepOutcome, rejected: f64, validity: Validity) -> Self {
        let share = |figures: &loadtest::criticality::CriticalityFigures| CriticalityShare {
            criticality: figures.criticality,
            good_pct: figures.good_pct(),
        };
        Self {
            load,
            offered_per_s: outcome.offered_per_s,
            good_per_s: outcome.good_per_s,
            store_good_per_s: outcome.known_sources.store as f64 / outcome.measured_s,
            rejected_per_s: rejected / outcome.measured_s,
            tries_per_request: outcome.retries.and_then(|retries| retries.tries_per_request),
            good_p99_ms: outcome.good_latency.p99_ms,
            criticalities: outcome.criticalities.iter().map(share).collect(),
            validity,
        }
    }

    /// Good share of the most critical requests, in percent.
    pub fn critical_pct(&self) -> Option<f64> {
        self.criticalities.iter().find(|share| share.criticality == Criticality::Critical)?.good_pct
    }
}

impl ChangeFigures {
    /// `series`: that of the whole window. `adapted_per_s`: good answers that count as adapted.
    pub fn of(
        lengths: &Lengths,
        series: Vec<Second>,
        limit: Vec<(f64, f64)>,
        adapted_per_s: f64,
        validity: Validity,
    ) -> Self {
        let (spike, halved) = (lengths.spike(), lengths.halved());
        let calm_end = spike.end + spike.start;
        let calm: Vec<Second> = series.iter().filter(|second| second.second < calm_end).cloned().collect();
        let good: Vec<f64> =
            series.iter().filter(|second| halved.contains(&second.second)).map(|second| second.good as f64).collect();
        let settled = report::trend::back_to_normal(&calm, spike);
        Self {
            settled_after_s: settled.after_s,
            settled_earliest_s: settled.earliest_s,
            adapted_after_s: above_from(&good, adapted_per_s),
            halved_good_per_s: good.iter().sum::<f64>() / good.len().max(1) as f64,
            limit,
            series,
            validity,
        }
    }
}

/// The first second from which the mean of three seconds stays above the limit until the end.
fn above_from(good: &[f64], limit: f64) -> Option<u32> {
    let below = |row: &[f64]| row.iter().sum::<f64>() < limit * row.len() as f64;
    let from = good.windows(ADAPTED_SECONDS).rposition(below).map_or(0, |last| last + 1);
    (from + ADAPTED_SECONDS <= good.len()).then_some(from as u32)
}

/// Median of a figure over the rounds of a policy; `None` without it.
pub fn over_rounds(all: &[PolicyFigures], policy: &str, figure: impl Fn(&PolicyFigures) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = all.iter().filter(|figures| figures.policy == policy).filter_map(figure).collect();
    median(&values)
}

impl PolicyFigures {
    pub fn at(&self, load: f64) -> Option<&LoadFigures> {
        self.loads.iter().find(|figures| figures.load == load)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::windows::LENGTHS, *};

    #[test]
    fn a_spike_and_a_halving_are_timed_from_their_instants() {
        let (spike, halved) = (LENGTHS.spike(), LENGTHS.halved());
        let second = |second: u32| {
            let late = (spike.start..spike.end + 2).contains(&second);
            let good = if (halved.start..halved.start + 4).contains(&second) { 10 } else { 85 };
            let errors = if late || halved.contains(&second) { 40 } else { 0 };
            Second { second, sent: good + errors, good, errors, max_ms: Some(300.0), ..Second::default() }
        };
        let series: Vec<Second> = (0..halved.end).map(second).collect();
        let figures = ChangeFigures::of(&LENGTHS, series, Vec::new(), 81.0, Validity::default());
        assert_eq!((figures.settled_after_s, figures.adapted_after_s), (Some(2), Some(4)));
        assert_eq!(figures.settled_earliest_s, Some(2));
        assert!((figures.halved_good_per_s - (4.0 * 10.0 + 11.0 * 85.0) / 15.0).abs() < 1e-9);
        assert_eq!(above_from(&[90.0, 90.0, 90.0, 10.0, 10.0, 10.0], 81.0), None, "it falls again");
        let dead: Vec<Second> =
            (0..halved.end).map(|second| Second { second, errors: 9, ..Second::default() }).collect();
        let figures = ChangeFigures::of(&LENGTHS, dead, Vec::new(), 81.0, Validity::default());
        assert_eq!((figures.settled_after_s, figures.adapted_after_s), (None, None));
    }
}
