//! A worker: registers with the monitors and beats (`beats`), follows the table (`follow`), takes over the partitions that it
//! gives to this worker (`hold`), and works on them (`partitions`).

pub mod beats;
pub mod config;
mod follow;
mod hold;
mod life;
mod metrics;
mod partitions;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use heartbeat::{assign::NodeId, auth::Keys, registry::Registration, transport::probe};
use prometheus::Registry;
use runtime::{
    AdminPort, Endpoint, Readiness, lifecycle,
    telemetry::{Service, Telemetry},
};
use stores::{Store, StoreMetrics};
use tokio::{
    net::UdpSocket,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::config::WorkerConfig;
use crate::{hold::Holding, life::Life, metrics::Metrics, partitions::Desk};

/// Number of the one key in use, on the wire.
const KEY_NUMBER: u8 = 1;
/// For what is left to be told at the end.
const TELEMETRY_PATIENCE: Duration = Duration::from_secs(2);
/// Shortest pause between two tries to register, or to ask a monitor that is away.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// Runs a worker until `shutdown`: bind → admin port → beats → admitted → serve → leave → drain.
///
/// # Errors
/// A port is taken, a monitor's address cannot be resolved, or a server failed. Neither monitors nor store need be there.
pub async fn serve(config: WorkerConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listen = &config.listen;
    let refused = |key: &str, address| format!("cannot listen on {address} (listen.{key})");
    let http = Endpoint::from(listen.http).bind().await.with_context(|| refused("http", listen.http))?;
    let admin = Endpoint::from(listen.admin).bind().await.with_context(|| refused("admin", listen.admin))?;
    let udp = UdpSocket::bind(listen.udp).await.with_context(|| refused("udp", listen.udp))?;
    let (series, readiness) = (Registry::new(), Readiness::starting("waiting to be admitted", &shutdown));
    let metrics = Metrics::new(&series)?;
    let service = Service { name: "worker", listen: config.node.id.clone() };
    let telemetry = Telemetry::start(&config.telemetry, service, &series)?;
    let store = Store::new(config.store.clone(), &StoreMetrics::new(&series)?)?;
    let admin = AdminPort::open(admin, &readiness, &series)?;

    let me: NodeId = config.node.id.as_str().into();
    let (keys, life) = (Keys::new(KEY_NUMBER, config.node.key.as_bytes()), Life::begin());
    let (latest, follower) = watch::channel(Arc::default());
    let holding = Holding::new(me.clone());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (answering, of, whose) = (keys.clone(), life.clone(), me.clone());
    let answer_probes = async move { probe::answer(&udp, &answering, &whose, || of.incarnation()).await };
    let stopped = stop.clone();
    tasks.spawn(async move {
        if let Some(Err(error)) = stopped.run_until_cancelled(answer_probes).await {
            tracing::error!(%error, "probes over UDP are not answered any more");
        }
    });
    let senders = beats::spawn(&config, &keys, &life, &metrics, &tasks, &stop).await?;
    let client = runtime::http::plain().build()?;
    let speaker = follow::Speaker { http: client.clone(), keys: keys.clone() };
    let pause = Duration::from_millis(config.beats.interval_ms).max(LEAST_PAUSE);
    follow::spawn(&config.monitors, &client, &latest, &senders, pause, &tasks, &stop);
    let registration = Registration {
        id: me.clone(),
        incarnation: life.incarnation(),
        http: listen.http_address(),
        udp: listen.udp_address(),
        leaving: false,
    };
    tasks.spawn(follow::register(
        registration.clone(),
        life.clone(),
        config.monitors.clone(),
        speaker.clone(),
        follower.clone(),
        pause,
        shutdown.clone(),
    ));
    let told = (metrics.clone(), telemetry.clone());
    tasks.spawn(holding.clone().keep(life.clone(), store.clone(), follower.clone(), told, stop.clone()));
    tasks.spawn(follow::readiness(me.clone(), life.clone(), follower.clone(), readiness, stop.clone()));

    tracing::info!(worker = config.node.id, http = %listen.http, "listening");
    let (drain, left) = (Duration::from_millis(listen.drain_ms), CancellationToken::new());
    let room = Arc::new(Semaphore::new(partitions::MAX_PROBES_FOR_OTHERS));
    let desk = Desk { me, life: life.clone(), keys, room, holding, store, latest: follower.clone(), senders, metrics };
    let (done, monitors) = (left.clone(), config.monitors.clone());
    tasks.spawn(async move {
        shutdown.cancelled().await;
        let last = Registration { incarnation: life.incarnation(), leaving: true, ..registration };
        if tokio::time::timeout(drain, follow::leave(last, &monitors, &speaker, follower)).await.is_err() {
            tracing::warn!("the partitions were still this worker's at the end of the drain");
        }
        done.cancel();
    });
    let served = lifecycle::serve(http, partitions::router(desk), left, drain).await;
    stop.cancel();
    lifecycle::drain(&tasks, drain).await;
    telemetry.stop(TELEMETRY_PATIENCE).await;
    admin.close().await?;
    served
}
