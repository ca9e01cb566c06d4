//! All metrics of a worker.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result};

/// Values of the label `outcome` of requests for partitions.
const OUTCOMES: [&str; 7] = ["done", "failed", "no_such_partition", "taking_over", "nobodys", "sent_on", "old_epoch"];
/// From one round trip to the store up to a store that was unreachable.
const TAKEOVER_S: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0];

#[derive(Clone)]
pub struct Metrics {
    pub epoch: IntGauge,
    pub serving: IntGauge,
    /// As in the last heartbeat.
    pub failing: IntGauge,
    pub takeover_seconds: Histogram,
    /// By outcome: see `partitions.rs`.
    pub requests: IntCounterVec,
    /// Over UDP, by monitor: `sent`, or `refused` by a socket without room.
    pub beats: IntCounterVec,
    /// Over TCP: 1 for the current state of the sender to the monitor; see `heartbeat::reconnect`.
    pub sender_state: IntGaugeVec,
    /// Resumed senders, by monitor and cause: `contact` or `operator`.
    pub resumed: IntCounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Result<Self> {
        let takeover = HistogramOpts::new(
            "testbed_worker_takeover_seconds",
            "Time from a table with new partitions for this worker until all their fences are set",
        );
        let metrics = Self {
            epoch: IntGauge::new("testbed_worker_epoch", "Epoch of the partition table that this worker has")?,
            serving: IntGauge::new("testbed_worker_partitions", "Partitions that this worker serves")?,
            failing: IntGauge::new(
                "testbed_worker_failing_partitions",
                "Partitions of this worker whose store does not answer it, or fails too many of its requests",
            )?,
            takeover_seconds: Histogram::with_opts(takeover.buckets(TAKEOVER_S.to_vec()))?,
            requests: IntCounterVec::new(
                Opts::new("testbed_worker_requests_total", "Requests to partitions, by outcome"),
                &["outcome"],
            )?,
            beats: IntCounterVec::new(
                Opts::new("testbed_worker_beats_total", "Heartbeats sent over UDP, by monitor and outcome"),
                &["monitor", "outcome"],
            )?,
            sender_state: IntGaugeVec::new(
                Opts::new(
                    "testbed_worker_sender_state",
                    "1 for the current state of the heartbeat sender to the monitor; always 0 over UDP, which has no connection",
                ),
                &["monitor", "state"],
            )?,
            resumed: IntCounterVec::new(
                Opts::new(
                    "testbed_worker_senders_resumed_total",
                    "Heartbeat senders resumed after they had paused or stopped",
                ),
                &["monitor", "by"],
            )?,
        };
        registry.register(Box::new(metrics.epoch.clone()))?;
        registry.register(Box::new(metrics.serving.clone()))?;
        registry.register(Box::new(metrics.failing.clone()))?;
        registry.register(Box::new(metrics.takeover_seconds.clone()))?;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.beats.clone()))?;
        registry.register(Box::new(metrics.sender_state.clone()))?;
        registry.register(Box::new(metrics.resumed.clone()))?;
        for outcome in OUTCOMES {
            metrics.requests.with_label_values(&[outcome]);
        }
        Ok(metrics)
    }
}
