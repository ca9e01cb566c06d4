//! A proxy in front of MySQL servers that adds response times and faults for experiments. A library for `testbed serve faultproxy`.
//!
//! Depends on `contract` (problem documents) and `runtime`; speaks the MySQL protocol itself.
//!
//! Begin with [`Proxy::serve`]. A command's path: 1. `listener` accepts the connection, 2. `connection` reads the command and counts it in
//! flight, 3. `fault` delays it, 4. `connection` forwards it, 5. `law` holds the response, 6. `response` finds its end. One count of
//! commands in flight covers all listeners. The law defines when the response leaves, including the real store's time, so a busy machine
//! makes the modelled store no slower. Only the server's greeting is rewritten (`handshake`); all other bytes pass unchanged.
//!
//! `link` relays any other protocol (heartbeats) under the same faults. A fault is in force on the listeners and links that it names, in one
//! direction or in both.

mod accept;
mod admin;
pub mod bench;
mod buffer;
pub mod client;
mod close;
pub mod command;
mod config;
mod connection;
mod delay;
mod direction;
pub mod fault;
mod handshake;
pub mod law;
mod link;
mod listener;
mod loss;
mod metrics;
pub mod packet;
pub mod response;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use runtime::{Endpoint, net::Listener};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::{
    admin::{LinkState, ListenerState, State},
    client::Client,
    config::{Config, DEFAULT_MAX_CONNECTIONS, Link, Route, Transport},
    direction::Direction,
    fault::{ActiveFault, DEFAULT_SEED, Fault, FaultKind, FaultSpec, Scope, WriteError},
    law::Law,
};
use crate::{
    delay::DelayTimer,
    fault::{Control, ControlledLink},
    link::BoundSocket,
    listener::StoreListener,
    metrics::Metrics,
};

/// Time at shutdown for commands in flight.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
const ADMIN_DEADLINE: Duration = Duration::from_secs(1);

/// Binds, then serves until `shutdown`. Connections with a command in flight then have 5 s.
///
/// # Errors
/// The configuration is not valid, or an address cannot be bound.
pub async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    Proxy::bind(config).await?.serve(shutdown).await
}

/// A proxy with bound sockets: clients may connect; they are served when `serve` runs.
#[derive(Debug)]
pub struct Proxy {
    routes: Vec<(Listener, Route)>,
    links: Vec<(BoundSocket, Link)>,
    admin: (TcpListener, SocketAddr),
    law: Law,
    max_connections: usize,
}

impl Proxy {
    /// # Errors
    /// The configuration is not valid, or an address cannot be bound.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        config.validate().context("configuration of faultproxy")?;
        let admin = config.admin;
        let admin = TcpListener::bind(admin).await.with_context(|| format!("cannot listen on {admin}"))?;
        let admin_address = admin.local_addr().context("no local address")?;
        let mut routes = Vec::with_capacity(config.listeners.len());
        for Route { name, listen, upstream } in config.listeners {
            let listener = listen.bind().await.with_context(|| format!("cannot listen on {listen}"))?;
            let listen = listener.endpoint().context("no local address")?;
            let name = if name.is_empty() { listen.to_string() } else { name };
            routes.push((listener, Route { name, listen, upstream }));
        }
        let mut links = Vec::with_capacity(config.links.len());
        for link in config.links {
            let (socket, mut link) = link::bind(link).await?;
            if link.name.is_empty() {
                link.name = link.listen.to_string();
            }
            links.push((socket, link));
        }
        let Config { law, max_connections, .. } = config;
        Ok(Self { routes, links, admin: (admin, admin_address), law, max_connections })
    }

    /// Bound addresses, in the order of the configuration.
    pub fn addresses(&self) -> Vec<Endpoint> {
        self.routes.iter().map(|(_, route)| route.listen.clone()).collect()
    }

    /// Links with bound addresses, in the order of the configuration.
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
        let delays = Arc::new(DelayTimer::default());
        let connections = TaskTracker::new();
        let room = Arc::new(Semaphore::new(self.max_connections));
        let background = TaskTracker::new();
        let routes: Vec<Route> = self.routes.iter().map(|(_, route)| route.clone()).collect();
        let control = Arc::new(Control::new(self.law, controlled_links(&routes, &links)));
        let mut conditions = control.subscribe();
        for ((index, (socket, route)), conditions) in self.routes.into_iter().enumerate().zip(&mut conditions) {
            tracing::info!(listen = %route.listen, upstream = %route.upstream, "proxying");
            let listener = StoreListener {
                index,
                route,
                conditions,
                delays: Arc::clone(&delays),
                metrics: Arc::clone(&metrics),
                room: Arc::clone(&room),
                connections: connections.clone(),
                number: 0,
            };
            background.spawn(shutdown.clone().run_until_cancelled_owned(listener.accept(socket)));
        }
        for ((index, (bound, link)), conditions) in self.links.into_iter().enumerate().zip(&mut conditions) {
            tracing::info!(listen = %link.listen, upstream = %link.upstream, transport = link.transport.as_str(), "relaying");
            let shared = link::Shared {
                link,
                index,
                conditions,
                delays: Arc::clone(&delays),
                metrics: Arc::clone(&metrics),
                room: Arc::clone(&room),
                connections: connections.clone(),
            };
            let relay = shared.serve(bound, shutdown.clone());
            background.spawn(shutdown.clone().run_until_cancelled_owned(relay));
        }
        // Runs beyond `shutdown`, because delayed commands must still be sent. Ends when it is dropped.
        let mut releasing = JoinSet::new();
        releasing.spawn(async move {
            if let Err(error) = delays.run().await {
                tracing::error!(%error, "the timer failed: delayed commands are never sent");
            }
        });
        background.spawn(shutdown.clone().run_until_cancelled_owned(watch.run()));
        let expiry = Arc::clone(&control);
        background.spawn(shutdown.clone().run_until_cancelled_owned(async move { expiry.expire().await }));

        let (routes, links) = (routes.into(), links.into());
        let state = admin::AdminState { routes, links, control: Arc::clone(&control), metrics };
        let admin_shutdown = shutdown.clone();
        // Without the admin API no client could remove a fault, so its failure stops the process.
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
        // A client that keeps its request open past the deadline is not an error.
        admin.unwrap_or(Ok(())).context("admin API of faultproxy")
    }
}

/// Listeners and links as faults name them, in this order.
fn controlled_links(routes: &[Route], links: &[Link]) -> Vec<ControlledLink> {
    let link = |name: &str, listen: &Endpoint, is_mysql| ControlledLink {
        name: name.to_owned(),
        listen: listen.to_string(),
        is_mysql,
    };
    let routes = routes.iter().map(|route| link(&route.name, &route.listen, true));
    routes.chain(links.iter().map(|relay| link(&relay.name, &relay.listen, false))).collect()
}
