//! Keeps the filter young: rebuilt on a schedule, when many have signed up since, and when its generation is lost.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Guard, build_filter,
    newcomers::{self, Standing},
};
use crate::AppState;

/// How often the generation is looked at: a lost one sends unknown ids to the store for about this long, plus the rebuild.
const CHECK_EVERY: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Deleted users' bits never leave a filter, and the set of newcomers costs memory and a round trip for each of them.
    Schedule,
    Size,
    /// Redis was restarted or has evicted the set, or rotation has left this filter behind.
    Generation,
}

impl Reason {
    pub const ALL: [Self; 3] = [Self::Schedule, Self::Size, Self::Generation];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Size => "size",
            Self::Generation => "generation",
        }
    }
}

/// Whether to rebuild now.
pub fn due(now: Instant, scheduled: Instant, standing: Standing, max_newcomers: u64) -> Option<Reason> {
    if !standing.is_valid {
        Some(Reason::Generation)
    } else if standing.is_current && standing.newcomers > max_newcomers {
        // A filter of the previous generation is not helped by this: its newcomers are in the set that was put aside.
        Some(Reason::Size)
    } else if now >= scheduled {
        Some(Reason::Schedule)
    } else {
        None
    }
}

/// Until `stop`. Looks, decides and rebuilds anew each time: nothing is lost with a round that failed.
pub async fn run(app: AppState, stop: CancellationToken) {
    let Some(guard) = &app.guard else { return };
    let mut scheduled = next_scheduled(&app);
    let check_every = CHECK_EVERY.min(Duration::from_millis(app.config.guards.bloom_rebuild_ms));
    let (mut pause, mut retry) = (check_every, FIRST_PAUSE);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = check_every;
        let Some((reason, standing)) = look(&app, guard, scheduled).await else { continue };
        let rebuilt = tokio::select! {
            () = stop.cancelled() => return,
            rebuilt = rebuild(&app, guard, reason, standing) => rebuilt,
        };
        match rebuilt {
            Ok(()) => {
                scheduled = next_scheduled(&app);
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

async fn look(app: &AppState, guard: &Guard, scheduled: Instant) -> Option<(Reason, Standing)> {
    let generation = guard.current().generation.clone();
    let asked = newcomers::standing(generation.as_deref().unwrap_or_default(), &mut app.redis.clone()).await;
    let Ok(standing) = asked else {
        // Without Redis there is no generation to be had: a new filter would be as unsure as this one.
        app.metrics.guard.generation_valid.set(0.0);
        return None;
    };
    app.metrics.guard.newcomers.set(standing.newcomers as f64);
    app.metrics.guard.generation_valid.set(if standing.is_valid { 1.0 } else { 0.0 });
    let max = app.config.guards.bloom_rebuild_newcomers;
    due(Instant::now(), scheduled, standing, max).map(|reason| (reason, standing))
}

async fn rebuild(app: &AppState, guard: &Guard, reason: Reason, standing: Standing) -> anyhow::Result<()> {
    let redis = &mut app.redis.clone();
    let old: Option<Arc<str>> = guard.current().generation.clone();
    // Where another replica rotated before, its new generation is joined; where the sets are lost, there is nothing to rotate.
    if let (true, true, Some(old)) = (reason != Reason::Generation, standing.is_current, &old) {
        newcomers::rotate(old, redis).await?;
    }
    let filter = build_filter(&app.store, redis, app.config.guards.bloom_fpr, &app.metrics.guard).await?;
    tracing::info!(reason = reason.as_str(), users = filter.users, "bloom filter rebuilt");
    guard.swap(filter);
    Ok(())
}

fn next_scheduled(app: &AppState) -> Instant {
    Instant::now() + jittered(Duration::from_millis(app.config.guards.bloom_rebuild_ms))
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
        assert_eq!(due(now, later, good, 10), None);
        assert_eq!(due(later, later, good, 10), Some(Reason::Schedule));
        assert_eq!(due(now, later, Standing { newcomers: 11, ..good }, 10), Some(Reason::Size));
        let previous = Standing { is_current: false, newcomers: 11, ..good };
        assert_eq!(due(now, later, previous, 10), None, "rebuilding would not shrink a set that others have begun");
        assert_eq!(due(now, later, Standing { is_valid: false, ..good }, 10), Some(Reason::Generation));
    }
}
