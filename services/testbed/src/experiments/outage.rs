//! A server killed under load and started again on its data and port, and what its users notice.

mod probes;

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use contract::keys;
use launcher::cpu;
use loadtest::{
    child::ChildMessage,
    plan::{Phase, Progress, StepOutcome, StepPlan},
    scenario::{self, Scenario},
};
use report::{Outage, OutagePhase, trend};
use tokio::time::{Instant, sleep_until};

use self::probes::{Ids, Probing, count};
use crate::{
    instruments::measure::{self, Generator, Target},
    instruments::scrape::Reading,
    stack::service::Cluster,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    MySql,
    Redis,
}

impl Server {
    pub const ALL: [Self; 2] = [Self::MySql, Self::Redis];

    async fn kill(self, cluster: &mut Cluster) -> anyhow::Result<()> {
        match self {
            Self::MySql => cluster.kill_mysql().await,
            Self::Redis => cluster.kill_redis().await,
        }
    }

    async fn restart(self, cluster: &mut Cluster) -> anyhow::Result<()> {
        match self {
            Self::MySql => cluster.restart_mysql().await,
            Self::Redis => cluster.restart_redis().await,
        }
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::MySql => "MySQL",
            Self::Redis => "Redis",
        })
    }
}

/// Runs the scenario's first step with the outage in it; `profile` and `repeat` are the caller's to fill in.
///
/// # Errors
/// A process other than the killed one ended, or the killed one did not start again.
pub async fn run(
    cluster: &mut Cluster,
    target: &Target,
    scenario: &Scenario,
    planned: scenario::Outage,
    server: Server,
    known_ids: &Path,
    progress: &mut impl FnMut(&Progress),
) -> anyhow::Result<Outage> {
    let length_s = planned.before_s + planned.for_s + planned.after_s;
    let (ids, load_ids) = share_out(cluster, known_ids, server, scenario.warm_up_s + length_s).await?;
    let users = scenario.steps.first().copied().context("the scenario has no step")?;
    let plan = StepPlan {
        name: format!("{} {server}", scenario.name),
        measure_ms: u64::from(length_s) * 1000,
        // Other unknown ids than those of the steps and of the other outage.
        seed: 1 + scenario.steps.len() as u64 + server as u64,
        ..StepPlan::of(scenario, users, 0, &load_ids, &target.gateway)
    };
    let probing = Probing::start(&target.gateway, ids).await?;
    let (outcome, marks) = load(cluster, target, &plan, planned, server, progress).await?;
    let probes = probing.finish().await?;

    let since = |at_ms: u64| at_ms.saturating_sub(outcome.started_ms) as f64 / 1000.0;
    let (killed_s, restarted_s) = (since(marks.killed.at_ms), since(marks.restarted.at_ms));
    // From the very second in which the start was ordered: up to one more is counted, none less.
    let back = trend::back_to_normal(&outcome.series, killed_s as u32..restarted_s as u32);
    let cpu_pct = marks.ended.since(&marks.begun).cpu_pct;
    let away = marks.killed.at_ms..marks.restarted.at_ms;
    Ok(Outage {
        server: server.to_string(),
        offered_per_s: outcome.offered_per_s,
        killed_s,
        restarted_s,
        answering_s: since(marks.answering_ms),
        normal_p99_ms: back.normal_p99_ms,
        back_after_s: back.after_s,
        before: marks.killed.since(&marks.begun),
        during: marks.restarted.since(&marks.killed),
        after: marks.ended.since(&marks.restarted),
        listed: count(&probes, true, &away),
        unlisted: count(&probes, false, &away),
        invalid_reasons: measure::invalid_reasons(outcome.send_lag.p99_ms, cpu_pct),
        errors: outcome.errors,
        known_answered: outcome.known_answered,
        known_sources: outcome.known_sources,
        unknown_sources: outcome.unknown_sources,
        series: outcome.series,
        ..Outage::default()
    })
}

struct Marks {
    begun: Mark,
    killed: Mark,
    restarted: Mark,
    answering_ms: u64,
    ended: Mark,
}

/// What the replicas and the machine have done by an instant.
struct Mark {
    /// Unix time.
    at_ms: u64,
    replicas: Reading,
    machine: Option<cpu::MachineCpu>,
}

impl Mark {
    async fn take(target: &Target) -> anyhow::Result<Self> {
        let (replicas, _proxy) = target.reading().await?;
        Ok(Self { replicas, machine: cpu::machine(), at_ms: unix_ms() })
    }

