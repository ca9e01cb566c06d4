//! `experiment collector`: the receiver of traces is killed and started again, by turns, under a constant load of which every request is
//! recorded. Requests are not to notice, and what is lost is to be counted to the last span.

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
    child::Line,
    plan::{self, StepOutcome, StepPlan},
    report::{Second, Table, Verdict, trend},
    scenario::{Law, Scenario},
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::findings::{self, Found, table, verdict};
use crate::{
    cli::FindingsArgs,
    cluster::{Cluster, Plan},
    comparison::Spread,
    data,
    measure::{Generator, Target},
    scrape::Reading,
};

/// Each sends once a second.
const USERS: u32 = 1_000;
const REPLICAS: u32 = 2;
const KNOWN: u32 = 10_000;
/// Full some seconds after the receiver is gone, so that there is something to count.
const QUEUE: usize = 2_048;
/// The request's and that of its one command to Redis.
const SPANS_OF_A_HIT: f64 = 2.0;
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

const MAX_P99_RATIO: f64 = 1.2;
const MAX_MEMORY_RATIO: f64 = 1.1;
const MAX_RESUMED_S: f64 = 5.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Receiver {
    Alive,
    Killed,
    Restarted,
}

impl Receiver {
    const CYCLE: [Self; 3] = [Self::Alive, Self::Killed, Self::Restarted];

    fn of_period(n: u32) -> Self {
        Self::CYCLE[n as usize % Self::CYCLE.len()]
    }
}

