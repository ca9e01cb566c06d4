//! `experiment outage`: a server is killed under load and started again, and its users' answers are watched.

mod figures;
mod judgement;
mod probes;
mod words;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use api::Profile;
use clap::{Args, FromArgMatches};
use contract::keys;
use loadtest::{
    plan::{DEFAULT_RUN_SEED, Phase, StepPlan},
    scenario::Scenario,
};
use report::{Validity, trend};
use tokio::time::Instant;

use self::{
    figures::{Outage, OutagePhase},
    probes::{Ids, Probing, count},
};
use super::{
    Experiment,
    publish::{Found, publish},
    under_load::{self, LoadArgs},
};
use crate::{
    data,
    evaluation::{self, AfterSteps, Variant},
    instruments::{
        generator::{self, Moment},
        target::{Snapshot, unix_ms},
    },
    stack::service::ServiceStack,
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "outage",
    about: "MySQL killed under load and started again, then Redis: which users are still answered, how soon the others get an error, and seconds \
            until back to normal",
    examples: "Examples:
  ./testbed experiment outage              20 s each at 3000 requests/s (about 5 minutes)
  ./testbed experiment outage --quick      6 s each at 600 requests/s, not judged
  ./testbed experiment outage --json | jq '.sections[0].measured[] | {server, back_after_s}'",
    args: LoadArgs::augment_args,
    run: |matches| Box::pin(async move { run(&LoadArgs::from_arg_matches(&matches)?).await }),
};

/// Lists expire within the run, so that an outage meets fresh, stale and missing lists.
const SHORT_LIVED: [&str; 2] = ["cache.fresh_ms=20000", "cache.refresh_ahead_ms=5000"];
const QUICK_USERS: u32 = 600;
const QUICK_KNOWN: u32 = 10_000;

/// The first step's load while a server is killed and started again.
#[derive(Debug, Clone, Copy)]
struct Timing {
    before_s: u32,
    for_s: u32,
    after_s: u32,
}

const TIMING: Timing = Timing { before_s: 15, for_s: 20, after_s: 20 };
const QUICK_TIMING: Timing = Timing { before_s: 5, for_s: 6, after_s: 10 };

impl Timing {
    /// Of the measured part.
    fn length_s(self) -> u32 {
        self.before_s + self.for_s + self.after_s
    }

    /// Of load, with its warm-up.
    fn seconds(self, scenario: &Scenario) -> u64 {
        u64::from(scenario.warm_up_s + self.length_s())
    }
}

