//! `GET /recommendations`, to be read from top to bottom. The steps have the same numbers in ARCHITECTURE.md, "A request, read downward".
//!
//! 0. Admission (`admission`)
//! 1. List in this process's memory (`local`)
//! 2. User check (`guard`)
//! 3. List in Redis (`cache`)
//! 4. Load from the store, shared by concurrent requests for one user (`load`, `behaviour`)
//! 5. Ranking (`behaviour`)
//! 6. Response, while a background task writes the list to Redis (`cache`)

mod behaviour;
pub mod cache;
pub mod guard;
pub mod load;
mod local;
pub mod memory;
mod refresh;
mod response;
mod single_flight;

use axum::{
    extract::{Request, State},
    http::HeaderMap,
    response::Response,
};
use contract::{
    UserId,
    http::{Criticality, IdText, Problem, Recommendations, Source},
    spans::{attribute, name},
};
use lists::RankedList;
use runtime::telemetry::{Kind, Span};
use stores::Turn;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use self::{cache::Lookup, guard::UserStatus, load::LoadRequest};
use crate::{
    AppState,
    clock::unix_ms,
    criticality,
    deadline::Deadline,
    error::ApiError,
    metrics::{Path, Undecided},
    query, routes,
    trace::RequestTrace,
};

pub use behaviour::Behaviour;

/// Recommendations for a user.
///
/// The answer for an unknown user, or for one without behaviour, is the popular items.
#[utoipa::path(
    get, path = "/recommendations", tag = "recommendations", operation_id = "recommendations",
    params(
        ("user_id" = IdText, Query, description = "User id", example = "u000042"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Number of items, default 20"),
        ("x-request-deadline-ms" = Option<u64>, Header, description = "Unix time in milliseconds at which the client stops waiting. \
            Ignored unless the server is configured to honour it (`http.honour_deadline`)"),
        ("x-criticality" = Option<Criticality>, Header, description = "Under overload less critical requests are refused first; by default `default`"),
    ),
    responses(
        (status = 200, body = Recommendations, description = "The items, best first"),
        (status = 400, body = Problem, content_type = "application/problem+json",
            description = "A parameter is missing, invalid or unknown; `field` names it"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds to wait before the next attempt")),
            description = "Overloaded, or the store is down"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "The deadline was exceeded"),
    ),
)]
pub async fn get(State(app): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let span = request.extensions().get::<Span>().cloned().unwrap_or_default();
    respond(&app, request.uri().query(), request.headers(), &span).await
}

/// Step 1 for most requests, before admission: the response to a query in the usual form whose list is in memory. It is counted and traced
/// here. `None`: the request needs `respond`.
pub fn respond_from_memory(app: &AppState, request: &Request) -> Option<Response> {
    // The declared work of a request is done after admission.
    if !app.memory.keeps_lists() || app.work.is_some() {
        return None;
    }
    let started = std::time::Instant::now();
    let (user_id, limit) = query::parse_plain(request.uri().query()?)?;
    let body = app.memory.response_body(user_id, limit, unix_ms())?;
    app.metrics.answers.of(Source::Cache).inc();
    app.metrics.paths.of(Path::Memory).inc();
    let mut response = response::json(body);
    let trace = RequestTrace::start(&app.telemetry, request, Some(routes::RECOMMENDATIONS), started);
    trace.span.set(attribute::ANSWER_SOURCE, Source::Cache.as_str());
    trace.finish(app, &app.metrics.http.recommended, Some(routes::RECOMMENDATIONS), &mut response);
    Some(response)
}

/// `span` is the request's span.
pub async fn respond(
    app: &AppState,
    query: Option<&str>,
    headers: &HeaderMap,
    span: &Span,
) -> Result<Response, ApiError> {
    let mut decision = app.metrics.paths.enter();
    let (user_id, limit) =
        parameters(query.unwrap_or_default()).inspect_err(|_error| decision.decide(Path::Invalid))?;
    let deadline = deadline(app, headers).inspect_err(|error| {
        let is_late = matches!(error, ApiError::DeadlinePassed { .. });
        decision.decide(if is_late { Path::Refused } else { Path::Invalid });
    })?;
    let criticality = criticality::of(headers).inspect_err(|_error| decision.decide(Path::Invalid))?;
    // Step 0
    let admitted = match &app.admission {
        Some(admission) => {
            let admitted = admission.enter(deadline.at, criticality, span).await;
            Some(admitted.inspect_err(|_error| decision.decide(Path::Refused))?)
        }
        None => None,
    };
    let answer = admitted_response(app, (&user_id, limit), (deadline, criticality), (span, &mut decision)).await;
    if let Some(admitted) = admitted {
        admitted.end(&answer);
    }
    answer
}

