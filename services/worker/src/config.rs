//! Configuration of a worker.

use std::{collections::BTreeMap, net::SocketAddr};

use contract::id;
use eventlog::KafkaConfig;
use heartbeat::auth::Keys;
use runtime::{config::Validate, telemetry::TelemetryConfig};
use serde::{Deserialize, Serialize};
use stores::{StoreConfig, redis::RedisConfig};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// Name and secret of this worker.
    pub node: Node,
    /// Addresses that this worker listens on.
    pub listen: Listen,
    /// How this worker sends heartbeats.
    pub beats: Beats,
    /// Monitors by name. The worker sends heartbeats to all of them.
    pub monitors: BTreeMap<String, Monitor>,
    /// The MySQL shards behind the partitions.
    pub store: StoreConfig,
    /// The topics with the events of the partitions.
    pub kafka: KafkaConfig,
    /// The connection to Redis, for the lists of users with new events. An empty `redis.url`, the default, means that no lists are written.
    pub redis: RedisConfig,
    /// The lists that this worker writes to Redis.
    pub lists: ListsConfig,
    /// The segments of the model that this worker folds, publishes and holds.
    pub segments: SegmentsConfig,
    /// Export of traces and logs over OTLP.
    pub telemetry: TelemetryConfig,
}

/// As the settings of the same names in the replicas' section `cache`; they should be equal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListsConfig {
    /// How long a list is fresh, in milliseconds, varied by ±10 %.
    pub fresh_ms: u64,
    /// How much longer Redis keeps an expired list, in milliseconds.
    pub stale_ms: u64,
    /// Items of a list, 1 to 100.
    pub items: usize,
    /// Where the model comes from: `store` or `segments`. As `model.source` of the replicas.
    pub model: ListsModel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListsModel {
    /// The newest model in the catalogue when the first list is written. It stays until the worker ends.
    Store,
    /// The newest versions of the 16 segments. Needs `segments.dir`.
    Segments,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentsConfig {
    /// Directory of the segments' files, for this worker alone. Empty, the default: this worker holds no segments.
    pub dir: String,
    /// Milliseconds between two looks at the logs.
    pub poll_ms: u64,
    /// Milliseconds after which what was folded is published.
    pub publish_every_ms: u64,
    /// Number of folded events that are published without waiting for `segments.publish_every_ms`.
    pub publish_after_events: u64,
    /// Milliseconds between two complete block reports to each monitor. All monitors should have the same setting.
    pub report_every_ms: u64,
    /// Limit of what this worker fetches from other workers, in bytes per second.
    pub transfer_bytes_per_s: u64,
    /// Limit of what this worker reads to find damaged blocks, in bytes per second.
    pub scrub_bytes_per_s: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Name of this worker: 1 to 64 bytes of UTF-8 without control characters.
    pub id: String,
    /// Secret for the MACs of heartbeats, registrations, probes and the partition table, at least 8 bytes. All monitors and workers must
    /// have the same.
    pub key: String,
    /// A second secret that is accepted like `node.key` but never used to sign, while the secret is being changed. Empty: none.
    #[serde(default)]
    pub accepted_key: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address for requests to partitions and for probes over HTTP.
    pub http: SocketAddr,
    /// Address for probes over UDP.
    pub udp: SocketAddr,
    /// Address of the admin port: health and metrics.
    pub admin: SocketAddr,
    /// `host:port` that other processes use instead of `http`. Empty: `http` itself.
    #[serde(default)]
    pub advertise_http: String,
    /// `host:port` that other processes use instead of `udp`. Empty: `udp` itself.
    #[serde(default)]
    pub advertise_udp: String,
    /// Milliseconds at shutdown for handing the partitions over, and for requests in flight to finish.
    pub drain_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beats {
    /// Milliseconds between two heartbeats.
    pub interval_ms: u64,
    /// Protocol that carries the heartbeats: `udp` or `tcp`.
    pub transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// One datagram per heartbeat, without acknowledgement.
    Udp,
    /// One connection per monitor, every heartbeat acknowledged. `heartbeat::reconnect` decides when to reconnect.
    Tcp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// `host:port` of the monitor's HTTP port.
    pub http: String,
    /// `host:port` that receives heartbeats over the configured transport.
    pub beats: String,
    /// `host:port` that receives block reports (gRPC). Needed with `segments.dir`.
    #[serde(default)]
    pub rpc: String,
}

impl WorkerConfig {
    pub fn new(id: &str, store: StoreConfig) -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            node: Node { id: id.to_owned(), key: String::new(), accepted_key: String::new() },
            listen: Listen {
                http: loopback(7500),
                udp: loopback(7501),
                admin: loopback(7502),
                advertise_http: String::new(),
                advertise_udp: String::new(),
                drain_ms: 2_000,
            },
            beats: Beats { interval_ms: 1_000, transport: Transport::Udp },
            monitors: BTreeMap::new(),
            store: StoreConfig { pool_size: 16, checkout_timeout_ms: 2_000, ..store },
            kafka: KafkaConfig::default(),
            redis: RedisConfig { url: String::new(), response_timeout_ms: 500, connect_timeout_ms: 500 },
            lists: ListsConfig { fresh_ms: 3_600_000, stale_ms: 3_600_000, items: 20, model: ListsModel::Store },
            segments: SegmentsConfig {
                dir: String::new(),
                poll_ms: 500,
                publish_every_ms: 5_000,
                publish_after_events: 10_000,
                report_every_ms: 60_000,
                transfer_bytes_per_s: 16 << 20,
                scrub_bytes_per_s: 1 << 20,
            },
            telemetry: TelemetryConfig::default(),
        }
    }
}