    fn since(&self, earlier: &Self) -> OutagePhase {
        let seconds = self.at_ms.saturating_sub(earlier.at_ms).max(1) as f64 / 1000.0;
        let per_s = |name| self.replicas.since(&earlier.replicas, name, &[]) / seconds;
        let busy = self.machine.zip(earlier.machine).map_or(0.0, |(now, then)| now.busy_share_since(then));
        OutagePhase {
            store_queries_per_s: per_s("store_queries_total"),
            store_connects_per_s: per_s("store_connects_total"),
            cpu_pct: 100.0 * busy,
        }
    }
}

/// The load, and the outage in it.
async fn load(
    cluster: &mut Cluster,
    target: &Target,
    plan: &StepPlan,
    planned: scenario::Outage,
    server: Server,
    progress: &mut impl FnMut(&Progress),
) -> anyhow::Result<(StepOutcome, Marks)> {
    let mut generator = Generator::start(&mut cluster.stack, plan)?;
    let (mut begun, mut killed, mut restarted, mut ended) = (None, None, None, None);
    let mut due: Option<Instant> = None;
    let outcome = 'load: loop {
        let lines = tokio::select! {
            lines = generator.told(&cluster.stack) => lines?,
            () = until(due) => {
                due = None;
                let mark = Mark::take(target).await?;
                server.restart(cluster).await?;
                restarted = Some((mark, unix_ms()));
                continue;
            }
        };
        for line in lines {
            match line {
                ChildMessage::Progress(now) => {
                    progress(&now);
                    if now.phase == Phase::WarmUp {
                        continue;
                    }
                    let measured_s = u64::from(now.elapsed_s).saturating_sub(plan.warm_up_ms / 1000);
                    if begun.is_none() {
                        begun = Some(Mark::take(target).await?);
                    } else if killed.is_none() && measured_s >= u64::from(planned.before_s) {
                        killed = Some(Mark::take(target).await?);
                        server.kill(cluster).await?;
                        due = Some(Instant::now() + Duration::from_secs(u64::from(planned.for_s)));
                    }
                    if now.elapsed_s == now.total_s {
                        ended = Some(Mark::take(target).await?);
                    }
                }
                ChildMessage::Outcome(outcome) => break 'load *outcome,
                ChildMessage::Error(error) => bail!("the load generator failed: {error}"),
            }
        }
    };
    generator.stop(&mut cluster.stack).await?;
    let (Some(begun), Some(killed), Some((restarted, answering_ms))) = (begun, killed, restarted) else {
        bail!("the load was over before the outage was");
    };
    let ended = match ended {
        Some(ended) => ended,
        None => Mark::take(target).await?,
    };
    Ok((outcome, Marks { begun, killed, restarted, answering_ms, ended }))
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Who is asked for by whom. Of the users with a list in Redis most are the load's (its file is returned); a few are asked for by
/// probes, and a few more by other probes, after their list was taken from them.
async fn share_out(
    cluster: &Cluster,
    known_ids: &Path,
    server: Server,
    length_s: u32,
) -> anyhow::Result<(Ids, PathBuf)> {
    let text = std::fs::read_to_string(known_ids).with_context(|| format!("cannot read {}", known_ids.display()))?;
    let known: Vec<&str> = text.lines().collect();
    let mut redis = cluster.redis_for_tools()?;
    let mut listed = Vec::with_capacity(known.len());
    for batch in known.chunks(REDIS_BATCH) {
        let mut pipe = redis::pipe();
        for id in batch {
            pipe.exists(keys::recommendations(id));
        }
        let there: Vec<bool> = pipe.query_async(&mut redis).await.context("cannot look into Redis")?;
        listed.extend(std::iter::zip(batch, there).filter(|(_, there)| *there).map(|(id, _)| (*id).to_owned()));
    }
    let unlisted = probes::asked_within(length_s);
    let ids = Ids::choose(&mut listed, unlisted, server as usize)?;
    for batch in ids.unlisted.chunks(REDIS_BATCH) {
        let mut delete = redis::cmd("DEL");
        for id in batch {
            delete.arg(keys::recommendations(id));
        }
        delete.query_async::<()>(&mut redis).await.context("cannot take lists from Redis")?;
    }
    let file = cluster.stack.dir().join("outage-ids.txt");
    std::fs::write(&file, listed.join("\n")).with_context(|| format!("cannot write {}", file.display()))?;
    Ok((ids, file))
}

const REDIS_BATCH: usize = 1_000;

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
