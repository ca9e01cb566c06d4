//! A monitor watches workers by their heartbeats, votes with the other monitors, and reassigns the partitions of failed workers. A library
//! for `testbed serve monitor`.
//!
//! Depends on `heartbeat` (all decisions, pure), `runtime`, and etcd as the registry.
//!
//! Begin with [`serve`]. A heartbeat's path, in reading order: 1. `receive` (HTTP) or `heartbeat::transport` (TCP, UDP),
//! 2. `control_loop`, 3. `heartbeat::observer` (decides: suspicion, ballot, table), 4. `probes`, `peers`, `etcd` (act). It continues in a
//! worker: 5. `worker/src/follow.rs`, 6. `ownership.rs` (fences), 7. `partitions.rs` (serves, redirects, refuses).
//!
//! The care of the segments' copies is in `segments`.

mod bodies;
mod commit_trace;
pub mod config;
mod control_loop;
mod detector;
pub mod etcd;
mod http_server;
mod input;
mod metrics;
mod peers;
mod probes;
mod problems;
pub mod receive;
mod segments;
pub mod status;
mod status_snapshots;
mod suspicions;
mod trace;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use heartbeat::{
    Nanos,
    assign::NodeId,
    clock::Clock,
    message::Beat,
    observer::Observer,
    table::Table as Seen,
    transport::{Ingest, Sink, connections::Connections, tcp, udp},
};
use prometheus::Registry as Series;
use runtime::{
    AdminPort, Endpoint, Readiness, lifecycle,
    net::Listener,
    telemetry::{Service, Telemetry},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::config::MonitorConfig;
use crate::{
    config::Listen,
    control_loop::ControlLoop,
    etcd::Registry,
    http_server::Protocol,
    input::Input,
    metrics::Metrics,
    peers::Peers,
    probes::Probes,
    segments::{SegmentMetrics, Segments},
};

/// Capacity of the control loop's queue: heartbeats, probe answers and ballots.
const INBOX: usize = 65_536;
/// Connections over HTTP that have sent no authentic message. The oldest gives way to a new one.
const MAX_UNAUTHENTICATED: usize = 256;
/// Connections over HTTP of each worker and each other monitor, and some for clients that people use.
const CONNECTIONS_PER_PEER: usize = 3;
const OTHER_CONNECTIONS: usize = 64;
/// How long the export of the last spans and logs may take.
const TELEMETRY_TIMEOUT: Duration = Duration::from_secs(2);
const MS: u64 = 1_000_000;
/// Pause before a broken watch on the registry is opened again.
const WATCH_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Runs a monitor until `shutdown`: bind → admin port → state → serve → drain.
///
/// # Errors
/// A port is in use, or a server failed. Etcd may be unreachable.
pub async fn serve(config: MonitorConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let sockets = Sockets::bind(&config.listen).await?;
    let (series, readiness) = (Series::new(), Readiness::starting("reading the registry", &shutdown));
    let (metrics, of_segments) = (Metrics::new(&series)?, SegmentMetrics::new(&series)?);
    let service = Service { name: "monitor", listen: config.node.id.clone() };
    let telemetry = Telemetry::start(&config.telemetry, service, &series)?;
    let mut admin = AdminPort::open(sockets.admin, &readiness, &series)?;

    let clock = Clock::start();
    let (keys, voter_keys) = (config.node.keys(), config.node.voter_keys());
    let (inbox, inputs) = mpsc::channel(INBOX);
    let seen = Arc::new(Seen::new(config.node.max_nodes));
    let ingest = Arc::new(
        Ingest::new(clock, keys.clone(), seen, Some(Arc::new(sink(&inbox, &metrics)))).reject_future_incarnations(),
    );
    let registry = Registry::new(&config.registry.etcd, &config.registry.prefix).await;
    let registry = registry.context("registry.etcd is not valid")?;
    let (assignments, followers) = watch::channel(Arc::default());
    let (leads, leading) = watch::channel(false);
    let report_every = config.segments.report_every_ms * MS;
    let segments = Segments::new(report_every, clock, telemetry.clone(), of_segments);
    let care = segments.clone().run(followers.clone(), leading, inbox.clone(), shutdown.clone());
    let rpc = segments::router(segments.clone(), config.node.keys(), shutdown.clone());
    let (status, status_reader) = status_snapshots::channel();
    let router = receive::router(
        Arc::clone(&ingest),
        &config,
        followers,
        inbox.clone(),
        registry.clone(),
        status_reader,
        &metrics,
    );
    let peers = config.node.max_nodes + config.peers.len();
    let connections = || Connections::new(CONNECTIONS_PER_PEER * peers + OTHER_CONNECTIONS, MAX_UNAUTHENTICATED);

    let (tasks, drain) = (TaskTracker::new(), Duration::from_millis(config.listen.drain_ms));
    let (settings, monitors) = (config.settings(), config.monitors());
    let interval = Duration::from_nanos(settings.interval);
    let http = runtime::http::plain().build()?;
    let peers = Peers::new(&config.peers, &http, &voter_keys, interval, &metrics.ballots_sent);
    let round = Duration::from_nanos(settings.suspicion.round);
    let probes = Probes::new(keys, round, inbox.clone(), tasks.clone(), &metrics.probes)?;
    let me: NodeId = config.node.id.as_str().into();
    let detectors = detector::factory(config.detector()?);
    let session = rand::random();
    let observer = Observer::new(me.clone(), monitors.clone(), settings, detectors, session, clock.now());
    tasks.spawn(tcp::receive(sockets.tcp, Arc::clone(&ingest), tcp::Limits::default(), shutdown.clone()));
    tasks.spawn(watch_registry(registry.clone(), inbox, shutdown.clone()));
    let (udp, to_udp, stop_udp) = (sockets.udp, Arc::clone(&ingest), shutdown.clone());
    admin.spawn(async move { udp.run(to_udp, stop_udp).await.context("cannot receive heartbeats over UDP") });
    let control_loop = ControlLoop {
        me,
        configured: monitors,
        observer,
        clock,
        inbox: inputs,
        registry,
        peers,
        probes,
        status,
        ingest,
        assignments,
        leads,
        segments,
        metrics,
        telemetry: telemetry.clone(),
        readiness,
    };
    tasks.spawn(control_loop.run(shutdown.clone()));
    tasks.spawn(care);
    tasks.spawn(http_server::serve((sockets.rpc, Protocol::Http2), rpc, connections(), shutdown.clone(), drain));

    tracing::info!(monitor = config.node.id, http = %config.listen.http, rpc = %config.listen.rpc, "listening");
    http_server::serve((sockets.http, Protocol::Http1), router, connections(), shutdown, drain).await;
    lifecycle::drain(&tasks, drain).await;
    telemetry.stop(TELEMETRY_TIMEOUT).await;
    admin.close().await
}

struct Sockets {
    http: Listener,
    rpc: Listener,
    admin: Listener,
    tcp: TcpListener,
    udp: udp::Receiver,
}

impl Sockets {
    async fn bind(listen: &Listen) -> anyhow::Result<Self> {
        let refused = |key: &str, address: SocketAddr| format!("cannot listen on {address} (listen.{key})");
        Ok(Self {
            http: Endpoint::from(listen.http).bind().await.with_context(|| refused("http", listen.http))?,
            rpc: Endpoint::from(listen.rpc).bind().await.with_context(|| refused("rpc", listen.rpc))?,
            admin: Endpoint::from(listen.admin).bind().await.with_context(|| refused("admin", listen.admin))?,
            tcp: TcpListener::bind(listen.tcp).await.with_context(|| refused("tcp", listen.tcp))?,
            udp: udp::Receiver::bind(listen.udp).await.with_context(|| refused("udp", listen.udp))?,
        })
    }
}

/// Passes accepted heartbeats to the control loop.
fn sink(inbox: &mpsc::Sender<Input>, metrics: &Metrics) -> impl Sink + use<> {
    let (inbox, dropped) = (inbox.clone(), metrics.beats_dropped.clone());
    move |at: Nanos, _peer: SocketAddr, beat: Beat| {
        // The table has this heartbeat; the next one reaches the observer.
        if inbox.try_send(Input::Beat { at, beat }).is_err() {
            dropped.inc();
        }
    }
}

/// Notifies the control loop of changes, and continues after every failure.
async fn watch_registry(registry: Registry, inbox: mpsc::Sender<Input>, stop: CancellationToken) {
    let keep_watching = async {
        loop {
            // If the queue is full, the control loop's periodic read finds the change.
            let watched = registry.watch(|| _ = inbox.try_send(Input::Changed)).await;
            if let Err(error) = watched {
                tracing::debug!(error = &error as &dyn std::error::Error, "the watch on etcd failed");
            }
            tokio::time::sleep(WATCH_RETRY_PAUSE).await;
        }
    };
    stop.run_until_cancelled(keep_watching).await;
}
