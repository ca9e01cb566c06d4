//! `POST /events`: appends events to the behaviour logs of users, through Kafka or directly.

mod produce;

use std::collections::HashMap;

use axum::{Extension, Json, body::Bytes, extract::State, http::HeaderMap, http::StatusCode};
use contract::{
    Event, UserId,
    event::WEIGHTS,
    http::{EventsAccepted, NewEvent, NewEvents, Problem},
};
use runtime::telemetry::Span;
use tokio::time::{Instant, timeout};

use crate::{
    AppState, body,
    clock::unix_ms,
    deadline::Deadline,
    error::ApiError,
    trace,
    writes::{self, STORE_TIMEOUT},
};

pub const MAX_EVENTS: usize = 1000;

/// Accepts one event or an array of up to 1000 events.
///
/// All events are checked before any is written. An event with a timestamp counts once even if it is sent twice, so a failed batch can be
/// sent again. Users that do not exist are created. A timestamp may be at most 300 s ahead of the server's clock. Events without a
/// timestamp happened in the order of the array, and the last one of each user happens now.
///
/// If the service runs with Kafka, accepted events are in Kafka, each at the position that the response states; lists of recommendations
/// follow within seconds. Otherwise they are in the store.
#[utoipa::path(
    post, path = "/events", tag = "events", operation_id = "append_events",
    request_body = NewEvents,
    responses(
        (status = 202, body = EventsAccepted, description = "All events are written, and survive the kill of a server"),
        (status = 400, body = Problem, content_type = "application/problem+json",
            description = "`field` names the event and its invalid field, e.g. events[3].item_id"),
        (status = 413, body = Problem, content_type = "application/problem+json",
            description = "More than 1000 events, or the request body is too long"),
        (status = 415, body = Problem, content_type = "application/problem+json",
            description = "The content type is not application/json"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds to wait before the next attempt")),
            description = "Overloaded, or a server is down. Perhaps some events are written: send all again"),
        (status = 504, body = Problem, content_type = "application/problem+json",
            description = "The deadline was exceeded. Some events may not have been written: send all again"),
    ),
)]
pub async fn create(
    State(app): State<AppState>,
    span: Option<Extension<Span>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<(StatusCode, Json<EventsAccepted>), ApiError> {
    let is_array = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let new: Vec<NewEvent> = if is_array { body::json(&headers, &bytes)? } else { vec![body::json(&headers, &bytes)?] };
    if new.is_empty() {
        return Err(ApiError::invalid("events", "must not be empty"));
    }
    if new.len() > MAX_EVENTS {
        return Err(ApiError::TooLarge(format!("{} events in one request, the limit is {MAX_EVENTS}", new.len())));
    }
    let now_ms = unix_ms() as i64;
    let events = new
        .iter()
        .zip(default_times(&new, now_ms))
        .enumerate()
        .map(|(n, (event, default_ms))| {
            check(event, default_ms, now_ms).map_err(|(field, detail)| {
                let field = if is_array { format!("events[{n}].{field}") } else { field.to_owned() };
                ApiError::invalid(field, detail)
            })
        })
        .collect::<Result<Vec<Event>, ApiError>>()?;
    let accepted = events.len();
    // Kafka's failure is answered before the request's deadline, with the right problem.
    let deadline = Deadline::after(Instant::now(), app.config.http.deadline_ms).of_load().at;
    let write = async move |app: AppState, span: Span| match &app.event_log {
        Some(log) => produce::write(&app, log, &events, deadline, &span).await,
        None => write(&app, &events, now_ms, &span).await.map(|()| Vec::new()),
    };
    let positions = writes::run_to_completion(&app, &trace::request_span(span), write).await?;
    Ok((StatusCode::ACCEPTED, Json(EventsAccepted { accepted, positions })))
}

/// Appends the events to the store, and deletes the lists that they make outdated.
async fn write(app: &AppState, events: &[Event], now_ms: i64, span: &Span) -> Result<(), ApiError> {
    let users = users_of(events);
    let redis = &mut app.redis.traced(span);
    // Before and after the write, as in `users`.
    stores::announce(&users, redis).await.map_err(ApiError::Redis)?;
    let appended = timeout(STORE_TIMEOUT, app.store.append(events, now_ms, span)).await;
    // Also after a failure: some events may have been written.
    users.iter().for_each(|user_id| app.memory.forget(user_id));
    let forgotten = app.cache.forget(&users, redis).await;
    appended.map_err(|_elapsed| ApiError::Deadline(STORE_TIMEOUT.as_millis() as u64))??;
    app.metrics.events.inc_by(events.len() as u64);
    forgotten.map_err(ApiError::Redis)?;
    stores::announce(&users, redis).await.map_err(ApiError::Redis)
}

/// Each user once.
fn users_of(events: &[Event]) -> Vec<&UserId> {
    let mut users: Vec<&UserId> = events.iter().map(|event| &event.user_id).collect();
    users.sort_unstable();
    users.dedup();
    users
}

/// Tolerance for clock differences. Only the newest items of a user are ranked: events further ahead would hide the user's later events.
const AHEAD_MS: i64 = 300_000;

/// The times of events without a timestamp, Unix ms. The log is ordered by time in milliseconds. So each event of a user is 1 ms older than
/// the next one in the batch, and the last one is now. Times never lie in the future, because later requests must be newer. Batches of one
/// user that arrive within one second may interleave.
fn default_times(new: &[NewEvent], now_ms: i64) -> Vec<i64> {
    let mut later: HashMap<&str, i64> = HashMap::new();
    let mut times: Vec<i64> = new
        .iter()
        .rev()
        .map(|event| {
            let later = later.entry(&event.user_id).or_default();
            let default_ms = now_ms - *later;
            *later += i64::from(event.timestamp.is_none());
            default_ms
        })
        .collect();
    times.reverse();
    times
}

fn check(event: &NewEvent, default_ms: i64, now_ms: i64) -> Result<Event, (&'static str, String)> {
    let latest_s = (now_ms + AHEAD_MS) as f64 / 1000.0;
    let at_ms = match event.timestamp {
        None => default_ms,
        // Refuses milliseconds, too: they are far in the future.
        Some(seconds) if (0.0..=latest_s).contains(&seconds) => (seconds * 1000.0).round() as i64,
        Some(_) => {
            let limit_s = AHEAD_MS / 1000;
            return Err((
                "timestamp",
                format!("must be Unix time in seconds, at most {limit_s} s ahead of the server's clock"),
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
