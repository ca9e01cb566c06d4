//! An OTLP receiver for traces with bounded memory instead of a database: a stack without Docker can show where a request's time went. A
//! library for `testbed serve traces`.
//!
//! Depends on `contract` (span attributes) and `runtime`.
//!
//! Begin with [`Receiver::serve`]. A span's path: 1. `intake` (gRPC, HTTP), 2. `otlp` truncates it, 3. `store` adds it to its trace, 4.
//! `retention` decides whether a settled trace is kept, 5. `query` answers. `waterfall` orders a trace's spans for display.

mod client;
mod ids;
mod intake;
mod metrics;
mod otlp;
mod query;
mod retention;
mod span;
mod store;
pub mod waterfall;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use prometheus::Registry;
use runtime::{Admin, Endpoint, Exemplars, Readiness, lifecycle, net::Listener};
use tokio_util::sync::CancellationToken;

pub use crate::{
    client::Client,
    ids::{InvalidId, SpanId, TraceId},
    metrics::Metrics,
    query::MAX_LIMIT,
    retention::{Quotas, Retention, Traits},
    span::{Event, Kind, Reason, Span, Summary, Trace},
    store::{Limits, Selection, Store},
};

/// Interval of the check for settled traces.
const TICK: Duration = Duration::from_millis(250);
/// Exporters wait for their response; no request takes long.
const DRAIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct Config {
    /// Address for OTLP over gRPC and, at `/v1/traces`, over HTTP.
    pub listen: SocketAddr,
    /// Address of the admin port: health, metrics and queries for traces.
    pub admin: SocketAddr,
    /// Bounds of memory, and how many traces are kept.
    pub limits: Limits,
}

#[derive(Debug, Clone)]
struct Shared {
    store: Arc<Mutex<Store>>,
    metrics: Metrics,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bound sockets: exporters may connect; they are served when `serve` runs.
#[derive(Debug)]
pub struct Receiver {
    listen: Listener,
    admin: Listener,
    limits: Limits,
}

impl Receiver {
    /// # Errors
    /// An address cannot be bound.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr| {
            Endpoint::from(address).bind().await.with_context(|| format!("cannot listen on {address}"))
        };
        Ok(Self { listen: bind(config.listen).await?, admin: bind(config.admin).await?, limits: config.limits })
    }

    /// `http://…` for exporters, and of the admin port for `Client::new`.
    ///
    /// # Errors
    /// A socket has no address.
    pub fn urls(&self) -> anyhow::Result<(String, String)> {
        Ok((format!("http://{}", self.listen.endpoint()?), format!("http://{}", self.admin.endpoint()?)))
    }

    /// Serves until `shutdown`. The traces in memory are then lost.
    ///
    /// # Errors
    /// A listener failed.
    pub async fn serve(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).context("metrics")?;
        let store = Arc::new(Mutex::new(Store::new(self.limits, metrics.clone())));
        let shared = Shared { store, metrics };
        let readiness = Readiness::starting("", &shutdown);
        readiness.ready();
        let admin = Admin { readiness, registry, exemplars: Exemplars::default() }
            .router()
            .merge(query::router(shared.clone()));
        let settling = async {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
                shared.lock().settle(Instant::now());
            }
        };
        let served = async {
            tokio::try_join!(
                lifecycle::serve(self.listen, intake::router(shared.clone()), shutdown.clone(), DRAIN),
                lifecycle::serve(self.admin, admin, shutdown, DRAIN),
            )
        };
        tokio::select! {
            result = served => result.map(drop),
            () = settling => Ok(()),
        }
    }
}

/// # Errors
/// An address cannot be bound, or a listener failed.
pub async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    Receiver::bind(config).await?.serve(shutdown).await
}
