//! `evaluate`.

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use api::Profile;
use clap::Args;
use loadtest::scenario::{Law, Scenario};

use super::soak;

/// Run a scenario on a stack of real servers and compare it with the article and the queueing model
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed evaluate                                   scenario article: 15 s warm-up + 60 s per step, both profiles
  ./testbed evaluate --quick --out /tmp/quick          short steps; tolerances are not judged
  ./testbed evaluate --law none                        the store's real speed instead of the modelled law
  ./testbed evaluate --data ratings.inter              your behaviour data (RecBole .inter or CSV)
  ./testbed evaluate --set guards.bloom=off            one setting of the replicas changed, in both profiles
  ./testbed evaluate --ablation                        protected, and protected with one guard off at a time
  ./testbed evaluate --repeat 3                        three rounds; the report gives means with intervals
  ./testbed evaluate --sensitivity                     what does each fitted parameter do to the table?
  ./testbed evaluate --resume reports/2026-01-31T12-00-00-article    go on with a run that was interrupted
  ./testbed evaluate --soak 30m                        one protected step for half an hour: do memory, files or latency grow?")]
pub struct EvaluateArgs {
    /// A built-in scenario (article, penetration, overload, outage, open, zipf, smoke) or a TOML file
    #[arg(long, default_value = "article", value_name = "NAME|FILE")]
    pub scenario: String,
    /// File with behaviour data to import [default: synthetic users]
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Number of synthetic users [default: 200000, or 60000 with --quick]
    #[arg(long, conflicts_with = "data", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub users: Option<u32>,
    /// Short steps (3 s + 10 s); the tolerances are not judged
    #[arg(long)]
    pub quick: bool,
    /// Response time of the store: its real one (none), or the scenario's law (modelled) [default: modelled, if the scenario has a law]
    #[arg(long, value_name = "none|modelled")]
    pub law: Option<LawChoice>,
    /// Change a setting of the replicas, e.g. guards.bloom=off (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Only run this profile (repeatable) [default: the scenario's profiles]
    #[arg(long = "profile", value_name = "PROFILE")]
    pub profiles: Vec<Profile>,
    /// Run the profile protected, then protected with each guard switched off in turn
    #[arg(long, conflicts_with = "profiles")]
    pub ablation: bool,
    /// Number of rounds; each round runs every profile, in an order of its own. From 3 on, the report has intervals
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// Seed of the run: it decides users, ids and phases of each step, and the order of the profiles in each round
    #[arg(long, default_value_t = loadtest::plan::DEFAULT_RUN_SEED, value_name = "N")]
    pub seed: u64,
    /// Most attempts to measure a step until it is valid [default: 3, or 1 with --quick, --soak or --law none]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10))]
    pub attempts: Option<u32>,
    /// Run only the lowest step with the profile protected for this time (3m to 4h); report the slopes of memory, open files and latency
    #[arg(long, value_name = "TIME", value_parser = soak, conflicts_with_all = ["quick", "profiles", "ablation", "repeat"])]
    pub soak: Option<Duration>,
    /// Change each fitted parameter by 20 % in the model, and measure the two that matter most (about 3 minutes more)
    #[arg(long, conflicts_with_all = ["soak", "ablation", "sets", "law", "instances"])]
    pub sensitivity: bool,
    /// MySQL servers that share the 16 shards. The servers also share the connections of the scenario's store.pool_size; a store.pool_size
    /// given by --set is for each server
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub instances: u16,
    /// Scheduling policy of all processes: SCHED_BATCH, under which a process that wakes up does not interrupt a running one, or SCHED_OTHER,
    /// the default of Linux
    #[arg(long, value_name = "POLICY", value_enum, default_value = "batch")]
    pub scheduling: SchedulingPolicy,
    /// Directory for the report [default: reports/<time>-<scenario>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with the run in this directory, which was interrupted: scenario, data, seed and settings are those of that run, and only
    /// missing steps are measured
    #[arg(long, value_name = "DIR", conflicts_with_all = [
        "scenario", "data", "users", "quick", "law", "sets", "profiles", "ablation", "repeat", "seed", "attempts", "soak", "sensitivity",
        "instances", "out",
    ])]
    pub resume: Option<PathBuf>,
    /// Print report.json instead of the table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SchedulingPolicy {
    Batch,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LawChoice {
    None,
    Modelled,
}

impl LawChoice {
    /// Applies the choice to the scenario's law.
    ///
    /// # Errors
    /// The scenario has no law.
    pub fn apply(self, scenario: &mut Scenario) -> anyhow::Result<()> {
        match self {
            Self::None => scenario.law = Law::None,
            Self::Modelled => ensure!(
                scenario.law != Law::None,
                "scenario {} has no law, so --law modelled cannot be used: add [law] base_ms, slope_ms, spread to it, or choose another scenario",
                scenario.name
            ),
        }
        Ok(())
    }
}
