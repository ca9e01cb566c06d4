//! The recommendation API: one replica.

mod admission;
mod body;
pub mod config;
mod error;
mod events;
mod front;
mod items;
mod metrics;
mod model_view;
mod query;
mod recommend;
mod router;
mod trace;
mod users;
mod warmup;
mod writes;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use prometheus::Registry;
use runtime::{
    AdminPort, Endpoint, Exemplars, Readiness, lifecycle,
    telemetry::{Service, Telemetry},
};
use stores::{Store, StoreMetrics, redis::Redis};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::config::{AdmissionMode, ApiConfig, Profile};
use crate::{
    admission::Admission,
    front::Front,
    metrics::Metrics,
    model_view::ModelView,
    recommend::{cache::Cache, guard, guard::Guard, load::Loads, memory::Memory},
};

/// How long a replica that starts waits for the store's servers to come up.
const STORE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a replica that stops waits for its last spans to be taken.
const TELEMETRY_PATIENCE: Duration = Duration::from_secs(2);

/// Everything a request needs; cheap to clone.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Shared>);

pub(crate) struct Shared {
    config: ApiConfig,
    model: ModelView,
    /// `None`: switched off, every id may exist.
    guard: Option<Guard>,
    cache: Cache,
    memory: Arc<Memory>,
    loads: Loads,
    /// `None`: switched off, all are admitted.
    admission: Option<Admission>,
    /// Of sign-ups and events.
    writes: Admission,
    redis: Redis,
    store: Store,
    metrics: Metrics,
    telemetry: Telemetry,
    /// What goes on behind the answers; waited for when the replica stops.
    tasks: TaskTracker,
}

impl std::ops::Deref for AppState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl AppState {
    /// A load ends a little before its request, so that there is time to answer with what else there is: an expired list.
    fn load_deadline(&self, deadline: Instant) -> Instant {
        let margin = Duration::from_millis(self.config.http.deadline_ms / 10).min(Duration::from_millis(50));
        deadline.checked_sub(margin).unwrap_or(deadline)
    }
}

/// Runs a replica until `shutdown`: bind → admin port → model, guard, warm-up → ready → serve → drain.
///
/// # Errors
/// A port is taken, the store cannot be read at start, or a server failed.
pub async fn serve(config: ApiConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let http = config
        .http
        .listen
        .bind()
        .await
        .with_context(|| format!("cannot listen on {} (http.listen)", config.http.listen))?;
    let admin = Endpoint::from(config.http.admin)
        .bind()
        .await
        .with_context(|| format!("cannot listen on {} (http.admin)", config.http.admin))?;
    let (registry, readiness) = (Registry::new(), Readiness::starting("connecting", &shutdown));
    let drain = Duration::from_millis(config.http.drain_ms);
    let admin = AdminPort::open(admin, &readiness, &registry)?;
    let tasks = TaskTracker::new();
    let app = tokio::select! {
        app = start(config, &registry, admin.exemplars(), &readiness, tasks.clone()) => app?,
        () = shutdown.cancelled() => return Ok(()),
    };
    tasks.spawn(guard::rebuild::run(app.clone(), shutdown.clone()));
    readiness.ready();
    tracing::info!(profile = ?app.config.profile, listen = %app.config.http.listen, "ready");
    let telemetry = app.telemetry.clone();
    let served = lifecycle::serve(http, Front { router: router::router(app.clone()), app }, shutdown, drain).await;
    lifecycle::drain(&tasks, drain).await;
    telemetry.stop(TELEMETRY_PATIENCE).await;
    admin.close().await?;
    served
}

async fn start(
    config: ApiConfig,
    registry: &Registry,
    exemplars: &Exemplars,
    readiness: &Readiness,
    tasks: TaskTracker,
) -> anyhow::Result<AppState> {
    let metrics = Metrics::new(registry, exemplars, &router::ROUTES)?;
    metrics.replicas_expected.set(config.http.replicas.into());
    let service = Service { name: "api", listen: config.http.listen.to_string() };
    let telemetry = Telemetry::start(&config.telemetry, service, registry)?;
    metrics::tell_profile(registry, config.profile)?;
    let stores = StoreMetrics::new(registry)?;
    let store = Store::new(config.store.clone(), &stores)?;
    let mut redis = config.redis.guarded(stores.redis.clone()).context("redis.url is not valid")?;

    readiness.step("opening connections to the store");
    store.open(config.store.pool_size, STORE_PATIENCE).await.context("cannot connect to the store")?;
    readiness.step("loading the model");
    let model = ModelView::load(&store).await?;
    let guard = if config.guards.bloom {
        readiness.step("building the bloom filter");
        let guard = Guard::build(&store, &mut redis, &config.guards, &metrics.guard).await;
        Some(guard.context("cannot read the users from the store")?)
    } else {
        None
    };
    let memory = Arc::new(Memory::new(&config.cache, &config.guards, metrics.memory.clone()));
    let fills = tasks.clone();
    let cache = Cache::new(redis.clone(), Arc::clone(&memory), config.cache.clone(), metrics.cache.clone(), fills);
    let loads = Loads::new(config.guards.coalesce);
    let admission = Admission::new(&config.http, metrics.admission.clone(), Instant::now());
    let writes = Admission::of_writes(&config.http, metrics.writes.clone());
    let shared = Shared {
        config,
        model,
        guard,
        cache,
        memory,
        loads,
        admission,
        writes,
        redis,
        store,
        metrics,
        telemetry,
        tasks,
    };
    let app = AppState(Arc::new(shared));
    if app.config.guards.warmup {
        warmup::run(&app, readiness).await;
    }
    Ok(app)
}
