//! Configuration of a monitor.

use std::{collections::BTreeMap, net::SocketAddr};

use contract::id;
use heartbeat::{
    assign::NodeId,
    auth::Keys,
    detector::{AnyDetector, BadParam},
    node_state,
    observer::{Evidence, PARTITIONED_AFTER, Settings},
    registry::Monitors,
    vote,
};
use runtime::{config::Validate, telemetry::TelemetryConfig};
use serde::{Deserialize, Serialize};

use crate::detector;

const MS: u64 = 1_000_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorConfig {
    /// Name, secret and capacity of this monitor.
    pub node: Node,
    /// Addresses that this monitor listens on.
    pub listen: Listen,
    /// The etcd cluster that all monitors share.
    pub registry: Registry,
    /// When a silent worker is suspected, and how many monitors must agree that it has failed.
    pub detect: Detect,
    /// Care of the copies of the model's segments.
    pub segments: Segments,
    /// Export of traces and logs over OTLP.
    pub telemetry: TelemetryConfig,
    /// The other monitors: name → `host:port` of their HTTP port. Empty: this monitor decides alone. The first monitor writes them to etcd;
    /// afterwards all monitors count votes against the list in etcd.
    #[serde(default)]
    pub peers: BTreeMap<String, String>,
    /// Version of `peers`. Raise it on all monitors with every change of the list: the list of the latest version goes to etcd.
    #[serde(default = "first_version")]
    pub peers_version: u64,
}

