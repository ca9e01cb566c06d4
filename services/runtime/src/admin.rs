//! The admin port: `/healthz` (the process lives), `/readyz` (it may get traffic), `/metrics` (Prometheus text, or OpenMetrics if asked
//! for).

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

/// For the last who asks.
const DRAIN: Duration = Duration::from_millis(200);

/// What a process still waits for before it takes traffic, and that it takes none any more. Clones share one state.
#[derive(Debug, Clone)]
pub struct Readiness {
    phase: Arc<Mutex<Phase>>,
    shutdown: CancellationToken,
}

/// `Starting` and `Ready` follow each other in any order; `Stopping` is the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
enum Phase {
    Starting { step: String },
    Ready,
    Stopping,
}

impl Readiness {
    /// Not ready from the moment of `shutdown` on, whatever is said afterwards: a process that drains gets no new traffic.
    pub fn starting(step: &str, shutdown: &CancellationToken) -> Self {
        let phase = Phase::Starting { step: step.to_owned() };
        Self { phase: Arc::new(Mutex::new(phase)), shutdown: shutdown.clone() }
    }

    /// Names the step that is under way, for whoever reads `/readyz`.
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

/// The admin port and the vital signs of a process, and what else is to live as long. They outlive the traffic: whoever drains a process
/// wants to watch it.
pub struct AdminPort {
    exemplars: Exemplars,
    stop: CancellationToken,
    running: JoinSet<anyhow::Result<()>>,
}

impl AdminPort {
    /// # Errors
    /// The registry has one of the vital signs' names already.
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

    /// Where `/metrics` looks for exemplars.
    pub fn exemplars(&self) -> &Exemplars {
        &self.exemplars
    }

    /// Has an end of its own, and is waited for.
    pub fn spawn(&mut self, server: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.running.spawn(server);
    }

    /// # Errors
    /// What ran here failed.
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
        // Whoever has not heard of the shutdown yet.
        readiness.ready();
        assert_eq!(readiness.phase(), Phase::Stopping);
    }
}
