//! `POST /events`: what users did, appended to their behaviour log.

use std::collections::HashMap;

use axum::{Extension, Json, body::Bytes, extract::State, http::HeaderMap, http::StatusCode};
use contract::{
    Event, UserId,
    http::{EventsAccepted, NewEvent, NewEvents, Problem},
};
use runtime::telemetry::Span;
use tokio::time::timeout;

use crate::{
    AppState, body,
    error::ApiError,
    recommend::{guard, unix_ms},
    trace,
    writes::{self, STORE_PATIENCE},
};

pub const MAX_EVENTS: usize = 1000;

/// Takes one event or an array of up to 1000.
///
/// All are checked before any is written; an event with a timestamp that is sent twice counts once, so a batch that failed can be
/// sent again whole. Users that do not exist are created. An event's timestamp is at most 300 s ahead of the server's clock; events
/// without one happened in the order in which they are sent, the last one of each user now.
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
        .zip(arrivals(&new, now_ms))
        .enumerate()
        .map(|(n, (event, arrived_ms))| {
            check(event, arrived_ms, now_ms).map_err(|(field, detail)| {
                let field = if many { format!("events[{n}].{field}") } else { field.to_owned() };
                ApiError::invalid(field, detail)
            })
        })
        .collect::<Result<Vec<Event>, ApiError>>()?;
    let accepted = events.len();
    let write = async move |app: AppState, span: Span| write(&app, &events, now_ms, &span).await;
    writes::run_to_completion(&app, &trace::of_request(span), write).await?;
    Ok((StatusCode::ACCEPTED, Json(EventsAccepted { accepted })))
}

async fn write(app: &AppState, events: &[Event], now_ms: i64, span: &Span) -> Result<(), ApiError> {
    let mut users: Vec<&UserId> = events.iter().map(|event| &event.user_id).collect();
    users.sort_unstable();
    users.dedup();
    let redis = &mut app.redis.traced(span);
    // As in `users`: before and after.
    guard::announce(&users, redis).await.map_err(ApiError::Cache)?;
    let appended = timeout(STORE_PATIENCE, app.store.append(events, now_ms, span)).await;
    // Also after a failure: a part may have been written.
    users.iter().for_each(|user_id| app.memory.forget(user_id));
    let forgotten = app.cache.forget(&users, redis).await;
    appended.map_err(|_elapsed| ApiError::Deadline(STORE_PATIENCE.as_millis() as u64))??;
    app.metrics.events.inc_by(events.len() as u64);
    forgotten.map_err(ApiError::Cache)?;
    guard::announce(&users, redis).await.map_err(ApiError::Cache)
}

/// Allowance for clocks that differ. A history is the newest 100 events: events further ahead would hide what the user does later.
const AHEAD_MS: i64 = 300_000;

/// Far beyond any rating on both sides, so that no `f32` becomes 0 or infinite by rounding or in a sum. `NewEvent` documents it.
const WEIGHTS: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

/// The time of each event that has no timestamp. The log is read by time, in milliseconds. So each event of a user is 1 ms older than the
/// next one in the batch, and the last one is now: a batch of 1000 reaches back one second, never forward, as later requests must be newer.
/// Batches of one user that arrive within that second interleave.
fn arrivals(new: &[NewEvent], now_ms: i64) -> Vec<i64> {
    let mut later: HashMap<&str, i64> = HashMap::new();
    let mut arrivals: Vec<i64> = new
        .iter()
        .rev()
        .map(|event| {
            let later = later.entry(&event.user_id).or_default();
            let arrived_ms = now_ms - *later;
            *later += i64::from(event.timestamp.is_none());
            arrived_ms
        })
        .collect();
    arrivals.reverse();
    arrivals
}

fn check(event: &NewEvent, arrived_ms: i64, now_ms: i64) -> Result<Event, (&'static str, String)> {
    let latest_s = (now_ms + AHEAD_MS) as f64 / 1000.0;
    let at_ms = match event.timestamp {
        None => arrived_ms,
        // A value in milliseconds lies far ahead.
        Some(seconds) if (0.0..=latest_s).contains(&seconds) => (seconds * 1000.0).round() as i64,
        Some(_) => {
            let limit_s = AHEAD_MS / 1000;
            return Err((
                "timestamp",
                format!("must be unix time in seconds, at most {limit_s} s ahead of the server's clock"),
            ));
        }
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
