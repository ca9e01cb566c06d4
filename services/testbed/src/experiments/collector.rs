//! `experiment collector`: the receiver of traces is killed and started again, by turns, under a constant load of which every request is
//! recorded. Requests are not to notice, and what is lost is to be counted to the last span.

mod outcome;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail, ensure};
use api::Profile;
use contract::keys;
use launcher::Description;
use loadtest::{
    child::ChildMessage,
    plan::{self, StepOutcome, StepPlan},
    scenario::{Law, Scenario},
};
use tokio::time::{Instant, sleep};

use self::outcome::{Counted, DROPPED, Mark, Receiver, SENT, SPANS_OF_A_HIT};
use super::findings::{self, Found};
use crate::{
    cli::FindingsArgs,
    data,
    instruments::measure::{Generator, Target},
    instruments::scrape::Reading,
    stack::service::{Cluster, Plan},
};

/// Each sends once a second.
const USERS: u32 = 1_000;
const REPLICAS: u32 = 2;
const KNOWN: u32 = 10_000;
/// Full some seconds after the receiver is gone, so that there is something to count.
const QUEUE: usize = 2_048;
/// A hit, and nothing but that: neither a wait nor a load has spans.
const SETS: [&str; 2] = ["http.admission=off", "guards.refresh_ahead=off"];
/// Alive, killed, restarted: a cycle.
const CYCLES: u32 = 5;
const PERIOD_S: u32 = 15;
const QUICK_CYCLES: u32 = 1;
const QUICK_PERIOD_S: u32 = 5;
/// Until what waits at the end is sent.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

pub async fn run(args: FindingsArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let (cycles, period_s) = if args.quick { (QUICK_CYCLES, QUICK_PERIOD_S) } else { (CYCLES, PERIOD_S) };
    eprintln!("starting the stack");
    let mut cluster = start().await?;
    let target = Target::of(None, &Description::read(cluster.stack.dir())?)?;
    let plan = plan(&cluster, cycles * Receiver::CYCLE.len() as u32 * period_s).await?;
    let (loaded, marks) = load(&mut cluster, &target, &plan, period_s).await?;
    let total = counted(&target).await?;
    cluster.stack.stop().await?;
    let measured = outcome::measured(&loaded.series, &marks, &total, period_s)?;
    let found = Found {
        what: format!(
            "{REPLICAS} replicas, {USERS} requests/s, all of them hits and all recorded: {SPANS_OF_A_HIT} spans each, for which there is a line \
             of {QUEUE} per replica. {cycles} times {period_s} s each: receiver alive, killed (SIGKILL), started again."
        ),
        tables: vec![outcome::shown(&measured)],
        charts: Vec::new(),
        verdicts: outcome::judged(&measured),
        measured: serde_json::to_value(&measured)?,
        remarks: Vec::new(),
    };
    findings::publish("collector", begun, found, &args)
}

async fn start() -> anyhow::Result<Cluster> {
    let mut scenario = Scenario::load("zipf")?;
    scenario.law = Law::None;
    scenario.replicas = REPLICAS;
    let mut plan = Plan::new("collector", &scenario);
    plan.traces = true;
    plan.telemetry.sample_ratio = 1.0;
    plan.telemetry.queue = QUEUE;
    plan.sets = SETS.map(str::to_owned).to_vec();
    let mut cluster = Cluster::start(plan).await?;
    let dataset = data::Source::Generator(KNOWN).load().await?.dataset;
    cluster.load(&dataset).await?;
    cluster.write_known_ids(&dataset)?;
    cluster.start_replicas(Profile::Protected, &[]).await?;
    Ok(cluster)
}

async fn plan(cluster: &Cluster, measure_s: u32) -> anyhow::Result<StepPlan> {
    let ids = listed(cluster).await?;
    let scenario = Scenario::load("zipf")?;
    Ok(StepPlan {
        name: "collector".into(),
        unknown_share: 0.0,
        measure_ms: u64::from(measure_s) * 1000,
        ..StepPlan::of(&scenario, USERS, 0, &ids, &cluster.nginx.url)
    })
}

