//! Lists of the most active users are in Redis before the replica takes traffic.
//!
//! The replicas share the work: one unit a shard, taken with a lease in Redis. A unit whose replica died falls to
//! another one when its lease runs out, which goes on where the dead one stopped; a unit that is done stays marked for as long
//! as its lists live.

use std::time::Duration;

use contract::{ShardId, UserId, keys};
use runtime::Readiness;
use tokio::time::Instant;

use crate::{
    AppState,
    recommend::{self, unix_ms},
};

const LEASE: Duration = Duration::from_secs(10);
/// Users whose logs are read with one query. A multiple of 100, so that its text is worth caching.
const BATCH: usize = 500;
/// Between looks at units that other replicas hold.
const WHILE_OTHERS_WORK: Duration = Duration::from_millis(200);
/// After a round in which Redis or a shard failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
const DONE: &str = "done";
/// A batch of a bounded rate takes this long at most, well within the lease.
const BATCH_SECONDS: u32 = 2;

/// Prolongs the lease and notes how far the unit is; 0 if the lease is another's by now.
const KEEP: &str = r"
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
    return 1";

/// Spreads users over time: `rate` of them a second, 0 for as many as it gets.
#[derive(Debug)]
struct Pace {
    rate: u32,
    next: Instant,
}

impl Pace {
    fn batch(&self) -> usize {
        match self.rate {
            0 => BATCH,
            rate => BATCH.min((rate.saturating_mul(BATCH_SECONDS)) as usize),
        }
    }

    /// When these may be begun. What was not used of earlier time is lost: a pause must not be followed by a burst.
    fn turn(&mut self, now: Instant, users: usize) -> Instant {
        let begin = self.next.max(now);
        if self.rate > 0 {
            self.next = begin + Duration::from_secs_f64(users as f64 / f64::from(self.rate));
        }
        begin
    }
}

/// Works until all units are done, by whomever. Bounded by `warmup_deadline_ms`; what then is missing is filled by
/// requests, as without warm-up.
pub async fn run(app: &AppState, readiness: &Readiness) {
    let started = Instant::now();
    let deadline = Duration::from_millis(app.config.guards.warmup_deadline_ms);
    let me = format!("{:016x}", rand::random::<u64>());
    match tokio::time::timeout(deadline, all_units(app, &me, readiness)).await {
        Ok(()) => tracing::info!(seconds = started.elapsed().as_secs_f64(), "warm-up done"),
        Err(_elapsed) => tracing::warn!(?deadline, "warm-up not done in time, going on without the rest"),
    }
}

async fn all_units(app: &AppState, me: &str, readiness: &Readiness) {
    let units: Vec<ShardId> = ShardId::all().collect();
    let mut pace = Pace { rate: app.config.guards.warmup_rate, next: Instant::now() };
    let mut failing = false;
    loop {
        let (mut done, mut failed) = (0, None);
        for &shard in &units {
            match unit(app, me, shard, &mut pace).await {
                Ok(true) => done += 1,
                Ok(false) => {}
                Err(error) => {
                    app.metrics.warmup.failed.inc();
                    failed.get_or_insert((shard, error));
                }
            }
            app.metrics.warmup.progress.set(done as f64 / units.len() as f64);
            let trying = if failed.is_some() { ", Redis or the store refuses, trying again" } else { "" };
            readiness.step(format!("warm-up: {done} of {} shards{trying}", units.len()));
        }
        if done == units.len() {
            return;
        }
        match &failed {
            // Once: Redis may refuse for minutes, and every round has sixteen such errors.
            Some((shard, error)) if !failing => {
                let error = &**error as &dyn std::error::Error;
                tracing::warn!(shard = shard.index(), error, again_after = ?AFTER_FAILURE, "warm-up failed, is tried again until its deadline");
            }
            None if failing => tracing::info!(done, "warm-up goes on"),
            _ => {}
        }
        failing = failed.is_some();
        tokio::time::sleep(if failing { AFTER_FAILURE } else { WHILE_OTHERS_WORK }).await;
    }
}

