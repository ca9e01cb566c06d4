//! Warm-up: writes the lists of the most active users to Redis before the replica takes traffic.
//!
//! The replicas share the work. Each shard is one unit, taken with a lease in Redis. When the lease of a replica that stopped expires, another
//! replica continues the unit at its last position. A finished unit stays marked as long as its lists are fresh. `again` does the same when the
//! cache has lost its lists.

pub mod again;

use std::time::Duration;

use contract::{ShardId, UserId, keys};
use runtime::Readiness;
use tokio::time::Instant;

use crate::{AppState, clock::unix_ms, config::ModelSource, recommend::Behaviour};

const LEASE: Duration = Duration::from_secs(10);
/// Users per query. `Store::histories` prepares statements only for multiples of 100.
const BATCH: usize = 500;
/// Interval of the checks for units that other replicas work on.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Pause after a round in which Redis or a shard failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const DONE: &str = "done";
const UNITS: usize = contract::SHARDS as usize;
/// With a limited rate a batch takes at most this long, well within the lease.
const BATCH_SECONDS: u32 = 2;

/// Renews the lease and stores the position. Returns 0 if another replica has the lease.
const KEEP: &str = r"
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
    return 1";

/// What is written, and by which replicas together.
struct Fill {
    /// Replicas that fill at the same time have the same name.
    name: String,
    /// How long a finished unit stays marked, in milliseconds.
    marked_ms: u64,
}

impl Fill {
    fn before_ready(app: &AppState) -> Self {
        // Versions from segments follow each other within seconds, and the replicas must agree on the name.
        let name = match app.config.model.source {
            ModelSource::Store => format!("m{}", app.model.current().version),
            ModelSource::Segments => "segments".to_owned(),
        };
        // The mark expires a little before the lists, whose time varies by 10 %.
        Self { name, marked_ms: (app.config.cache.fresh_ms * 9 / 10).max(1) }
    }
}

/// Limits the rate to `rate` users per second; 0 means no limit.
#[derive(Debug)]
struct RateLimit {
    rate: u32,
    next: Instant,
}

impl RateLimit {
    fn batch(&self) -> usize {
        match self.rate {
            0 => BATCH,
            rate => BATCH.min((rate.saturating_mul(BATCH_SECONDS)) as usize),
        }
    }

    /// The time at which this batch may start. Unused time is lost, so that no burst follows a pause.
    fn start_at(&mut self, now: Instant, users: usize) -> Instant {
        let begin = self.next.max(now);
        if self.rate > 0 {
            self.next = begin + Duration::from_secs_f64(users as f64 / f64::from(self.rate));
        }
        begin
    }
}

/// Works until all units are done, by this or other replicas, or until `warmup_deadline_ms`. Missing lists are then computed on request.
pub async fn run(app: &AppState, readiness: &Readiness) {
    let show = |done, failing: bool| {
        app.metrics.warmup.progress.set(done as f64 / UNITS as f64);
        let trying = if failing { ", retrying after a failure of Redis or the store" } else { "" };
        readiness.step(format!("warm-up: {done} of {UNITS} shards{trying}"));
    };
    within_deadline(app, &Fill::before_ready(app), show).await;
}

/// `show`: gets the number of units that are done, and whether Redis or the store fails. Returns whether this replica worked on a unit.
async fn within_deadline(app: &AppState, fill: &Fill, show: impl Fn(usize, bool)) -> bool {
    let started = Instant::now();
    let deadline = Duration::from_millis(app.config.guards.warmup_deadline_ms);
    let me = format!("{:016x}", rand::random::<u64>());
    let mut worked = false;
    match tokio::time::timeout(deadline, all_units(app, (&me, fill), show, &mut worked)).await {
        Ok(()) if worked => tracing::info!(seconds = started.elapsed().as_secs_f64(), "warm-up done"),
        Ok(()) => {}
        Err(_elapsed) => tracing::warn!(?deadline, "warm-up not done in time, continuing without the rest"),
    }
    worked
}

