use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use faultproxy::{Client, Config, Law, Link, Proxy, Route, State, Transport, bench::RawClient};
use launcher::{Stack, mariadb};
use runtime::Endpoint;
use sqlx::{Connection, MySqlConnection, mysql::MySqlConnectOptions};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine: tests wait for conditions, this only ends a hanging one.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const CLASSIC: u32 = 1 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19;
pub(crate) const DEPRECATE_EOF: u32 = 1 << 24;

pub(crate) fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

pub(crate) fn free() -> SocketAddr {
    loopback(launcher::free_port().unwrap())
}

/// A proxy within the test's process.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        Self::with_max_connections(upstream, 64).await
    }

    pub(crate) async fn with_max_connections(upstream: SocketAddr, max_connections: usize) -> Self {
        let listeners = vec![Route::new(free(), upstream)];
        Self::with(Config { listeners, links: Vec::new(), admin: free(), law: Law::None, max_connections }).await
    }

    /// Without a store, with this link.
    pub(crate) async fn link(transport: Transport, upstream: SocketAddr) -> Self {
        let links = vec![Link::new(transport, free(), upstream)];
        Self::with(Config { listeners: Vec::new(), links, admin: free(), law: Law::None, max_connections: 64 }).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let proxy = Proxy::bind(config).await.unwrap();
        let mut listening = proxy.addresses().into_iter().chain(proxy.links().into_iter().map(|link| link.listen));
        let Some(Endpoint::Tcp(address)) = listening.next() else { panic!("not TCP") };
        let url = proxy.admin_url();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(proxy.serve(shutdown.clone()));
        Self { address, client: Client::new(&url).unwrap(), url, shutdown, served }
    }

    pub(crate) async fn state(&self) -> State {
        self.client.state().await.unwrap()
    }

    pub(crate) async fn raw(&self, capabilities: u32) -> RawClient {
        RawClient::login(&self.address.into(), "root", capabilities).await.unwrap()
    }

    pub(crate) async fn sqlx(&self) -> MySqlConnection {
        connect(self.address).await
    }

    /// Waits for a state that satisfies the condition; returns it.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&State) -> bool) -> State {
        let start = Instant::now();
        loop {
            let state = self.state().await;
            if wanted(&state) {
                return state;
            }
            assert!(start.elapsed() < DEADLINE, "never {what}: {state:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Value of the metric whose line starts with this.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.client.metrics().await.unwrap();
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} is not in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Connections closed for this reason.
    pub(crate) async fn malformed(&self, reason: &str) -> f64 {
        self.metric(&format!("faultproxy_malformed_total{{listener=\"{}\",reason=\"{reason}\"}}", self.address)).await
    }
}

pub(crate) async fn connect(address: SocketAddr) -> MySqlConnection {
    let options = MySqlConnectOptions::new().host("127.0.0.1").port(address.port()).username("root");
    MySqlConnection::connect_with(&options).await.unwrap()
}

/// A real server with a proxy in front; ends with the test. `None`: none is installed, the test counts as skipped.
pub(crate) struct Bed {
    pub(crate) proxy: Running,
    pub(crate) server: mariadb::MySql,
    pub(crate) stack: Stack,
}

impl Bed {
    pub(crate) async fn start(name: &str) -> Option<Self> {
        if !launcher::testing::have(&["mariadbd|mysqld"]) {
            return None;
        }
        let mut stack = Stack::create(&format!("faultproxy-{name}")).unwrap();
        let server = mariadb::start(&mut stack, "mariadb", &mariadb::Options::default()).await.unwrap();
        let proxy = Running::start(loopback(server.port)).await;
        Some(Self { proxy, server, stack })
    }

    pub(crate) fn direct(&self) -> SocketAddr {
        loopback(self.server.port)
    }
}

/// Accepts one connection after the other and hands each to the script.
pub(crate) async fn scripted<F>(script: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(free()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(stream));
        }
    });
    address
}

pub(crate) fn packet(seq: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&[length[0], length[1], length[2], seq], payload].concat()
}

pub(crate) const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];

/// Payload of a greeting with these capabilities.
pub(crate) fn greeting(capabilities: u32) -> Vec<u8> {
    let [a, b, c, d] = capabilities.to_le_bytes();
    let mut payload = b"\x0a8.0.36\0\x01\0\0\0abcdefgh\0".to_vec();
    payload.extend_from_slice(&[a, b, 45, 2, 0, c, d, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend_from_slice(b"ijklmnopqrst\0mysql_native_password\0");
    payload
}

/// Reads to the end, which must come; a reset counts as one.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("connection stays open");
    drop(read);
    bytes
}
