//! The recommendation API: one replica, an HTTP service in front of Redis and MySQL.
//!
//! Depends on `stores` (MySQL, Redis), `eventlog` (Kafka), `lists` and `model` (ranking), `contract` (bodies, ids, keys) and `runtime`
//! (configuration, telemetry, admin port). Begin reading with `recommend.rs`, a request from top to bottom. `front.rs` and `router.rs` lead to
//! it; `writes.rs` runs sign-ups and events. `lib.rs` starts and stops a replica.

mod admission;
mod body;
mod clock;
pub mod config;
mod criticality;
mod deadline;
mod error;
mod events;
mod front;
mod items;
mod limits;
mod metrics;
mod policies;
mod query;
mod rebuild_reason;
mod recommend;
mod refusals;
mod router;
mod routes;
mod trace;
mod users;
mod warmup;
mod work;
mod writes;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use eventlog::{Producer, ProducerMetrics};
use lists::{Model, ModelMetrics, ModelView, SegmentReader};
use prometheus::Registry;
use runtime::{
    AdminPort, Endpoint, Exemplars, Readiness, lifecycle,
    slot::Reserved,
    telemetry::{Service, Telemetry},
};
use stores::{Store, StoreMetrics, redis::Redis};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::config::{ApiConfig, FeaturesSource, ModelConfig, ModelSource, Profile};
pub use crate::work::VirtualCpu;
use crate::{
    admission::Admission,
    front::Front,
    metrics::Metrics,
    recommend::{cache::Cache, guard, guard::Guard, load::Loads, memory::Memory},
    refusals::Refusals,
    work::Work,
};

/// Names of the policies of admission, the values of `http.admission` beside `off`.
pub fn admission_policies() -> impl Iterator<Item = &'static str> {
    policies::ALL.iter().map(|kind| kind.name)
}

/// How long a starting replica waits for the store's servers.
const STORE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a stopping replica waits for the export of its last spans.
const TELEMETRY_TIMEOUT: Duration = Duration::from_secs(2);

/// The state that requests share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AppState(Arc<AppStateInner>);

pub(crate) struct AppStateInner {
    config: ApiConfig,
    /// A request takes the current version once.
    model: Model,
    /// `None`: switched off.
    guard: Option<Guard>,
    cache: Cache,
    memory: Arc<Memory>,
    loads: Loads,
    /// For requests for recommendations. `None`: no limit.
    admission: Option<Admission>,
    /// For sign-ups and event requests.
    writes: Admission,
    /// The declared cost of a request for recommendations. `None`: none.
    work: Option<Work>,
    redis: Redis,
    store: Store,
    /// `None`: events are appended to the store directly.
    event_log: Option<Producer>,
    metrics: Metrics,
    telemetry: Telemetry,
    refusals: Refusals,
    /// Background tasks, which a stopping replica waits for.
    tasks: TaskTracker,
}

impl std::ops::Deref for AppState {
    type Target = AppStateInner;
    fn deref(&self) -> &AppStateInner {
        &self.0
    }
}

