use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, routing::post};
use heartbeat::{
    auth::Keys,
    clock::wall_ms,
    frame,
    message::Beat,
    registry::{Registered, Registration},
    sender::{DatagramSender as _, SingleSender},
    transport::{
        http::AUTHENTICATED,
        probe::{self, Question},
    },
};
use launcher::{Stack, etcd, free_port};
use monitor::{MonitorConfig, status::Status};
use tokio::{net::UdpSocket, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub const INTERVAL: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(60);
pub const KEY: &str = "a key for tests";

pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Monitors m0, m1, … as tasks of this process; each can be stopped and restarted.
pub struct Monitors {
    pub stack: Stack,
    pub etcd: etcd::Etcd,
    pub http: reqwest::Client,
    pub configs: Vec<MonitorConfig>,
    running: Vec<Option<(CancellationToken, tokio::task::JoinHandle<anyhow::Result<()>>)>>,
}

impl Monitors {
    pub async fn start(name: &str, count: usize) -> Self {
        Self::with_interval(name, count, INTERVAL).await
    }

    /// `interval`: what the monitors expect of heartbeats. Workers send them once per `INTERVAL`.
    pub async fn with_interval(name: &str, count: usize, interval: Duration) -> Self {
        let mut stack = Stack::create(name).unwrap();
        let etcd = etcd::start(&mut stack, &etcd::Options::default()).await.unwrap();
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let addresses: BTreeMap<String, SocketAddr> = (0..count).map(|n| (format!("m{n}"), address())).collect();
        let config = |(id, http): (&String, &SocketAddr)| {
            let mut config = MonitorConfig::new(id);
            config.node.key = KEY.into();
            config.listen.http = *http;
            (config.listen.tcp, config.listen.udp, config.listen.admin) = (address(), address(), address());
            config.listen.rpc = address();
            config.segments.report_every_ms = 1_000;
            config.listen.drain_ms = 100;
            config.registry.etcd = vec![etcd.url.clone()];
            config.registry.term_ms = 2_000.max(interval.as_millis() as u64);
            config.detect.interval_ms = interval.as_millis() as u64;
            let others = addresses.iter().filter(|(other, _)| *other != id);
            config.peers = others.map(|(other, http)| (other.clone(), http.to_string())).collect();
            config
        };
        let configs: Vec<_> = addresses.iter().map(config).collect();
        let http = runtime::http::plain().timeout(Duration::from_secs(5)).build().unwrap();
        let mut monitors = Self { stack, etcd, http, configs, running: Vec::new() };
        for n in 0..count {
            monitors.running.push(None);
            monitors.run(n);
        }
        monitors
    }

    pub fn run(&mut self, n: usize) {
        let stop = CancellationToken::new();
        let (config, stopped) = (self.configs[n].clone(), stop.clone());
        let task = tokio::spawn(async move {
            let end = Instant::now() + PATIENCE / 2;
            loop {
                let served = monitor::serve(config.clone(), stopped.clone()).await;
                let Err(error) = &served else { return served };
                eprintln!("monitor {n} has ended: {error:#}");
                // On a busy machine the sockets of its predecessor may outlast the 100 ms drain.
                if stopped.is_cancelled() || Instant::now() > end {
                    return served;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        self.running[n] = Some((stop, task));
    }

    /// As SIGTERM does.
    pub async fn end(&mut self, n: usize) {
        let (stop, task) = self.running[n].take().unwrap();
        stop.cancel();
        task.await.unwrap().unwrap();
    }

    pub fn url(&self, n: usize, path: &str) -> String {
        format!("http://{}{path}", self.configs[n].listen.http)
    }

    /// `None`: it does not answer.
    pub async fn status(&self, n: usize) -> Option<Status> {
        self.http.get(self.url(n, "/status")).send().await.ok()?.json().await.ok()
    }

    /// Waits until this monitor's status satisfies the condition.
    pub async fn until(&self, n: usize, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        let (begun, mut last) = (Instant::now(), None);
        eventually(what, async || {
            let ended = self.running[n].as_ref().is_none_or(|(_, task)| task.is_finished());
            assert!(!ended, "monitor {n} does not run: {what}");
            last = self.status(n).await;
            let is_so = last.as_ref().is_some_and(&condition);
            if !is_so && begun.elapsed() > PATIENCE * 9 / 10 {
                eprintln!("not yet: {what}: {last:?}");
            }
            is_so
        })
        .await;
        last.unwrap()
    }

    /// An authenticated registration request.
    pub fn sealed(&self, n: usize, registration: &Registration) -> reqwest::RequestBuilder {
        let frame = frame::sign_control(&Keys::new(KEY.as_bytes()), registration).unwrap();
        self.http.post(self.url(n, "/register")).header("content-type", AUTHENTICATED).body(frame)
    }

    pub async fn metrics(&self, n: usize) -> String {
        let url = format!("http://{}/metrics", self.configs[n].listen.admin);
        let mut found = String::new();
        eventually("the admin port answers", async || {
            let Ok(answer) = self.http.get(&url).send().await else { return false };
            let text = answer.text().await;
            text.map(|text| found = text).is_ok()
        })
        .await;
        found
    }

    pub async fn worker(&self, id: &str) -> Worker {
        Worker::start(self, id, wall_ms()).await
    }

    pub async fn stop(mut self) {
        for n in 0..self.running.len() {
            if self.running[n].is_some() {
                self.end(n).await;
            }
        }
        self.stack.stop().await.unwrap();
    }
}

/// Registers, sends heartbeats, answers probes. Stops when it is dropped.
pub struct Worker {
    pub registration: Registration,
    _probes: JoinSet<()>,
    pub beats: JoinSet<()>,
}

impl Worker {
    pub async fn start(monitors: &Monitors, id: &str, incarnation: u64) -> Self {
        Self::with_routes(monitors, id, incarnation, Router::new()).await
    }

    /// `routes`: what its HTTP port serves besides probes.
    pub async fn with_routes(monitors: &Monitors, id: &str, incarnation: u64, routes: Router) -> Self {
        let keys = Keys::new(KEY.as_bytes());
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registration = Registration {
            id: id.into(),
            incarnation,
            // As the article's nodes: it sends no reports.
            process: 0,
            http: http.local_addr().unwrap().to_string(),
            udp: udp.local_addr().unwrap().to_string(),
            leaving: false,
        };
        let (mut probes, mut beats) = (JoinSet::new(), JoinSet::new());
        let (seals, me) = (keys.clone(), id.to_owned());
        let answer = move |question: Bytes| {
            // It does not pass on probes of other workers.
            let question = Question::read(&seals, &question).filter(|question| question.node() == me);
            std::future::ready(question.map(|question| question.answer(&seals, incarnation)).unwrap_or_default())
        };
        let app = routes.route("/probe", post(answer));
        probes.spawn(async move { axum::serve(http, app).await.unwrap() });
        let (answering, name) = (keys.clone(), id.to_owned());
        probes.spawn(async move {
            probe::answer(&udp, &answering, &name, || incarnation).await.unwrap();
        });
        let mut senders = Vec::new();
        for config in &monitors.configs {
            senders.push(SingleSender::connect(config.listen.udp, keys.clone()).await.unwrap());
        }
        let node_id = id.to_owned();
        beats.spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            for sequence in 1.. {
                ticks.tick().await;
                let beat =
                    Beat { node_id: node_id.clone(), sequence, incarnation, timestamp: wall_ms(), ..Beat::default() };
                senders.iter().for_each(|sender| sender.send(&beat));
            }
        });
        let worker = Self { registration, _probes: probes, beats };
        eventually("a monitor takes the registration", async || worker.register(monitors, 0).await.is_some()).await;
        worker
    }

    pub async fn register(&self, monitors: &Monitors, n: usize) -> Option<Registered> {
        let answer = monitors.sealed(n, &self.registration).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }
}

/// Number of primaries per worker.
pub fn primaries(status: &Status) -> BTreeMap<Arc<str>, usize> {
    let mut counts = BTreeMap::new();
    for primary in status.table.partitions.iter().filter_map(|assignment| assignment.primary.clone()) {
        *counts.entry(primary).or_default() += 1;
    }
    counts
}
