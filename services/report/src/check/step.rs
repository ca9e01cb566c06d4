//! The figures of one step, from its histogram log and from its own counts.

use loadtest::{
    figures::{RetryFigures, Second},
    histogram_log::{HistogramLog, Measured},
    plan::Latency,
};

use super::Place;
use crate::{
    schema::{Report, Step},
    soak,
    validity::Validity,
};

const LOG: &str = "histogram logs";
const COUNTS: &str = "counts of the same step";

pub(super) const NOT_RECOMPUTED: [&str; 5] = [
    "send_lag_*, cpu*, rss_mb, scheduling, gateway_mean_ms, store_upstream_mean_ms: measured in other processes; steps.jsonl alone has them as \
     well",
    "store_queries_per_request, store_share, hit_ratio, bloom_rejections*, retries.zombie_share: from counters of the replicas over the measured part; counts are \
     those of the whole step",
    "retries.budget_spent, retries.throttled, skipped, dropped, repeated_ids, known_good_per_s, known_personal_pct, latencies of single seconds: only the load generator counted them",
    "time_spent, waterfalls: the traces are not kept",
    "article, model and the sections: they follow from the scenario, the model and other measurements",
];

pub(super) fn check(report: &Report, step: &Step, log: &HistogramLog, place: &mut Place<'_>) {
    let per_s = |count: u64| count as f64 / log.measured_s;
    let Measured { requests: answered, latency, curve } = &log.all;
    let (answered, good) = (*answered, log.good.requests);
    place.number(LOG, "answered_per_s", step.answered_per_s, per_s(answered));
    place.number(LOG, "good_per_s", step.good_per_s, per_s(good));
    let own = [step.mean_ms, step.p50_ms, step.p90_ms, step.p99_ms, step.p999_ms, step.max_ms];
    latencies(place, "", own, latency);
    if let Some(samples) = step.samples {
        place.same(LOG, "samples", samples, answered);
    }
    if let Some((reported, log)) = step.corrected.as_ref().zip(log.corrected.as_ref()) {
        let Latency { mean_ms, p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = *reported;
        latencies(place, "corrected.", [mean_ms, p50_ms, p90_ms, p99_ms, p999_ms, max_ms], &log.latency);
    } else {
        place.same(LOG, "corrected", step.corrected.is_some(), log.corrected.is_some());
    }
    place.same(LOG, "latency_curve (points)", step.latency_curve.len(), curve.len());
    for (n, (reported, point)) in step.latency_curve.iter().zip(curve).enumerate() {
        place.number(LOG, &format!("latency_curve[{n}] (percentile)"), reported.0, point.0);
        place.number(LOG, &format!("latency_curve[{n}] (ms)"), reported.1, point.1);
    }
    let errors: u64 = step.errors.values().sum();
    place.same(LOG, "errors (sum)", errors, answered.saturating_sub(good));
    let sources = &step.sources;
    place.same(LOG, "sources (sum)", sources.cache + sources.store + sources.popular + sources.stale, good);
    counts(report, step, errors, answered, place);
    if soak::of(&report.sections).is_none() {
        series(step, log, place);
        retries(step, place);
    }
}

fn latencies(place: &mut Place<'_>, prefix: &str, reported: [f64; 6], log: &Latency) {
    let names = ["mean_ms", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms"];
    let again = [log.mean_ms, log.p50_ms, log.p90_ms, log.p99_ms, log.p999_ms, log.max_ms];
    for ((name, reported), again) in names.into_iter().zip(reported).zip(again) {
        place.number(LOG, &format!("{prefix}{name}"), reported, again);
    }
}

fn counts(report: &Report, step: &Step, errors: u64, answered: u64, place: &mut Place<'_>) {
    let error_pct = if answered > 0 { 100.0 * errors as f64 / answered as f64 } else { 0.0 };
    place.number(COUNTS, "error_pct", step.error_pct, error_pct);
    let timeouts = step.errors.get("store-checkout-timeout").copied().unwrap_or(0);
    place.same(COUNTS, "store_timeouts", step.store_timeouts, timeouts);
    // Open arrivals are offered by a rate, which a curve may change.
    let closed = loadtest::arrivals::Arrivals::Closed.describe();
    if report.scenario.arrivals == closed {
        let offered = f64::from(step.users) * 1000.0 / report.scenario.interval_ms as f64;
        place.number(COUNTS, "offered_per_s", step.offered_per_s, offered);
    }
    if let Some(scheduling) = &step.scheduling {
        let validity = Validity::of(step.send_lag_p99_ms, step.cpu_total_pct).with_scheduling(scheduling);
        place.same(COUNTS, "invalid_reasons", step.invalid_reasons.clone(), validity.reasons);
    }
    place.same(COUNTS, "valid", step.valid, step.invalid_reasons.is_empty());
}

/// Tries per request follow from the tries, and these from the seconds.
fn retries(step: &Step, place: &mut Place<'_>) {
    let Some(reported) = &step.retries else { return };
    let RetryFigures { first_tries, retries, tries_per_request, .. } = *reported;
    let again = (first_tries > 0).then(|| (first_tries + retries) as f64 / first_tries as f64);
    place.same(COUNTS, "retries.tries_per_request (there)", tries_per_request.is_some(), again.is_some());
    if let Some((reported, again)) = tries_per_request.zip(again) {
        place.number(COUNTS, "retries.tries_per_request", reported, again);
    }
    let sum = |figure: fn(&Second) -> u64| step.series.iter().map(figure).sum::<u64>();
    place.same(COUNTS, "retries.first_tries", first_tries, sum(|second| second.sent));
    place.same(COUNTS, "retries.retries", retries, sum(|second| second.retries.unwrap_or_default()));
}

/// The seconds add up to the step.
fn series(step: &Step, log: &HistogramLog, place: &mut Place<'_>) {
    if step.series.is_empty() {
        return;
    }
    let sum = |figure: fn(&Second) -> u64| step.series.iter().map(figure).sum::<u64>();
    place.same(LOG, "series (sum of good)", sum(|second| second.good), log.good.requests);
    place.same(LOG, "series (sum of good and errors)", sum(Second::ended), log.all.requests);
    place.number(COUNTS, "sent_per_s", step.sent_per_s, sum(|second| second.sent) as f64 / log.measured_s);
    for second in step.series.iter().filter(|second| !second.latency_counts.is_empty()) {
        let figure = format!("series[{}].latency_counts (sum)", second.second);
        place.same(COUNTS, &figure, second.latency_counts.iter().sum(), second.ended());
    }
}
