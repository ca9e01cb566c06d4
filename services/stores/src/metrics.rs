//! Metrics of MySQL and Redis, named after OpenTelemetry's `db.client.*` in Prometheus's spelling.
//!
//! All series exist from the start. Handles are resolved once.

use contract::ShardId;
use prometheus::{
    Counter, CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, Result, core::Collector,
};

/// From a point read over a Unix socket (0.05 ms) to beyond the longest wait for a connection (3 s).
const SECONDS: [f64; 19] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0,
    3.0, 5.0,
];
const POOL: &str = "db_client_connection_pool_name";

/// Clones share the series.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    commands: CommandMetrics,
    connections: IntGaugeVec,
    max: IntGaugeVec,
    timeouts: IntCounterVec,
    waits: HistogramVec,
    pending: IntGaugeVec,
    shard_checkouts: IntCounterVec,
    shard_waits: CounterVec,
    pub redis: RedisMetrics,
}

/// Commands to all servers together.
#[derive(Debug, Clone)]
pub(crate) struct CommandMetrics {
    pub(crate) queries: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) connects: IntCounter,
    pub(crate) abandoned_reads: IntCounter,
    pub(crate) checkout_timeouts: IntCounter,
    pub(crate) queue_full: IntCounter,
    pub(crate) unavailable: IntCounter,
    pub(crate) invalid: IntCounter,
    pub(crate) down: IntCounter,
    pub(crate) statement_timeouts: IntCounter,
    pub(crate) seconds: Histogram,
}

/// The connections to one server.
#[derive(Debug, Clone)]
pub(crate) struct PoolMetrics {
    pub(crate) commands: CommandMetrics,
    pub(crate) used: IntGauge,
    pub(crate) idle: IntGauge,
    pub(crate) timeouts: IntCounter,
    pub(crate) wait_seconds: Histogram,
}

#[derive(Debug, Clone)]
pub(crate) struct ShardMetrics {
    pub(crate) pending: IntGauge,
    pub(crate) checkouts: IntCounter,
    pub(crate) wait_seconds: Counter,
}

#[derive(Debug, Clone)]
pub struct RedisMetrics {
    pub(crate) skipped: IntCounter,
    pub(crate) seconds: Histogram,
}

impl StoreMetrics {
    /// # Errors
    /// The registry has these names already.
    pub fn new(registry: &Registry) -> Result<Self> {
        let operations = HistogramVec::new(
            HistogramOpts::new(
                "db_client_operation_duration_seconds",
                "Duration of one MySQL command, or of one Redis command or pipeline, measured by the client",
            )
            .buckets(SECONDS.to_vec()),
            &["db_system_name"],
        )?;
        let waits = HistogramVec::new(
            HistogramOpts::new(
                "db_client_connection_wait_time_seconds",
                "Time from the request for a connection to its checkout; excludes timeouts",
            )
            .buckets(SECONDS.to_vec()),
            &[POOL],
        )?;
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let operations = register(registry, operations)?;
        Ok(Self {
            commands: CommandMetrics::new(registry, operations.with_label_values(&["mysql"]))?,
            connections: gauges(
                "db_client_connection_count",
                "Connections of a pool, by state: used (or being opened for a request), idle (open and free)",
                &[POOL, "db_client_connection_state"],
            )?,
            max: gauges("db_client_connection_max", "Largest number of connections of a pool", &[POOL])?,
            timeouts: counters(
                "db_client_connection_timeouts_total",
                "Requests for which no connection of the pool came free in time",
                &[POOL],
            )?,
            waits: register(registry, waits)?,
            pending: gauges(
                "db_client_connection_pending_requests",
                "Requests for this shard that wait for a connection; excludes the catalogue",
                &[POOL, "shard"],
            )?,
            shard_checkouts: counters(
                "store_shard_checkouts_total",
                "Requests for a connection, by shard",
                &["shard"],
            )?,
            shard_waits: register(
                registry,
                CounterVec::new(
                    Opts::new(
                        "store_shard_wait_seconds_total",
                        "Time spent waiting for a connection, by shard; includes timeouts and cancelled requests",
                    ),
                    &["shard"],
                )?,
            )?,
            redis: RedisMetrics {
                skipped: register(
                    registry,
                    IntCounter::new(
                        "redis_skipped_total",
                        "Commands that were not sent because Redis had failed shortly before",
                    )?,
                )?,
                seconds: operations.with_label_values(&["redis"]),
            },
        })
    }

    /// `name`: `mysql-00`, `mysql-01`, … or `catalogue`.
    pub(crate) fn pool(&self, name: &str, max: u32) -> PoolMetrics {
        self.max.with_label_values(&[name]).set(i64::from(max));
        PoolMetrics {
            commands: self.commands.clone(),
            used: self.connections.with_label_values(&[name, "used"]),
            idle: self.connections.with_label_values(&[name, "idle"]),
            timeouts: self.timeouts.with_label_values(&[name]),
            wait_seconds: self.waits.with_label_values(&[name]),
        }
    }

    pub(crate) fn shard(&self, shard: ShardId, pool: &str) -> ShardMetrics {
        let shard = shard.index().to_string();
        ShardMetrics {
            pending: self.pending.with_label_values(&[pool, &shard]),
            checkouts: self.shard_checkouts.with_label_values(&[&shard]),
            wait_seconds: self.shard_waits.with_label_values(&[&shard]),
        }
    }
}

impl CommandMetrics {
    fn new(registry: &Registry, seconds: Histogram) -> Result<Self> {
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        let errors = IntCounterVec::new(
            Opts::new(
                "store_errors_total",
                "Failed calls of the store, by reason: checkout_timeout (no connection came free in time), line_full (the queue for connections was full), unavailable (connection or query failed), down (not tried, because connecting had failed shortly before), statement_timeout (the server aborted the query), invalid (invalid row or configuration)",
            ),
            &["reason"],
        )?;
        let errors = register(registry, errors)?;
        Ok(Self {
            queries: counter("store_queries_total", "Commands sent to MySQL, retries included")?,
            retries: counter(
                "store_retries_total",
                "Reads that were retried on a new connection because the first one was broken",
            )?,
            connects: counter("store_connects_total", "Attempts to connect to MySQL")?,
            abandoned_reads: counter(
                "store_reads_abandoned_total",
                "Reads of a user's behaviour that ended when the request no longer waited: its client had gone away, or it had exceeded its deadline",
            )?,
            checkout_timeouts: errors.get_metric_with_label_values(&["checkout_timeout"])?,
            queue_full: errors.get_metric_with_label_values(&["line_full"])?,
            unavailable: errors.get_metric_with_label_values(&["unavailable"])?,
            invalid: errors.get_metric_with_label_values(&["invalid"])?,
            down: errors.get_metric_with_label_values(&["down"])?,
            statement_timeouts: errors.get_metric_with_label_values(&["statement_timeout"])?,
            seconds,
        })
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
