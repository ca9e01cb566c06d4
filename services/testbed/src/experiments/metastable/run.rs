//! One cell after the other on a stack that stays up.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use api::Profile;
use contract::keys;
use faultproxy::{Fault, Law};
use futures::{StreamExt, TryStreamExt, stream};
use launcher::{Description, Signal};
use loadtest::{
    answer::class::CONNECT,
    arrivals::Arrivals,
    plan::{Phase, StepPlan},
    rate_curve::RateCurve,
    scenario::Scenario,
};
use report::Validity;
use statistics::seed::mixed;
use tokio::time::Instant;
use tracestore::{Trace, waterfall};

use super::{
    cell::{Second, Timing, is_decided, judge, was_normal},
    classes::{Class, SLOWER, Trigger, users},
    cures::Cure,
    journal::{Cell, Key, Span},
};
use crate::{
    data,
    instruments::{
        generator::{self, Moment, Next, Window},
        recording::{Recording, only_what_the_load_generator_chose},
        target::Target,
    },
    stack::service::{Plan, ServiceStack},
};

/// Before the measured part: connections are opened.
const WARM_UP_S: u32 = 1;
/// For the queries of the cell before to end.
const IDLE_DEADLINE: Duration = Duration::from_secs(30);
const IDLE_POLL: Duration = Duration::from_millis(50);
/// Requests that fill the cache, at a time.
const FILLS: usize = 32;
const REDIS_BATCH: usize = 1_000;
const LISTS_KEPT_MS: u64 = 86_400_000;

/// The stack of a class.
pub struct CellStack {
    class: &'static Class,
    service: ServiceStack,
    target: Target,
    recording: Option<Recording>,
    known_ids: PathBuf,
    ids: Vec<String>,
    law: Law,
    /// What Redis holds when a cell begins.
    lists: Vec<(String, Vec<u8>)>,
}

/// A cell to be measured.
pub struct Wanted<'a> {
    pub key: Key,
    /// With its cure.
    pub scenario: &'a Scenario,
    pub timing: Timing,
    pub lowered_per_s: f64,
    /// Some tries are recorded.
    pub traced: bool,
}

impl CellStack {
    /// Starts servers and imports the data. Replicas come with [`CellStack::configure`].
    ///
    /// # Errors
    /// A server cannot be started.
    pub async fn start(class: &'static Class, scenario: &Scenario, scale: u32) -> anyhow::Result<Self> {
        let plan = Plan {
            telemetry: only_what_the_load_generator_chose(),
            traces: true,
            only_read: true,
            ..Plan::new("metastable", scenario)
        };
        let law = plan.law;
        let service = ServiceStack::start(plan).await?;
        let dataset = data::Source::Generator(users(scale)).load().await?.dataset;
        service.load(&dataset).await?;
        let known_ids = service.write_known_ids(&dataset)?;
        let described = Description::read(service.stack.dir())?;
        Ok(Self {
            class,
            target: Target::of(Some(service.stack.dir()), &described)?,
            recording: Recording::of(&described)?,
            ids: data::known_ids(&dataset).lines().map(str::to_owned).collect(),
            service,
            known_ids,
            law,
            lists: Vec::new(),
        })
    }

    /// Starts the replicas anew with a cure, and the lists that it or the class needs.
    ///
    /// # Errors
    /// A replica does not get ready, or a list cannot be loaded.
    pub async fn configure(&mut self, cure: &Cure) -> anyhow::Result<()> {
        self.service.stop_replicas().await?;
        self.service.flush_cache().await?;
        self.service.start_replicas(Profile::Baseline, &cure.sets(self.class)).await?;
        self.target = Target::of(Some(self.service.stack.dir()), &Description::read(self.service.stack.dir())?)?;
        self.lists.clear();
        if self.class.has_cache() || cure.needs_lists {
            self.service.proxy.client.set_law(Law::None).await?;
            self.fill().await?;
            self.lists = self.read_lists().await?;
        }
        Ok(())
    }

