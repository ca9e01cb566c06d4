//! Signals and draining.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::net::Listener;

/// A token that is cancelled by SIGTERM or SIGINT.
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
/// The listener failed. A drain that ran out of time is logged, not an error.
pub async fn serve(
    listener: Listener,
    app: axum::Router,
    shutdown: CancellationToken,
    drain: Duration,
) -> anyhow::Result<()> {
    let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        served = server.into_future() => served.context("the HTTP server failed"),
        () = overdue => {
            tracing::warn!(drain_ms = drain.as_millis() as u64, "requests were still in flight at the end of the drain");
            Ok(())
        }
    }
}
