//! Steps 3 and 4: from the store, ranked, and on its way to the cache. One load per user at a time, if `guards.coalesce`.

use std::sync::Arc;

use contract::{
    UserId, keys,
    spans::{attribute, name},
};
use runtime::telemetry::{Context, Kind, Span};
use tokio::{sync::Semaphore, task::JoinHandle, time::Instant};

use super::{
    cache::Lookup,
    flights::{Crashed, Flights, Landing},
    guard::Existence,
    list::RankedList,
    rank, unix_ms,
};
use crate::{AppState, error::ApiError};

/// What is to be loaded.
#[derive(Debug, Clone)]
pub struct Job {
    pub user_id: UserId,
    /// Items of the list, at least.
    pub limit: usize,
    pub existence: Existence,
    /// Nothing is waited for beyond it.
    pub deadline: Instant,
}

/// `None`: the store knows no behaviour to rank from.
type Loaded = Result<Option<RankedList>, Arc<ApiError>>;
/// Where in which trace a load is recorded, if it is.
type Flown = Option<Context>;

pub struct Loads {
    /// `None`: every request loads for itself.
    flights: Option<Flights<UserId, Loaded, Flown>>,
    refreshes: Arc<Semaphore>,
}

/// Lists that one replica refreshes ahead of their expiry at the same time; others wait for their next hit.
const MAX_REFRESHES: usize = 32;
/// For as long the others leave a list alone that one is refreshing; also after a failure, which is then the back-off.
const REFRESH_LEASE_MS: u64 = 10_000;

impl Loads {
    pub fn new(coalesce: bool) -> Self {
        Self { flights: coalesce.then(Flights::new), refreshes: Arc::new(Semaphore::new(MAX_REFRESHES)) }
    }
}

/// # Errors
/// The store failed, or the deadline ran out; shared with all who waited for the same load.
pub async fn load(app: &AppState, job: Job, span: &Span) -> Result<Option<RankedList>, ApiError> {
    match &app.loads.flights {
        None => alone(app, &job, &span.child(Kind::Internal, name::LOAD)).await.map(|(list, _fill)| list),
        Some(flights) => together(app, flights, job, span).await,
    }
}

/// The load itself, and the fill of the cache that it started. `span` is the load's own.
async fn alone(
    app: &AppState,
    job: &Job,
    span: &Span,
) -> Result<(Option<RankedList>, Option<JoinHandle<()>>), ApiError> {
    let loaded = read_and_rank(app, job, span).await;
    if let Err(error) = &loaded {
        span.fail(error.word());
    }
    loaded
}

async fn read_and_rank(
    app: &AppState,
    job: &Job,
    span: &Span,
) -> Result<(Option<RankedList>, Option<JoinHandle<()>>), ApiError> {
    let permit = match (&app.guard, job.existence) {
        (Some(guard), Existence::Unsure) => Some(guard.unsure_permit()?),
        _ => None,
    };
    app.metrics.loads.led.inc();
    let epoch = app.memory.epoch(&job.user_id);
    // The store keeps to the deadline by itself where it can; here it does in any case, while the query may run on.
    let history = tokio::time::timeout_at(job.deadline, app.store.history(&job.user_id, Some(job.deadline), span))
        .await
        .map_err(|_elapsed| ApiError::Deadline(app.config.http.deadline_ms))
        .and_then(|history| history.map_err(ApiError::from))
        .inspect_err(|_error| app.metrics.loads.failed.inc())?;
    drop(permit);
    let wanted = job.limit.max(app.config.cache.items);
    let ranking = span.child(Kind::Internal, name::RANK);
    let ranked = rank::rank(&app.model, &history, wanted, &app.metrics.loads.rank_seconds);
    ranking.set(attribute::ITEMS, ranked.as_ref().map_or(0, Vec::len));
    drop(ranking);
    let Some(ranked) = ranked else {
        app.metrics.loads.empty.inc();
        // Not in Redis: nothing says that this user exists, and whoever asks for ids at random must not fill it.
        app.memory.keep_nothing(&job.user_id, epoch);
        return Ok((None, None));
    };
    app.metrics.loads.found.inc();
    let now_ms = unix_ms();
    let list = app.model.encode(&ranked, wanted, app.cache.fresh_until(now_ms));
    app.memory.keep_list(&job.user_id, &list, epoch, now_ms);
    let fill = app.cache.fill(&job.user_id, &list, epoch, now_ms, span);
    Ok((Some(list), fill))
}

