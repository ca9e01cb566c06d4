//! `experiment autoscaling --simulate`: policies for the number of replicas on a virtual clock. A [`fleet`] of virtual CPUs answers a curve
//! second by second ([`run`]), and a policy decides from what was seen ([`policies`]). [`beside_live`] compares a live run with its simulation.

pub mod beside_live;
mod curves;
mod fleet;
mod model;
mod policies;
mod run;
mod service;
mod words;

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::Args;

pub use self::policies::ALL;
use self::{
    curves::DAY_S,
    model::Model,
    policies::{Policy, Setup},
};
use super::{
    rules::Limits,
    servers::{FEW, INTERVAL_MS, MANY, SLO_MS},
};
use crate::{
    autoscale::{REQUEST_CORES, WORK_US},
    experiments::publish::Found,
};

/// The day of a quick run.
const QUICK_DAY_S: usize = 2 * 3_600;

#[derive(Args, Clone)]
pub struct SimulationArgs {
    /// Simulate instead, without servers: policies for the number of replicas on a day of several loads
    #[arg(long, conflicts_with_all = ["hurry", "quota"])]
    pub simulate: bool,
    /// Simulate this load too: CSV with the head second,rate and a line for each second (at most two days; then the first is yesterday)
    #[arg(long, value_name = "FILE.csv", requires = "simulate")]
    curve: Option<PathBuf>,
    /// Simulate only these policies [default: all]
    #[arg(long = "policy", value_name = "NAME", num_args = 1.., requires = "simulate")]
    policies: Vec<String>,
    /// Fewest simulated replicas
    #[arg(long, value_name = "N", default_value_t = FEW, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    min_replicas: u32,
    /// Most simulated replicas
    #[arg(long, value_name = "N", default_value_t = MANY, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    max_replicas: u32,
    /// Seconds that the start of a simulated replica takes
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "simulate", value_parser = clap::value_parser!(u64).range(0..=3_600))]
    ready_after: u64,
    /// Seed of the simulated noise
    #[arg(long, value_name = "N", default_value_t = 1, requires = "simulate")]
    seed: u64,
}

/// Simulates these policies, or those of them that were asked for, on all curves.
///
/// # Errors
/// The curve's file is not valid, a policy is unknown, or the limits cannot be.
pub fn found(args: &SimulationArgs, all: &'static [&'static Policy], quick: bool) -> anyhow::Result<Found> {
    let SimulationArgs { min_replicas: min, max_replicas: max, seed, .. } = *args;
    ensure!(min <= max, "--min-replicas {min} is above --max-replicas {max}: give a larger --max-replicas");
    let policies = policies::chosen(all, &args.policies)?;
    let mut curves = curves::built_in(if quick { QUICK_DAY_S } else { DAY_S }, seed)?;
    if let Some(file) = &args.curve {
        curves.push(curves::recorded(file)?);
    }
    let (limits, model) = (Limits { min, max }, model(Duration::from_secs(args.ready_after)));
    let mut runs = Vec::new();
    for curve in curves {
        let outcomes = outcomes(&policies, &Setup { curve: &curve, limits, model })?;
        eprintln!("{}: {} policies", curve.name, outcomes.len());
        runs.push((curve, outcomes));
    }
    Ok(Found {
        what: words::what(&model, limits, seed),
        sections: words::sections(&policies, &runs)?,
        verdicts: words::verdict(&runs).into_iter().collect(),
        ..Found::default()
    })
}

fn outcomes(policies: &[&Policy], setup: &Setup<'_>) -> anyhow::Result<Vec<run::Outcome>> {
    policies.iter().map(|policy| Ok(run::outcome(policy, setup, &run::seconds(policy, setup)?))).collect()
}

/// A replica of the live experiment, as slow as in Kubernetes.
fn model(ready_after: Duration) -> Model {
    Model {
        quota: REQUEST_CORES,
        cost: Duration::from_micros(WORK_US),
        slo: Duration::from_millis(SLO_MS),
        patience: Duration::from_millis(INTERVAL_MS),
        ready_after,
        found_after: Duration::ZERO,
        hurry: 1,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::{policies::example, *};

    #[derive(Parser)]
    struct Cli {
        /// Of the live experiment.
        #[arg(long)]
        hurry: Option<u32>,
        #[arg(long)]
        quota: Option<String>,
        #[command(flatten)]
        simulation: SimulationArgs,
    }

    fn args(words: &[&str]) -> SimulationArgs {
        let matches = Cli::command().get_matches_from([&["test", "--simulate"], words].concat());
        Cli::from_arg_matches(&matches).unwrap().simulation
    }

    fn curve(folder: &tempfile::TempDir, text: &str) -> String {
        let file = folder.path().join("mine.csv");
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// docs/extending.md: a file, and a line in the list.
    #[test]
    fn a_policy_of_ones_own_is_one_line_in_the_list() {
        static WITH_EXAMPLE: [&Policy; 2] = [&example::POLICY, policies::FORESIGHT];
        let folder = tempfile::tempdir().unwrap();
        let file = curve(&folder, "second,rate\n0,100\n1,900\n2,900\n");
        let found = found(&args(&["--curve", &file, "--max-replicas", "40"]), &WITH_EXAMPLE, true).unwrap();
        let titles: Vec<&str> = found.sections.iter().map(|section| section.title.as_str()).collect();
        assert_eq!((titles.len(), titles[0], titles[7]), (8, "Policies", "Load: recorded"));
        for section in &found.sections[1..] {
            let of_policy: Vec<&str> = section.tables[0].rows.iter().map(|row| row[0].as_str()).collect();
            assert_eq!(of_policy, ["rate", "foresight"], "{}", section.title);
        }
        let measured = &found.sections[7].measured;
        assert_eq!((measured[0]["planned"].as_u64(), measured[1]["planned"].as_u64()), (Some(1_900), Some(1_900)));
        assert_eq!(found.verdicts[0].passed, Some(true));
    }

    #[test]
    fn what_cannot_be_simulated_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |words: &[&str]| format!("{:#}", found(&args(words), ALL, true).err().unwrap());
        assert!(
            refused(&["--min-replicas", "30"]).contains("--min-replicas 30 is above --max-replicas 20: give a larger")
        );
        assert!(refused(&["--policy", "best"]).contains("choose from fixed, hpa-article"));
        let file = curve(&folder, "second,rate\n0,1\n2,1\n");
        assert!(refused(&["--curve", &file]).contains("mine.csv: line 3: second 1 is missing before second 2"));
    }
}
