//! Paths that are no store's, such as those of heartbeats: bytes and datagrams pass as they are, and no law but faults alone touch
//! them. One address in front of one other.

mod tcp;
mod udp;

use std::sync::Arc;

use anyhow::{Context as _, bail};
use runtime::{Endpoint, net::Listener};
use serde::{Deserialize, Serialize};
use tokio::{net::UdpSocket, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{fault::Control, metrics::Metrics, release::Releases};

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

/// TOML: `[[links]]`, `transport = "udp"`, `listen = "127.0.0.1:7000"`, `upstream = "127.0.0.1:7001"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// `tcp` or `udp`.
    pub transport: Transport,
    /// `host:port` that the proxy listens on; for TCP also `unix:/path`.
    pub listen: Endpoint,
    /// `host:port` of the real server; for TCP also `unix:/path`.
    pub upstream: Endpoint,
}

/// A link whose socket is bound.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(Listener),
    Udp(UdpSocket),
}

impl Link {
    /// Answers the link with the port that the system chose.
    pub(crate) async fn bind(self) -> anyhow::Result<(Bound, Self)> {
        let cannot = || format!("cannot listen on {}", self.listen);
        let (bound, listen) = match (self.transport, &self.listen) {
            (Transport::Tcp, listen) => {
                let listener = listen.bind().await.with_context(cannot)?;
                let listen = listener.endpoint().context("no local address")?;
                (Bound::Tcp(listener), listen)
            }
            (Transport::Udp, Endpoint::Tcp(address)) => {
                let socket = UdpSocket::bind(address).await.with_context(cannot)?;
                let listen = socket.local_addr().context("no local address")?;
                (Bound::Udp(socket), listen.into())
            }
            (Transport::Udp, Endpoint::Unix(_)) => bail!("links: a UDP link has no Unix socket ({})", self.listen),
        };
        Ok((bound, Self { listen, ..self }))
    }
}

/// What a link works with.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) link: Link,
    /// Index in `Metrics::links`.
    pub(crate) index: usize,
    pub(crate) control: Arc<Control>,
    pub(crate) releases: Arc<Releases>,
    pub(crate) metrics: Arc<Metrics>,
    /// Connections and flows of the whole proxy.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) connections: TaskTracker,
}

impl Shared {
    /// Serves for ever; cancelled from outside. Connections end when `stop` is heard.
    pub(crate) async fn serve(self, bound: Bound, stop: CancellationToken) {
        match bound {
            Bound::Tcp(listener) => tcp::Accepting::new(self, stop).accept(listener).await,
            Bound::Udp(socket) => udp::Relay::new(self).run(socket).await,
        }
    }

    fn counts(&self) -> &crate::metrics::LinkMetrics {
        &self.metrics.links[self.index]
    }
}