    /// Each user asks once.
    async fn fill(&self) -> anyhow::Result<()> {
        let http = runtime::http::plain().timeout(Duration::from_secs(10)).build()?;
        let ask = |id: &String| {
            let get = http.get(format!("{}/recommendations?user_id={id}", self.target.gateway)).send();
            async move { get.await.and_then(reqwest::Response::error_for_status)?.bytes().await }
        };
        let asked = stream::iter(&self.ids).map(ask).buffer_unordered(FILLS);
        asked.try_for_each(|_list| async { Ok(()) }).await.context("cannot fill the cache")
    }

    async fn read_lists(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut redis = self.service.redis_for_tools()?;
        let mut lists = Vec::with_capacity(self.ids.len());
        for batch in self.ids.chunks(REDIS_BATCH) {
            let names: Vec<String> = batch.iter().map(|id| keys::recommendations(id)).collect();
            let values: Vec<Option<Vec<u8>>> = redis::cmd("MGET")
                .arg(&names)
                .query_async(&mut redis)
                .await
                .context("cannot read the lists in Redis")?;
            lists.extend(names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))));
        }
        ensure!(
            !lists.is_empty(),
            "no list was cached: a user without behaviour has none, but the data set has others"
        );
        Ok(lists)
    }

    /// Undoes what the cell before left.
    async fn reset(&mut self) -> anyhow::Result<()> {
        let replicas = self.service.replicas.len();
        signal(&mut self.service, replicas, Signal::SIGCONT)?;
        let proxy = &self.service.proxy.client;
        proxy.clear().await?;
        proxy.set_law(self.law).await?;
        let deadline = Instant::now() + IDLE_DEADLINE;
        while proxy.state().await?.in_flight > 0 {
            ensure!(Instant::now() < deadline, "the store still has queries {IDLE_DEADLINE:?} after the load");
            tokio::time::sleep(IDLE_POLL).await;
        }
        // With the marks by which replicas know that the cache was warmed up again a moment ago.
        self.service.flush_cache().await?;
        let mut redis = self.service.redis_for_tools()?;
        for batch in self.lists.chunks(REDIS_BATCH) {
            let mut pipe = redis::pipe();
            for (name, list) in batch {
                pipe.pset_ex(name, list, LISTS_KEPT_MS).ignore();
            }
            pipe.query_async::<()>(&mut redis).await.context("cannot write the lists to Redis")?;
        }
        Ok(())
    }

    /// # Errors
    /// A process other than the load generator ended, or the trigger could not be set or removed.
    pub async fn cell(&mut self, wanted: Wanted<'_>) -> anyhow::Result<Cell> {
        self.reset().await?;
        let Wanted { key, scenario, timing, lowered_per_s, traced } = wanted;
        let mut plan = plan(&key, scenario, timing, lowered_per_s)?;
        plan.known_ids.clone_from(&self.known_ids);
        plan.base_url.clone_from(&self.target.gateway);
        let recording = self.recording.take();
        if let Some(recording) = recording.as_ref().filter(|_| traced) {
            plan.telemetry = Some(recording.telemetry(&plan));
            recording.begin().await?;
        }
        let window = self.drive(&key, &plan, timing).await?;
        let mut trace = Vec::new();
        if let Some(recording) = recording.as_ref().filter(|_| traced) {
            let after_ms = window.outcome.started_ms + timing.after_from() as u64 * 1_000;
            trace = failed_try(&recording.end(&window.outcome).await?, after_ms * 1_000_000);
        }
        self.recording = recording;
        let outcome = &window.outcome;
        let seconds: Vec<Second> = outcome
            .series
            .iter()
            .map(|second| Second {
                requests: if key.closed { u64::from(key.per_s) } else { second.sent },
                good: second.good,
                retries: second.retries.unwrap_or_default(),
            })
            .collect();
        let since = |name| window.after.replicas.since(&window.before.replicas, name, &[]);
        let (queries, zombies) =
            (since("store_queries_total"), since("store_reads_abandoned_total") + since("loads_abandoned_total"));
        let all = 0..outcome.series.len() as u32;
        let mut validity =
            Validity::of_seconds(&outcome.series, all, outcome.send_lag.p99_ms).with_scheduling(&window.scheduling);
        if !was_normal(&seconds, timing) {
            validity.reasons.push("less than 90 % of the requests succeeded before the trigger".into());
        }
        let unsent = outcome.errors.get(CONNECT).copied().unwrap_or_default() + outcome.dropped;
        if unsent > 0 {
            validity.reasons.push(format!("{unsent} requests could not be sent: no connection, or too many in flight"));
        }
        Ok(Cell {
            judged: judge(&seconds, timing),
            // Reads that began before the first count may end after it.
            zombie_share: (queries > 0.0).then(|| (zombies / queries).min(1.0)),
            validity,
            key,
            timing,
            seconds,
            trace,
        })
    }

    async fn drive(&mut self, key: &Key, plan: &StepPlan, timing: Timing) -> anyhow::Result<Window> {
        let (class, law) = (self.class, self.law);
        let (mut seen, mut begun) = (Vec::new(), false);
        let on_moment = async |service: &mut ServiceStack, moment: Moment<'_>| {
            let Moment::Second(now) = moment else {
                remove(class, law, service).await?;
                return anyhow::Ok(Next::GoOn(None));
            };
            if now.phase == Phase::Measure {
                let requests = if key.closed { u64::from(key.per_s) } else { now.sent };
                seen.push(Second { requests, good: now.good, retries: 0 });
            }
            let elapsed_s = now.elapsed_s.saturating_sub(WARM_UP_S);
            if !begun && elapsed_s >= timing.before_s {
                begun = true;
                set(class, key, law, service).await?;
                return Ok(Next::GoOn(Some(Instant::now() + Duration::from_millis(timing.trigger_ms.into()))));
            }
            Ok(if is_decided(&seen, timing) { Next::End } else { Next::GoOn(None) })
        };
        generator::drive_until(&mut self.service, &self.target, plan, on_moment).await
    }

    /// # Errors
    /// A process does not end.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.service.stack.stop().await
    }
}