#[derive(Debug, Serialize)]
struct Period {
    receiver: Receiver,
    /// Median of its seconds.
    p99_ms: f64,
    errors: u64,
    spans_sent: f64,
    spans_dropped: f64,
    /// Of the replicas at its end.
    memory_mib: f64,
    /// From the receiver's start to the first batch that it took.
    resumed_s: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Measured {
    answered: u64,
    errors: u64,
    /// p99 of a period over that of the period before it in which nothing was done to the receiver.
    killed_p99_ratio: Spread,
    restarted_p99_ratio: Spread,
    resumed_s: Spread,
    /// The most of the last cycle over the most of the first.
    memory_ratio: f64,
    /// By the number of requests.
    spans_made: f64,
    spans_sent: f64,
    spans_dropped: f64,
    periods: Vec<Period>,
}

pub async fn run(args: FindingsArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let (cycles, period_s) = if args.quick { (QUICK_CYCLES, QUICK_PERIOD_S) } else { (CYCLES, PERIOD_S) };
    eprintln!("starting the stack");
    let mut cluster = start().await?;
    let target = Target::of(None, &Description::read(cluster.stack.dir())?)?;
    let plan = plan(&cluster, cycles * Receiver::CYCLE.len() as u32 * period_s).await?;
    let (outcome, marks) = load(&mut cluster, &target, &plan, period_s).await?;
    let total = counted(&target).await?;
    cluster.stack.stop().await?;
    let measured = measured(&outcome.series, &marks, &total, period_s)?;
    let found = Found {
        what: format!(
            "{REPLICAS} replicas, {USERS} requests/s, all of them hits and all recorded: {SPANS_OF_A_HIT} spans each, for which there is a line \
             of {QUEUE} per replica. {cycles} times {period_s} s each: receiver alive, killed (SIGKILL), started again."
        ),
        tables: vec![shown(&measured)],
        charts: Vec::new(),
        verdicts: judged(&measured),
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
    let dataset = data::Source::Generator(KNOWN).load()?.dataset;
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

/// At the end of a period, or the beginning of the first.
struct Mark {
    replicas: Reading,
    memory_mib: f64,
    /// Of the receiver that was started then.
    resumed_s: Option<f64>,
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
                Line::Progress(now) if now.phase == plan::Phase::Measure => {
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
                Line::Progress(_) => {}
                Line::Outcome(outcome) => {
                    marks.push(mark(target).await?);
                    generator.stop(&mut cluster.stack).await?;
                    ensure!(marks.len() as u32 == periods + 1, "the load was over before the last period had begun");
                    return Ok((*outcome, marks));
                }
                Line::Error(error) => bail!("the load generator failed: {error}"),
            }
        }
    }
}

async fn mark(target: &Target) -> anyhow::Result<Mark> {
    let (replicas, _proxy) = target.reading().await?;
    let memory_mib = target.resources().rss_mb.get("api").copied().unwrap_or_default();
    Ok(Mark { replicas, memory_mib, resumed_s: None })
}

const SENT: &str = "telemetry_spans_sent_total";
const DROPPED: &str = "telemetry_spans_dropped_total";

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

/// What the replicas have counted since they started.
struct Counted {
    requests: f64,
    hits: f64,
    sent: f64,
    dropped: f64,
}

impl Counted {
    fn made(&self) -> f64 {
        SPANS_OF_A_HIT * self.requests
    }
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

fn measured(series: &[Second], marks: &[Mark], total: &Counted, period_s: u32) -> anyhow::Result<Measured> {
    ensure!(
        total.hits == total.requests,
        "{} of {} requests were no hits: how many spans they have is not known",
        total.requests - total.hits,
        total.requests
    );
    let periods: Vec<Period> = marks.windows(2).zip(0..).map(|(ends, n)| period(series, ends, n, period_s)).collect();
    // Cycle by cycle, beside the period of the same cycle in which nothing was done.
    let ratios = |receiver: Receiver| {
        let cycles = periods.chunks_exact(Receiver::CYCLE.len());
        let of = |cycle: &[Period]| Some(cycle.iter().find(|p| p.receiver == receiver)?.p99_ms / cycle.first()?.p99_ms);
        Spread::of(cycles.filter_map(of).collect())
    };
    let most = |cycle: Option<&[Period]>| cycle.into_iter().flatten().map(|p| p.memory_mib).fold(0.0, f64::max);
    let mut cycles = periods.chunks_exact(Receiver::CYCLE.len());
    let (first, last) = (most(cycles.clone().next()), most(cycles.next_back()));
    Ok(Measured {
        answered: series.iter().map(|second| second.good + second.errors).sum(),
        errors: series.iter().map(|second| second.errors).sum(),
        killed_p99_ratio: ratios(Receiver::Killed),
        restarted_p99_ratio: ratios(Receiver::Restarted),
        resumed_s: Spread::of(periods.iter().filter_map(|period| period.resumed_s).collect()),
        memory_ratio: last / first,
        spans_made: total.made(),
        spans_sent: total.sent,
        spans_dropped: total.dropped,
        periods,
    })
}

fn period(series: &[Second], ends: &[Mark], n: u32, period_s: u32) -> Period {
    let within = n * period_s..(n + 1) * period_s;
    let seconds: Vec<&Second> = series.iter().filter(|second| within.contains(&second.second)).collect();
    let p99s = seconds.iter().filter_map(|second| second.p99_ms).collect();
    let (before, after) = (&ends[0], &ends[1]);
    Period {
        receiver: Receiver::of_period(n),
        p99_ms: trend::median(p99s).unwrap_or(f64::NAN),
        errors: seconds.iter().map(|second| second.errors).sum(),
        spans_sent: after.replicas.since(&before.replicas, SENT, &[]),
        spans_dropped: after.replicas.since(&before.replicas, DROPPED, &[]),
        memory_mib: after.memory_mib,
        resumed_s: before.resumed_s,
    }
}

fn shown(measured: &Measured) -> Table {
    let row = |(n, period): (usize, &Period)| {
        vec![
            format!("{}: {:?}", n + 1, period.receiver).to_lowercase(),
            format!("{:.1}", period.p99_ms),
            period.errors.to_string(),
            format!("{:.0}", period.spans_sent),
            format!("{:.0}", period.spans_dropped),
            format!("{:.0}", period.memory_mib),
            period.resumed_s.map_or_else(|| "–".into(), |s| format!("{s:.2}")),
        ]
    };
    table(
        "Period by period",
        "p99 is the median of the period's seconds; memory that of the replicas at its end; resumed: from the receiver's start to the first \
         batch it took.",
        &["receiver", "p99, ms", "errors", "spans sent", "dropped", "memory, MiB", "resumed after, s"],
        measured.periods.iter().enumerate().map(row).collect(),
    )
}

fn judged(measured: &Measured) -> Vec<Verdict> {
    let ratio = |name: &str, spread: &Spread| {
        verdict(
            name,
            format!("≤ {MAX_P99_RATIO} × alive"),
            format!("{:.2} ({:.2} to {:.2})", spread.median, spread.min, spread.max),
            spread.median <= MAX_P99_RATIO,
            "Median of the cycles, each beside its own period without a fault.",
        )
    };
    let Measured { spans_made, spans_sent, spans_dropped, .. } = measured;
    let restarts = measured.periods.iter().filter(|period| period.receiver == Receiver::Restarted).count();
    vec![
        verdict(
            "no request fails",
            "0 errors".into(),
            format!("{} of {}", measured.errors, measured.answered),
            measured.errors == 0,
            "",
        ),
        ratio("p99, receiver killed", &measured.killed_p99_ratio),
        ratio("p99, receiver started again", &measured.restarted_p99_ratio),
        verdict(
            "memory is flat",
            format!("≤ {MAX_MEMORY_RATIO} × the first cycle"),
            format!("{:.2}", measured.memory_ratio),
            measured.memory_ratio <= MAX_MEMORY_RATIO,
            "The most of the last cycle; a full line is part of both.",
        ),
        verdict(
            "telemetry resumes",
            format!("≤ {MAX_RESUMED_S} s, each time"),
            format!("{:.2} s at most, {} of {restarts}", measured.resumed_s.max, measured.resumed_s.runs.len()),
            measured.resumed_s.runs.len() == restarts && measured.resumed_s.max <= MAX_RESUMED_S,
            "",
        ),
        verdict(
            "what is lost is counted",
            "sent + dropped = made, some dropped".into(),
            format!("{spans_sent:.0} + {spans_dropped:.0} = {spans_made:.0}"),
            spans_sent + spans_dropped == *spans_made && *spans_dropped > 0.0,
            "Made: two for each request.",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster;

    fn mark(sent: u32, dropped: u32, memory_mib: f64, resumed_s: Option<f64>) -> Mark {
        let text = format!("{SENT} {sent}\n{DROPPED}{{reason=\"queue_full\"}} {dropped}\n");
        Mark { replicas: Reading::of([text.as_str()]), memory_mib, resumed_s }
    }

    fn series(p99s: &[f64]) -> Vec<Second> {
        let second =
            |(n, p99): (usize, &f64)| Second { second: n as u32, sent: 10, good: 10, errors: 0, p99_ms: Some(*p99) };
        p99s.iter().enumerate().map(second).collect()
    }

    #[test]
    fn the_settings_are_the_replicas_own() {
        cluster::check_sets(Profile::Protected, &SETS.map(str::to_owned)).unwrap();
    }

    #[test]
    fn each_cycle_is_compared_with_itself() {
        // Two seconds a period; the machine is half as fast in the second cycle.
        let series = series(&[10.0, 10.0, 11.0, 11.0, 12.0, 12.0, 20.0, 20.0, 22.0, 22.0, 20.0, 20.0]);
        let marks = [
            mark(0, 0, 50.0, None),
            mark(40, 0, 50.0, None),
            mark(40, 20, 60.0, Some(1.5)),
            mark(100, 20, 58.0, None),
            mark(140, 20, 58.0, None),
            mark(140, 40, 61.0, Some(0.5)),
            mark(200, 40, 60.0, None),
        ];
        let total = Counted { requests: 120.0, hits: 120.0, sent: 200.0, dropped: 40.0 };
        let measured = measured(&series, &marks, &total, 2).unwrap();
        assert_eq!(
            (measured.killed_p99_ratio.runs.as_slice(), measured.restarted_p99_ratio.runs.as_slice()),
            ([1.1, 1.1].as_slice(), [1.2, 1.0].as_slice())
        );
        assert_eq!((measured.resumed_s.max, measured.memory_ratio), (1.5, 61.0 / 60.0));
        let kinds: Vec<Receiver> = measured.periods.iter().map(|period| period.receiver).collect();
        assert_eq!(kinds, [Receiver::CYCLE, Receiver::CYCLE].concat());
        assert_eq!((measured.periods[1].spans_sent, measured.periods[1].spans_dropped), (0.0, 20.0));
        assert!(judged(&measured).iter().all(|verdict| verdict.passed == Some(true)), "{measured:?}");
        let lost = Counted { dropped: 39.0, ..total };
        assert!(
            judged(&super::measured(&series, &marks, &lost, 2).unwrap())
                .iter()
                .any(|verdict| verdict.passed == Some(false))
        );
        assert!(super::measured(&series, &marks, &Counted { hits: 119.0, ..lost }, 2).is_err());
    }
}
