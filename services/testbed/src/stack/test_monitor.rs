//! A monitor that receives heartbeats over TCP and UDP, and a faultproxy in front of both.

use std::{net::SocketAddr, sync::Arc};

use faultproxy::{Client, Config, Law, Link, Proxy, Transport};
use heartbeat::{
    auth::Keys,
    clock::Clock,
    table::Table,
    transport::{
        Ingest, Sink,
        tcp::{self, Limits},
        udp::Receiver,
    },
};
use runtime::Endpoint;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::roles::fleet::SECRET;

pub fn keys() -> Keys {
    Keys::new(SECRET)
}

pub struct TestMonitor {
    /// The monitor behind the proxy.
    pub tcp: SocketAddr,
    pub udp: SocketAddr,
    /// The monitor itself.
    pub direct_tcp: SocketAddr,
    pub direct_udp: SocketAddr,
    pub proxy: Client,
    pub ingest: Arc<Ingest>,
    tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl TestMonitor {
    pub async fn start(nodes: usize) -> anyhow::Result<Self> {
        Self::with_sink(nodes, Clock::start(), None).await
    }

    /// `sink` receives each heartbeat with its instant by `clock`.
    pub async fn with_sink(nodes: usize, clock: Clock, sink: Option<Arc<dyn Sink>>) -> anyhow::Result<Self> {
        launcher::raise_nofile_limit()?;
        let ingest = Arc::new(Ingest::new(clock, keys(), Arc::new(Table::new(nodes)), sink));
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let listener = TcpListener::bind(free()?).await?;
        let direct_tcp = listener.local_addr()?;
        let receiving = tcp::receive(listener, Arc::clone(&ingest), Limits::default(), stop.clone());
        tasks.spawn(async move {
            receiving.await;
            Ok(())
        });
        let receiver = Receiver::bind(free()?).await?;
        let direct_udp = receiver.local_addr()?;
        let receiving = receiver.run(Arc::clone(&ingest), stop.clone());
        tasks.spawn(async move { Ok(receiving.await?) });

        let link = |transport, upstream: SocketAddr| Ok::<_, anyhow::Error>(Link::new(transport, free()?, upstream));
        let proxy = Proxy::bind(Config {
            listeners: Vec::new(),
            links: vec![link(Transport::Tcp, direct_tcp)?, link(Transport::Udp, direct_udp)?],
            admin: free()?,
            law: Law::None,
            max_connections: faultproxy::DEFAULT_MAX_CONNECTIONS,
        })
        .await?;
        let listening: Vec<Endpoint> = proxy.links().into_iter().map(|link| link.listen).collect();
        let [Endpoint::Tcp(tcp), Endpoint::Tcp(udp)] = listening[..] else {
            anyhow::bail!("two links, not {listening:?}")
        };
        let client = Client::new(&proxy.admin_url())?;
        tasks.spawn(proxy.serve(stop.clone()));
        Ok(Self { tcp, udp, direct_tcp, direct_udp, proxy: client, ingest, tasks, stop })
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

fn free() -> anyhow::Result<SocketAddr> {
    Ok(([127, 0, 0, 1], launcher::free_port()?).into())
}
