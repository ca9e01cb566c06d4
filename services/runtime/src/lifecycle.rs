//! Signals, serving and draining.

use std::{convert::Infallible, time::Duration};

use anyhow::Context;
use axum::{extract::Request, response::Response, serve::IncomingStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use crate::net::Listener;

/// A token that SIGTERM or SIGINT cancels.
///
/// # Errors
/// The handlers cannot be installed.
pub fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let cancel = token.clone();
    tokio::spawn(async move {
        let name = tokio::select! { _ = term.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        tracing::info!(signal = name, "stopping");
        cancel.cancel();
    });
    Ok(token)
}

/// Serves until `shutdown`, then lets requests in flight finish for at most `drain`.
///
/// # Errors
/// The listener failed. A drain that exceeds its time is logged; it is not an error.
pub async fn serve<S>(listener: Listener, app: S, shutdown: CancellationToken, drain: Duration) -> anyhow::Result<()>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
{
    use axum::ServiceExt;
    serve_connections(listener, app.into_make_service(), shutdown, drain).await
}

/// As `serve`, with a service for each connection.
pub(crate) async fn serve_connections<M, S>(
    listener: Listener,
    make_service: M,
    shutdown: CancellationToken,
    drain: Duration,
) -> anyhow::Result<()>
where
    M: for<'a> Service<IncomingStream<'a, Listener>, Error = Infallible, Response = S, Future: Send> + Send + 'static,
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let server = axum::serve(listener, make_service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let drain_timeout = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        served = server.into_future() => served.context("the HTTP server failed"),
        () = drain_timeout => {
            tracing::warn!(drain_ms = drain.as_millis() as u64, "requests were still in flight at the end of the drain");
            Ok(())
        }
    }
}

/// Waits for background tasks, at most for `drain`.
pub async fn drain(tasks: &TaskTracker, drain: Duration) {
    tasks.close();
    if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
        tracing::warn!("background tasks were still running at the end of the drain");
    }
}
