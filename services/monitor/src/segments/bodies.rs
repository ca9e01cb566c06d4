//! Bodies of gRPC requests: read as a whole, within a timeout, and bounded in total before a message is decoded.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use heartbeat::transport::connections::Connection;
use segments::rpc::MAX_MESSAGE_BYTES;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tonic::Status;

/// Reports that are read and checked at a time: of connections that have sent an authentic message, and of others. Each may have
/// `MAX_FRAME_BYTES`.
const AUTHENTICATED_REPORTS: usize = 2;
const UNAUTHENTICATED_REPORTS: usize = 1;
/// From the headers of a request to the end of its body, with the wait for its turn.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Of a gRPC message: a flag and a length.
const PREFIX_BYTES: usize = 5;
/// Limit of all other messages: polls have a name and three numbers.
const MAX_POLL_BYTES: usize = 1024;
/// A frame has a header and a MAC besides the message.
pub const MAX_FRAME_BYTES: usize = MAX_MESSAGE_BYTES + 1024;

#[derive(Clone)]
pub struct Bodies {
    /// Path of reports.
    report: &'static str,
    authenticated: Arc<Semaphore>,
    unauthenticated: Arc<Semaphore>,
}

impl Bodies {
    pub fn new(report: &'static str) -> Self {
        let [authenticated, unauthenticated] =
            [AUTHENTICATED_REPORTS, UNAUTHENTICATED_REPORTS].map(|count| Arc::new(Semaphore::new(count)));
        Self { report, authenticated, unauthenticated }
    }
}

/// Middleware: reads the body, or refuses the request.
pub async fn read(State(bodies): State<Bodies>, request: Request, next: Next) -> Response {
    let until = Instant::now() + TIMEOUT;
    let is_report = request.uri().path() == bodies.report;
    let is_authenticated = request.extensions().get::<Arc<Connection>>().is_some_and(|from| from.is_authenticated());
    let room = if is_authenticated { &bodies.authenticated } else { &bodies.unauthenticated };
    let _permit = match is_report {
        true => match timeout_at(until, room.acquire()).await {
            Ok(Ok(permit)) => Some(permit),
            _ => return Status::resource_exhausted("too many reports are being read: try again later").into_http(),
        },
        false => None,
    };
    let limit = PREFIX_BYTES + if is_report { MAX_FRAME_BYTES } else { MAX_POLL_BYTES };
    let (parts, body) = request.into_parts();
    match timeout_at(until, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(_)) => {
            let message = format!("the message cannot be read, or has more than {limit} bytes");
            Status::resource_exhausted(message).into_http()
        }
        Err(_) => Status::deadline_exceeded("the message came too slowly").into_http(),
    }
}
