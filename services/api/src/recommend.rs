//! The request path, read downward: known? → cache → load → rank → answer → fill.

pub mod cache;
pub mod guard;
pub mod list;
mod rank;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    extract::{RawQuery, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use contract::{UserId, http::Source};

use self::{cache::Lookup, list::RankedList};
use crate::{AppState, error::ApiError, query};

pub const MAX_LIMIT: usize = 100;
pub const DEFAULT_LIMIT: usize = 20;

/// Recommendations for a user.
#[utoipa::path(
    get, path = "/recommendations", tag = "recommendations",
    params(
        ("user_id" = String, Query, description = "1..=64 bytes, no control characters", example = "u000042"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Items wanted, default 20"),
    ),
    responses(
        (status = 200, body = contract::http::Recommendations),
        (status = 400, body = contract::http::Problem, description = "A parameter is missing or bad; `field` names it"),
        (status = 503, body = contract::http::Problem, description = "The store cannot be asked now; Retry-After says when to come back"),
        (status = 504, body = contract::http::Problem, description = "The deadline ran out"),
    ),
)]
pub async fn get(State(app): State<AppState>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let query = query::parse(query.as_deref().unwrap_or_default(), &["user_id", "limit"])?;
    let user_id = query.id("user_id")?;
    let limit = query.limit()?;
    let deadline = Duration::from_millis(app.config.http.deadline_ms);
    let (source, list) = tokio::time::timeout(deadline, recommend(&app, &user_id, limit))
        .await
        .map_err(|_elapsed| ApiError::Deadline(app.config.http.deadline_ms))??;
    app.metrics.answers.of(source).inc();
    Ok(answer(source, &user_id, &list, limit))
}

async fn recommend(app: &AppState, user_id: &UserId, limit: usize) -> Result<(Source, RankedList), ApiError> {
    if let Some(guard) = &app.guard
        && !guard.may_exist(user_id, &mut app.redis.clone(), &app.metrics.guard).await
    {
        return Ok((Source::Popular, app.model.popular.clone()));
    }
    let now_ms = unix_ms();
    let stale = match app.cache.get(user_id, limit, now_ms).await {
        Lookup::Fresh(list) => return Ok((Source::Cache, list)),
        Lookup::Stale(list) => Some(list),
        Lookup::Nothing => None,
    };
    let history = match (app.store.history(user_id).await, stale) {
        (Ok(history), _) => history,
        (Err(error), Some(list)) => {
            tracing::debug!(%error, "store failed, answering with an expired list");
            return Ok((Source::Stale, list));
        }
        (Err(error), None) => return Err(error.into()),
    };
    let wanted = limit.max(app.config.cache.items);
    let Some(ranked) = rank::rank(&app.model, &history, wanted) else {
        // Not cached: nothing says that this user exists, and whoever asks for ids at random must not fill Redis.
        return Ok((Source::Popular, app.model.popular.clone()));
    };
    let list = app.model.encode(&ranked, wanted, app.cache.fresh_until(now_ms));
    app.cache.fill(user_id.clone(), list.clone(), now_ms);
    Ok((Source::Store, list))
}

pub use rank::rank;

/// `source` first: a reader of the stream knows at once what it got.
fn answer(source: Source, user_id: &UserId, list: &RankedList, limit: usize) -> Response {
    let items = list.items_json(limit);
    let mut body = Vec::with_capacity(items.len() + 160);
    body.extend(b"{\"source\":\"");
    body.extend(source.as_str().as_bytes());
    body.extend(b"\",\"model_version\":");
    body.extend(list.model_version().to_string().as_bytes());
    body.extend(b",\"user_id\":");
    list::push_json_string(&mut body, user_id.as_str());
    body.extend(b",\"items\":[");
    body.extend(items);
    body.extend(b"]}");
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64)
}