impl Node {
    pub fn keys(&self) -> Keys {
        Keys::new(self.key.as_bytes()).accepting(self.accepted_key.as_bytes())
    }
}

impl Listen {
    pub fn http_address(&self) -> String {
        if self.advertise_http.is_empty() { self.http.to_string() } else { self.advertise_http.clone() }
    }

    pub fn udp_address(&self) -> String {
        if self.advertise_udp.is_empty() { self.udp.to_string() } else { self.advertise_udp.clone() }
    }
}

impl Validate for WorkerConfig {
    fn validate(&self, problems: &mut Vec<String>) {
        if let Err(error) = id::check(&self.node.id) {
            problems.push(format!("node.id: {:?} {error}", self.node.id));
        }
        if self.node.key.len() < 8 {
            problems.push("node.key: must have at least 8 bytes, best 32 random ones".into());
        }
        if (1..8).contains(&self.node.accepted_key.len()) {
            problems.push("node.accepted_key: must be empty or have at least 8 bytes, best 32 random ones".into());
        }
        if self.monitors.is_empty() {
            problems.push("monitors: name at least one, as monitors.m0.http and monitors.m0.beats".into());
        }
        for (key, value, range) in [
            ("listen.drain_ms", self.listen.drain_ms, 0..=60_000),
            ("beats.interval_ms", self.beats.interval_ms, 20..=60_000),
            ("lists.fresh_ms", self.lists.fresh_ms, 1..=31_536_000_000),
            ("lists.stale_ms", self.lists.stale_ms, 0..=31_536_000_000),
            ("lists.items", self.lists.items as u64, 1..=lists::MAX_ITEMS as u64),
            ("segments.poll_ms", self.segments.poll_ms, 10..=60_000),
            ("segments.publish_every_ms", self.segments.publish_every_ms, 10..=86_400_000),
            ("segments.publish_after_events", self.segments.publish_after_events, 1..=u64::MAX),
            ("segments.report_every_ms", self.segments.report_every_ms, 100..=86_400_000),
            ("segments.transfer_bytes_per_s", self.segments.transfer_bytes_per_s, 4_096..=1 << 40),
            ("segments.scrub_bytes_per_s", self.segments.scrub_bytes_per_s, 4_096..=1 << 40),
        ] {
            if !range.contains(&value) {
                problems.push(format!("{key}: {value} is not in {}..={}", range.start(), range.end()));
            }
        }
        if self.lists.model == ListsModel::Segments && self.segments.dir.is_empty() {
            problems.push("lists.model: segments needs a directory for them (segments.dir)".into());
        }
        if !self.segments.dir.is_empty() {
            for (name, _) in self.monitors.iter().filter(|(_, monitor)| monitor.rpc.is_empty()) {
                problems.push(format!(
                    "monitors.{name}.rpc: needed with segments.dir, as host:port of the monitor's listen.rpc"
                ));
            }
        }
        self.store.validate(problems);
        self.kafka.validate(problems);
        if !self.redis.url.is_empty() {
            self.redis.validate(problems);
        }
        self.telemetry.validate(problems);
    }
}
