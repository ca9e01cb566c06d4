//! All workers are away while events come in. Then they come back, and events go on coming in.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use launcher::Signal;
use loadtest::event_load;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Length,
    judgement::{Backlog, EVENTS_PER_S},
    planned_events,
    servers::Servers,
};

/// So many messages are always on their way: a quarter of a second's.
const CAUGHT_UP: u64 = EVENTS_PER_S as u64 / 4;
const POLL: Duration = Duration::from_millis(100);
/// Until the workers are admitted and the first event is consumed.
const RESUME_LIMIT: Duration = Duration::from_secs(60);

/// # Errors
/// Workers cannot be started, or consume nothing.
pub(super) async fn run(servers: &mut Servers, length: Length) -> anyhow::Result<Backlog> {
    let load = planned_events(servers, length.away + RESUME_LIMIT + length.drain_limit);
    let (workers, stack) = servers.workers()?;
    for worker in &workers.plane.workers {
        worker.kill(stack, Signal::SIGKILL)?;
    }
    // Ends when it is dropped.
    let mut sending = JoinSet::new();
    sending.spawn(async move { event_load::run(&load, |_| ()).await });
    sleep(length.away).await;
    let behind = workers.lag.read().await?;
    let started = Instant::now();
    workers.plane.restart_dead(stack).await?;
    let resumed = loop {
        let now = workers.lag.read().await?;
        if now.consumed > behind.consumed {
            break now;
        }
        ensure!(started.elapsed() < RESUME_LIMIT, "the workers consume nothing {RESUME_LIMIT:?} after their start");
        sleep(POLL).await;
    };
    let (resumed_after, draining) = (started.elapsed(), Instant::now());
    let drained = loop {
        sleep(POLL).await;
        let now = workers.lag.read().await?;
        if now.behind() <= CAUGHT_UP || draining.elapsed() >= length.drain_limit {
            break now;
        }
    };
    let seconds = draining.elapsed().as_secs_f64();
    if let Some(ended) = sending.try_join_next() {
        let outcome = ended.context("the load crashed")??;
        anyhow::bail!("the load ended before the backlog was drained: {outcome:?}");
    }
    sending.shutdown().await;
    workers.lag.drained(length.drain_limit).await?;
    Ok(Backlog {
        away_s: length.away.as_secs_f64(),
        messages: behind.behind(),
        resumed_s: resumed_after.as_secs_f64(),
        drained_s: seconds,
        ingest_per_s: (drained.end - resumed.end) as f64 / seconds,
        consumed_per_s: (drained.consumed - resumed.consumed) as f64 / seconds,
    })
}
