//! All metrics of a monitor.

use heartbeat::{
    assign::PARTITIONS,
    auth::Reject,
    node_state::{State, Transition},
    observer::Source,
    transport::Counts,
};
use prometheus::{
    Counter, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result,
};

/// Values of the label `word`.
pub const BALLOT: &str = "ballot";
pub const REGISTRATION: &str = "registration";
/// Values of the label `request`: requests to etcd by the control loop.
const REQUESTS: [&str; 6] = ["read", "campaign", "resign", "set_monitors", "forget", "commit"];
/// Silence of a failed worker: from 100 ms heartbeats up to the article's 5 s and beyond.
const SILENCE_S: [f64; 12] = [0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0];

#[derive(Clone)]
pub struct Metrics {
    beats: IntCounterVec,
    /// Accepted heartbeats that found the control loop's queue full.
    pub beats_dropped: IntCounter,
    pub nodes: IntGaugeVec,
    /// 1 for the worker's current state.
    pub node_state: IntGaugeVec,
    pub transitions: IntCounterVec,
    pub silence: Histogram,
    pub mistakes: IntCounter,
    pub mistaken_seconds: Counter,
    /// Monitors that vote that the worker has failed.
    pub votes: IntGaugeVec,
    pub confirmed: IntCounter,
    /// Partitions taken from workers that send heartbeats but do not serve them, by evidence.
    pub unserved: IntCounterVec,
    pub detection: Histogram,
    pub epoch: IntGauge,
    pub partition_epoch: IntGaugeVec,
    pub leading: IntGauge,
    pub present: IntGauge,
    pub ballots_sent: IntCounterVec,
    pub ballots_received: IntCounter,
    /// Ballots and registrations that were not authentic or not valid.
    pub control_refused: IntCounterVec,
    pub probes: IntCounterVec,
    pub pauses: IntCounter,
    pub paused_seconds: Counter,
    pub registry_up: IntGauge,
    pub registry_requests: IntCounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Result<Self> {
        let metrics = Self {
            beats: counters("beats_total", "Heartbeats received, by outcome", &["outcome"])?,
            beats_dropped: counter(
                "inbox_full_total",
                "Accepted heartbeats dropped because the control loop's queue was full",
            )?,
            nodes: gauges("nodes", "Workers by state, as seen by this monitor", &["state"])?,
            node_state: gauges(
                "node_state",
                "1 for the current state of the worker, as seen by this monitor",
                &["node", "state"],
            )?,
            transitions: counters("transitions_total", "State transitions of workers", &["from", "to", "cause"])?,
            silence: histogram("silence_at_failure_seconds", "Silence of a worker when this monitor failed it")?,
            mistakes: counter(
                "mistakes_total",
                "Mistakes: suspicions refuted by a sign of life of the same incarnation",
            )?,
            mistaken_seconds: Counter::with_opts(opts("mistaken_seconds_total", "Total duration of mistakes"))?,
            votes: gauges(
                "votes_against",
                "Monitors that vote that the worker has failed, as counted by this one",
                &["node"],
            )?,
            unserved: counters(
                "unserved_total",
                "Partitions taken from workers that send heartbeats but do not serve them, by evidence",
                &["evidence"],
            )?,
            confirmed: counter("failures_confirmed_total", "Failed workers that the partition table took offline")?,
            detection: histogram(
                "detection_seconds",
                "Time from a worker's last sign of life to the table without it, measured by the leading monitor",
            )?,
            epoch: gauge("epoch", "Epoch of the partition table")?,
            partition_epoch: gauges("partition_epoch", "Epoch in which the partition got its primary", &["partition"])?,
            leading: gauge("leading", "1 while this monitor is the leader")?,
            present: gauge("monitors_present", "Monitors whose votes count now, this one included")?,
            ballots_sent: counters(
                "ballots_sent_total",
                "Ballots sent to each other monitor, by outcome",
                &["to", "outcome"],
            )?,
            ballots_received: counter("ballots_received_total", "Ballots received from other monitors")?,
            control_refused: counters(
                "words_refused_total",
                "Ballots and registrations refused because they were not authentic or not valid",
                &["word", "reason"],
            )?,
            probes: counters("probes_total", "Probes of suspected workers, by path and outcome", &["path", "outcome"])?,
            pauses: counter("own_pauses_total", "Pauses of this monitor's process")?,
            paused_seconds: Counter::with_opts(opts(
                "own_pauses_seconds_total",
                "Total duration of pauses of this monitor's process",
            ))?,
            registry_up: gauge("registry_up", "1 while etcd answers")?,
            registry_requests: counters(
                "registry_requests_total",
                "Requests to etcd, by outcome",
                &["request", "outcome"],
            )?,
        };
        let Self {
            beats, nodes, node_state, transitions, partition_epoch, ballots_sent, probes, control_refused, ..
        } = &metrics;
        for vector in
            [beats, transitions, ballots_sent, probes, control_refused, &metrics.registry_requests, &metrics.unserved]
        {
            registry.register(Box::new(vector.clone()))?;
        }
        for vector in [nodes, node_state, partition_epoch, &metrics.votes] {
            registry.register(Box::new(vector.clone()))?;
        }
        let Self { beats_dropped, confirmed, ballots_received, pauses, mistakes, .. } = &metrics;
        for counter in [beats_dropped, confirmed, ballots_received, pauses, mistakes] {
            registry.register(Box::new(counter.clone()))?;
        }
        for histogram in [&metrics.silence, &metrics.detection] {
            registry.register(Box::new(histogram.clone()))?;
        }
        for seconds in [&metrics.paused_seconds, &metrics.mistaken_seconds] {
            registry.register(Box::new(seconds.clone()))?;
        }
        for gauge in [&metrics.epoch, &metrics.leading, &metrics.present, &metrics.registry_up] {
            registry.register(Box::new(gauge.clone()))?;
        }
        // A known series exists at zero before the first event.
        metrics.count_beats(&Counts::default());
        for state in State::ALL {
            nodes.with_label_values(&[state.as_str()]).set(0);
        }
        for (from, to, cause) in Transition::all() {
            transitions.with_label_values(&[from.as_str(), to.as_str(), cause.as_str()]);
        }
        for word in [BALLOT, REGISTRATION] {
            for reason in Reject::OF_WORDS {
                control_refused.with_label_values(&[word, reason.label()]);
            }
        }
        for request in REQUESTS {
            for outcome in ["ok", "failed"] {
                metrics.registry_requests.with_label_values(&[request, outcome]);
            }
        }
        for source in [Source::Report, Source::Requesters] {
            metrics.unserved.with_label_values(&[source.as_str()]);
        }
        for partition in 0..PARTITIONS {
            partition_epoch.with_label_values(&[partition.to_string()]);
        }
        Ok(metrics)
    }

    /// Removes the series of a worker whose name is gone.
    pub fn forget(&self, node: &str) {
        // An error means that there was no such series.
        for state in State::ALL {
            self.node_state.remove_label_values(&[node, state.as_str()]).ok();
        }
        self.votes.remove_label_values(&[node]).ok();
    }

    /// Copies the transports' counters.
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

fn histogram(thing: &str, help: &str) -> Result<Histogram> {
    Histogram::with_opts(HistogramOpts::new(name(thing), help).buckets(SILENCE_S.to_vec()))
}

fn gauge(thing: &str, help: &str) -> Result<IntGauge> {
    IntGauge::with_opts(opts(thing, help))
}

fn gauges(thing: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
    IntGaugeVec::new(opts(thing, help), labels)
}
