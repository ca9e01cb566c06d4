//! The admin port: `/healthz` (the process runs), `/readyz` (it accepts traffic), `/metrics` (Prometheus text, or OpenMetrics on request).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Registry, TextEncoder};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    Exemplars,
    exemplars::{MEDIA_TYPE, OPENMETRICS},
    lifecycle,
    net::Listener,
    vitals,
};

/// Time for the last requests to the admin port.
const DRAIN: Duration = Duration::from_millis(200);

/// Whether a process accepts traffic, and what it waits for. Clones share one state.
#[derive(Debug, Clone)]
pub struct Readiness {
    phase: Arc<Mutex<Phase>>,
    shutdown: CancellationToken,
}

/// `Starting` and `Ready` may alternate; `Stopping` is final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
enum Phase {
    Starting { step: String },
    Ready,
    Stopping,
}

impl Readiness {
    /// After `shutdown` the process is not ready, even if `ready` is called: a draining process must get no new traffic.
    pub fn starting(step: &str, shutdown: &CancellationToken) -> Self {
        let phase = Phase::Starting { step: step.to_owned() };
        Self { phase: Arc::new(Mutex::new(phase)), shutdown: shutdown.clone() }
    }

    /// Sets the current step, which `/readyz` shows.
    pub fn step(&self, step: impl Into<String>) {
        *self.lock() = Phase::Starting { step: step.into() };
    }

    pub fn ready(&self) {
        *self.lock() = Phase::Ready;
    }

    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready
    }

    fn phase(&self) -> Phase {
        if self.shutdown.is_cancelled() { Phase::Stopping } else { self.lock().clone() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone)]
pub struct Admin {
    pub readiness: Readiness,
    pub registry: Registry,
    pub exemplars: Exemplars,
}

impl Admin {
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

/// The admin port, the process metrics, and further background servers. They run until the process has drained, so that it can be observed
/// meanwhile.
pub struct AdminPort {
    exemplars: Exemplars,
    stop: CancellationToken,
    running: JoinSet<anyhow::Result<()>>,
}

impl AdminPort {
    /// # Errors
    /// The registry has one of the process metrics already.
    pub fn open(listener: Listener, readiness: &Readiness, registry: &Registry) -> anyhow::Result<Self> {
        let (watch, stop, mut running) = (vitals::register(registry)?, CancellationToken::new(), JoinSet::new());
        let exemplars = Exemplars::default();
        let (readiness, registry) = (readiness.clone(), registry.clone());
        let router = Admin { readiness, registry, exemplars: exemplars.clone() }.router();
        running.spawn(lifecycle::serve(listener, router, stop.clone(), DRAIN));
        let watched = stop.clone();
        running.spawn(async move {
            watched.run_until_cancelled(watch.run()).await;
            Ok(())
        });
        Ok(Self { exemplars, stop, running })
    }

    /// The exemplars that `/metrics` shows.
    pub fn exemplars(&self) -> &Exemplars {
        &self.exemplars
    }

    /// Runs a server that ends on its own. `close` waits for it.
    pub fn spawn(&mut self, server: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.running.spawn(server);
    }

    /// # Errors
    /// The admin port or one of the servers failed.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended??;
        }
        Ok(())
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let phase = admin.readiness.phase();
    let status = if phase == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(phase)).into_response()
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let text = match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => text,
        Err(error) => {
            tracing::error!(%error, "cannot encode the metrics");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (kind, text) = if accepted.contains(MEDIA_TYPE) {
        (OPENMETRICS, admin.exemplars.openmetrics(&text))
    } else {
        (prometheus::TEXT_FORMAT, text)
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_stops_is_not_ready_again() {
        let shutdown = CancellationToken::new();
        let readiness = Readiness::starting("connecting", &shutdown);
        assert!(!readiness.is_ready());
        readiness.ready();
        assert!(readiness.is_ready());
        readiness.step("waiting");
        assert!(!readiness.is_ready());
        readiness.ready();
        shutdown.cancel();
        assert!(!readiness.is_ready());
        // A task may call this after the shutdown.
        readiness.ready();
        assert_eq!(readiness.phase(), Phase::Stopping);
    }
}
