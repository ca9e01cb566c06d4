//! A proxy in front of the store's MySQL instances that makes them as slow, or as broken, as an experiment asks for.
//!
//! Path of a command: `listener` accepts → `connection` reads it, counts it in, holds it back (`fault`), forwards it, holds the answer
//! (`law`), follows it (`response`) to its end, counts it out. One count of commands in flight for all listeners. The law says when the
//! answer leaves, whatever the real store needed until then: a busy machine makes the modelled store no slower.
//! The server's greeting is the only thing rewritten (`handshake`); everything else passes byte for byte.
//!
//! Beside the store's listeners, `link` relays datagrams and bytes of anything else (heartbeats) under the same faults.

mod accept;
mod admin;
pub mod bench;
mod buffer;
pub mod client;
pub mod command;
mod connection;
pub mod fault;
mod handshake;
pub mod law;
mod link;
mod listener;
mod loss;
mod metrics;
pub mod packet;
mod release;
pub mod response;

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use runtime::{Endpoint, net::Listener};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::{
    admin::{LinkState, ListenerState, State},
    client::Client,
    fault::{ActiveFault, DEFAULT_SEED, Fault, FaultKind, FaultSpec},
    law::Law,
    link::{Link, Transport},
};
use crate::{fault::Control, link::Bound, listener::Accepting, metrics::Metrics, release::Releases};

pub const DEFAULT_MAX_CONNECTIONS: usize = 4096;
/// Time commands in flight have to finish at shutdown.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
const ADMIN_DEADLINE: Duration = Duration::from_secs(1);

/// One MySQL instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `host:port` or `unix:/path` that the proxy listens on.
    pub listen: Endpoint,
    /// `host:port` or `unix:/path` of the real MySQL server.
    pub upstream: Endpoint,
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
    fn validate(&self) -> anyhow::Result<()> {
        ensure!(!(self.listeners.is_empty() && self.links.is_empty()), "listeners: must not be empty without links");
        let max = self.max_connections;
        ensure!((1..=65_536).contains(&max), "max_connections: is {max}, must lie within 1 and 65536");
        let mut seen = HashSet::from([Endpoint::from(self.admin)]);
        for Route { listen, upstream } in &self.listeners {
            ensure!(listen.is_unspecified() || seen.insert(listen.clone()), "listeners: {listen} is used twice");
            ensure!(listen != upstream, "listeners: {listen} is its own upstream");
        }
        let mut udp = HashSet::new();
        for Link { transport, listen, upstream } in &self.links {
            // Both transports have ports of their own.
            let seen = if *transport == Transport::Tcp { &mut seen } else { &mut udp };
            ensure!(listen.is_unspecified() || seen.insert(listen.clone()), "links: {listen} is used twice");
            ensure!(listen != upstream, "links: {listen} is its own upstream");
            let udp_on_unix = *transport == Transport::Udp && [listen, upstream].iter().any(|at| !at.is_tcp());
            ensure!(!udp_on_unix, "links: UDP goes from address:port to address:port, not from {listen} to {upstream}");
        }
        Ok(())
    }
}

/// Binds, then serves until `shutdown`; connections with a command in flight then have 5 s.
///
/// # Errors
/// Invalid configuration, or an address that cannot be bound.
pub async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    Proxy::bind(config).await?.serve(shutdown).await
}

/// A proxy whose sockets are bound: clients may connect, and are served once `serve` runs.
#[derive(Debug)]
pub struct Proxy {
    routes: Vec<(Listener, Route)>,
    links: Vec<(Bound, Link)>,
    admin: (TcpListener, SocketAddr),
    law: Law,
    max_connections: usize,
}

