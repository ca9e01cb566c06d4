//! A relay in front of a server, which simulates a host that vanishes.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::{net::SocketAddr, time::Duration};

use faultproxy::{Client, Config, Fault, Law, Link, Proxy, Transport};
use launcher::free_port;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longer than any step here. Without the client's timeouts, TCP's would apply: 15 minutes, or none.
pub const BOUND: Duration = Duration::from_secs(60);
pub const BLACK_HOLES: [Fault; 2] = [Fault::Blackhole { drop_syn: false }, Fault::Blackhole { drop_syn: true }];

/// A relay in front of a server; ends with the test.
pub struct Relay {
    pub address: SocketAddr,
    faults: Client,
    _stop: DropGuard,
}

impl Relay {
    pub async fn start(port: u16) -> Self {
        let [address, admin] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())));
        let upstream = SocketAddr::from(([127, 0, 0, 1], port));
        let links = vec![Link::new(Transport::Tcp, address, upstream)];
        let config = Config { listeners: Vec::new(), links, admin, law: Law::None, max_connections: 256 };
        let proxy = Proxy::bind(config).await.unwrap();
        let (faults, stop) = (Client::new(&proxy.admin_url()).unwrap(), CancellationToken::new());
        tokio::spawn(proxy.serve(stop.clone()));
        Self { address, faults, _stop: stop.drop_guard() }
    }

    pub async fn vanish(&self, fault: Fault) {
        self.faults.add_fault(fault).await.unwrap();
    }

    pub async fn come_back(&self) {
        self.faults.clear().await.unwrap();
    }
}

pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(BOUND, work).await.unwrap_or_else(|_| panic!("{what} waits for a server that is gone"))
}