async fn run(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let mut scenario = under_load::scenario("outage", args.run.quick)?;
    let timing = if args.run.quick { QUICK_TIMING } else { TIMING };
    if args.run.quick {
        scenario.steps = vec![QUICK_USERS];
    }
    let variants = vec![Variant::plain(Profile::Protected)];
    let mut plan = under_load::plan(scenario, variants, args, &SHORT_LIVED, begun);
    plan.after_steps_s = Server::ALL.len() as u64 * timing.seconds(&plan.scenario);
    if args.run.quick {
        plan.source = data::Source::Generator(QUICK_KNOWN);
    }
    let mut outages = Vec::new();
    let mut report = evaluation::run_with(&plan, async |mut after| {
        for server in Server::ALL {
            outages.push(outage(&mut after, timing, server).await?);
        }
        Ok(())
    })
    .await?;
    report.conclude(None);
    let (profiles, repeats) = (report.profiles.len(), report.repeats);
    let found = Found {
        what: format!(
            "Under a steady load MySQL is killed (SIGKILL) for {} s and started again, then Redis. Single requests check that users get their \
             own list, the same as before.",
            timing.for_s
        ),
        sections: vec![words::section(&outages, profiles, repeats)?],
        verdicts: judgement::verdicts(&report, &outages),
        validity: outages.iter().map(|outage| (outage.name(profiles, repeats), outage.validity.clone())).collect(),
        steps: Some(report),
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    MySql,
    Redis,
}

impl Server {
    const ALL: [Self; 2] = [Self::MySql, Self::Redis];

    async fn kill(self, service: &mut ServiceStack) -> anyhow::Result<()> {
        match self {
            Self::MySql => service.kill_mysql().await,
            Self::Redis => service.kill_redis().await,
        }
    }

    async fn restart(self, service: &mut ServiceStack) -> anyhow::Result<()> {
        match self {
            Self::MySql => service.restart_mysql().await,
            Self::Redis => service.restart_redis().await,
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

/// Runs the scenario's first step with the outage in it.
///
/// # Errors
/// A process other than the killed one ended, or the killed one did not start again.
async fn outage(after: &mut AfterSteps<'_>, timing: Timing, server: Server) -> anyhow::Result<Outage> {
    let (scenario, target) = (after.scenario, after.target);
    let (ids, load_ids) =
        share_out(after.service, after.known_ids, server, scenario.warm_up_s + timing.length_s()).await?;
    let users = scenario.steps.first().copied().context("the scenario has no step")?;
    let plan = StepPlan {
        name: format!("{} {server}", scenario.name),
        measure_ms: u64::from(timing.length_s()) * 1000,
        // Other unknown ids than in the steps and in the other outage.
        seed: statistics::seed::of_step(DEFAULT_RUN_SEED, 1, scenario.steps.len() + server as usize),
        ..StepPlan::of(scenario, users, 0, &load_ids, &target.gateway)
    };
    let mut show = after.bar.follow(&format!("{}, {server} is killed", after.variant.name));
    let probing = Probing::start(&target.gateway, ids).await?;
    let (mut killed, mut restarted) = (None, None);
    let window = generator::drive(after.service, target, &plan, async |service, moment| match moment {
        Moment::Second(now) => {
            show(now);
            let measured_s = u64::from(now.elapsed_s).saturating_sub(plan.warm_up_ms / 1000);
            let due = now.phase == Phase::Measure && measured_s >= u64::from(timing.before_s);
            if killed.is_some() || !due {
                return Ok(None);
            }
            killed = Some(target.snapshot(None).await?);
            server.kill(service).await?;
            Ok(Some(Instant::now() + Duration::from_secs(u64::from(timing.for_s))))
        }
        Moment::Alarm => {
            let snapshot = target.snapshot(None).await?;
            server.restart(service).await?;
            restarted = Some((snapshot, unix_ms()));
            Ok(None)
        }
    })
    .await?;
    let probes = probing.finish().await?;
    after.bar.done(timing.seconds(scenario));
    let killed = killed.context("the load was over before the server was killed")?;
    let (restarted, answering_ms) = restarted.context("the load was over before the outage was")?;

    let outcome = window.outcome;
    let since = |at_ms: u64| at_ms.saturating_sub(outcome.started_ms) as f64 / 1000.0;
    let (killed_s, restarted_s) = (since(killed.at_unix_ms), since(restarted.at_unix_ms));
    // Rounded down to the second of the restart, so the time to normal is never too short.
    let back = trend::back_to_normal(&outcome.series, killed_s as u32..restarted_s as u32);
    let away = killed.at_unix_ms..restarted.at_unix_ms;
    Ok(Outage {
        profile: after.variant.name.clone(),
        repeat: after.repeat,
        server: server.to_string(),
        offered_per_s: outcome.offered_per_s,
        killed_s,
        restarted_s,
        answering_s: since(answering_ms),
        normal_p99_ms: back.normal_p99_ms(),
        normal_max_ms: back.normal_max_ms(),
        back_after_s: back.after_s,
        earliest_back_s: back.earliest_s,
        before: phase(&window.before, &killed),
        during: phase(&killed, &restarted),
        after: phase(&restarted, &window.after),
        listed: count(&probes, true, &away),
        unlisted: count(&probes, false, &away),
        validity: Validity::of_seconds(&outcome.series, 0..restarted_s as u32, outcome.send_lag.p99_ms)
            .with_scheduling(&window.scheduling),
        errors: outcome.errors,
        known_answered: outcome.known_answered,
        known_sources: outcome.known_sources,
        unknown_sources: outcome.unknown_sources,
        series: outcome.series,
    })
}

fn phase(from: &Snapshot, to: &Snapshot) -> OutagePhase {
    let seconds = to.at_unix_ms.saturating_sub(from.at_unix_ms).max(1) as f64 / 1000.0;
    let per_s = |name| to.replicas.since(&from.replicas, name, &[]) / seconds;
    OutagePhase {
        store_queries_per_s: per_s("store_queries_total"),
        store_connects_per_s: per_s("store_connects_total"),
        cpu_pct: to.cpu_pct_since(from),
    }
}

/// Shares the users with a list in Redis out. Most are the load's: their file is answered. A few are for probes, and a few more lose their
/// list and are for other probes.
async fn share_out(
    service: &ServiceStack,
    known_ids: &Path,
    server: Server,
    length_s: u32,
) -> anyhow::Result<(Ids, PathBuf)> {
    let text = std::fs::read_to_string(known_ids).with_context(|| format!("cannot read {}", known_ids.display()))?;
    let known: Vec<&str> = text.lines().collect();
    let mut redis = service.redis_for_tools()?;
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
    let file = service.stack.dir().join("outage-ids.txt");
    std::fs::write(&file, listed.join("\n")).with_context(|| format!("cannot write {}", file.display()))?;
    Ok((ids, file))
}

const REDIS_BATCH: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::service;

    #[test]
    fn the_replicas_accept_the_settings() {
        let plan = service::Plan::new("test", &Scenario::load("article").unwrap());
        plan.check(Profile::Protected, &SHORT_LIVED.map(str::to_owned)).unwrap();
    }
}