async fn all_units(app: &AppState, (me, fill): (&str, &Fill), show: impl Fn(usize, bool), worked: &mut bool) {
    // A unit that was done once stays so, though its mark may expire while this replica works on another.
    let mut open: Vec<ShardId> = ShardId::all().collect();
    let mut rate_limit = RateLimit { rate: app.config.guards.warmup_rate, next: Instant::now() };
    let mut failing = false;
    loop {
        let mut failed = None;
        for shard in open.clone() {
            match unit(app, (me, fill), shard, (&mut rate_limit, worked)).await {
                Ok(true) => open.retain(|other| *other != shard),
                Ok(false) => {}
                Err(error) => {
                    app.metrics.warmup.failed.inc();
                    failed.get_or_insert((shard, error));
                }
            }
            show(UNITS - open.len(), failed.is_some());
        }
        if open.is_empty() {
            return;
        }
        match &failed {
            // Logged once: Redis may be down for minutes, and every round has sixteen such errors.
            Some((shard, error)) if !failing => {
                let error = &**error as &dyn std::error::Error;
                tracing::warn!(shard = shard.index(), error, again_after = ?RETRY_PAUSE, "warm-up failed, retrying until its deadline");
            }
            None if failing => tracing::info!(open = open.len(), "warm-up continues"),
            _ => {}
        }
        failing = failed.is_some();
        tokio::time::sleep(if failing { RETRY_PAUSE } else { CHECK_INTERVAL }).await;
    }
}

/// True: the unit is done. False: another replica works on it. `worked` is set if this one does.
async fn unit(
    app: &AppState,
    (me, fill): (&str, &Fill),
    shard: ShardId,
    (rate_limit, worked): (&mut RateLimit, &mut bool),
) -> anyhow::Result<bool> {
    let redis = &mut app.redis.clone();
    let Fill { name, marked_ms } = fill;
    let (key, cursor) = (keys::warmup_unit(name, shard.index()), keys::warmup_cursor(name, shard.index()));
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
    *worked = true;
    let started = Instant::now();
    let per_shard = app.config.guards.warmup_users.div_ceil(u32::from(contract::SHARDS));
    let users = app.store.most_active(shard, per_shard).await?;
    // A position, not a user: users that have become more active since may be skipped. Their lists are computed on request.
    let resumed_at = warm_already.unwrap_or(0).min(users.len());
    if resumed_at > 0 {
        app.metrics.warmup.resumed.inc();
    }
    let mut warmed = resumed_at;
    for batch in users[resumed_at..].chunks(rate_limit.batch()) {
        tokio::time::sleep_until(rate_limit.start_at(Instant::now(), batch.len())).await;
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
            // The lease has expired: another replica continues at the last stored position.
            return Ok(false);
        }
    }
    redis::pipe().cmd("SET").arg(&key).arg(DONE).arg("PX").arg(marked_ms).del(&cursor).exec_async(redis).await?;
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(shard = shard.index(), users = users.len(), resumed_at, seconds, "warm-up of shard done");
    Ok(true)
}

async fn warm(app: &AppState, shard: ShardId, users: &[UserId]) -> anyhow::Result<()> {
    let behaviours = Behaviour::read_many(&app.store, app.config.features, shard, users).await?;
    let now_ms = unix_ms();
    let (model, wanted) = (app.model.current(), app.config.cache.items);
    let mut lists = Vec::with_capacity(behaviours.len());
    for (n, (user_id, behaviour)) in behaviours.into_iter().enumerate() {
        if let Some(ranked) = behaviour.rank(&model, wanted, &app.metrics.loads.rank_seconds) {
            let fresh_until = app.cache.fresh_until(now_ms);
            lists.push((user_id, model.encode(&ranked, wanted, fresh_until, behaviour.arrival)));
        }
        // Ranking is CPU work, and must not block the admin port and the lease for a whole batch.
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
    fn the_rate_is_limited_and_no_burst_follows_a_pause() {
        let start = Instant::now();
        let mut rate_limit = RateLimit { rate: 100, next: start };
        let mut now = start;
        for _ in 0..10 {
            assert_eq!(rate_limit.batch(), 200);
            now = rate_limit.start_at(now, 200);
        }
        assert_eq!((now - start).as_secs(), 18, "the tenth batch of two seconds");
        let later = now + Duration::from_secs(60);
        assert_eq!(rate_limit.start_at(later, 200), later);
        assert_eq!((rate_limit.start_at(later, 200) - later).as_secs(), 2);
        let mut unbounded = RateLimit { rate: 0, next: start };
        assert_eq!(
            (unbounded.batch(), unbounded.start_at(later, 500), unbounded.start_at(later, 500)),
            (BATCH, later, later)
        );
    }
}
