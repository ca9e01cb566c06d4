//! Request bodies: announced before they are read, read within a timeout, and bounded in total.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use contract::http::problem;
use heartbeat::transport::connections::Connection;
use tokio::{sync::Semaphore, time::timeout};

use crate::problems::refused;

/// Bodies up to this size are only bounded by the number of connections.
const SMALL_BYTES: usize = 4 * 1024;
/// Total size of larger bodies: of connections that have sent an authentic message, and of others.
const AUTHENTICATED_BYTES: usize = 16 << 20;
const UNAUTHENTICATED_BYTES: usize = 4 << 20;
/// Timeout of reading a body.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the bodies of a group of routes.
#[derive(Clone)]
pub struct Bodies {
    max_bytes: usize,
    authenticated: Arc<Semaphore>,
    unauthenticated: Arc<Semaphore>,
}

impl Bodies {
    /// `max_bytes`: of the largest body of any route.
    pub fn new(max_bytes: usize) -> Self {
        let [authenticated, unauthenticated] =
            [AUTHENTICATED_BYTES.max(max_bytes), UNAUTHENTICATED_BYTES].map(|bytes| Arc::new(Semaphore::new(bytes)));
        Self { max_bytes, authenticated, unauthenticated }
    }

    /// The same room, for routes with shorter bodies.
    pub fn up_to(&self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self.clone() }
    }
}

/// Middleware: reads the body, or refuses the request.
pub async fn read(State(bodies): State<Bodies>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(length) = announced else {
        return refused(StatusCode::LENGTH_REQUIRED, problem::INVALID_REQUEST, "send Content-Length");
    };
    if length > bodies.max_bytes {
        let detail = format!("the request body may have at most {} bytes", bodies.max_bytes);
        return refused(StatusCode::PAYLOAD_TOO_LARGE, problem::INVALID_REQUEST, &detail);
    }
    let is_authenticated = request.extensions().get::<Arc<Connection>>().is_some_and(|from| from.is_authenticated());
    let room = if is_authenticated { &bodies.authenticated } else { &bodies.unauthenticated };
    let wanted = if length > SMALL_BYTES { u32::try_from(length).unwrap_or(u32::MAX) } else { 0 };
    let Ok(_reserved) = room.try_acquire_many(wanted) else {
        let detail = "too many large request bodies are being read: try again later";
        return refused(StatusCode::SERVICE_UNAVAILABLE, problem::OVERLOADED, detail);
    };
    let (parts, body) = request.into_parts();
    match timeout(TIMEOUT, to_bytes(body, length)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(_)) => refused(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, "the request body cannot be read"),
        Err(_) => refused(StatusCode::REQUEST_TIMEOUT, problem::DEADLINE_EXCEEDED, "the request body came too slowly"),
    }
}
