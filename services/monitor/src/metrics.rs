//! All series of a monitor.

use heartbeat::{auth::Reject, soft::State, transport::Counts};
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result,
};

/// Silence at which a node is failed: from 100 ms beats to the article's 5 s and beyond.
const SILENCE_S: [f64; 12] = [0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0];

#[derive(Clone)]
pub struct Metrics {
    beats: IntCounterVec,
    /// Accepted beats that found the inbox full.
    pub beats_dropped: IntCounter,
    pub nodes: IntGaugeVec,
    /// 1 for the state that a node is in.
    pub node_state: IntGaugeVec,
    pub transitions: IntCounterVec,
    pub silence: Histogram,
    pub confirmed: IntCounter,
    pub epoch: IntGauge,
    pub partition_epoch: IntGaugeVec,
    pub leading: IntGauge,
    pub present: IntGauge,
    pub ballots_sent: IntCounterVec,
    pub ballots_received: IntCounter,
    pub probes: IntCounterVec,
    pub pauses: IntCounter,
    pub paused_seconds: Gauge,
    pub registry_up: IntGauge,
    pub registry_requests: IntCounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Result<Self> {
        let metrics = Self {
            beats: counters("beats_total", "beats received, by what became of them", &["outcome"])?,
            beats_dropped: counter("inbox_full_total", "accepted beats that the sweep had no room for")?,
            nodes: gauges("nodes", "nodes by the state this monitor sees them in", &["state"])?,
            node_state: gauges("node_state", "1 for the state that this monitor sees the node in", &["node", "state"])?,
            transitions: counters("transitions_total", "changes of a node's state", &["from", "to", "cause"])?,
            silence: Histogram::with_opts(
                HistogramOpts::new(name("silence_at_failure_seconds"), "silence of a node when this monitor failed it")
                    .buckets(SILENCE_S.to_vec()),
            )?,
            confirmed: counter("failures_confirmed_total", "nodes that the table of assignments took off-line")?,
            epoch: gauge("epoch", "of the table of assignments")?,
            partition_epoch: gauges("partition_epoch", "in which the partition got its primary", &["partition"])?,
            leading: gauge("leading", "1 while this monitor leads")?,
            present: gauge("monitors_present", "monitors whose votes count now, this one included")?,
            ballots_sent: counters("ballots_sent_total", "ballots to each other monitor", &["to", "outcome"])?,
            ballots_received: counter("ballots_received_total", "ballots of other monitors")?,
            probes: counters("probes_total", "probes of nodes that are not healthy", &["path", "outcome"])?,
            pauses: counter("own_pauses_total", "times that this monitor itself stood still")?,
            paused_seconds: Gauge::with_opts(opts("own_pauses_seconds_total", "how long it stood still in all"))?,
            registry_up: gauge("registry_up", "1 while etcd answers")?,
            registry_requests: counters("registry_requests_total", "requests to etcd", &["request", "outcome"])?,
        };
        let Self { beats, nodes, node_state, transitions, partition_epoch, ballots_sent, probes, .. } = &metrics;
        for vector in [beats, transitions, ballots_sent, probes, &metrics.registry_requests] {
            registry.register(Box::new(vector.clone()))?;
        }
        for vector in [nodes, node_state, partition_epoch] {
            registry.register(Box::new(vector.clone()))?;
        }
        for counter in [&metrics.beats_dropped, &metrics.confirmed, &metrics.ballots_received, &metrics.pauses] {
            registry.register(Box::new(counter.clone()))?;
        }
        for gauge in [&metrics.epoch, &metrics.leading, &metrics.present, &metrics.registry_up] {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(metrics.silence.clone()))?;
        registry.register(Box::new(metrics.paused_seconds.clone()))?;
        // A known series is zero before it is counted.
        metrics.count_beats(&Counts::default());
        for state in State::ALL {
            nodes.with_label_values(&[state.as_str()]).set(0);
        }
        Ok(metrics)
    }

    /// Takes over what the transports have counted.
    pub fn count_beats(&self, counts: &Counts) {
        let set = |outcome: &str, total: u64| {
            let counter = self.beats.with_label_values(&[outcome]);
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        set("accepted", counts.accepted());
        for reason in Reject::ALL {
            set(reason.label(), counts.rejected(reason));
        }
    }
}

fn name(name: &str) -> String {
    format!("testbed_heartbeat_{name}")
}

fn opts(thing: &str, help: &str) -> Opts {
    Opts::new(name(thing), help)
}

fn counter(thing: &str, help: &str) -> Result<IntCounter> {
    IntCounter::with_opts(opts(thing, help))
}

fn counters(thing: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
    IntCounterVec::new(opts(thing, help), labels)
}

fn gauge(thing: &str, help: &str) -> Result<IntGauge> {
    IntGauge::with_opts(opts(thing, help))
}

fn gauges(thing: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
    IntGaugeVec::new(opts(thing, help), labels)
}
