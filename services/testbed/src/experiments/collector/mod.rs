//! `experiment collector`: the receiver of traces is killed and started again under a constant load. Every request is recorded. Requests must
//! not notice, and every lost span must be counted.

mod outcome;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use api::Profile;
use clap::{Args, FromArgMatches};
use contract::keys;
use launcher::Description;
use loadtest::{
    plan::{Phase, StepPlan},
    scenario::{Law, Scenario},
};
use report::Section;
use tokio::time::{Instant, sleep};

use self::outcome::{Boundary, Counted, DROPPED, Receiver, SENT, SPANS_OF_A_HIT};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::{
    data,
    instruments::{
        generator::{self, Moment, Window},
        scrape::Reading,
        target::Target,
    },
    stack::service::{Plan, ServiceStack},
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "collector",
    about: "The receiver of traces killed and started again under load: errors, latency, memory, and whether each lost span is counted",
    examples: "Examples:
  ./testbed experiment collector           five times: alive, killed, started again, 15 s each (about 5 minutes)
  ./testbed experiment collector --quick   once, 5 s each
  ./testbed experiment collector --json | jq '.sections[0].measured | {errors, killed_p99_ratio, spans_made, spans_sent, spans_dropped}'",
    args: RunArgs::augment_args,
    run: |matches| Box::pin(async move { run(&RunArgs::from_arg_matches(&matches)?).await }),
};

/// Each sends once a second.
const USERS: u32 = 1_000;
const REPLICAS: u32 = 2;
const KNOWN: u32 = 10_000;
/// Spans per replica: full some seconds after the receiver is gone, so that some are lost.
const QUEUE: usize = 2_048;
/// A hit has two spans only without a wait and without a load.
const SETS: [&str; 2] = ["http.admission=off", "guards.refresh_ahead=off"];
/// Alive, killed, restarted: a cycle.
const CYCLES: u32 = 5;
const PERIOD_S: u32 = 15;
const QUICK_CYCLES: u32 = 1;
const QUICK_PERIOD_S: u32 = 5;
/// Until the queues are empty at the end.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

async fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let (cycles, period_s) = if args.quick { (QUICK_CYCLES, QUICK_PERIOD_S) } else { (CYCLES, PERIOD_S) };
    eprintln!("starting the stack");
    let mut service = start().await?;
    let target = Target::of(None, &Description::read(service.stack.dir())?)?;
    let plan = plan(&service, cycles * Receiver::CYCLE.len() as u32 * period_s).await?;
    let (window, boundaries) = load(&mut service, &target, &plan, period_s).await?;
    let total = counted(&target).await?;
    service.stack.stop().await?;
    let measured = outcome::measured(&window.outcome.series, &boundaries, &total, period_s)?;
    let found = Found {
        what: format!(
            "{REPLICAS} replicas, {USERS} requests/s, all of them hits and all recorded: {SPANS_OF_A_HIT} spans each. Each replica queues \
             {QUEUE} spans. {cycles} times {period_s} s each: receiver alive, killed (SIGKILL), started again."
        ),
        sections: vec![
            Section::new("The receiver is killed and started again", "", serde_json::to_value(&measured)?)
                .with_tables(vec![outcome::table(&measured)]),
        ],
        verdicts: outcome::verdicts(&measured, &window.validity),
        validity: [("load".to_owned(), window.validity)].into(),
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, args)
}

async fn start() -> anyhow::Result<ServiceStack> {
    let mut scenario = Scenario::load("zipf")?;
    scenario.law = Law::None;
    scenario.replicas = REPLICAS;
    let mut plan = Plan::new("collector", &scenario);
    plan.traces = true;
    plan.telemetry.sample_ratio = 1.0;
    plan.telemetry.queue = QUEUE;
    plan.sets = SETS.map(str::to_owned).to_vec();
    let mut service = ServiceStack::start(plan).await?;
    let dataset = data::Source::Generator(KNOWN).load().await?.dataset;
    service.load(&dataset).await?;
    service.write_known_ids(&dataset)?;
    service.start_replicas(Profile::Protected, &[]).await?;
    Ok(service)
}

async fn plan(service: &ServiceStack, measure_s: u32) -> anyhow::Result<StepPlan> {
    let ids = listed(service).await?;
    let scenario = Scenario::load("zipf")?;
    Ok(StepPlan {
        name: "collector".into(),
        unknown_share: 0.0,
        measure_ms: u64::from(measure_s) * 1000,
        ..StepPlan::of(&scenario, USERS, 0, &ids, &service.nginx.url)
    })
}

/// The file of the users with a list in Redis after the warm-up.
async fn listed(service: &ServiceStack) -> anyhow::Result<PathBuf> {
    let dir: &Path = service.stack.dir();
    let text = std::fs::read_to_string(dir.join("known-ids.txt"))?;
    let known: Vec<&str> = text.lines().collect();
    let mut pipe = redis::pipe();
    for id in &known {
        pipe.exists(keys::recommendations(id));
    }
    let there: Vec<bool> = pipe.query_async(&mut service.redis_for_tools()?).await.context("cannot look into Redis")?;
    let listed: Vec<&str> = std::iter::zip(known, there).filter(|(_, there)| *there).map(|(id, _)| id).collect();
    ensure!(!listed.is_empty(), "no user has a list in Redis after the warm-up");
    let file = dir.join("listed-ids.txt");
    std::fs::write(&file, listed.join("\n")).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Runs the load, and at the beginning of each period kills or starts the receiver.
async fn load(
    service: &mut ServiceStack,
    target: &Target,
    plan: &StepPlan,
    period_s: u32,
) -> anyhow::Result<(Window, Vec<Boundary>)> {
    let periods = (plan.measure_ms / 1000) as u32 / period_s;
    let mut boundaries: Vec<Boundary> = Vec::new();
    let window = generator::drive(service, target, plan, async |service, moment| {
        let Moment::Second(now) = moment else { return Ok(None) };
        let measured_s = u64::from(now.elapsed_s).saturating_sub(plan.warm_up_ms / 1000);
        let n = boundaries.len() as u32;
        if now.phase == Phase::WarmUp || n >= periods || measured_s < u64::from(n * period_s) {
            return Ok(None);
        }
        let mut boundary = boundary(target).await?;
        let receiver = Receiver::of_period(n);
        eprintln!("{measured_s} s: {receiver:?}");
        match receiver {
            Receiver::Alive => {}
            Receiver::Killed => service.kill_traces().await?,
            Receiver::Restarted => {
                let start = Instant::now();
                service.restart_traces().await?;
                boundary.resumed_s = resumed(target, &boundary.replicas, start, period_s).await?;
            }
        }
        boundaries.push(boundary);
        Ok(None)
    })
    .await?;
    boundaries.push(boundary(target).await?);
    ensure!(boundaries.len() as u32 == periods + 1, "the load was over before the last period had begun");
    Ok((window, boundaries))
}

async fn boundary(target: &Target) -> anyhow::Result<Boundary> {
    let (replicas, _proxy) = target.reading().await?;
    let memory_mib = target.resources().rss_mb.get("api").copied().unwrap_or_default();
    Ok(Boundary { replicas, memory_mib, resumed_s: None })
}

/// Seconds until the receiver accepts spans again; `None`: not within the period.
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

/// The counters once the queues are empty, or should be.
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
    fn the_replicas_accept_the_settings() {
        let plan = Plan::new("test", &Scenario::load("article").unwrap());
        plan.check(Profile::Protected, &SETS.map(str::to_owned)).unwrap();
    }
}
