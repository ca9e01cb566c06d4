//! Serves HTTP to a bounded number of connections, with small buffers and short timeouts for requests.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use heartbeat::transport::connections::{Connection, Connections};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::{
    Endpoint,
    net::{Listener, Stream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// A connection without a complete request header for this long is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of a connection's read buffer, and with it of a request header.
const BUFFER_BYTES: usize = 16 * 1024;

/// Serves until `shutdown`, then lets requests in flight finish for at most `drain`. Requests carry their `Connection` as an extension.
pub async fn serve(
    mut listener: Listener,
    router: Router,
    open: Arc<Connections>,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
    while let Some((stream, peer)) = shutdown.run_until_cancelled(axum::serve::Listener::accept(&mut listener)).await {
        let address = match &peer {
            Endpoint::Tcp(address) => address.ip(),
            Endpoint::Unix(_) => IpAddr::from([0, 0, 0, 0]),
        };
        let admitted = Arc::new(open.admit(address));
        let (router, shutdown, end) = (router.clone(), shutdown.clone(), end.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = admitted.must_close() => {}
                () = connection(stream, peer, router, Arc::clone(&admitted), shutdown) => {}
            }
        });
    }
    drop(listener);
    runtime::lifecycle::drain(&tasks, drain).await;
    end.cancel();
}

async fn connection(
    stream: Stream,
    peer: Endpoint,
    router: Router,
    admitted: Arc<Connection>,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&admitted));
        if let Endpoint::Tcp(peer) = peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        router.clone().oneshot(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(BUFFER_BYTES);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection over HTTP ended early");
    }
}
