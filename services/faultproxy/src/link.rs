//! Relays for protocols other than MySQL, such as heartbeats. Bytes and datagrams pass unchanged; only faults apply, not the law.

mod tcp;
mod udp;

use std::sync::Arc;

use anyhow::{Context as _, bail};
use runtime::{Endpoint, net::Listener};
use tokio::{
    net::UdpSocket,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Link, Transport},
    delay::DelayTimer,
    fault::Conditions,
    metrics::Metrics,
};

/// A link whose socket is bound.
#[derive(Debug)]
pub(crate) enum BoundSocket {
    Tcp(Listener),
    Udp(UdpSocket),
}

/// Binds the link's socket. Returns the link with the port that the system chose.
pub(crate) async fn bind(link: Link) -> anyhow::Result<(BoundSocket, Link)> {
    let cannot = || format!("cannot listen on {}", link.listen);
    let (bound, listen) = match (link.transport, &link.listen) {
        (Transport::Tcp, listen) => {
            let listener = listen.bind().await.with_context(cannot)?;
            let listen = listener.endpoint().context("no local address")?;
            (BoundSocket::Tcp(listener), listen)
        }
        (Transport::Udp, Endpoint::Tcp(address)) => {
            let socket = UdpSocket::bind(address).await.with_context(cannot)?;
            let listen = socket.local_addr().context("no local address")?;
            (BoundSocket::Udp(socket), listen.into())
        }
        (Transport::Udp, Endpoint::Unix(_)) => bail!("links: a UDP link has no Unix socket ({})", link.listen),
    };
    Ok((bound, Link { listen, ..link }))
}

/// Context of a link.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) link: Link,
    /// Index in `Metrics::links`.
    pub(crate) index: usize,
    pub(crate) conditions: watch::Receiver<Conditions>,
    pub(crate) delays: Arc<DelayTimer>,
    pub(crate) metrics: Arc<Metrics>,
    /// Limits connections and flows of the whole proxy.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) connections: TaskTracker,
}

impl Shared {
    /// Runs until cancelled. `stop` ends its connections.
    pub(crate) async fn serve(self, bound: BoundSocket, stop: CancellationToken) {
        match bound {
            BoundSocket::Tcp(listener) => tcp::TcpLink::new(self, stop).accept(listener).await,
            BoundSocket::Udp(socket) => udp::Relay::new(self).run(socket).await,
        }
    }

    fn counts(&self) -> &crate::metrics::LinkMetrics {
        &self.metrics.links[self.index]
    }
}
