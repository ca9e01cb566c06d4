//! Configuration of a proxy.

use std::{collections::HashSet, net::SocketAddr};

use anyhow::ensure;
use runtime::Endpoint;
use serde::{Deserialize, Serialize};

use crate::law::Law;

pub const DEFAULT_MAX_CONNECTIONS: usize = 4096;
const MAX_NAME_BYTES: usize = 100;

/// A listener in front of one MySQL server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Name by which faults select this listener, at most 100 bytes without `*`. Default: the address that it listens on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `host:port` or `unix:/path` that the proxy listens on.
    pub listen: Endpoint,
    /// `host:port` or `unix:/path` of the real MySQL server.
    pub upstream: Endpoint,
}

impl Route {
    /// Without a name.
    pub fn new(listen: impl Into<Endpoint>, upstream: impl Into<Endpoint>) -> Self {
        Self { name: String::new(), listen: listen.into(), upstream: upstream.into() }
    }

    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Listeners in front of MySQL servers. They understand the protocol, apply the law and the faults.
    #[serde(default)]
    pub listeners: Vec<Route>,
    /// Relays for any other protocol. They apply faults only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Address of the admin API: state, law, faults, metrics.
    pub admin: SocketAddr,
    /// Response-time law in force at start. Default: none.
    #[serde(default)]
    pub law: Law,
    /// Maximum number of connections of all listeners and links together, 1 to 65,536. Further MySQL clients get "Too many connections".
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
}

fn default_max_connections() -> usize {
    DEFAULT_MAX_CONNECTIONS
}

impl Config {
    /// # Errors
    /// The first invalid setting.
    pub(crate) fn validate(&self) -> anyhow::Result<()> {
        ensure!(!(self.listeners.is_empty() && self.links.is_empty()), "listeners: must not be empty without links");
        let max = self.max_connections;
        ensure!((1..=65_536).contains(&max), "max_connections: is {max}, must be between 1 and 65536");
        let mut seen = HashSet::from([Endpoint::from(self.admin)]);
        for Route { listen, upstream, .. } in &self.listeners {
            ensure!(listen.is_unspecified() || seen.insert(listen.clone()), "listeners: {listen} is used twice");
            ensure!(listen != upstream, "listeners: {listen} is its own upstream");
        }
        let mut udp = HashSet::new();
        for Link { transport, listen, upstream, .. } in &self.links {
            // TCP and UDP have separate port numbers.
            let seen = if *transport == Transport::Tcp { &mut seen } else { &mut udp };
            ensure!(listen.is_unspecified() || seen.insert(listen.clone()), "links: {listen} is used twice");
            ensure!(listen != upstream, "links: {listen} is its own upstream");
            let udp_on_unix = *transport == Transport::Udp && [listen, upstream].iter().any(|at| !at.is_tcp());
            ensure!(!udp_on_unix, "links: UDP goes from address:port to address:port, not from {listen} to {upstream}");
        }
        let mut names = HashSet::new();
        let all = self.listeners.iter().map(|route| &route.name).chain(self.links.iter().map(|link| &link.name));
        for name in all.filter(|name| !name.is_empty()) {
            ensure!(name.len() <= MAX_NAME_BYTES, "name: {name:?} is longer than {MAX_NAME_BYTES} bytes");
            ensure!(!name.contains('*'), "name: {name:?} contains *, which stands for any text in a fault");
            ensure!(names.insert(name), "name: {name:?} is used twice");
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A relay from one address to another. TOML: `[[links]]`, `transport = "udp"`, `listen = "127.0.0.1:7000"`, `upstream = "127.0.0.1:7001"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Name by which faults select this link, at most 100 bytes without `*`. Default: the address that it listens on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `tcp` or `udp`.
    pub transport: Transport,
    /// `host:port` that the proxy listens on; for TCP also `unix:/path`.
    pub listen: Endpoint,
    /// `host:port` of the real server; for TCP also `unix:/path`.
    pub upstream: Endpoint,
}

impl Link {
    /// Without a name.
    pub fn new(transport: Transport, listen: impl Into<Endpoint>, upstream: impl Into<Endpoint>) -> Self {
        Self { name: String::new(), transport, listen: listen.into(), upstream: upstream.into() }
    }

    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }
}