impl Proxy {
    /// # Errors
    /// Invalid configuration, or an address that cannot be bound.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        config.validate().context("configuration of faultproxy")?;
        let admin = config.admin;
        let admin = TcpListener::bind(admin).await.with_context(|| format!("cannot listen on {admin}"))?;
        let admin_address = admin.local_addr().context("no local address")?;
        let mut routes = Vec::with_capacity(config.listeners.len());
        for Route { listen, upstream } in config.listeners {
            let listener = listen.bind().await.with_context(|| format!("cannot listen on {listen}"))?;
            let listen = listener.endpoint().context("no local address")?;
            routes.push((listener, Route { listen, upstream }));
        }
        let mut links = Vec::with_capacity(config.links.len());
        for link in config.links {
            links.push(link.bind().await?);
        }
        let Config { law, max_connections, .. } = config;
        Ok(Self { routes, links, admin: (admin, admin_address), law, max_connections })
    }

    /// Bound addresses, in the order of the configuration.
    pub fn addresses(&self) -> Vec<Endpoint> {
        self.routes.iter().map(|(_, route)| route.listen.clone()).collect()
    }

    /// With bound addresses, in the order of the configuration.
    pub fn links(&self) -> Vec<Link> {
        self.links.iter().map(|(_, link)| link.clone()).collect()
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin.1
    }

    /// `http://…` of the admin API, for `Client::new`.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin.1)
    }

    /// Serves until `shutdown`, then drains.
    ///
    /// # Errors
    /// The admin API failed.
    pub async fn serve(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let links = self.links();
        let (metrics, watch) = Metrics::new(&self.addresses(), &links).context("metrics")?;
        let metrics = Arc::new(metrics);
        let control = Arc::new(Control::new(self.law));
        let releases = Arc::new(Releases::default());
        let connections = TaskTracker::new();
        let room = Arc::new(Semaphore::new(self.max_connections));
        let background = TaskTracker::new();
        let routes: Vec<Route> = self.routes.iter().map(|(_, route)| route.clone()).collect();
        for (index, (socket, route)) in self.routes.into_iter().enumerate() {
            tracing::info!(listen = %route.listen, upstream = %route.upstream, "proxying");
            let listener = Accepting {
                index,
                route,
                control: Arc::clone(&control),
                releases: Arc::clone(&releases),
                metrics: Arc::clone(&metrics),
                room: Arc::clone(&room),
                connections: connections.clone(),
                number: 0,
            };
            background.spawn(shutdown.clone().run_until_cancelled_owned(listener.accept(socket)));
        }
        for (index, (bound, link)) in self.links.into_iter().enumerate() {
            tracing::info!(listen = %link.listen, upstream = %link.upstream, transport = link.transport.as_str(), "relaying");
            let shared = link::Shared {
                link,
                index,
                control: Arc::clone(&control),
                releases: Arc::clone(&releases),
                metrics: Arc::clone(&metrics),
                room: Arc::clone(&room),
                connections: connections.clone(),
            };
            let relay = shared.serve(bound, shutdown.clone());
            background.spawn(shutdown.clone().run_until_cancelled_owned(relay));
        }
        // Outlives `shutdown`: commands that are held back still have to go on. Ends when it is dropped.
        let mut releasing = JoinSet::new();
        releasing.spawn(async move {
            if let Err(error) = releases.run().await {
                tracing::error!(%error, "no timer: commands are held back for ever");
            }
        });
        background.spawn(shutdown.clone().run_until_cancelled_owned(watch.run()));
        let expiry = Arc::clone(&control);
        background.spawn(shutdown.clone().run_until_cancelled_owned(async move { expiry.expire().await }));

        let (routes, links) = (routes.into(), links.into());
        let state = admin::AdminState { routes, links, control: Arc::clone(&control), metrics };
        let admin_shutdown = shutdown.clone();
        // A failure of the admin API is one of the process: nobody could lift a fault any more.
        let mut admin = std::pin::pin!(
            axum::serve(self.admin.0, admin::router(state))
                .with_graceful_shutdown(async move { admin_shutdown.cancelled().await })
                .into_future()
        );
        let early = tokio::select! {
            result = &mut admin => Some(result),
            () = shutdown.cancelled() => None,
        };
        shutdown.cancel();

        control.drain();
        connections.close();
        background.close();
        background.wait().await;
        if timeout(DRAIN_DEADLINE, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "still busy at the drain deadline, closed");
            control.abort();
            connections.wait().await;
        }
        let admin = match early {
            Some(result) => Ok(result),
            None => timeout(ADMIN_DEADLINE, admin).await,
        };
        // A client that keeps its request open past the deadline is no failure.
        admin.unwrap_or(Ok(())).context("admin API of faultproxy")
    }
}