/// The file of those users who have a list in Redis after the warm-up.
async fn listed(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let dir: &Path = cluster.stack.dir();
    let text = std::fs::read_to_string(dir.join("known-ids.txt"))?;
    let known: Vec<&str> = text.lines().collect();
    let mut pipe = redis::pipe();
    for id in &known {
        pipe.exists(keys::recommendations(id));
    }
    let there: Vec<bool> = pipe.query_async(&mut cluster.redis_for_tools()?).await.context("cannot look into Redis")?;
    let listed: Vec<&str> = std::iter::zip(known, there).filter(|(_, there)| *there).map(|(id, _)| id).collect();
    ensure!(!listed.is_empty(), "no user has a list in Redis after the warm-up");
    let file = dir.join("listed-ids.txt");
    std::fs::write(&file, listed.join("\n")).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Runs the load, and does at the beginning of each period what is done in it.
async fn load(
    cluster: &mut Cluster,
    target: &Target,
    plan: &StepPlan,
    period_s: u32,
) -> anyhow::Result<(StepOutcome, Vec<Mark>)> {
    let periods = (plan.measure_ms / 1000) as u32 / period_s;
    let mut generator = Generator::start(&mut cluster.stack, plan)?;
    let mut marks: Vec<Mark> = Vec::new();
    loop {
        for line in generator.told(&cluster.stack).await? {
            match line {
                ChildMessage::Progress(now) if now.phase == plan::Phase::Measure => {
                    let measured_s = u64::from(now.elapsed_s).saturating_sub(plan.warm_up_ms / 1000);
                    let n = marks.len() as u32;
                    if n < periods && measured_s >= u64::from(n * period_s) {
                        let mut mark = mark(target).await?;
                        let receiver = Receiver::of_period(n);
                        eprintln!("{measured_s} s: {receiver:?}");
                        match receiver {
                            Receiver::Alive => {}
                            Receiver::Killed => cluster.kill_traces().await?,
                            Receiver::Restarted => {
                                let start = Instant::now();
                                cluster.restart_traces().await?;
                                mark.resumed_s = resumed(target, &mark.replicas, start, period_s).await?;
                            }
                        }
                        marks.push(mark);
                    }
                }
                ChildMessage::Progress(_) => {}
                ChildMessage::Outcome(outcome) => {
                    marks.push(mark(target).await?);
                    generator.stop(&mut cluster.stack).await?;
                    ensure!(marks.len() as u32 == periods + 1, "the load was over before the last period had begun");
                    return Ok((*outcome, marks));
                }
                ChildMessage::Error(error) => bail!("the load generator failed: {error}"),
            }
        }
    }
}

async fn mark(target: &Target) -> anyhow::Result<Mark> {
    let (replicas, _proxy) = target.reading().await?;
    let memory_mib = target.resources().rss_mb.get("api").copied().unwrap_or_default();
    Ok(Mark { replicas, memory_mib, resumed_s: None })
}

/// Seconds until the replicas' spans are taken again; `None`: not within the period.
async fn resumed(target: &Target, before: &Reading, start: Instant, period_s: u32) -> anyhow::Result<Option<f64>> {
    while start.elapsed() < Duration::from_secs(u64::from(period_s)) {
        let (now, _proxy) = target.reading().await?;
        if now.since(before, SENT, &[]) > 0.0 {
            return Ok(Some(start.elapsed().as_secs_f64()));
        }
        sleep(POLL).await;
    }
    Ok(None)
}

/// Once what waited is sent, or should have been.
async fn counted(target: &Target) -> anyhow::Result<Counted> {
    let start = Instant::now();
    loop {
        let (replicas, _proxy) = target.reading().await?;
        let counted = Counted {
            requests: replicas.sum("http_server_request_duration_seconds_count", &[]),
            hits: replicas.sum("cache_requests_total", &["result=\"hit\""]),
            sent: replicas.sum(SENT, &[]),
            dropped: replicas.sum(DROPPED, &[]),
        };
        if counted.sent + counted.dropped >= counted.made() || start.elapsed() > DRAINED_WITHIN {
            return Ok(counted);
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_the_replicas_own() {
        let plan = Plan::new("test", &Scenario::load("article").unwrap());
        plan.check(Profile::Protected, &SETS.map(str::to_owned)).unwrap();
    }
}
