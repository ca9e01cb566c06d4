//! A worker owns a share of the 16 partitions and processes requests for them. A library for `testbed serve worker`.
//!
//! Depends on `heartbeat` (heartbeats, partition table, ownership), `stores` (the shards behind the partitions) and `runtime`.
//!
//! Begin with [`serve`]. Then in this order: `beats` sends heartbeats, `follow` polls the partition table, `ownership` applies it,
//! `partition_task` takes one partition over and serves it, `partitions` answers requests, `report` says in heartbeats how that goes.
//! `events` is the path of an event: from Kafka to the store and to Redis. `segments` is the path of the model: from the logs to files, to
//! other workers and to the replicas of the API.

pub mod beats;
mod complaints;
pub mod config;
mod events;
mod follow;
mod health;
mod incarnation;
mod metrics;
mod ownership;
mod partition_task;
mod partitions;
mod report;
mod segments;
mod takeover;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use heartbeat::{assign::NodeId, registry::Registration, transport::probe};
use lists::{ModelMetrics, SegmentReader};
use prometheus::Registry;
use runtime::{
    AdminPort, Endpoint, Readiness, lifecycle,
    telemetry::{Service, Telemetry},
};
use stores::{RedisMetrics, Store, StoreMetrics};
use tokio::{
    net::UdpSocket,
    sync::{OnceCell, Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::config::WorkerConfig;
use crate::{
    config::ListsModel,
    events::{EventPath, ModelOfLists, Publisher},
    health::Limits,
    incarnation::Incarnation,
    metrics::{EventMetrics, Metrics},
    ownership::PartitionOwnership,
    partitions::Handlers,
    report::Reporter,
    segments::{Parts, SegmentMetrics, Segments},
};

/// How long the export of the last spans and logs may take.
const TELEMETRY_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two questions for newer segments.
const MODEL_POLL: Duration = Duration::from_secs(1);
/// Minimum pause between two attempts to register or to poll.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// Runs a worker until `shutdown`: bind → admin port → heartbeats → admitted → serve → leave → drain.
///
/// # Errors
/// A port is in use, a monitor's address cannot be resolved, or a server failed. Monitors and store may be unreachable at the start.
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
    let stores = StoreMetrics::new(&series)?;
    let store = Store::new(config.store.clone(), &stores)?;
    let admin = AdminPort::open(admin, &readiness, &series)?;

    let me: NodeId = config.node.id.as_str().into();
    let (keys, incarnation) = (config.node.keys(), Incarnation::begin());
    let (latest, follower) = watch::channel(Arc::default());
    let interval = Duration::from_millis(config.beats.interval_ms);
    let (process, limits) = (incarnation.process(), Limits::new(interval));
    let ownership = PartitionOwnership::new(me.clone(), process, limits, &store, metrics.clone());
    let reporter = Reporter::new(me.clone(), ownership.clone(), metrics.failing.clone());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (probe_keys, probed, name) = (keys.clone(), incarnation.clone(), me.clone());
    let answer_probes = async move { probe::answer(&udp, &probe_keys, &name, || probed.current()).await };
    let stopped = stop.clone();
    tasks.spawn(async move {
        if let Some(Err(error)) = stopped.run_until_cancelled(answer_probes).await {
            tracing::error!(%error, "cannot answer probes over UDP any more");
        }
    });
    let reporting = reporter.clone();
    let report = move || reporting.report();
    let senders = beats::spawn(&config, &keys, &incarnation, report, &metrics, &tasks, &stop).await?;
    let client = follow::MonitorClient { node: me.clone(), http: runtime::http::plain().build()?, keys: keys.clone() };
    let pause = interval.max(MIN_PAUSE);
    follow::spawn(&config.monitors, &client, &latest, &senders, pause, &tasks, &stop);
    let registration = Registration {
        id: me.clone(),
        incarnation: incarnation.current(),
        process: incarnation.process(),
        http: listen.http_address(),
        udp: listen.udp_address(),
        leaving: false,
    };
    tasks.spawn(follow::register(
        registration.clone(),
        incarnation.clone(),
        config.monitors.clone(),
        client.clone(),
        follower.clone(),
        pause,
        shutdown.clone(),
    ));
    let events = if config.kafka.is_on() {
        let model = model_of_lists(&config, &series, &tasks, &stop)?;
        let publisher = publisher(&config, &store, stores.redis.clone(), model)?;
        let events = EventPath::start(&config.kafka, &store, publisher, &telemetry, EventMetrics::new(&series)?)?;
        events.prepare_topics(&config.kafka, &tasks, &stop);
        Some(events)
    } else {
        None
    };
    partition_task::spawn(&ownership, &store, events.as_ref(), &tasks, &stop);
    tasks.spawn(ownership.clone().follow_table(incarnation.clone(), follower.clone(), telemetry.clone(), stop.clone()));
    tasks.spawn(follow::readiness(me.clone(), incarnation.clone(), follower.clone(), readiness, stop.clone()));

    let segments = if config.segments.dir.is_empty() {
        None
    } else {
        let parts = Parts {
            me: me.clone(),
            store: store.clone(),
            ownership: ownership.clone(),
            latest: follower.clone(),
            metrics: SegmentMetrics::new(&series)?,
            telemetry: telemetry.clone(),
        };
        let segments = Segments::open(&config.segments, parts).await?;
        segments.spawn(&config.monitors, &keys, &incarnation, &tasks, &stop);
        Some(segments)
    };

    tracing::info!(worker = config.node.id, http = %listen.http, "listening");
    let (drain, left) = (Duration::from_millis(listen.drain_ms), CancellationToken::new());
    let probe_slots = Arc::new(Semaphore::new(partitions::MAX_PROBES_FOR_OTHERS));
    let handlers = Handlers {
        me,
        incarnation: incarnation.clone(),
        keys,
        probe_slots,
        ownership,
        reporter,
        tasks: tasks.clone(),
        store,
        latest: follower.clone(),
        senders,
        metrics,
    };
    let (done, monitors) = (left.clone(), config.monitors.clone());
    tasks.spawn(async move {
        shutdown.cancelled().await;
        let last = Registration { incarnation: incarnation.current(), leaving: true, ..registration };
        if tokio::time::timeout(drain, follow::leave(last, &monitors, &client, follower)).await.is_err() {
            tracing::warn!("this worker still owned its partitions at the end of the drain");
        }
        done.cancel();
    });
    let router = partitions::router(handlers).merge(segments.map(segments::router).unwrap_or_default());
    let served = lifecycle::serve(http, router, left, drain).await;
    stop.cancel();
    lifecycle::drain(&tasks, drain).await;
    telemetry.stop(TELEMETRY_TIMEOUT).await;
    admin.close().await?;
    served
}

/// `None`: no Redis is configured.
fn publisher(
    config: &WorkerConfig,
    store: &Store,
    metrics: RedisMetrics,
    model: ModelOfLists,
) -> anyhow::Result<Option<Publisher>> {
    if config.redis.url.is_empty() {
        return Ok(None);
    }
    let redis = config.redis.guarded(metrics).context("redis.url is not valid")?;
    Ok(Some(Publisher::new(store.clone(), redis, config.lists.clone(), model)))
}

/// With segments it follows them as the replicas do. This worker redirects itself to the primary of a segment.
fn model_of_lists(
    config: &WorkerConfig,
    series: &Registry,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<ModelOfLists> {
    if config.lists.model == ListsModel::Store || config.redis.url.is_empty() {
        return Ok(ModelOfLists::Store(OnceCell::new()));
    }
    let mut reader = SegmentReader::new(vec![config.listen.http_address()], MODEL_POLL, ModelMetrics::new(series)?)?;
    let (sender, model) = watch::channel(None);
    let follow = async move {
        let first = reader.first(|step| tracing::debug!("{step}")).await;
        sender.send_replace(Some(first.clone()));
        reader.run(first).await;
    };
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow));
    Ok(ModelOfLists::Segments(model))
}