/// Runs a replica until `shutdown`: bind → admin port → model, guard, warm-up → open, ready → serve → leave → drain.
///
/// # Errors
/// A port is in use, the store cannot be read at start, or the server failed.
pub async fn serve(config: ApiConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let http = Reserved::bind(&config.http.listen)
        .await
        .with_context(|| format!("cannot listen on {} (http.listen)", config.http.listen))?;
    let admin = Endpoint::from(config.http.admin)
        .bind()
        .await
        .with_context(|| format!("cannot listen on {} (http.admin)", config.http.admin))?;
    let (registry, readiness) = (Registry::new(), Readiness::starting("connecting", &shutdown));
    let (leave, drain) = (Duration::from_millis(config.http.leave_ms), Duration::from_millis(config.http.drain_ms));
    let admin = AdminPort::open(admin, &readiness, &registry)?;
    let tasks = TaskTracker::new();
    let (app, reader) = tokio::select! {
        started = start(config, &registry, admin.exemplars(), &readiness, tasks.clone()) => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    tasks.spawn(guard::rebuild::run(app.clone(), shutdown.clone()));
    tasks.spawn(warmup::again::run(app.clone(), shutdown.clone()));
    if let Some(reader) = reader {
        let (model, shutdown) = (app.model.clone(), shutdown.clone());
        tasks.spawn(async move { shutdown.run_until_cancelled(reader.run(model)).await });
    }
    // The gateway finds it only now that it is warm.
    let http =
        http.open().await.with_context(|| format!("cannot listen on {} (http.listen)", app.config.http.listen))?;
    readiness.ready();
    tracing::info!(profile = ?app.config.profile, listen = %app.config.http.listen, "ready");
    let telemetry = app.telemetry.clone();
    let served = http.serve(Front { router: router::router(app.clone()), app }, shutdown, leave, drain).await;
    lifecycle::drain(&tasks, drain).await;
    telemetry.stop(TELEMETRY_TIMEOUT).await;
    admin.close().await?;
    served
}

/// The reader, if there is one, has to run while requests are served.
async fn start(
    config: ApiConfig,
    registry: &Registry,
    exemplars: &Exemplars,
    readiness: &Readiness,
    tasks: TaskTracker,
) -> anyhow::Result<(AppState, Option<SegmentReader>)> {
    let metrics = Metrics::new(registry, exemplars, &routes::ALL)?;
    metrics.replicas_expected.set(config.http.replicas.into());
    let service = Service { name: "api", listen: config.http.listen.to_string() };
    let telemetry = Telemetry::start(&config.telemetry, service, registry)?;
    metrics::register_profile(registry, config.profile)?;
    let stores = StoreMetrics::new(registry)?;
    let store = Store::new(config.store.clone(), &stores)?;
    let mut redis = config.redis.guarded(stores.redis.clone()).context("redis.url is not valid")?;

    let event_log = if config.kafka.is_on() {
        let producer = Producer::start(&config.kafka, ProducerMetrics::new(registry)?);
        Some(producer.context("cannot create the kafka producer (kafka.brokers)")?)
    } else {
        None
    };
    readiness.step("opening connections to the store");
    store.open(config.store.pool_size, STORE_TIMEOUT).await.context("cannot connect to the store")?;
    readiness.step("loading the model");
    let (model, reader) = load_model(&config.model, &store, ModelMetrics::new(registry)?, readiness).await?;
    let guard = if config.guards.bloom {
        readiness.step("building the bloom filter");
        let guard = Guard::build(&store, &mut redis, &config.guards, &metrics.guard).await;
        Some(guard.context("cannot build the bloom filter from the users in the store")?)
    } else {
        None
    };
    let memory = Arc::new(Memory::new(&config.cache, &config.guards, metrics.memory.clone()));
    let cache = Cache::new(redis.clone(), Arc::clone(&memory), &config, metrics.cache.clone(), tasks.clone());
    let loads = Loads::new(config.guards.coalesce);
    let admission = Admission::new(&config.http, metrics.admission.clone(), Instant::now());
    let writes = Admission::for_writes(&config.http, metrics.writes.clone(), Instant::now());
    let work = Work::start(&config.http, registry)?;
    let refusals = Refusals::new(std::time::Instant::now(), metrics.unrecorded_refusals.clone());
    let inner = AppStateInner {
        config,
        model,
        guard,
        cache,
        memory,
        loads,
        admission,
        writes,
        work,
        redis,
        store,
        event_log,
        metrics,
        telemetry,
        refusals,
        tasks,
    };
    let app = AppState(Arc::new(inner));
    if app.config.guards.warmup {
        warmup::run(&app, readiness).await;
    }
    Ok((app, reader))
}

/// With `segments` it waits for as long as a segment is missing: the other replicas serve meanwhile.
async fn load_model(
    config: &ModelConfig,
    store: &Store,
    metrics: ModelMetrics,
    readiness: &Readiness,
) -> anyhow::Result<(Model, Option<SegmentReader>)> {
    if config.source == ModelSource::Store {
        let view = ModelView::load(store).await?;
        metrics.version.set(view.version as f64);
        return Ok((Model::new(view), None));
    }
    let (workers, poll) = (config.workers.clone(), Duration::from_millis(config.poll_ms));
    let reader = SegmentReader::new(workers, poll, metrics);
    let mut reader = reader.context("cannot create the HTTP client for the workers")?;
    let mut logged = String::new();
    let waiting = |step: String| {
        if step != logged {
            tracing::info!(workers = ?config.workers, "{step}");
            logged.clone_from(&step);
        }
        readiness.step(step);
    };
    let model = reader.first(waiting).await;
    Ok((model, Some(reader)))
}
