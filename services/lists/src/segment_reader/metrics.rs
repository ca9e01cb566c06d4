//! Metrics of the model of a process, from the store or from segments.

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, Result, core::Collector};

use super::failure::Reason;

#[derive(Clone)]
pub struct ModelMetrics {
    /// To be set by the process for a model of the store.
    pub version: Gauge,
    pub(super) age_seconds: Gauge,
    pub(super) switches: IntCounter,
    pub(super) fetched_bytes: IntCounter,
    /// Indexed by `Reason`.
    failures: [IntCounter; Reason::ALL.len()],
    pub(super) build_seconds: Histogram,
}

impl ModelMetrics {
    /// # Errors
    /// The registry has one of these names already.
    pub fn new(registry: &Registry) -> Result<Self> {
        let failures = IntCounterVec::new(
            Opts::new(
                "model_fetch_failures_total",
                "Answers of workers that the model's segments could not be read from, by reason: damaged (a block is not that of the manifest), not_found (the worker has no version, or another one by now), unavailable, invalid",
            ),
            &["reason"],
        )?;
        let failures = registered(registry, failures)?;
        let [damaged, not_found, unavailable, invalid] =
            Reason::ALL.map(|reason| failures.get_metric_with_label_values(&[reason.as_str()]));
        let gauge = |name, help| registered(registry, Gauge::new(name, help)?);
        let counter = |name, help| registered(registry, IntCounter::new(name, help)?);
        Ok(Self {
            version: gauge("model_version", "Version of the model in use")?,
            age_seconds: gauge(
                "model_segments_age_seconds",
                "Time since the primary confirmed that a segment of the model is its newest version; of 16 segments the longest. 0 if the model is of the store",
            )?,
            switches: counter("model_switches_total", "Versions of the model that replaced one in use")?,
            fetched_bytes: counter(
                "model_fetch_bytes_total",
                "Bytes of segments that workers have sent, damaged ones included",
            )?,
            failures: [damaged?, not_found?, unavailable?, invalid?],
            build_seconds: registered(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "model_build_seconds",
                        "Time to build the model from its 16 segments, while the version before serves requests",
                    )
                    // A thousand items take milliseconds, a million half a minute.
                    .buckets(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]),
                )?,
            )?,
        })
    }

    pub(super) fn count(&self, reason: Reason) {
        self.failures[reason as usize].inc();
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
