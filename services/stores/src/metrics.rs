//! Figures of the connections to MySQL; names after OpenTelemetry's `db.client.connection.*`.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Clones count into the same series. Handles are resolved here, once.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    pub(crate) queries: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) connects: IntCounter,
    pub(crate) checkout_timeouts: IntCounter,
    pub(crate) line_full: IntCounter,
    pub(crate) unavailable: IntCounter,
    pub(crate) down: IntCounter,
    pub(crate) statement_timeouts: IntCounter,
    pub(crate) pending: IntGauge,
    pub(crate) used: IntGauge,
    pub(crate) wait_seconds: Histogram,
    pub(crate) query_seconds: Histogram,
}

impl StoreMetrics {
    /// # Errors
    /// The registry has these names already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let seconds = |name: &str, help: &str| -> prometheus::Result<Histogram> {
            // From a warm point read on loopback (0.1 ms) to past the longest checkout wait (3 s).
            let buckets = vec![
                0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0,
                3.0, 5.0,
            ];
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let errors = IntCounterVec::new(
            Opts::new(
                "store_errors_total",
                "Store calls that failed, by reason: checkout_timeout (no connection came free), line_full, unavailable (connection or query failed), down (not tried, as connecting had failed a moment ago), statement_timeout (the server gave the query up)",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(errors.clone()))?;
        Ok(Self {
            queries: counter(
                "store_queries_total",
                "Commands sent to MySQL for requests and warm-up, retries included",
            )?,
            retries: counter(
                "store_retries_total",
                "Reads repeated on a fresh connection after theirs was found broken",
            )?,
            connects: counter("store_connects_total", "Connections to MySQL that were opened")?,
            checkout_timeouts: errors.get_metric_with_label_values(&["checkout_timeout"])?,
            line_full: errors.get_metric_with_label_values(&["line_full"])?,
            unavailable: errors.get_metric_with_label_values(&["unavailable"])?,
            down: errors.get_metric_with_label_values(&["down"])?,
            statement_timeouts: errors.get_metric_with_label_values(&["statement_timeout"])?,
            pending: gauge("db_client_connection_pending_requests", "Requests waiting for a connection")?,
            used: gauge("db_client_connection_used", "Connections in use")?,
            wait_seconds: seconds(
                "db_client_connection_wait_time_seconds",
                "Time from asking for a connection to getting it; timeouts not included",
            )?,
            query_seconds: seconds(
                "db_client_operation_duration_seconds",
                "Time of one MySQL command as the client sees it",
            )?,
        })
    }
}
