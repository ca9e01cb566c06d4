//! What a worker is told.

use std::{collections::BTreeMap, net::SocketAddr};

use contract::id;
use runtime::{config::Validate, telemetry::TelemetryConfig};
use serde::{Deserialize, Serialize};
use stores::StoreConfig;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    pub node: Node,
    pub listen: Listen,
    pub beats: Beats,
    /// By name.
    pub monitors: BTreeMap<String, Monitor>,
    pub store: StoreConfig,
    pub telemetry: TelemetryConfig,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// This worker's name, by the rule of ids.
    pub id: String,
    /// Secret that seals heartbeats and probes; all monitors and workers have the same.
    pub key: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Partitions, and probes.
    pub http: SocketAddr,
    /// Probes.
    pub udp: SocketAddr,
    pub admin: SocketAddr,
    /// Where others find `http` and `udp`, `host:port`; empty: as they stand.
    #[serde(default)]
    pub advertise_http: String,
    #[serde(default)]
    pub advertise_udp: String,
    pub drain_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beats {
    pub interval_ms: u64,
    pub transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A datagram each, which nobody waits for.
    Udp,
    /// On one connection per monitor, each acknowledged; a lost connection is tried again by the rules of `heartbeat::reconnect`.
    Tcp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// `host:port`
    pub http: String,
    /// `host:port` that takes heartbeats over the transport in use.
    pub beats: String,
}

impl WorkerConfig {
    pub fn new(id: &str, store: StoreConfig) -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            node: Node { id: id.to_owned(), key: String::new() },
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
            telemetry: TelemetryConfig::default(),
        }
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
        if self.monitors.is_empty() {
            problems.push("monitors: name at least one, as monitors.m0.http and monitors.m0.beats".into());
        }
        for (key, value, range) in [
            ("listen.drain_ms", self.listen.drain_ms, 0..=60_000),
            ("beats.interval_ms", self.beats.interval_ms, 20..=60_000),
        ] {
            if !range.contains(&value) {
                problems.push(format!("{key}: {value} is not in {}..={}", range.start(), range.end()));
            }
        }
        self.store.validate(problems);
        self.telemetry.validate(problems);
    }
}
