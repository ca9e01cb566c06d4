//! Step 4: loads of users' lists. With `guards.coalesce`, concurrent requests for one user share one load.

use std::sync::Arc;

use contract::{UserId, http::Criticality, spans::name};
use lists::RankedList;
use runtime::telemetry::{Context, Kind, Span};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    cache::Lookup,
    guard::UserStatus,
    load_and_rank,
    single_flight::{Completion, Panicked, SingleFlight},
};
use crate::{AppState, clock::unix_ms, deadline::Deadline, error::ApiError};

#[derive(Debug, Clone)]
pub struct LoadRequest {
    pub user_id: UserId,
    /// The list has at least this number of items, if there are enough.
    pub limit: usize,
    pub user_status: UserStatus,
    pub deadline: Deadline,
    /// Whose turn it is at the store.
    pub criticality: Criticality,
}

/// `None`: the store has no behaviour to rank from.
type Loaded = Result<Option<RankedList>, Arc<ApiError>>;

pub struct Loads {
    /// The loads in flight, each with its span's context if it is recorded. `None`: every request loads separately.
    shared: Option<SingleFlight<UserId, Loaded, Option<Context>>>,
    pub refreshes: Arc<Semaphore>,
}

/// Lists that one replica refreshes ahead of their expiry at a time.
const MAX_REFRESHES: usize = 32;

impl Loads {
    pub fn new(coalesce: bool) -> Self {
        Self { shared: coalesce.then(SingleFlight::new), refreshes: Arc::new(Semaphore::new(MAX_REFRESHES)) }
    }
}

/// # Errors
/// The store failed, the deadline was exceeded, or too many unverified users are being loaded. All requests that share a load get its
/// error.
pub async fn load(app: &AppState, request: LoadRequest, span: &Span) -> Result<Option<RankedList>, ApiError> {
    match &app.loads.shared {
        None => load_alone(app, &request, &span.child(Kind::Internal, name::LOAD)).await.map(|(list, _fill)| list),
        Some(flights) => load_shared(app, flights, request, span).await,
    }
}

async fn load_alone(
    app: &AppState,
    request: &LoadRequest,
    span: &Span,
) -> Result<(Option<RankedList>, Option<JoinHandle<()>>), ApiError> {
    load_and_rank(app, request, span).await.inspect_err(|error| span.fail(error.problem_name()))
}

/// A load stays joinable until its Redis write ends. A request that missed before and finds no load re-reads Redis first
/// (`run_shared_load`). So one expiry causes one load.
async fn load_shared(
    app: &AppState,
    flights: &SingleFlight<UserId, Loaded, Option<Context>>,
    request: LoadRequest,
    span: &Span,
) -> Result<Option<RankedList>, ApiError> {
    // The second round is for a request that needs a longer list than the load that it joined.
    for round in 0..2 {
        if round > 0 {
            app.metrics.loads.repeated.inc();
        }
        let version = app.memory.version(&request.user_id);
        let joined_at = Instant::now();
        let waiter = flights.join_or_start(&request.user_id, (version.value, request.criticality), |completion| {
            let load_span = span.child(Kind::Internal, name::LOAD);
            (load_span.context(), run_shared_load(app.clone(), request.clone(), completion, load_span))
        });
        let is_leader = waiter.is_leader;
        // Here, so that a request that leaves before the result is counted too.
        if !is_leader {
            app.metrics.loads.joined.inc();
        }
        let wait_span = if is_leader { Span::NONE } else { span.child(Kind::Internal, name::LOAD_WAIT) };
        wait_span.link(waiter.note);
        let result = timeout_at(request.deadline.at, waiter.result()).await;
        let result = result
            .map_err(|_elapsed| request.deadline.exceeded())
            .inspect_err(|error| wait_span.fail(error.problem_name()))?;
        drop(wait_span);
        match result {
            Ok(Ok(Some(list))) if !list.answers(request.limit) => {}
            Ok(Ok(list)) => return Ok(list),
            // The leader's deadline was exceeded, and this request has time left.
            Ok(Err(error)) if !is_leader && matches!(*error, ApiError::Deadline(_)) => {}
            Ok(Err(error)) => return Err(ApiError::SharedLoad { error, waited: joined_at.elapsed() }),
            Err(Panicked) => return Err(ApiError::Internal),
        }
    }
    app.metrics.loads.repeated.inc();
    load_alone(app, &request, &span.child(Kind::Internal, name::LOAD)).await.map(|(list, _fill)| list)
}

async fn run_shared_load(app: AppState, request: LoadRequest, completion: Completion<Loaded>, span: Span) {
    if app.memory.was_just_loaded(&request.user_id) {
        let redis = &mut app.redis.until(request.deadline.at, &span);
        if let Lookup::Fresh(list) = app.cache.get(&request.user_id, request.limit, unix_ms(), redis, &span).await {
            completion.complete(Ok(Some(list)));
            return;
        }
    }
    let loaded = load_alone(&app, &request, &span).await;
    // The span of the load ends here. The write to Redis has a separate span.
    drop(span);
    match loaded {
        Ok((list, fill)) => {
            if !completion.complete(Ok(list)) {
                app.metrics.loads.abandoned.inc();
            }
            if let Some(fill) = fill {
                // The task has counted its failure.
                drop(fill.await);
            }
            app.memory.keep_just_loaded(&request.user_id);
        }
        // A failed load is not counted as abandoned: the store counts its reads itself.
        Err(error) => {
            completion.complete(Err(Arc::new(error)));
        }
    }
}
