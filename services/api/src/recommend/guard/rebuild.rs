//! Keeps the filter young: rebuilt on a schedule, when many have signed up since, when another replica has begun a new set of newcomers,
//! and when its generation is lost.

use std::{sync::Arc, time::Duration};

use stores::redis::Redis;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    BUILD_LEASE, Guard, build_filter,
    newcomers::{self, Standing},
};
use crate::AppState;

/// How often the generation is looked at: a lost one sends unknown ids to the store for about this long, plus the rebuild.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// The lease on the filter's generation, renewed by each look. A rotation waits this long for a replica that died.
const LEASE: Duration = Duration::from_secs(10);
/// Each replica follows a rotation after a random delay of at most this: they must not read all users at the same time.
const SPREAD: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Deleted users' bits never leave a filter, and the set of newcomers costs memory and a round trip for each of them.
    Schedule,
    Size,
    /// Another replica has rotated. The filter is still good, and would not be after one more rotation, which waits for this.
    Rotation,
    /// Redis was restarted or has evicted the set, or rotation has left this filter behind.
    Generation,
}

/// When the filter is to be built anew if nothing is wrong with it.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    scheduled: Instant,
    /// Set when another replica's rotation was seen.
    follow: Option<Instant>,
}

impl Reason {
    pub const ALL: [Self; 4] = [Self::Schedule, Self::Size, Self::Rotation, Self::Generation];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Size => "size",
            Self::Rotation => "rotation",
            Self::Generation => "generation",
        }
    }
}

/// Whether to rebuild now.
pub fn due(now: Instant, plan: Plan, standing: Standing, max_newcomers: u64) -> Option<Reason> {
    if !standing.is_valid {
        Some(Reason::Generation)
    } else if standing.is_current && standing.newcomers > max_newcomers {
        // A filter of the previous generation is not helped by this: its newcomers are in the set that was put aside.
        Some(Reason::Size)
    } else if now >= plan.scheduled {
        Some(Reason::Schedule)
    } else if !standing.is_current && plan.follow.is_some_and(|follow| now >= follow) {
        Some(Reason::Rotation)
    } else {
        None
    }
}

/// Until `stop`. Looks, decides and rebuilds anew each time: nothing is lost with a round that failed.
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
        let Some((reason, standing)) = look(&app, guard, &mut plan).await else { continue };
        let rebuilt = tokio::select! {
            () = stop.cancelled() => return,
            rebuilt = rebuild(&app, guard, reason, standing) => rebuilt,
        };
        match rebuilt {
            // Another replica must follow the last rotation first.
            Ok(false) => {}
            Ok(true) => {
                plan = next_plan(&app);
                retry = FIRST_PAUSE;
                app.metrics.guard.rebuilds[reason as usize].inc();
            }
            Err(error) => {
                app.metrics.guard.rebuild_failures.inc();
                tracing::warn!(%error, reason = reason.as_str(), "the filter could not be rebuilt, will be tried again");
                // The store has other worries.
                pause = jittered(retry);
                retry = (retry * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn look(app: &AppState, guard: &Guard, plan: &mut Plan) -> Option<(Reason, Standing)> {
    let (generation, redis) = (guard.current().generation.clone(), &mut app.redis.clone());
    let asked = stand(generation.as_deref().unwrap_or_default(), guard, plan, redis).await;
    let Ok(standing) = asked else {
        // Without Redis there is no generation to be had: a new filter would be as unsure as this one.
        app.metrics.guard.generation_valid.set(0.0);
        app.metrics.guard.generation_current.set(0.0);
        return None;
    };
    app.metrics.guard.newcomers.set(standing.newcomers as f64);
    app.metrics.guard.generation_valid.set(if standing.is_valid { 1.0 } else { 0.0 });
    app.metrics.guard.generation_current.set(if standing.is_current { 1.0 } else { 0.0 });
    let max = app.config.guards.bloom_rebuild_newcomers;
    due(Instant::now(), *plan, standing, max).map(|reason| (reason, standing))
}

/// How the filter's generation stands. Renews the lease on it while it is the current one, and once more when it has become the previous
/// one: a replica whose rebuilds fail must not block rotations for ever.
async fn stand(
    generation: &str,
    guard: &Guard,
    plan: &mut Plan,
    redis: &mut Redis,
) -> redis::RedisResult<newcomers::Standing> {
    let standing = newcomers::standing(generation, redis).await?;
    if standing.is_current {
        newcomers::lease(generation, &guard.replica, LEASE.as_millis() as u64, redis).await?;
    } else if standing.is_valid && plan.follow.is_none() {
        newcomers::lease(generation, &guard.replica, BUILD_LEASE.as_millis() as u64, redis).await?;
        plan.follow = Some(Instant::now() + SPREAD.mul_f64(rand::random_range(0.0..1.0)));
    }
    Ok(standing)
}

/// False: the rotation was refused, and without one a new filter would not make the set of newcomers smaller.
async fn rebuild(app: &AppState, guard: &Guard, reason: Reason, standing: Standing) -> anyhow::Result<bool> {
    let redis = &mut app.redis.clone();
    let old: Option<Arc<str>> = guard.current().generation.clone();
    // Where another replica rotated before, its new generation is joined; where the sets are lost, there is nothing to rotate.
    if let (true, true, Some(old)) = (reason != Reason::Generation, standing.is_current, &old) {
        if newcomers::rotate(old, redis).await? {
            // It is in use until the new one is built.
            newcomers::lease(old, &guard.replica, BUILD_LEASE.as_millis() as u64, redis).await?;
        } else if reason == Reason::Size {
            return Ok(false);
        }
    }
    let fpr = app.config.guards.bloom_fpr;
    let filter = build_filter(&app.store, redis, fpr, &guard.replica, &app.metrics.guard).await?;
    tracing::info!(reason = reason.as_str(), users = filter.users, "bloom filter rebuilt");
    let (new, old) = (filter.generation.clone(), guard.swap(filter));
    if let Some(old) = old.generation.as_deref().filter(|old| Some(*old) != new.as_deref()) {
        // If this fails, the lease ends by itself.
        newcomers::release(old, &guard.replica, redis).await.ok();
    }
    Ok(true)
}

fn next_plan(app: &AppState) -> Plan {
    let scheduled = Instant::now() + jittered(Duration::from_millis(app.config.guards.bloom_rebuild_ms));
    Plan { scheduled, follow: None }
}

/// ±10 %: replicas that were started together must not read all users together for ever.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.9..1.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_has_a_reason() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let good = Standing { is_current: true, is_valid: true, newcomers: 10 };
        let plan = Plan { scheduled: later, follow: None };
        assert_eq!(due(now, plan, good, 10), None);
        assert_eq!(due(later, plan, good, 10), Some(Reason::Schedule));
        assert_eq!(due(now, plan, Standing { newcomers: 11, ..good }, 10), Some(Reason::Size));
        let previous = Standing { is_current: false, newcomers: 11, ..good };
        assert_eq!(due(now, plan, previous, 10), None, "rebuilding would not shrink a set that others have begun");
        let soon = now + Duration::from_millis(500);
        let follows = Plan { follow: Some(soon), ..plan };
        assert_eq!(due(now, follows, previous, 10), None, "not all replicas at the same moment");
        assert_eq!(due(soon, follows, previous, 10), Some(Reason::Rotation));
        assert_eq!(due(soon, follows, good, 10), None, "it has joined the new generation by itself");
        assert_eq!(due(now, follows, Standing { is_valid: false, ..good }, 10), Some(Reason::Generation));
    }
}
