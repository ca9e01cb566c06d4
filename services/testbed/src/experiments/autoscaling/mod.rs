//! `experiment autoscaling`: a day with a holiday peak on eight replicas, on replicas by the article's rule, and on twenty; the demand that
//! the counts are compared with; and an overload that no CPU shows.

mod blind_spot;
mod calibration;
mod elasticity;
mod judgement;
mod load;
mod run;
mod servers;
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
    run::{Run, VARIANTS},
    servers::Servers,
};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "autoscaling",
    about: "A step, a holiday peak and a fall of the load: 8 replicas, replicas by the article's rule as a HorizontalPodAutoscaler, and 20; \
            requests lost and late, replica-minutes, elasticity; and an overload that burns no CPU",
    examples: "Examples:
  ./testbed experiment autoscaling                   ten times as fast as in Kubernetes (12 minutes)
  ./testbed experiment autoscaling --quick           thirty times as fast, not judged (5 minutes)
  ./testbed experiment autoscaling --quota kernel    only with cgroups
  ./testbed experiment autoscaling --json | jq -c '.sections[0].measured.runs[].plan' | ./testbed plan --table

A replica has 50 m CPU and each request costs 1 ms of it: 2 CPU on a scale of 1:40. --hurry divides every window and period of the rule, and the load's times.",
    args: AutoscalingArgs::augment_args,
    run: |matches| Box::pin(async move { run(&AutoscalingArgs::from_arg_matches(&matches)?).await }),
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
    blind_spot: Vec<BlindRun>,
}

async fn run(args: &AutoscalingArgs) -> anyhow::Result<ExitCode> {
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
    let measured = Measured { hurry, quota, calibration, runs, blind_spot };
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
