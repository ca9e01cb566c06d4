//! A faultproxy between the members of a control plane. Each edge is a link with a name, so that an experiment can cut it:
//!
//! | link | carries |
//! |---|---|
//! | `worker-0>monitor-1/beats` | heartbeats |
//! | `worker-0>monitor-1/http` | registrations, polls of the table |
//! | `worker-0>store-0` | MySQL, by instance of the store |
//! | `members>worker-0/udp`, `members>worker-0/http` | probes of monitors and of other workers, over UDP and HTTP |
//! | `clients>worker-0/http` | requests |
//! | `monitor-0>monitor-1/http` | ballots |
//! | `monitor-0>etcd` | the registry |

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use faultproxy::{Client, Config, Law, Link, Route, Transport};
use launcher::{ChildId, Spec, Stack};
use runtime::Endpoint;
use stores::StoreConfig;

use super::loopback;
use crate::stack::service::own_program;

const READY_DEADLINE: Duration = Duration::from_secs(30);

/// The links of a control plane, before their proxy is started.
#[derive(Default)]
pub(super) struct Links {
    /// Without it every edge is direct.
    proxied: bool,
    links: Vec<Link>,
    listeners: Vec<Route>,
}

/// The faultproxy of a control plane.
pub struct LinkProxy {
    pub client: Client,
    pub(super) child: ChildId,
}

impl Links {
    pub(super) fn new(proxied: bool) -> Self {
        Self { proxied, ..Self::default() }
    }

    /// Returns the address to use instead of the server's.
    pub(super) fn tcp(&mut self, name: &str, server: SocketAddr) -> anyhow::Result<SocketAddr> {
        self.add(name, Transport::Tcp, server)
    }

    /// As `tcp`.
    pub(super) fn udp(&mut self, name: &str, server: SocketAddr) -> anyhow::Result<SocketAddr> {
        self.add(name, Transport::Udp, server)
    }

    fn add(&mut self, name: &str, transport: Transport, server: SocketAddr) -> anyhow::Result<SocketAddr> {
        if !self.proxied {
            return Ok(server);
        }
        let listen = loopback()?;
        self.links.push(Link::new(transport, listen, server).named(name));
        Ok(listen)
    }

    /// Returns the store as this worker reaches it.
    pub(super) fn store(&mut self, worker: &str, store: &StoreConfig) -> anyhow::Result<StoreConfig> {
        let mut seen = store.clone();
        if !self.proxied {
            return Ok(seen);
        }
        for (n, instance) in seen.instances.iter_mut().enumerate() {
            let listen = loopback()?;
            let server: Endpoint = instance.address.parse()?;
            self.listeners.push(Route::new(listen, server).named(&format!("{worker}>store-{n}")));
            instance.address = listen.to_string();
        }
        Ok(seen)
    }

    /// `None`: every edge is direct.
    pub(super) async fn start(self, stack: &mut Stack) -> anyhow::Result<Option<LinkProxy>> {
        if !self.proxied {
            return Ok(None);
        }
        let admin = loopback()?;
        let Self { links, listeners, .. } = self;
        let max_connections = faultproxy::DEFAULT_MAX_CONNECTIONS;
        let config = Config { listeners, links, admin, law: Law::None, max_connections };
        let file = stack.child_dir("links")?.join("config.toml");
        std::fs::write(&file, toml::to_string(&config)?).with_context(|| format!("cannot write {}", file.display()))?;
        let spec = Spec::new("links", own_program()?).args(["serve", "faultproxy", "--config"]).args([file]);
        let child = stack.spawn(spec)?;
        let client = Client::new(&format!("http://{admin}"))?;
        stack.wait_ready(child, READY_DEADLINE, || async { client.state().await.is_ok() }).await?;
        Ok(Some(LinkProxy { client, child }))
    }
}

impl LinkProxy {
    /// Ends it; it may be suspended.
    pub(super) async fn stop(self, stack: &mut Stack) -> anyhow::Result<()> {
        stack.stop_child(self.child).await
    }
}
