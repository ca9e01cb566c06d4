//! The made-up seconds and percentiles of a step.

use loadtest::latency_bands::{BANDS, lower_edge_ms, upper_edge_ms};

use crate::schema::Second;

pub(super) fn series(answered: f64, error_pct: f64, p99: f64) -> Vec<Second> {
    (0..60)
        .map(|second| {
            let wave = f64::from(second * 37 % 23) / 23.0 - 0.5;
            let all = answered * (1.0 + 0.03 * wave);
            let errors = (all * error_pct / 100.0 * (1.0 + 0.8 * wave)).round() as u64;
            Second {
                second,
                sent: all as u64,
                good: all as u64 - errors,
                errors,
                p99_ms: Some(p99 * (1.0 + 0.05 * wave)),
                mean_ms: Some(p99 / 2.0 * (1.0 + 0.02 * wave)),
                p50_ms: Some(p99 / 2.2 * (1.0 + 0.02 * wave)),
                latency_counts: latency_counts(all, p99 * (1.0 + 0.05 * wave)),
                ..Second::default()
            }
        })
        .collect()
}

/// By percentile.
pub(super) fn curve(p50: f64, p99: f64) -> Vec<(f64, f64)> {
    let mut all: Vec<(f64, f64)> = (0..40)
        .map(|i| f64::from(i) / 10.0)
        .map(|nines| {
            let percentile = 100.0 * (1.0 - 10_f64.powf(-nines));
            (percentile, p50 * 0.6 + (p99 - p50 * 0.6) * (nines / 2.0).powi(2).min(1.0 + 0.3 * (nines - 2.0)))
        })
        .collect();
    all.push((100.0, p99 * 1.7));
    all
}

/// About log-normal, with this 99th percentile and a median of less than half of it.
fn latency_counts(all: f64, p99: f64) -> Vec<u64> {
    let (median, sigma) = (p99 / 2.2, 2.2_f64.ln() / 2.326);
    let below = |ms: f64| 1.0 / (1.0 + (-1.702 * (ms / median).ln() / sigma).exp());
    (0..BANDS).map(|band| (all * (below(upper_edge_ms(band)) - below(lower_edge_ms(band)))).round() as u64).collect()
}
