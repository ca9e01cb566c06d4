//! Workers and stores of a test.

use std::{net::SocketAddr, time::Duration};

use launcher::{Stack, free_port, mariadb};
use stores::StoreConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use worker::{
    WorkerConfig,
    config::{Monitor as MonitorConfig, Transport},
};

use crate::{
    monitor::{KEY, Monitor},
    relay::Relay,
};

/// MySQL servers, each behind a relay. Partition n is on server n modulo their number.
pub struct Stores {
    pub relays: Vec<Relay>,
    pub config: StoreConfig,
    /// Without the relays.
    pub direct: StoreConfig,
    stack: Stack,
}

impl Stores {
    /// `None`: the server is not installed, and the test counts as skipped.
    pub async fn start(count: usize) -> Option<Self> {
        if !launcher::testing::have(&["mariadbd|mysqld"]) {
            return None;
        }
        let mut stack = Stack::create("test-worker").unwrap();
        let (mut relays, mut servers) = (Vec::new(), Vec::new());
        let options = mariadb::Options::default();
        for n in 0..count {
            let server = mariadb::start(&mut stack, &format!("mysql-{n:02}"), &options).await.unwrap();
            let relay = Relay::start(server.port).await;
            servers.push(format!("127.0.0.1:{}", server.port));
            relays.push(relay);
        }
        let addresses: Vec<_> = relays.iter().map(|relay| relay.address.to_string()).collect();
        let (config, direct) = (StoreConfig::spread_over(&addresses), StoreConfig::spread_over(&servers));
        stores::migrate(&config).await.unwrap();
        Some(Self { relays, config, direct, stack })
    }

    pub async fn stop(self) {
        self.stack.stop().await.unwrap();
    }
}

/// Ends when it is dropped.
pub struct Worker {
    pub http: SocketAddr,
    admin: SocketAddr,
    client: reqwest::Client,
    serving: JoinHandle<()>,
    stop: DropGuard,
}

impl Worker {
    pub fn start(id: &str, monitor: &Monitor, store: &StoreConfig) -> Self {
        Self::serve(configure(id, monitor, store))
    }

    pub fn serve(config: WorkerConfig) -> Self {
        let (stop, http, admin) = (CancellationToken::new(), config.listen.http, config.listen.admin);
        let serving = worker::serve(config, stop.clone());
        let serving = tokio::spawn(async move { serving.await.unwrap() });
        let redirect = reqwest::redirect::Policy::none();
        let client = runtime::http::plain().redirect(redirect).timeout(Duration::from_secs(30)).build().unwrap();
        Self { http, admin, client, serving, stop: stop.drop_guard() }
    }

    /// Returns when the worker has ended.
    pub async fn stop(self) {
        drop(self.stop);
        self.serving.await.unwrap();
    }

    /// Value of the series, e.g. `testbed_worker_event_lag{partition="0"}`.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        metric(self.admin, series).await
    }

    /// Follows no redirects.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let request = self.client.get(format!("http://{}{path}", self.http));
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
    }

    /// A write to a partition. `unserved_by`: workers that the client had no success with. `None`: no response.
    pub async fn count(&self, partition: usize, unserved_by: Option<&str>) -> Option<u16> {
        let mut request = self.client.post(format!("http://{}/partitions/{partition}/count", self.http));
        if let Some(names) = unserved_by {
            request = request.header("x-unserved-by", names);
        }
        Some(request.send().await.ok()?.status().as_u16())
    }

    /// The problem's type in the response to a write.
    pub async fn problem(&self, partition: usize) -> Option<String> {
        let url = format!("http://{}/partitions/{partition}/count", self.http);
        let problem: contract::http::Problem = self.client.post(url).send().await.ok()?.json().await.ok()?;
        Some(problem.kind)
    }

    pub async fn serves(&self, partition: usize) -> bool {
        self.count(partition, None).await == Some(200)
    }
}

/// Value of the series at an admin port.
pub async fn metric(admin: SocketAddr, series: &str) -> Option<f64> {
    let text = reqwest::get(format!("http://{admin}/metrics")).await.ok()?.text().await.ok()?;
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// A worker of this monitor with free ports.
pub fn configure(id: &str, monitor: &Monitor, store: &StoreConfig) -> WorkerConfig {
    let address = || SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let mut config = WorkerConfig::new(id, store.clone());
    config.node.key = KEY.into();
    (config.listen.http, config.listen.udp, config.listen.admin) = (address(), address(), address());
    config.listen.drain_ms = 100;
    (config.beats.interval_ms, config.beats.transport) = (100, Transport::Udp);
    let (http, beats) = (monitor.http.to_string(), monitor.beats.to_string());
    let of_monitor = MonitorConfig { http, beats, rpc: String::new() };
    config.monitors.insert("m0".into(), of_monitor);
    config
}
