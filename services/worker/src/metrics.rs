//! All metrics of a worker.

use std::time::Duration;

use contract::ShardId;
use eventlog::{ConsumerMetrics, ProducerMetrics};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result,
};

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

/// Values of the label `outcome` of events. `late` events are older than another event of their user; they count as `new`, too.
const EVENT_OUTCOMES: [&str; 4] = ["new", "late", "duplicate", "dead_letter"];
/// Values of the label `outcome` of batches. `refused`: by the fence, or because the position had changed.
const BATCH_OUTCOMES: [&str; 3] = ["written", "refused", "failed"];
const STAGES: [&str; 4] = ["read", "fold", "write", "publish"];
const STATES: [&str; 2] = ["consuming", "stopped"];
/// From the linger of a batch up to a failover and the backlog after it.
const FRESHNESS_S: [f64; 12] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 30.0, 120.0, 600.0];
const STAGE_S: [f64; 11] = [0.000_05, 0.000_2, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];
const BATCH_EVENTS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0];

/// Metrics of the path of events. Only with Kafka.
#[derive(Clone)]
pub struct EventMetrics {
    pub consumer: ConsumerMetrics,
    /// Of dead letters.
    pub producer: ProducerMetrics,
    lag: IntGaugeVec,
    partitions: IntGaugeVec,
    freshness: Histogram,
    events: IntCounterVec,
    batches: IntCounterVec,
    batch_events: Histogram,
    stages: HistogramVec,
    /// Lists that were given up because too many waited for Redis.
    pub unpublished: IntCounter,
}

/// The series of one partition. When it is dropped, this worker does not consume the partition any more.
pub struct PartitionSeries {
    lag: IntGauge,
    consuming: IntGauge,
    stopped: IntGauge,
}

impl EventMetrics {
    pub fn new(registry: &Registry) -> Result<Self> {
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
        };
        let counters = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["outcome"]);
        let stage_help = "Duration of a step of a batch";
        let metrics = Self {
            consumer: ConsumerMetrics::new(registry)?,
            producer: ProducerMetrics::new(registry)?,
            lag: IntGaugeVec::new(
                Opts::new(
                    "testbed_worker_event_lag",
                    "Messages of the partition after the stored position; 0 without ownership",
                ),
                &["partition"],
            )?,
            partitions: IntGaugeVec::new(
                Opts::new(
                    "testbed_worker_event_partitions",
                    "1 if this worker consumes the partition's events, or stopped because the topic does not have the stored position",
                ),
                &["partition", "state"],
            )?,
            freshness: histogram(
                "testbed_worker_event_freshness_seconds",
                "Time from the sending of an event until the list that contains it is in Redis",
                &FRESHNESS_S,
            )?,
            events: counters("testbed_worker_events_total", "Events by outcome; late events are new, too")?,
            batches: counters(
                "testbed_worker_event_batches_total",
                "Batches of events, by outcome of the transaction",
            )?,
            batch_events: histogram("testbed_worker_event_batch_events", "Messages of a batch", &BATCH_EVENTS)?,
            stages: HistogramVec::new(
                HistogramOpts::new("testbed_worker_event_stage_seconds", stage_help).buckets(STAGE_S.to_vec()),
                &["stage"],
            )?,
            unpublished: IntCounter::new(
                "testbed_worker_event_lists_dropped_total",
                "Lists that were not published because too many waited for Redis",
            )?,
        };
        registry.register(Box::new(metrics.lag.clone()))?;
        registry.register(Box::new(metrics.partitions.clone()))?;
        registry.register(Box::new(metrics.freshness.clone()))?;
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.batches.clone()))?;
        registry.register(Box::new(metrics.batch_events.clone()))?;
        registry.register(Box::new(metrics.stages.clone()))?;
        registry.register(Box::new(metrics.unpublished.clone()))?;
        EVENT_OUTCOMES.iter().for_each(|outcome| drop(metrics.events.with_label_values(&[outcome])));
        BATCH_OUTCOMES.iter().for_each(|outcome| drop(metrics.batches.with_label_values(&[outcome])));
        STAGES.iter().for_each(|stage| drop(metrics.stages.with_label_values(&[stage])));
        for shard in ShardId::all() {
            drop(metrics.partition(shard));
        }
        Ok(metrics)
    }

    pub fn partition(&self, shard: ShardId) -> PartitionSeries {
        let partition = shard.index().to_string();
        let [consuming, stopped] = STATES.map(|state| self.partitions.with_label_values(&[&*partition, state]));
        PartitionSeries { lag: self.lag.with_label_values(&[&partition]), consuming, stopped }
    }

    pub fn stage(&self, stage: &str, duration: Duration) {
        self.stages.with_label_values(&[stage]).observe(duration.as_secs_f64());
    }

    pub fn batch(&self, outcome: &str) {
        self.batches.with_label_values(&[outcome]).inc();
    }

    /// A batch is written.
    pub fn written(&self, messages: usize, new: u64, late: u64, duplicates: u64, dead: u64) {
        self.batch_events.observe(messages as f64);
        for (outcome, count) in EVENT_OUTCOMES.into_iter().zip([new, late, duplicates, dead]) {
            self.events.with_label_values(&[outcome]).inc_by(count);
        }
    }

    pub fn fresh(&self, age: Duration) {
        self.freshness.observe(age.as_secs_f64());
    }
}

impl PartitionSeries {
    pub fn consuming(&self) {
        self.consuming.set(1);
        self.stopped.set(0);
    }

    /// The topic does not have the stored position.
    pub fn stopped(&self) {
        self.consuming.set(0);
        self.stopped.set(1);
    }

    /// `None`: the end of the partition is not known yet.
    pub fn lag(&self, messages: Option<u64>) {
        if let Some(messages) = messages {
            self.lag.set(messages.cast_signed());
        }
    }
}

impl Drop for PartitionSeries {
    fn drop(&mut self) {
        for gauge in [&self.lag, &self.consuming, &self.stopped] {
            gauge.set(0);
        }
    }
}