/// A flight ends with its fill, and who finds none any more although it missed before looks into Redis again: so what one key's
/// expiry sets off is one load, however many ask.
async fn together(
    app: &AppState,
    flights: &Flights<UserId, Loaded, Flown>,
    job: Job,
    span: &Span,
) -> Result<Option<RankedList>, ApiError> {
    // A second time only for who wants a longer list than the flight that it joined.
    for _ in 0..2 {
        let epoch = app.memory.epoch(&job.user_id);
        let boarded = Instant::now();
        let passenger = flights.board(&job.user_id, epoch.value, |landing| {
            let loading = span.child(Kind::Internal, name::LOAD);
            (loading.context(), fly(app.clone(), job.clone(), landing, loading))
        });
        let ours = passenger.ours;
        let waiting = if ours { Span::NONE } else { span.child(Kind::Internal, name::LOAD_WAIT) };
        waiting.link(passenger.note);
        let result = tokio::time::timeout_at(job.deadline, passenger.result()).await;
        let result = result
            .map_err(|_elapsed| ApiError::Deadline(app.config.http.deadline_ms))
            .inspect_err(|error| waiting.fail(error.word()))?;
        drop(waiting);
        if !ours {
            app.metrics.loads.joined.inc();
        }
        match result {
            Ok(Ok(Some(list))) if !list.answers(job.limit) => {}
            Ok(Ok(list)) => return Ok(list),
            // The leader ran out of its time, not of ours.
            Ok(Err(error)) if !ours && matches!(*error, ApiError::Deadline(_)) => {}
            Ok(Err(error)) => return Err(ApiError::Shared { error, waited: boarded.elapsed() }),
            Err(Crashed) => return Err(ApiError::Internal),
        }
    }
    alone(app, &job, &span.child(Kind::Internal, name::LOAD)).await.map(|(list, _fill)| list)
}

async fn fly(app: AppState, job: Job, landing: Landing<Loaded>, span: Span) {
    if app.memory.has_landed(&job.user_id) {
        let redis = &mut app.redis.until(job.deadline, &span);
        if let Lookup::Fresh(list) = app.cache.get(&job.user_id, job.limit, unix_ms(), redis, &span).await {
            return landing.land(Ok(Some(list)));
        }
    }
    let loaded = alone(&app, &job, &span).await;
    // It ends here; the fill that goes on is a span of its own.
    drop(span);
    match loaded {
        Ok((list, fill)) => {
            landing.land(Ok(list));
            if let Some(fill) = fill {
                // A fill that failed is counted where it failed.
                drop(fill.await);
            }
            app.memory.keep_landed(&job.user_id);
        }
        Err(error) => landing.land(Err(Arc::new(error))),
    }
}

/// Starts a load in the background if the list, a hit, will soon expire: one for all replicas, so that a key in demand never
/// expires and nobody waits for it.
pub fn refresh_ahead(app: &AppState, user_id: &UserId, list: &RankedList, now_ms: u64, span: &Span) {
    let left_ms = list.fresh_until_ms().saturating_sub(now_ms);
    if left_ms >= app.config.cache.refresh_ahead_ms || !app.memory.may_try_refresh(user_id) {
        return;
    }
    let Ok(permit) = Arc::clone(&app.loads.refreshes).try_acquire_owned() else {
        app.metrics.loads.refresh_dropped.inc();
        return;
    };
    let (app, user_id) = (app.clone(), user_id.clone());
    let refreshing = span.child(Kind::Internal, name::REFRESH_AHEAD);
    app.clone().tasks.spawn(async move {
        let _permit = permit;
        let deadline = Instant::now() + std::time::Duration::from_millis(app.config.http.deadline_ms);
        let lease = redis::cmd("SET")
            .arg(keys::refresh_lease(user_id.as_str()))
            .arg(1)
            .arg("NX")
            .arg("PX")
            .arg(REFRESH_LEASE_MS)
            .query_async::<Option<String>>(&mut app.redis.until(deadline, &refreshing))
            .await;
        if !matches!(lease, Ok(Some(_))) {
            app.metrics.loads.refresh_taken.inc();
            return;
        }
        let job = Job { user_id, limit: app.config.cache.items, existence: Existence::Maybe, deadline };
        match load(&app, job, &refreshing).await {
            Ok(_) => app.metrics.loads.refresh_ok.inc(),
            Err(_counted) => app.metrics.loads.refresh_failed.inc(),
        }
    });
}
