//! Metrics of the receiver.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) received: IntCounter,
    /// Its trace was let go before it came.
    pub(crate) dropped_late: IntCounter,
    /// Its trace has no room.
    pub(crate) dropped_full: IntCounter,
    /// No trace or span id.
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
    /// The registry has such metrics already.
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
            judged: counter("tracestore_traces_judged_total", "Traces kept or let go")?,
            judged_early: counter(
                "tracestore_traces_judged_early_total",
                "Traces judged before they had settled, for want of memory",
            )?,
            evicted: counter("tracestore_traces_evicted_total", "Traces that were kept and made room for others")?,
            open: gauge("tracestore_traces_open", "Traces not yet judged")?,
            open_bytes: gauge("tracestore_open_bytes", "Bytes that the spans of open traces take, roughly")?,
            kept: gauge("tracestore_traces_kept", "Traces kept")?,
        })
    }
}