/// The load of a cell: the rate until the load is lowered, then the lower one. Closed users keep theirs.
fn plan(key: &Key, scenario: &Scenario, timing: Timing, lowered_per_s: f64) -> anyhow::Result<StepPlan> {
    let mut plan = StepPlan::of(scenario, key.per_s, 0, "".as_ref(), "");
    plan.name = format!("{} {} {}", key.class, key.per_s, key.size);
    plan.seed = key.seed;
    plan.warm_up_ms = u64::from(WARM_UP_S) * 1_000;
    plan.measure_ms = timing.total_s() as u64 * 1_000;
    match &mut plan.arrivals {
        Arrivals::Open(open) => {
            let lowered = lowered_per_s / f64::from(key.per_s);
            let factor = |second| if second < timing.lowered_from() { 1.0 } else { lowered.min(1.0) };
            open.curve = Some(RateCurve::new((0..timing.total_s()).map(factor).collect())?);
        }
        Arrivals::Closed => plan.measure_ms = timing.lowered_from() as u64 * 1_000,
    }
    Ok(plan)
}

async fn set(class: &Class, key: &Key, law: Law, service: &mut ServiceStack) -> anyhow::Result<()> {
    let proxy = &service.proxy.client;
    match class.trigger {
        Trigger::Stall => proxy.add_fault(Fault::Stall.for_ms(key.size.into())).await?,
        Trigger::Slow => proxy.set_law(slower(law)).await?,
        Trigger::Pause => signal(service, class.paused(), Signal::SIGSTOP)?,
        Trigger::Flush => delete_lists(service, key).await?,
    }
    Ok(())
}

/// The proxy ends a stall by itself.
async fn remove(class: &Class, law: Law, service: &mut ServiceStack) -> anyhow::Result<()> {
    match class.trigger {
        Trigger::Slow => service.proxy.client.set_law(law).await?,
        Trigger::Pause => signal(service, class.paused(), Signal::SIGCONT)?,
        Trigger::Stall | Trigger::Flush => {}
    }
    Ok(())
}

