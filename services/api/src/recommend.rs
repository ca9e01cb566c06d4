//! The request path, read downward: admitted? → known? → cached? → load, rank, fill (`load`) → answer.

pub mod cache;
mod flights;
pub mod guard;
pub mod list;
pub mod load;
mod local;
pub mod memory;
mod rank;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, header},
    response::Response,
};
use contract::{
    UserId,
    http::{IdText, Problem, Recommendations, Source},
    spans::attribute,
};
use runtime::telemetry::Span;
use tokio::time::Instant;

use self::{cache::Lookup, guard::Existence, list::RankedList, load::Job};
use crate::{AppState, error::ApiError, query, trace::Traced};

pub const PATH: &str = "/recommendations";
pub const MAX_LIMIT: usize = 100;
pub const DEFAULT_LIMIT: usize = 20;

/// Recommendations for a user.
///
/// A user who is unknown, or has no behaviour, is answered with popular items.
#[utoipa::path(
    get, path = "/recommendations", tag = "recommendations", operation_id = "recommendations",
    params(
        ("user_id" = IdText, Query, description = "User id", example = "u000042"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Items wanted, default 20"),
    ),
    responses(
        (status = 200, body = Recommendations, description = "The items, best first"),
        (status = 400, body = Problem, content_type = "application/problem+json",
            description = "A parameter is missing, bad or unknown; `field` names it"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds to wait before the next attempt")),
            description = "Overloaded, or the store is down"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "The deadline ran out"),
    ),
)]
pub async fn get(State(app): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let span = request.extensions().get::<Span>().cloned().unwrap_or_default();
    recommended(&app, request.uri().query(), &span).await
}

/// The same; `span` is the request's own.
pub async fn recommended(app: &AppState, query: Option<&str>, span: &Span) -> Result<Response, ApiError> {
    let (user_id, limit) = asked(query.unwrap_or_default())?;
    let deadline = Instant::now() + Duration::from_millis(app.config.http.deadline_ms);
    let _admitted = match &app.admission {
        Some(admission) => Some(admission.enter(deadline, span).await?),
        None => None,
    };
    let (source, list) = recommend(app, &user_id, limit, deadline, span).await?;
    span.set(attribute::ANSWER_SOURCE, source.as_str());
    app.metrics.answers.of(source).inc();
    Ok(answer(source, &user_id, &list, limit))
}

fn asked(query: &str) -> Result<(UserId, usize), ApiError> {
    if let Some((user_id, limit)) = query::at_a_glance(query)
        && let Ok(user_id) = UserId::new(user_id)
    {
        return Ok((user_id, limit));
    }
    let query = query::parse(query, &["user_id", "limit"])?;
    Ok((query.id("user_id")?, query.limit()?))
}

/// Each wait in here ends by the deadline by itself: a timer around all of it would cost every hit one.
async fn recommend(
    app: &AppState,
    user_id: &UserId,
    limit: usize,
    deadline: Instant,
    span: &Span,
) -> Result<(Source, RankedList), ApiError> {
    let now_ms = unix_ms();
    // What could not be read at a glance by `from_memory`.
    if let Some(list) = app.memory.list(user_id.as_str(), limit, now_ms) {
        return Ok((Source::Cache, list));
    }
    let redis = &mut app.redis.until(deadline, span);
    let existence = match &app.guard {
        Some(guard) => guard.check(user_id, redis, span).await,
        None => Existence::Maybe,
    };
    if existence == Existence::No {
        return Ok((Source::Popular, app.model.popular.clone()));
    }
    let epoch = app.memory.keeps_lists().then(|| app.memory.epoch(user_id));
    let stale = match app.cache.get(user_id, limit, now_ms, redis, span).await {
        Lookup::Fresh(list) => {
            if let Some(epoch) = epoch {
                app.memory.keep_list(user_id, &list, epoch, now_ms);
            }
            if app.config.guards.refresh_ahead {
                load::refresh_ahead(app, user_id, &list, now_ms, span);
            }
            return Ok((Source::Cache, list));
        }
        Lookup::Stale(list) => Some(list),
        Lookup::Nothing => None,
    };
    if app.memory.has_nothing(user_id) {
        return Ok((Source::Popular, app.model.popular.clone()));
    }
    let job = Job { user_id: user_id.clone(), limit, existence, deadline: app.load_deadline(deadline) };
    // In a box of its own: it is large, and a hit would carry it along.
    match (Box::pin(load::load(app, job, span)).await, stale) {
        (Ok(Some(list)), _) => Ok((Source::Store, list)),
        (Ok(None), _) => Ok((Source::Popular, app.model.popular.clone())),
        (Err(error), Some(list)) => {
            tracing::debug!(%error, "load failed, answering with an expired list");
            Ok((Source::Stale, list))
        }
        (Err(error), None) => Err(error),
    }
}

pub use rank::rank;

/// The answer to a request for a list that this process has in memory; `None`: it goes the long way. Counted and timed as any other.
pub fn from_memory(app: &AppState, request: &Request) -> Option<Response> {
    if !app.memory.keeps_lists() {
        return None;
    }
    let started = std::time::Instant::now();
    let (user_id, limit) = query::at_a_glance(request.uri().query()?)?;
    let body = app.memory.answer(user_id, limit, unix_ms())?;
    app.metrics.answers.of(Source::Cache).inc();
    let mut response = json(body.into());
    let traced = Traced::of(&app.telemetry, request, Some(PATH), started);
    traced.span.set(attribute::ANSWER_SOURCE, Source::Cache.as_str());
    traced.end(&app.telemetry, &app.metrics.http.recommended, Some(PATH), &mut response);
    Some(response)
}

fn answer(source: Source, user_id: &UserId, list: &RankedList, limit: usize) -> Response {
    json(body(source, user_id.as_str(), list, limit).into())
}

fn json(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `source` first: a reader of the stream knows at once what it got.
fn body(source: Source, user_id: &str, list: &RankedList, limit: usize) -> Vec<u8> {
    let items = list.items_json(limit);
    let mut body = Vec::with_capacity(items.len() + 160);
    body.extend(b"{\"source\":\"");
    body.extend(source.as_str().as_bytes());
    body.extend(b"\",\"model_version\":");
    body.extend(list.model_version().to_string().as_bytes());
    body.extend(b",\"user_id\":");
    list::push_json_string(&mut body, user_id);
    body.extend(b",\"items\":[");
    body.extend(items);
    body.extend(b"]}");
    body
}

pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64)
}
