//! The admin API.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, Query, State as Extract,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use contract::http::{Problem, problem};
use runtime::Endpoint;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    config::{Link, Route},
    fault::{ActiveFault, Control, FaultForm, FaultKind, FaultSpec, InvalidFault},
    law::{InvalidLaw, Law, LawForm},
    metrics::{LinkMetrics, Metrics},
};

const MAX_BODY_BYTES: usize = 16 * 1024;

/// Response body of `GET /state`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub law: Law,
    pub faults: Vec<ActiveFault>,
    /// Commands in flight in the whole store.
    pub in_flight: u64,
    /// Open client connections.
    pub connections: u64,
    pub commands_total: u64,
    pub malformed_total: u64,
    pub listeners: Vec<ListenerState>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkState>,
}

/// Counts datagrams, or pieces of a TCP stream as they were read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkState {
    #[serde(flatten)]
    pub link: Link,
    /// Connections, or clients whose datagrams are relayed.
    pub flows: u64,
    pub passed_total: u64,
    /// Lost by the fault; over TCP: retransmissions of the model.
    pub lost_total: u64,
    pub stalled_total: u64,
    pub overflow_total: u64,
    pub unreachable_total: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerState {
    pub name: String,
    pub listen: Endpoint,
    pub upstream: Endpoint,
    pub connections: u64,
    pub commands_total: u64,
    /// Writes answered with the error of a fault.
    pub failed_writes_total: u64,
    pub malformed_total: u64,
}

#[derive(Clone)]
pub(crate) struct AdminState {
    pub(crate) routes: Arc<[Route]>,
    pub(crate) links: Arc<[Link]>,
    pub(crate) control: Arc<Control>,
    pub(crate) metrics: Arc<Metrics>,
}

pub(crate) fn router(state: AdminState) -> Router {
    Router::new()
        .route("/state", get(show))
        .route("/law", put(set_law))
        .route("/faults", post(add_fault).delete(clear))
        .route("/faults/{kind}", delete(lift))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, problem::NOT_FOUND, "no such route", None))
        .method_not_allowed_fallback(async || {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Refusal::new(status, problem::METHOD_NOT_ALLOWED, "the route does not take this method", None)
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}

async fn show(Extract(state): Extract<AdminState>) -> Json<State> {
    Json(state.show())
}

/// 200 with the law in force.
async fn set_law(
    Extract(state): Extract<AdminState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Law>, Refusal> {
    let law = Law::try_from(parse::<LawForm>(body)?)?;
    state.control.set_law(law);
    tracing::info!(%law, "law set");
    Ok(Json(law))
}

/// 201 with the fault as parsed.
async fn add_fault(
    Extract(state): Extract<AdminState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<FaultSpec>), Refusal> {
    let spec = FaultSpec::try_from(parse::<FaultForm>(body)?)?;
    state.control.add(spec.clone())?;
    tracing::info!(fault = ?spec.fault, scope = ?spec.scope, for_ms = spec.for_ms, "fault added");
    Ok((StatusCode::CREATED, Json(spec)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LiftQuery {
    /// Only the faults with this `link`.
    link: Option<String>,
}

/// 204, also if there was none.
async fn clear(
    Extract(state): Extract<AdminState>,
    query: Result<Query<LiftQuery>, QueryRejection>,
) -> Result<StatusCode, Refusal> {
    let Query(LiftQuery { link }) = query?;
    state.control.lift(None, link.as_deref());
    tracing::info!(link, "faults of all kinds lifted");
    Ok(StatusCode::NO_CONTENT)
}

/// 204, also if it was not in force; 404 if there is no such kind.
async fn lift(
    Extract(state): Extract<AdminState>,
    Path(kind): Path<String>,
    query: Result<Query<LiftQuery>, QueryRejection>,
) -> Result<StatusCode, Refusal> {
    let Some(kind) = FaultKind::ALL.into_iter().find(|each| each.as_str() == kind) else {
        let detail = format!("a fault is one of {}", FaultKind::ALL.map(FaultKind::as_str).join(", "));
        return Err(Refusal::new(StatusCode::NOT_FOUND, problem::NOT_FOUND, &detail, None));
    };
    let Query(LiftQuery { link }) = query?;
    state.control.lift(Some(kind), link.as_deref());
    tracing::info!(fault = kind.as_str(), link, "fault lifted");
    Ok(StatusCode::NO_CONTENT)
}

async fn metrics(Extract(state): Extract<AdminState>) -> Result<Response, Refusal> {
    match state.metrics.text(&state.control) {
        Ok(text) => Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response()),
        Err(error) => {
            tracing::error!(%error, "cannot write metrics");
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, problem::INTERNAL, "cannot write metrics", None))
        }
    }
}

impl AdminState {
    fn show(&self) -> State {
        let listeners: Vec<_> = std::iter::zip(&*self.routes, &self.metrics.listeners)
            .map(|(route, counts)| ListenerState {
                name: route.name.clone(),
                listen: route.listen.clone(),
                upstream: route.upstream.clone(),
                connections: u64::try_from(counts.connections.get()).unwrap_or(0),
                commands_total: counts.commands.get(),
                failed_writes_total: counts.failed_writes.get(),
                malformed_total: counts.malformed_total(),
            })
            .collect();
        State {
            law: self.control.law(),
            faults: self.control.active(),
            in_flight: self.metrics.in_flight.load(Ordering::Relaxed),
            connections: listeners.iter().map(|each| each.connections).sum(),
            commands_total: listeners.iter().map(|each| each.commands_total).sum(),
            malformed_total: listeners.iter().map(|each| each.malformed_total).sum(),
            listeners,
            links: self.links(),
        }
    }

    fn links(&self) -> Vec<LinkState> {
        let state = |(link, counts): (&Link, &LinkMetrics)| LinkState {
            link: link.clone(),
            flows: u64::try_from(counts.flows.get()).unwrap_or(0),
            passed_total: counts.passed.get(),
            lost_total: counts.lost.get(),
            stalled_total: counts.stalled.get(),
            overflow_total: counts.overflow.get(),
            unreachable_total: counts.unreachable.get(),
        };
        std::iter::zip(&*self.links, &self.metrics.links).map(state).collect()
    }
}

/// A problem document (RFC 9457).
#[derive(Debug)]
struct Refusal(StatusCode, Problem);

impl Refusal {
    fn new(status: StatusCode, kind: &str, detail: &str, field: Option<&str>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        let field = field.map(str::to_owned);
        Self(
            status,
            Problem { kind: kind.to_owned(), title, status: status.as_u16(), detail: detail.to_owned(), field },
        )
    }

    fn invalid(field: &str, reason: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, &format!("{field}: {reason}"), Some(field))
    }
}

impl From<InvalidLaw> for Refusal {
    fn from(invalid: InvalidLaw) -> Self {
        Self::invalid(invalid.field, &invalid.reason)
    }
}

impl From<InvalidFault> for Refusal {
    fn from(invalid: InvalidFault) -> Self {
        Self::invalid(invalid.field, &invalid.reason)
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, &rejection.body_text(), None)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, [(header::CONTENT_TYPE, "application/problem+json")], Json(self.1)).into_response()
    }
}

fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Refusal> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let detail = format!("the body is longer than {MAX_BODY_BYTES} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, problem::TOO_LARGE, &detail, None)
        }
        status => Refusal::new(status, problem::INVALID_REQUEST, "the body could not be read", None),
    })?;
    serde_json::from_slice(&body).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, &format!("body: {error}"), None)
    })
}