/// Steps 1 to 6.
async fn admitted_response(
    app: &AppState,
    (user_id, limit): (&UserId, usize),
    (deadline, criticality): (Deadline, Criticality),
    (span, decision): (&Span, &mut Undecided<'_>),
) -> Result<Response, ApiError> {
    let (source, list) = find_list(app, (user_id, limit), (deadline, criticality), (span, decision)).await?;
    // The declared cost of an answer, if any. Here, after the last wait for a server: a request that waits for a connection, or fails, burns no
    // CPU, and one that waits for its virtual CPU holds no connection. Boxed: otherwise the future of every request would contain it.
    if let Some(work) = &app.work {
        Box::pin(work.spend(deadline, span)).await?;
    }
    span.set(attribute::ANSWER_SOURCE, source.as_str());
    app.metrics.answers.of(source).inc();
    Ok(response::json(response::body(source, user_id.as_str(), &list, limit)))
}

fn parameters(query: &str) -> Result<(UserId, usize), ApiError> {
    if let Some((user_id, limit)) = query::parse_plain(query)
        && let Ok(user_id) = UserId::new(user_id)
    {
        return Ok((user_id, limit));
    }
    let query = query::parse(query, &["user_id", "limit"])?;
    Ok((query.id("user_id")?, query.limit()?))
}

fn deadline(app: &AppState, headers: &HeaderMap) -> Result<Deadline, ApiError> {
    let arrival = Instant::now();
    let own = Deadline::after(arrival, app.config.http.deadline_ms);
    if app.config.http.honour_deadline { own.or_clients(headers, arrival, unix_ms()) } else { Ok(own) }
}

/// Steps 1 to 4. Each wait in it ends at the deadline; a timer around the whole function would slow down every hit.
async fn find_list(
    app: &AppState,
    (user_id, limit): (&UserId, usize),
    (deadline, criticality): (Deadline, Criticality),
    (span, decision): (&Span, &mut Undecided<'_>),
) -> Result<(Source, RankedList), ApiError> {
    let now_ms = unix_ms();
    // Step 1, for queries that `parse_plain` does not read.
    if let Some(list) = app.memory.list(user_id.as_str(), limit, now_ms) {
        decision.decide(Path::Memory);
        return Ok((Source::Cache, list));
    }
    // Step 2
    let redis = &mut app.redis.until(deadline.at, span);
    let user_status = match &app.guard {
        Some(guard) => guard.check(user_id, redis, span).await,
        None => UserStatus::MayExist,
    };
    if user_status == UserStatus::Absent {
        decision.decide(Path::Filter);
        return Ok((Source::Popular, app.model.current().popular.clone()));
    }
    // Step 3
    let version = app.memory.keeps_lists().then(|| app.memory.version(user_id));
    let stale = match app.cache.get(user_id, limit, now_ms, redis, span).await {
        Lookup::Fresh(list) => {
            decision.decide(Path::Redis);
            if let Some(version) = version {
                app.memory.keep_list(user_id, &list, version, now_ms);
            }
            if app.config.guards.refresh_ahead {
                refresh::refresh_ahead(app, user_id, &list, now_ms, span);
            }
            return Ok((Source::Cache, list));
        }
        Lookup::Stale(list) => Some(list),
        Lookup::Nothing => None,
    };
    // Step 4
    if app.memory.has_no_behaviour(user_id) {
        decision.decide(Path::NoBehaviour);
        return Ok((Source::Popular, app.model.current().popular.clone()));
    }
    decision.decide(Path::Store);
    let deadline = deadline.of_load();
    let request = LoadRequest { user_id: user_id.clone(), limit, user_status, deadline, criticality };
    // Boxed, because it is large: otherwise the future of a hit would contain it.
    match (Box::pin(load::load(app, request, span)).await, stale) {
        (Ok(Some(list)), _) => Ok((Source::Store, list)),
        (Ok(None), _) => Ok((Source::Popular, app.model.current().popular.clone())),
        (Err(error), Some(list)) => {
            tracing::debug!(%error, "load failed, answering with an expired list");
            Ok((Source::Stale, list))
        }
        (Err(error), None) => Err(error),
    }
}

/// Steps 4 to 6 of one load: reads the user's behaviour from the store, ranks, and starts to write the list to Redis. Returns the list
/// (`None`: the store has no behaviour to rank from) and the task that writes it. `span` is the load's span.
///
/// # Errors
/// The store failed, the deadline was exceeded, or too many unverified users are being loaded.
async fn load_and_rank(
    app: &AppState,
    request: &LoadRequest,
    span: &Span,
) -> Result<(Option<RankedList>, Option<JoinHandle<()>>), ApiError> {
    let LoadRequest { user_id, limit, user_status, deadline, criticality } = request;
    let permit = match (&app.guard, user_status) {
        (Some(guard), UserStatus::Unverified) => Some(guard.unverified_load_permit()?),
        _ => None,
    };
    app.metrics.loads.led.inc();
    let version = app.memory.version(user_id);
    // The store usually ends at the deadline on its own. If it does not, the query goes on without this request.
    let second_reads = &app.metrics.loads.second_reads;
    let turn = Turn { criticality: *criticality, deadline: Some(deadline.at) };
    let read = Behaviour::read(&app.store, app.config.features, user_id, turn, (span, second_reads));
    let behaviour = timeout_at(deadline.at, read)
        .await
        .map_err(|_elapsed| deadline.exceeded())
        .and_then(|behaviour| behaviour.map_err(ApiError::from))
        .inspect_err(|_error| app.metrics.loads.failed.inc())?;
    drop(permit);
    // Step 5
    let (model, wanted) = (app.model.current(), (*limit).max(app.config.cache.items));
    let ranking = span.child(Kind::Internal, name::RANK);
    let ranked = behaviour.rank(&model, wanted, &app.metrics.loads.rank_seconds);
    ranking.set(attribute::ITEMS, ranked.as_ref().map_or(0, Vec::len));
    drop(ranking);
    let Some(ranked) = ranked else {
        app.metrics.loads.empty.inc();
        // Not in Redis: the user may not exist, and requests for random ids must not fill Redis.
        app.memory.keep_no_behaviour(user_id, version);
        return Ok((None, None));
    };
    app.metrics.loads.found.inc();
    // Step 6
    let now_ms = unix_ms();
    let list = model.encode(&ranked, wanted, app.cache.fresh_until(now_ms), behaviour.arrival);
    app.memory.keep_list(user_id, &list, version, now_ms);
    let fill = app.cache.fill(user_id, &list, version, now_ms, span);
    Ok((Some(list), fill))
}
