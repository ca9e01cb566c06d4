//! Serves HTTP/1.1 or HTTP/2 to a bounded number of connections, with small buffers and short timeouts for requests.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use heartbeat::transport::connections::{Connection, Connections};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
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
/// Requests of a connection over HTTP/2 at a time: a report, a poll, and the poll that it replaces.
const MAX_STREAMS: u32 = 8;
/// What a connection over HTTP/2 may send before it is read.
const WINDOW_BYTES: u32 = 128 * 1024;
/// A connection over HTTP/2 that does not answer is closed after both.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// Without TLS, as gRPC clients begin it when they know that the server can.
    Http2,
}

/// Serves until `shutdown`, then lets requests in flight finish for at most `drain`. Requests carry their `Connection` as an extension.
pub async fn serve(
    (mut listener, protocol): (Listener, Protocol),
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
                () = connection((stream, protocol), peer, router, Arc::clone(&admitted), shutdown) => {}
            }
        });
    }
    drop(listener);
    runtime::lifecycle::drain(&tasks, drain).await;
    end.cancel();
}

async fn connection(
    (stream, protocol): (Stream, Protocol),
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
    let stream = TokioIo::new(stream);
    let ended = match protocol {
        Protocol::Http1 => {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(BUFFER_BYTES);
            until(http.serve_connection(stream, service), &shutdown).await
        }
        Protocol::Http2 => {
            let mut http = http2::Builder::new(TokioExecutor::new());
            http.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).max_header_list_size(BUFFER_BYTES as u32);
            http.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
            http.keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_TIMEOUT);
            until(http.serve_connection(stream, service), &shutdown).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection over HTTP ended early");
    }
}

/// Serves the connection until its client closes it, or until its requests in flight end after `shutdown`.
async fn until<C: GracefulConnection>(connection: C, shutdown: &CancellationToken) -> Result<(), C::Error> {
    let mut served = pin!(connection);
    tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    }
}
