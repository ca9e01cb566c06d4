//! Rebuilds the filter: on a schedule, after many sign-ups, after another replica's rotation, and when its generation is lost.

use std::{sync::Arc, time::Duration};

use stores::redis::Redis;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    BUILD_LEASE, Guard, build_filter,
    newcomers::{self, GenerationStatus},
};
use crate::{AppState, rebuild_reason::RebuildReason};

/// Interval of the checks. After the loss of a generation unknown ids reach the store for about this long, and during the rebuild.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// Duration of the lease on the filter's generation; each check renews it. A rotation waits this long for a replica that stopped.
const LEASE: Duration = Duration::from_secs(10);
/// Each replica rebuilds after a random delay of at most this, so that the replicas do not all read the users at the same time.
const SPREAD: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// When the next rebuild is due while the generation is valid.
#[derive(Debug, Clone, Copy)]
struct Plan {
    scheduled: Instant,
    /// Set after another replica's rotation.
    after_rotation: Option<Instant>,
}

/// The reason to rebuild now, if there is one.
fn due(now: Instant, plan: Plan, status: GenerationStatus, max_newcomers: u64) -> Option<RebuildReason> {
    if !status.is_valid {
        Some(RebuildReason::Generation)
    } else if status.is_current && status.newcomers > max_newcomers {
        // Skipped for the previous generation: this replica's newcomers are in the previous set.
        Some(RebuildReason::Size)
    } else if now >= plan.scheduled {
        Some(RebuildReason::Schedule)
    } else if !status.is_current && plan.after_rotation.is_some_and(|at| now >= at) {
        Some(RebuildReason::Rotation)
    } else {
        None
    }
}

/// Runs until `stop`. Each round checks, decides and rebuilds from scratch, so that a failed round loses nothing.
pub async fn run(app: AppState, stop: CancellationToken) {
    let Some(guard) = &app.guard else { return };
    let mut plan = next_plan(&app);
    let check_every = CHECK_EVERY.min(Duration::from_millis(app.config.guards.bloom_rebuild_ms));
    let (mut pause, mut retry) = (check_every, FIRST_PAUSE);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = check_every;
        let Some((reason, status)) = due_rebuild(&app, guard, &mut plan).await else { continue };
        let rebuilt = tokio::select! {
            () = stop.cancelled() => return,
            rebuilt = rebuild(&app, guard, reason, status) => rebuilt,
        };
        match rebuilt {
            // Another replica must rebuild first.
            Ok(false) => {}
            Ok(true) => {
                plan = next_plan(&app);
                retry = FIRST_PAUSE;
                app.metrics.guard.rebuilds[reason as usize].inc();
            }
            Err(error) => {
                app.metrics.guard.rebuild_failures.inc();
                tracing::warn!(%error, reason = reason.as_str(), "cannot rebuild the bloom filter, retrying");
                pause = jittered(retry);
                retry = (retry * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn due_rebuild(app: &AppState, guard: &Guard, plan: &mut Plan) -> Option<(RebuildReason, GenerationStatus)> {
    let (generation, redis) = (guard.current().generation.clone(), &mut app.redis.clone());
    let checked = check_generation(generation.as_deref().unwrap_or_default(), guard, plan, redis).await;
    let Ok(status) = checked else {
        // Without Redis a new filter would have no generation either.
        app.metrics.guard.generation_valid.set(0.0);
        app.metrics.guard.generation_current.set(0.0);
        return None;
    };
    app.metrics.guard.newcomers.set(status.newcomers as f64);
    app.metrics.guard.generation_valid.set(if status.is_valid { 1.0 } else { 0.0 });
    app.metrics.guard.generation_current.set(if status.is_current { 1.0 } else { 0.0 });
    let max = app.config.guards.bloom_rebuild_newcomers;
    due(Instant::now(), *plan, status, max).map(|reason| (reason, status))
}

/// Renews the lease while the generation is the current one, and once more when it has become the previous one: a replica whose rebuilds
/// fail must not block rotations for ever.
async fn check_generation(
    generation: &str,
    guard: &Guard,
    plan: &mut Plan,
    redis: &mut Redis,
) -> redis::RedisResult<GenerationStatus> {
    let status = newcomers::generation_status(generation, redis).await?;
    if status.is_current {
        newcomers::lease(generation, &guard.replica, LEASE.as_millis() as u64, redis).await?;
    } else if status.is_valid && plan.after_rotation.is_none() {
        newcomers::lease(generation, &guard.replica, BUILD_LEASE.as_millis() as u64, redis).await?;
        plan.after_rotation = Some(Instant::now() + SPREAD.mul_f64(rand::random_range(0.0..1.0)));
    }
    Ok(status)
}

/// False: not rebuilt. The rotation was refused, and a rebuild without a rotation would not shrink the set of newcomers.
async fn rebuild(
    app: &AppState,
    guard: &Guard,
    reason: RebuildReason,
    status: GenerationStatus,
) -> anyhow::Result<bool> {
    let redis = &mut app.redis.clone();
    let old: Option<Arc<str>> = guard.current().generation.clone();
    // No rotation if another replica has rotated before (the new filter joins its generation), or if the sets are lost.
    if let (true, true, Some(old)) = (reason != RebuildReason::Generation, status.is_current, &old) {
        if newcomers::rotate(old, redis).await? {
            // The old filter is in use until the new one is built.
            newcomers::lease(old, &guard.replica, BUILD_LEASE.as_millis() as u64, redis).await?;
        } else if reason == RebuildReason::Size {
            return Ok(false);
        }
    }
    let fpr = app.config.guards.bloom_fpr;
    let filter = build_filter(&app.store, redis, fpr, &guard.replica, &app.metrics.guard).await?;
    tracing::info!(reason = reason.as_str(), users = filter.users, "bloom filter rebuilt");
    let (new, old) = (filter.generation.clone(), guard.swap(filter));
    if let Some(old) = old.generation.as_deref().filter(|old| Some(*old) != new.as_deref()) {
        // If this fails, the lease expires.
        newcomers::release(old, &guard.replica, redis).await.ok();
    }
    Ok(true)
}

fn next_plan(app: &AppState) -> Plan {
    let scheduled = Instant::now() + jittered(Duration::from_millis(app.config.guards.bloom_rebuild_ms));
    Plan { scheduled, after_rotation: None }
}

/// ±10 %, so that replicas which started together do not read all users together for ever.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.9..1.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_for_a_rebuild() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let good = GenerationStatus { is_current: true, is_valid: true, newcomers: 10 };
        let plan = Plan { scheduled: later, after_rotation: None };
        assert_eq!(due(now, plan, good, 10), None);
        assert_eq!(due(later, plan, good, 10), Some(RebuildReason::Schedule));
        assert_eq!(due(now, plan, GenerationStatus { newcomers: 11, ..good }, 10), Some(RebuildReason::Size));
        let previous = GenerationStatus { is_current: false, newcomers: 11, ..good };
        assert_eq!(due(now, plan, previous, 10), None, "a rebuild would not shrink the current set");
        let soon = now + Duration::from_millis(500);
        let follows = Plan { after_rotation: Some(soon), ..plan };
        assert_eq!(due(now, follows, previous, 10), None, "not all replicas at the same moment");
        assert_eq!(due(soon, follows, previous, 10), Some(RebuildReason::Rotation));
        assert_eq!(due(soon, follows, good, 10), None, "the filter is of the new generation already");
        assert_eq!(
            due(now, follows, GenerationStatus { is_valid: false, ..good }, 10),
            Some(RebuildReason::Generation)
        );
    }
}
