//! `POST /events`: what users did, appended to their behaviour log.

use axum::{Extension, Json, body::Bytes, extract::State, http::HeaderMap, http::StatusCode};
use contract::{
    Event, UserId,
    http::{EventsAccepted, NewEvent, NewEvents, Problem},
};
use runtime::telemetry::Span;

use crate::{
    AppState, body,
    error::ApiError,
    recommend::{guard, unix_ms},
    trace,
};

pub const MAX_EVENTS: usize = 1000;

/// Takes one event or an array of up to 1000.
///
/// All are checked before any is written; an event that is sent twice counts
/// once, so a batch that failed can be sent again whole. Users that do not exist are created.
#[utoipa::path(
    post, path = "/events", tag = "events", operation_id = "append_events",
    request_body = NewEvents,
    responses(
        (status = 202, body = EventsAccepted, description = "All are written"),
        (status = 400, body = Problem, content_type = "application/problem+json",
            description = "`field` names the event and its field, e.g. events[3].item_id"),
        (status = 413, body = Problem, content_type = "application/problem+json",
            description = "More than 1000 events, or the body is too long"),
        (status = 415, body = Problem, content_type = "application/problem+json",
            description = "The content type is not application/json"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds to wait before the next attempt")),
            description = "Overloaded, or a server is down. Perhaps not all are written: send them again"),
        (status = 504, body = Problem, content_type = "application/problem+json",
            description = "The deadline ran out. Perhaps not all are written: send them again"),
    ),
)]
pub async fn create(
    State(app): State<AppState>,
    span: Option<Extension<Span>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<(StatusCode, Json<EventsAccepted>), ApiError> {
    let many = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let new: Vec<NewEvent> = if many { body::json(&headers, &bytes)? } else { vec![body::json(&headers, &bytes)?] };
    if new.is_empty() {
        return Err(ApiError::invalid("events", "must not be empty"));
    }
    if new.len() > MAX_EVENTS {
        return Err(ApiError::TooLarge(format!("{} events in one request, the limit is {MAX_EVENTS}", new.len())));
    }
    let now_ms = unix_ms() as i64;
    let events = new
        .iter()
        .enumerate()
        .map(|(n, event)| {
            check(event, now_ms).map_err(|(field, detail)| {
                let field = if many { format!("events[{n}].{field}") } else { field.to_owned() };
                ApiError::invalid(field, detail)
            })
        })
        .collect::<Result<Vec<Event>, ApiError>>()?;
    app.with_deadline(write(&app, &events, now_ms, &trace::of_request(span))).await?;
    app.metrics.events.inc_by(events.len() as u64);
    Ok((StatusCode::ACCEPTED, Json(EventsAccepted { accepted: events.len() })))
}

async fn write(app: &AppState, events: &[Event], now_ms: i64, span: &Span) -> Result<(), ApiError> {
    let mut users: Vec<&UserId> = events.iter().map(|event| &event.user_id).collect();
    users.sort_unstable();
    users.dedup();
    let redis = &mut app.redis.traced(span);
    // As in `users`: before and after.
    guard::announce(&users, redis).await.map_err(ApiError::Cache)?;
    let appended = app.store.append(events, now_ms, span).await;
    // Also after a failure: a part may have been written.
    users.iter().for_each(|user_id| app.memory.forget(user_id));
    appended?;
    guard::announce(&users, redis).await.map_err(ApiError::Cache)?;
    app.cache.forget(&users, redis).await.map_err(ApiError::Cache)
}

/// 1970-01-01 to 2100-01-01: a value in milliseconds lies far outside.
const SECONDS: std::ops::RangeInclusive<f64> = 0.0..=4_102_444_800.0;

/// Far beyond any rating on both sides, so that no `f32` becomes 0 or infinite by rounding or in a sum. `NewEvent` documents it.
const WEIGHTS: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

fn check(event: &NewEvent, now_ms: i64) -> Result<Event, (&'static str, String)> {
    let at_ms = match event.timestamp {
        None => now_ms,
        Some(seconds) if SECONDS.contains(&seconds) => (seconds * 1000.0).round() as i64,
        Some(_) => return Err(("timestamp", "must be unix time in seconds".into())),
    };
    let weight = match event.weight {
        None => event.event.default_weight(),
        Some(weight) if WEIGHTS.contains(&weight) => weight as f32,
        Some(_) => return Err(("weight", format!("must be from {} to {}", WEIGHTS.start(), WEIGHTS.end()))),
    };
    Ok(Event {
        user_id: event.user_id.parse().map_err(|e: contract::IdError| ("user_id", e.to_string()))?,
        item_id: event.item_id.parse().map_err(|e: contract::IdError| ("item_id", e.to_string()))?,
        kind: event.event,
        at_ms,
        weight,
    })
}
