//! The MySQL servers, the shards on each of them, and the connections to them.

use contract::SHARDS;
use serde::{Deserialize, Serialize};

pub use crate::waiting::QueueOrder;

/// A MySQL server and the shards on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Address of the server: `host:port` or `unix:/path`.
    pub address: String,
    /// The shards on this server, each 0 to 15. Every shard is on exactly one instance.
    pub shards: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// The MySQL servers with the 16 shards.
    pub instances: Vec<Instance>,
    /// Address of the server with the catalogue schema: `host:port` or `unix:/path`.
    pub catalogue: String,
    /// User name for all servers.
    pub user: String,
    /// Password for all servers. Empty, the default, means none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// Connections of this process to each instance. Fences of partitions use further ones, at most one per shard.
    pub pool_size: u32,
    /// Which waiting request of one criticality gets the next free connection: `newest` or `oldest`. Under overload `newest` serves most requests at once
    /// and lets the others time out.
    pub order: QueueOrder,
    /// Requests that may wait for a connection to one instance. Beyond it one of the least critical is answered 503. Sign-ups and events
    /// have default criticality.
    pub max_waiting: usize,
    /// How long a request waits for a connection, in milliseconds.
    pub checkout_timeout_ms: u64,
    /// Longest wait of a request for recommendations, in milliseconds, once other requests have been waiting without a break for longer than this
    /// (controlled delay, CoDel). A request that waits longer is usually not served in time. A critical request (header `x-criticality`) may wait
    /// for `checkout_timeout_ms`. 0: every request may.
    pub standing_wait_ms: u64,
    /// Timeout of one attempt to connect, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Time after which the server aborts a statement, in milliseconds; 0 means never. A query whose request has less than half of it
    /// left carries its own limit. The client closes a connection that has not answered 1.5 s after the limit: its host may be gone.
    pub statement_timeout_ms: u64,
    /// How statement timeouts are written in SQL: `detect`, `mariadb`, `mysql` or `none`.
    pub flavour: Flavour,
}

/// The kind of server, which decides the syntax of statement timeouts. Without a timeout in the server, a query goes on after its client
/// has given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// Asks the server for its version when the first connection is opened.
    Detect,
    /// `max_statement_time`
    Mariadb,
    /// `max_execution_time`
    Mysql,
    /// No timeout in the server.
    None,
}

impl StoreConfig {
    /// Distributes the 16 shards over these servers in turn. The first one has the catalogue.
    ///
    /// # Panics
    /// Never: an empty list gives a configuration that `validate` refuses.
    pub fn spread_over(addresses: &[String]) -> Self {
        let n = addresses.len().max(1);
        let shards_of = |i: usize| (0..SHARDS).filter(|s| usize::from(*s) % n == i).collect();
        Self {
            instances: addresses
                .iter()
                .enumerate()
                .map(|(i, address)| Instance { address: address.clone(), shards: shards_of(i) })
                .collect(),
            catalogue: addresses.first().cloned().unwrap_or_default(),
            user: "root".into(),
            password: String::new(),
            pool_size: 100,
            order: QueueOrder::Newest,
            max_waiting: 1000,
            checkout_timeout_ms: 2900,
            standing_wait_ms: 0,
            connect_timeout_ms: 3000,
            statement_timeout_ms: 3000,
            flavour: Flavour::Detect,
        }
    }

    pub fn validate(&self, problems: &mut Vec<String>) {
        let mut owners = [0_u32; SHARDS as usize];
        for (i, instance) in self.instances.iter().enumerate() {
            if Address::parse(&instance.address).is_none() {
                problems.push(format!(
                    "store.instances[{i}].address: '{}' is neither host:port nor unix:/path",
                    instance.address
                ));
            }
            for &shard in &instance.shards {
                match owners.get_mut(usize::from(shard)) {
                    Some(count) => *count += 1,
                    None => problems.push(format!("store.instances[{i}].shards: {shard} is not below {SHARDS}")),
                }
            }
        }
        for (shard, count) in owners.iter().enumerate().filter(|(_, count)| **count != 1) {
            problems.push(format!("store.instances: shard {shard} is on {count} instances, it must be on one"));
        }
        if Address::parse(&self.catalogue).is_none() {
            problems.push(format!("store.catalogue: '{}' is neither host:port nor unix:/path", self.catalogue));
        }
        for (key, value, range) in [
            ("pool_size", u64::from(self.pool_size), 1..=10_000),
            ("max_waiting", self.max_waiting as u64, 0..=1_000_000),
            ("checkout_timeout_ms", self.checkout_timeout_ms, 1..=600_000),
            ("standing_wait_ms", self.standing_wait_ms, 0..=600_000),
            ("connect_timeout_ms", self.connect_timeout_ms, 1..=600_000),
            ("statement_timeout_ms", self.statement_timeout_ms, 0..=600_000),
        ] {
            if !range.contains(&value) {
                problems.push(format!("store.{key}: {value} is not in {}..={}", range.start(), range.end()));
            }
        }
    }
}

/// The address of a MySQL server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address<'a> {
    Tcp { host: &'a str, port: u16 },
    Unix { path: &'a str },
}

impl<'a> Address<'a> {
    pub(crate) fn parse(address: &'a str) -> Option<Self> {
        if let Some(path) = address.strip_prefix("unix:") {
            return path.starts_with('/').then_some(Self::Unix { path });
        }
        let (host, port) = address.rsplit_once(':')?;
        Some(Self::Tcp { host, port: port.parse().ok().filter(|_| !host.is_empty())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("127.0.0.1:{}", 20_000 + i)).collect()
    }

    #[test]
    fn every_count_of_instances_from_1_to_16_is_valid() {
        for n in 1..=16 {
            let mut problems = Vec::new();
            StoreConfig::spread_over(&addresses(n)).validate(&mut problems);
            assert!(problems.is_empty(), "{n}: {problems:?}");
        }
    }

    #[test]
    fn all_problems_are_named() {
        let mut config = StoreConfig::spread_over(&addresses(2));
        config.instances[0].shards.push(1);
        config.instances[0].shards.push(16);
        config.instances[1].address = "nowhere".into();
        config.pool_size = 0;
        let mut problems = Vec::new();
        config.validate(&mut problems);
        let all = problems.join("\n");
        for expected in ["shard 1 is on 2", "16 is not below", "'nowhere' is neither host:port", "store.pool_size"] {
            assert!(all.contains(expected), "{expected} missing in {all}");
        }
    }
}
