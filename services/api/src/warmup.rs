//! Lists of the most active users are in Redis before the replica takes traffic.
//!
//! The replicas share the work: one unit a shard, taken with a lease in Redis. A unit whose replica died falls to
//! another one when its lease runs out; a unit that is done stays marked for as long as its lists live.

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
const DONE: &str = "done";

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
    loop {
        let mut done = 0;
        for &shard in &units {
            match unit(app, me, shard).await {
                Ok(true) => done += 1,
                Ok(false) => {}
                Err(error) => {
                    app.metrics.warmup.failed.inc();
                    tracing::warn!(
                        shard = shard.index(),
                        error = &*error as &dyn std::error::Error,
                        "warm-up failed, will be tried again"
                    );
                }
            }
            app.metrics.warmup.progress.set(done as f64 / units.len() as f64);
            readiness.step(format!("warm-up: {done} of {} shards", units.len()));
        }
        if done == units.len() {
            return;
        }
        // Somebody else holds the rest; look again soon.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// True: this unit is done. False: another replica is at it.
async fn unit(app: &AppState, me: &str, shard: ShardId) -> anyhow::Result<bool> {
    let redis = &mut app.redis.clone();
    let key = keys::warmup_unit(&format!("m{}", app.model.version), shard.index());
    let (_, holder): (Option<String>, Option<String>) = redis::pipe()
        .cmd("SET")
        .arg(&key)
        .arg(me)
        .arg("NX")
        .arg("PX")
        .arg(LEASE.as_millis() as u64)
        .get(&key)
        .query_async(redis)
        .await?;
    match holder.as_deref() {
        Some(DONE) => return Ok(true),
        Some(holder) if holder == me => {}
        _ => return Ok(false),
    }
    let per_shard = app.config.guards.warmup_users.div_ceil(u32::from(contract::SHARDS));
    let users = app.store.most_active(shard, per_shard).await?;
    for batch in users.chunks(BATCH) {
        warm(app, shard, batch).await?;
        // A batch takes far less than the lease.
        redis::cmd("PEXPIRE").arg(&key).arg(LEASE.as_millis() as u64).query_async::<()>(redis).await?;
    }
    // The marker goes a little before the lists do (their time varies by 10 %).
    let marked_ms = app.config.cache.fresh_ms * 9 / 10;
    redis::cmd("SET").arg(&key).arg(DONE).arg("PX").arg(marked_ms.max(1)).query_async::<()>(redis).await?;
    Ok(true)
}

async fn warm(app: &AppState, shard: ShardId, users: &[UserId]) -> anyhow::Result<()> {
    let histories = app.store.histories(shard, users).await?;
    let now_ms = unix_ms();
    let wanted = app.config.cache.items;
    let mut lists = Vec::with_capacity(histories.len());
    for (n, (user_id, history)) in histories.into_iter().enumerate() {
        if let Some(ranked) = recommend::rank(&app.model, &history, wanted) {
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