fn signal(service: &mut ServiceStack, count: usize, signal: Signal) -> anyhow::Result<()> {
    let children: Vec<_> = service.replicas.iter().take(count).map(|replica| replica.child).collect();
    children.into_iter().try_for_each(|child| service.stack.kill(child, signal))
}

fn slower(law: Law) -> Law {
    match law {
        Law::None => Law::None,
        Law::Linear { base_ms, slope_ms, crosstalk_ms, spread } => Law::Linear {
            base_ms: SLOWER * base_ms,
            slope_ms: SLOWER * slope_ms,
            crosstalk_ms: SLOWER * crosstalk_ms,
            spread,
        },
    }
}

/// The seed decides which.
async fn delete_lists(service: &ServiceStack, key: &Key) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(service.stack.dir().join("known-ids.txt"))?;
    let is_chosen = |n: usize| mixed(key.seed, &[n as u64]) % 1_000 < u64::from(key.size);
    let chosen = text.lines().enumerate().filter(|(n, _)| is_chosen(*n)).map(|(_, id)| keys::recommendations(id));
    let chosen: Vec<String> = chosen.collect();
    let mut redis = service.redis_for_tools()?;
    for batch in chosen.chunks(REDIS_BATCH) {
        redis::cmd("DEL").arg(batch).query_async::<()>(&mut redis).await.context("cannot delete lists in Redis")?;
    }
    Ok(())
}

/// The spans of the failed try with most of them that began at this Unix time in nanoseconds or later.
fn failed_try(traces: &[Trace], from_ns: u64) -> Vec<Span> {
    let is_failed = |trace: &&Trace| trace.root().is_some_and(|root| root.failed && root.start_ns >= from_ns);
    let Some(trace) = traces.iter().filter(is_failed).max_by_key(|trace| trace.spans.len()) else { return Vec::new() };
    let rows = waterfall::rows(trace).into_iter().map(|row| Span {
        depth: row.depth,
        service: row.span.service.to_string(),
        name: row.span.name.clone(),
        offset_ms: row.offset_ns as f64 / 1e6,
        duration_ms: row.span.duration_ns as f64 / 1e6,
        failed: row.span.failed,
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::metastable::{cell::tests::TIMING, classes};

    #[test]
    fn the_load_falls_below_the_stable_bound_at_the_end() {
        let class = classes::of("retry-storm");
        let scenario = class.scenario(1).unwrap();
        let key = Key {
            class: class.name.into(),
            per_s: 900,
            size: 1_500,
            seed: 3,
            cure: "none".into(),
            hold_s: TIMING.hold_s,
            closed: false,
        };
        let open = plan(&key, &scenario, TIMING, class.lowered_per_s(&scenario)).unwrap();
        let at = |second: usize| open.offered_per_s_at(open.warm_up_ms + second as u64 * 1_000);
        assert_eq!((at(0), at(TIMING.lowered_from() - 1)), (900.0, 900.0));
        let lowered = at(TIMING.lowered_from());
        assert!((lowered - 0.75 * 1_063.83 / 4.0).abs() < 0.1, "{lowered}");
        assert_eq!((open.measure_ms, open.seed), (40_000, 3));
        let mut closed = scenario.clone();
        (closed.arrivals, closed.retry) = (Arrivals::Closed, None);
        let closed = plan(&Key { closed: true, ..key }, &closed, TIMING, 1.0).unwrap();
        assert_eq!((closed.measure_ms, closed.offered_per_s()), (25_000, 900.0));
    }

    #[test]
    fn a_slower_law_takes_five_times_as_long() {
        let law = Law::Linear { base_ms: 74.0, slope_ms: 0.2, crosstalk_ms: 0.01, spread: 0.3 };
        assert_eq!(slower(law), Law::Linear { base_ms: 370.0, slope_ms: 1.0, crosstalk_ms: 0.05, spread: 0.3 });
        assert_eq!(slower(Law::None), Law::None);
    }
}