fn first_version() -> u64 {
    1
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Name of this monitor: 1 to 64 bytes of UTF-8 without control characters.
    pub id: String,
    /// Secret for the MACs of heartbeats, registrations, probes and the partition table, at least 8 bytes. All monitors and workers must
    /// have the same.
    pub key: String,
    /// A second secret that is accepted like `node.key` but never used to sign, while the secret is being changed. Empty: none.
    #[serde(default)]
    pub accepted_key: String,
    /// Secret for the MACs of ballots, at least 8 bytes. Only the monitors have it. Empty: `node.key` is used, and every worker could
    /// forge ballots.
    #[serde(default)]
    pub monitor_key: String,
    /// A second secret for ballots that is accepted like `node.monitor_key` but never used to sign. Empty: none.
    #[serde(default)]
    pub accepted_monitor_key: String,
    /// Number of workers that may register, and whose last heartbeat is stored.
    pub max_nodes: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address for heartbeats, ballots, registrations and the partition table over HTTP.
    pub http: SocketAddr,
    /// Address for heartbeats over TCP.
    pub tcp: SocketAddr,
    /// Address for heartbeats over UDP.
    pub udp: SocketAddr,
    /// Address for the workers' block reports and polls for orders over gRPC.
    pub rpc: SocketAddr,
    /// Address of the admin port: health and metrics.
    pub admin: SocketAddr,
    /// `host:port` that other monitors use instead of `http`. Empty: `http` itself.
    #[serde(default)]
    pub advertise_http: String,
    /// Accepts unauthenticated heartbeats and registrations over HTTP (insecure), such as the article's `GET /heartbeat?id=`. Any client
    /// that reaches the port can then impersonate any worker. A registration that says that a worker leaves always needs a MAC.
    pub plain: bool,
    /// Milliseconds that requests in flight may take to finish at shutdown.
    pub drain_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// `http://host:port` of each etcd member.
    pub etcd: Vec<String>,
    /// Prefix of all keys in etcd; begins and ends with `/`.
    pub prefix: String,
    /// Milliseconds that the leader's lease lasts if it is not renewed. etcd grants at least 2,000.
    pub term_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detect {
    /// Milliseconds between two heartbeats of a worker.
    pub interval_ms: u64,
    /// Failure detector that decides when silence is suspicious: `fixed`, `ewma`, `adaptive`, …; all are in `heartbeat::detector::KINDS`.
    pub detector: String,
    /// Parameters of the detector. Parameters that are left out have their defaults.
    #[serde(default)]
    pub params: BTreeMap<String, f64>,
    /// Consecutive failures (the overdue heartbeat, then unanswered probe rounds) after which a worker is `partitioned`. It is `failed`
    /// after 3.
    pub partitioned_after: u32,
    /// How many monitors must agree that a worker has failed.
    pub votes: VoteRule,
    /// What shows that a worker does not serve its partitions: `heartbeats` (only that they stop), or `all` (also what workers report, and
    /// what their requesters had no success with).
    pub evidence: Evidence,
    /// Milliseconds after a failure in which no partition is moved for balance. A worker that did not serve its partitions, or that is in a
    /// crash loop, gets none for this long, and for longer with every relapse.
    pub rebalance_after_ms: u64,
    /// Seconds of silence after which an off-line worker that owns nothing is forgotten, and its name makes room for another.
    pub forget_after_s: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segments {
    /// Milliseconds between two complete block reports of a worker, as `segments.report_every_ms` of the workers. Nothing is folded again
    /// from the logs before an online worker has had two of them to report.
    pub report_every_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VoteRule {
    /// More than half of all monitors.
    Majority,
    /// The leader alone. Only for comparison in experiments.
    One,
}

impl MonitorConfig {
    pub fn new(id: &str) -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            node: Node {
                id: id.to_owned(),
                key: String::new(),
                accepted_key: String::new(),
                monitor_key: String::new(),
                accepted_monitor_key: String::new(),
                max_nodes: 10_000,
            },
            listen: Listen {
                http: loopback(7400),
                tcp: loopback(7401),
                udp: loopback(7401),
                rpc: loopback(7403),
                admin: loopback(7402),
                advertise_http: String::new(),
                plain: false,
                drain_ms: 2_000,
            },
            registry: Registry {
                etcd: vec!["http://127.0.0.1:2379".into()],
                prefix: "/recommendation-testbed/".into(),
                term_ms: 5_000,
            },
            detect: Detect {
                interval_ms: 1_000,
                detector: "fixed".into(),
                params: BTreeMap::new(),
                partitioned_after: PARTITIONED_AFTER,
                votes: VoteRule::Majority,
                evidence: Evidence::All,
                rebalance_after_ms: 30_000,
                forget_after_s: 3_600,
            },
            segments: Segments { report_every_ms: 60_000 },
            peers: BTreeMap::new(),
            peers_version: first_version(),
            telemetry: TelemetryConfig::default(),
        }
    }

    /// All monitors, this one included.
    pub fn monitors(&self) -> Monitors {
        let me: (NodeId, String) = (self.node.id.as_str().into(), self.listen.http_address());
        let others = self.peers.iter().map(|(id, address)| (id.as_str().into(), address.clone()));
        Monitors { version: self.peers_version, members: others.chain([me]).collect() }
    }

    /// # Errors
    /// Unknown detector or parameter, or a value out of range.
    pub fn detector(&self) -> Result<AnyDetector, BadParam> {
        let Detect { interval_ms, detector, params, .. } = &self.detect;
        detector::make(detector, *interval_ms, params)
    }

    pub fn settings(&self) -> Settings {
        let settings = Settings::for_interval(self.detect.interval_ms * MS, self.registry.term_ms * MS);
        let quorum: fn(usize) -> usize = match self.detect.votes {
            VoteRule::Majority => vote::majority,
            VoteRule::One => |_| 1,
        };
        let suspicion = node_state::Settings { partitioned_after: self.detect.partitioned_after, ..settings.suspicion };
        Settings {
            quorum,
            suspicion,
            evidence: self.detect.evidence,
            rebalance_after: self.detect.rebalance_after_ms * MS,
            forget_after: self.detect.forget_after_s * 1_000 * MS,
            ..settings
        }
    }
}

impl Listen {
    pub fn http_address(&self) -> String {
        if self.advertise_http.is_empty() { self.http.to_string() } else { self.advertise_http.clone() }
    }
}

impl Node {
    /// Keys of monitors and workers.
    pub fn keys(&self) -> Keys {
        Keys::new(self.key.as_bytes()).accepting(self.accepted_key.as_bytes())
    }

    /// Keys of the monitors alone.
    pub fn voter_keys(&self) -> Keys {
        if self.monitor_key.is_empty() {
            let accepted = [&self.accepted_monitor_key, &self.accepted_key].into_iter().find(|key| !key.is_empty());
            return Keys::new(self.key.as_bytes()).accepting(accepted.map_or(&[], |key| key.as_bytes()));
        }
        Keys::new(self.monitor_key.as_bytes()).accepting(self.accepted_monitor_key.as_bytes())
    }
}

impl Validate for MonitorConfig {
    fn validate(&self, problems: &mut Vec<String>) {
        for name in self.peers.keys().chain([&self.node.id]) {
            if let Err(error) = id::check(name) {
                problems.push(format!("node.id, peers: {name:?} {error}"));
            }
        }
        if self.peers.contains_key(&self.node.id) {
            problems.push(format!("peers: {} is this monitor's own name", self.node.id));
        }
        if self.node.key.len() < 8 {
            problems.push("node.key: must have at least 8 bytes, best 32 random ones".into());
        }
        for (name, key) in [
            ("accepted_key", &self.node.accepted_key),
            ("monitor_key", &self.node.monitor_key),
            ("accepted_monitor_key", &self.node.accepted_monitor_key),
        ] {
            if (1..8).contains(&key.len()) {
                problems.push(format!("node.{name}: must be empty or have at least 8 bytes, best 32 random ones"));
            }
        }
        if self.registry.etcd.is_empty() || self.registry.etcd.iter().any(|url| !url.starts_with("http://")) {
            problems.push("registry.etcd: name at least one member as http://host:port".into());
        }
        if !self.registry.prefix.starts_with('/') || !self.registry.prefix.ends_with('/') {
            problems.push("registry.prefix: must begin and end with /".into());
        }
        for (key, value, range) in [
            ("node.max_nodes", self.node.max_nodes as u64, 1..=10_000_000),
            ("listen.drain_ms", self.listen.drain_ms, 0..=60_000),
            ("registry.term_ms", self.registry.term_ms, 2_000..=60_000),
            ("segments.report_every_ms", self.segments.report_every_ms, 100..=3_600_000),
            ("detect.interval_ms", self.detect.interval_ms, 20..=60_000),
            ("detect.partitioned_after", self.detect.partitioned_after.into(), 4..=1_000),
            ("detect.rebalance_after_ms", self.detect.rebalance_after_ms, 0..=3_600_000),
            ("detect.forget_after_s", self.detect.forget_after_s, 60..=31_536_000),
            ("peers_version", self.peers_version, 1..=u64::MAX),
        ] {
            if !range.contains(&value) {
                problems.push(format!("{key}: {value} is not in {}..={}", range.start(), range.end()));
            }
        }
        self.telemetry.validate(problems);
        if let Err(error) = self.detector() {
            problems.push(format!("detect.detector, detect.params: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(sets: &[&str]) -> String {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        runtime::config::load(MonitorConfig::new("m0"), None, &sets)
            .map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn every_detector_is_a_setting_and_every_bad_value_is_named() {
        let good = "node.key=long enough";
        assert_eq!(problems(&[good]), "");
        assert_eq!(problems(&[good, "detect.detector=adaptive"]), "");
        assert_eq!(problems(&[good, "detect.detector=ewma", "detect.params.k=4"]), "");
        let bad = problems(&["detect.params.k=4", "registry.prefix=x", "registry.etcd=[]", "peers.m0=\"h:1\""]);
        // Far above the range: an error, not an overflow.
        assert!(problems(&[good, &format!("detect.interval_ms={}", u64::MAX / 4)]).contains("detect.interval_ms"));
        for part in ["node.key", "detect.params", "'k'", "registry.prefix", "registry.etcd", "own name"] {
            assert!(bad.contains(part), "{part} is missing in {bad}");
        }
    }
}
