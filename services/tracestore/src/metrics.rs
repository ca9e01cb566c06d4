//! Metrics of the receiver.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) received: IntCounter,
    /// The trace was dropped before the span arrived.
    pub(crate) dropped_late: IntCounter,
    /// The trace has no room.
    pub(crate) dropped_full: IntCounter,
    /// Without a trace id or span id.
    pub(crate) dropped_invalid: IntCounter,
    pub(crate) judged: IntCounter,
    pub(crate) judged_early: IntCounter,
    pub(crate) evicted: IntCounter,
    pub(crate) open: IntGauge,
    pub(crate) open_bytes: IntGauge,
    pub(crate) kept: IntGauge,
}

impl Metrics {
    /// # Errors
    /// The registry has these metrics already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let dropped = Opts::new("tracestore_spans_dropped_total", "Spans dropped, by reason");
        let dropped = IntCounterVec::new(dropped, &["reason"])?;
        registry.register(Box::new(dropped.clone()))?;
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        Ok(Self {
            received: counter("tracestore_spans_received_total", "Spans with valid ids received")?,
            dropped_late: dropped.with_label_values(&["late"]),
            dropped_full: dropped.with_label_values(&["trace_full"]),
            dropped_invalid: dropped.with_label_values(&["invalid"]),
            judged: counter("tracestore_traces_judged_total", "Traces decided: kept or dropped")?,
            judged_early: counter(
                "tracestore_traces_judged_early_total",
                "Traces decided before they had settled, because open traces exceeded their memory limit",
            )?,
            evicted: counter("tracestore_traces_evicted_total", "Kept traces evicted for others")?,
            open: gauge("tracestore_traces_open", "Open traces: not decided yet")?,
            open_bytes: gauge("tracestore_open_bytes", "Approximate bytes of the spans of open traces")?,
            kept: gauge("tracestore_traces_kept", "Traces kept")?,
        })
    }
}
