//! `serve bare`: a minimal axum handler in front of Redis. `bench hit` and `bench telemetry` compare the api with it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::{
    Router,
    extract::{RawQuery, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use contract::spans::{attribute, system};
use redis::aio::ConnectionManager;
use runtime::{
    Endpoint,
    telemetry::{Kind, Service, Telemetry, TelemetryConfig},
};
use stores::redis::RedisConfig;
use tokio_util::sync::CancellationToken;

/// Key of the bytes that are answered for a user.
pub fn key(user_id: &str) -> String {
    format!("bare_{user_id}")
}

/// Serves until `stop`.
///
/// # Errors
/// The port is taken, the address of Redis is not valid, or the server failed.
pub async fn serve(
    listen: SocketAddr,
    redis: &str,
    telemetry: Option<&str>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listen = Endpoint::from(listen);
    let listener = listen.bind().await.with_context(|| format!("cannot listen on {listen}"))?;
    // As the api opens its own: the two are to differ in the handler only.
    let config = RedisConfig { url: redis.to_owned(), response_timeout_ms: 500, connect_timeout_ms: 500 };
    let redis = config.open().context("the address of Redis is not valid")?;
    let app = match telemetry {
        None => Router::new().route("/recommendations", get(answer)).with_state(redis),
        Some(endpoint) => {
            let config = TelemetryConfig { sample_ratio: 1.0, logs: false, ..TelemetryConfig::to(endpoint) };
            let service = Service { name: "bare", listen: listen.to_string() };
            let telemetry = Telemetry::start(&config, service, &prometheus::Registry::new())?;
            Router::new().route("/recommendations", get(traced)).with_state((redis, telemetry))
        }
    };
    runtime::lifecycle::serve(listener, app, stop, Duration::from_secs(1)).await
}

async fn answer(State(mut redis): State<ConnectionManager>, RawQuery(query): RawQuery) -> Response {
    let Some(user_id) = query.as_deref().and_then(|query| query.strip_prefix("user_id=")) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    match redis::cmd("GET").arg(key(user_id)).query_async::<Option<Bytes>>(&mut redis).await {
        Ok(Some(bytes)) => {
            ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response()
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// With three spans, and about as many attributes as the api's have.
async fn traced(
    State((redis, telemetry)): State<(ConnectionManager, Telemetry)>,
    RawQuery(query): RawQuery,
) -> Response {
    let incoming = telemetry.incoming(None);
    let server = telemetry.record(incoming.new_span(), Kind::Server, "GET /recommendations", Instant::now());
    server.set(attribute::HTTP_REQUEST_METHOD, "GET");
    server.set(attribute::URL_SCHEME, "http");
    server.set(attribute::HTTP_ROUTE, "/recommendations");
    server.set(attribute::URL_PATH, "/recommendations");
    let handler = server.child(Kind::Internal, "handler");
    let get = handler.child(Kind::Client, "GET");
    get.set(attribute::DB_SYSTEM_NAME, system::REDIS);
    get.set(attribute::DB_OPERATION_NAME, "GET");
    let response = answer(State(redis), RawQuery(query)).await;
    drop(get);
    server.set(attribute::HTTP_RESPONSE_STATUS_CODE, response.status().as_u16());
    response
}