/// True: this unit is done. False: another replica is at it.
async fn unit(app: &AppState, me: &str, shard: ShardId, pace: &mut Pace) -> anyhow::Result<bool> {
    let redis = &mut app.redis.clone();
    let fill = format!("m{}", app.model.version);
    let (key, cursor) = (keys::warmup_unit(&fill, shard.index()), keys::warmup_cursor(&fill, shard.index()));
    let lease_ms = LEASE.as_millis() as u64;
    let (_, holder, warm_already): (Option<String>, Option<String>, Option<usize>) = redis::pipe()
        .cmd("SET")
        .arg(&key)
        .arg(me)
        .arg("NX")
        .arg("PX")
        .arg(lease_ms)
        .get(&key)
        .get(&cursor)
        .query_async(redis)
        .await?;
    match holder.as_deref() {
        Some(DONE) => return Ok(true),
        Some(holder) if holder == me => {}
        _ => return Ok(false),
    }
    let started = Instant::now();
    let per_shard = app.config.guards.warmup_users.div_ceil(u32::from(contract::SHARDS));
    let users = app.store.most_active(shard, per_shard).await?;
    // A position, not a user: who has become more active since may be missed, and is then filled by a request.
    let resumed_at = warm_already.unwrap_or(0).min(users.len());
    if resumed_at > 0 {
        app.metrics.warmup.resumed.inc();
    }
    // The marker goes a little before the lists do (their time varies by 10 %).
    let marked_ms = (app.config.cache.fresh_ms * 9 / 10).max(1);
    let mut warmed = resumed_at;
    for batch in users[resumed_at..].chunks(pace.batch()) {
        tokio::time::sleep_until(pace.turn(Instant::now(), batch.len())).await;
        warm(app, shard, batch).await?;
        warmed += batch.len();
        let kept: bool = redis::Script::new(KEEP)
            .key(&key)
            .key(&cursor)
            .arg(me)
            .arg(lease_ms)
            .arg(warmed)
            .arg(marked_ms)
            .invoke_async(redis)
            .await?;
        if !kept {
            // It took longer than the lease: another replica goes on, from the last position that was noted.
            return Ok(false);
        }
    }
    redis::pipe().cmd("SET").arg(&key).arg(DONE).arg("PX").arg(marked_ms).del(&cursor).exec_async(redis).await?;
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(shard = shard.index(), users = users.len(), resumed_at, seconds, "warm-up of a shard done");
    Ok(true)
}

async fn warm(app: &AppState, shard: ShardId, users: &[UserId]) -> anyhow::Result<()> {
    let histories = app.store.histories(shard, users).await?;
    let now_ms = unix_ms();
    let wanted = app.config.cache.items;
    let mut lists = Vec::with_capacity(histories.len());
    for (n, (user_id, history)) in histories.into_iter().enumerate() {
        if let Some(ranked) = recommend::rank(&app.model, &history, wanted, &app.metrics.loads.rank_seconds) {
            lists.push((user_id, app.model.encode(&ranked, wanted, app.cache.fresh_until(now_ms))));
        }
        // Ranking is CPU work: the admin port and the lease must not wait for a whole batch of it.
        if n % 50 == 49 {
            tokio::task::yield_now().await;
        }
    }
    app.cache.fill_many(&lists, now_ms).await?;
    app.metrics.warmup.users.inc_by(lists.len() as u64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_to_and_a_pause_earns_nothing() {
        let start = Instant::now();
        let mut pace = Pace { rate: 100, next: start };
        let mut now = start;
        for _ in 0..10 {
            assert_eq!(pace.batch(), 200);
            now = pace.turn(now, 200);
        }
        assert_eq!((now - start).as_secs(), 18, "the tenth batch of two seconds");
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.turn(later, 200), later);
        assert_eq!((pace.turn(later, 200) - later).as_secs(), 2);
        let mut unbounded = Pace { rate: 0, next: start };
        assert_eq!((unbounded.batch(), unbounded.turn(later, 500), unbounded.turn(later, 500)), (BATCH, later, later));
    }
}
