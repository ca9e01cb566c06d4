//! `experiment autoscaling`: a day with a holiday peak on eight replicas, on replicas by the article's rule, and on twenty; the demand that
//! the counts are compared with; and an overload that no CPU shows.

mod blind_spot;
mod calibration;
mod elasticity;
mod judgement;
mod load;
mod rules;
mod run;
mod servers;
mod simulation;
mod words;

use std::{
    process::ExitCode,
    time::{Instant, SystemTime},
};

use anyhow::Context as _;
use clap::{Args, FromArgMatches};
use launcher::QuotaChoice;
use serde::Serialize;

use self::{
    blind_spot::BlindRun,
    calibration::Calibration,
    load::Load,
    run::{FIXED_MANY, RULE, Run, Supply, VARIANTS},
    servers::Servers,
    simulation::{
        SimulationArgs,
        beside_live::{self, Beside, Count, Inputs},
    },
};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::autoscale::SYNC_PERIOD;

pub const EXPERIMENT: Experiment = Experiment {
    name: "autoscaling",
    about: "A step, a holiday peak and a fall of the load: 8 replicas, replicas by the article's rule as a HorizontalPodAutoscaler, and 20; \
            requests lost and late, replica-minutes, elasticity; and an overload that burns no CPU. Or eight policies simulated for a day",
    examples: "Examples:
  ./testbed experiment autoscaling                   ten times as fast as in Kubernetes (12 minutes)
  ./testbed experiment autoscaling --quick           thirty times as fast, not judged (5 minutes)
  ./testbed experiment autoscaling --quota kernel    only with cgroups
  ./testbed experiment autoscaling --simulate        eight policies on six loads of a day, without servers (a few seconds)
  ./testbed experiment autoscaling --simulate --quick --curve mine.csv --policy hpa-article knative
  ./testbed experiment autoscaling --json | jq -c '.sections[0].measured.runs[].plan' | ./testbed plan --table

A replica has 50 m CPU and each request costs 1 ms of it: 2 CPU on a scale of 1:40. --hurry divides every window and period of the rule, and the load's times.",
    args: AutoscalingArgs::augment_args,
    run: |matches| Box::pin(async move { run(AutoscalingArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct AutoscalingArgs {
    /// Divide every window and period of the rule, and the load's times, by this [default: 10; quick: 30]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60))]
    hurry: Option<u32>,
    /// How CPU quotas hold: by the kernel's cgroups, modelled in the replicas, or by the kernel where it can
    #[arg(long, default_value = "auto", value_name = "auto|kernel|modelled")]
    quota: QuotaChoice,
    #[command(flatten)]
    simulation: SimulationArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// All that is judged and shown.
#[derive(Debug, Serialize)]
struct Measured {
    hurry: u32,
    /// How the quotas hold: `kernel (cgroup v1)`, `modelled (REASON)`.
    quota: String,
    calibration: Calibration,
    runs: Vec<Run>,
    /// The run under the rule beside its simulation: a section of its own.
    #[serde(skip)]
    simulation: Beside,
    blind_spot: Vec<BlindRun>,
}

async fn run(args: AutoscalingArgs) -> anyhow::Result<ExitCode> {
    if args.simulation.simulate { simulate(args).await } else { measure(&args).await }
}

async fn simulate(args: AutoscalingArgs) -> anyhow::Result<ExitCode> {
    let (begun, started) = (SystemTime::now(), Instant::now());
    let (simulation, quick) = (args.simulation, args.run.quick);
    // On a separate thread, so that an interruption does not wait for it.
    let (done, found) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // After an interruption the receiver is gone.
        let _ = done.send(simulation::found(&simulation, simulation::ALL, quick));
    });
    let mut found = found.await??;
    found.remarks.push(format!("The simulation took {:.1} s.", started.elapsed().as_secs_f64()));
    publish(&EXPERIMENT, begun, found, &args.run)
}

async fn measure(args: &AutoscalingArgs) -> anyhow::Result<ExitCode> {
    let (begun, started) = (SystemTime::now(), Instant::now());
    let hurry = args.hurry.unwrap_or(if args.run.quick { 30 } else { 10 });
    let load = Load::new(hurry)?;
    let mut servers = Servers::start(args.quota).await?;
    eprintln!("CPU quotas: {}", servers.quota);
    let calibration = calibration::run(&mut servers, &load.levels(), args.run.quick).await?;
    let mut runs = Vec::new();
    for variant in &VARIANTS {
        let run = run::run(&mut servers, variant, &load, &calibration, hurry);
        let run = run.await.with_context(|| format!("variant {}", variant.name))?;
        eprintln!("{}", words::line(&run));
        runs.push(run);
    }
    let quota = servers.quota.clone();
    servers.stop().await?;
    let blind_spot = blind_spot::run(args.quota, hurry).await.context("blind spot")?;
    let simulation = beside(&runs, &load, hurry)?;
    let measured = Measured { hurry, quota, calibration, runs, simulation, blind_spot };
    let found = Found {
        what: words::what(&measured),
        sections: words::sections(&measured)?,
        verdicts: judgement::verdicts(&measured),
        validity: judgement::validity(&measured),
        remarks: vec![format!("The whole experiment took {:.1} minutes.", started.elapsed().as_secs_f64() / 60.0)],
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

/// The run under the rule, and its simulation with the CPU time that a request took on twenty replicas. Nothing is compared if the live runs do
/// not have what the simulation needs.
fn beside(runs: &[Run], load: &Load, hurry: u32) -> anyhow::Result<Beside> {
    let of = |name: &str| runs.iter().find(|run| run.variant == name);
    let Some((rule, many)) = of(RULE).zip(of(FIXED_MANY)) else { return Ok(Beside::default()) };
    let needed = many.cost_ms().zip(statistics::median(&rule.time_to_ready_s)).zip(rule.decisions.first());
    let Some(((cost_ms, ready_after_s), first)) = needed else { return Ok(Beside::default()) };
    let begin_s = first.at_s - SYNC_PERIOD.as_secs_f64() / f64::from(hurry);
    let inputs = Inputs { hurry, cost_ms, ready_after_s, begin_s, end_s: rule.measured_s };
    let count = |now: &Supply| Count { at_s: now.at_s, desired: now.desired, ready: now.ready };
    beside_live::compare(inputs, load, rule.supply.iter().map(count))
}
