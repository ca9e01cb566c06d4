//! `evaluate`.

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use api::Profile;
use clap::Args;
use loadtest::scenario::{Law, Scenario};

use super::soak;

/// Run a scenario on the real stack and report it beside the article and the model
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed evaluate                                   scenario article: 15 s warm-up + 60 s per step, both profiles
  ./testbed evaluate --quick --out /tmp/quick          short steps, judged by nobody
  ./testbed evaluate --law none                        the store's real speed instead of the modelled one
  ./testbed evaluate --data ratings.inter              your behaviour data (RecBole .inter or CSV)
  ./testbed evaluate --set guards.bloom=off            one setting of the replicas changed, in both profiles
  ./testbed evaluate --ablation                        protected, and protected with one guard off at a time
  ./testbed evaluate --repeat 3                        three rounds; the report gives median and spread
  ./testbed evaluate --soak 30m                        one protected step for half an hour: does anything grow?")]
pub struct EvaluateArgs {
    /// A built-in scenario (article, penetration, overload, outage, zipf, smoke) or a TOML file
    #[arg(long, default_value = "article", value_name = "NAME|FILE")]
    pub scenario: String,
    /// Behaviour data to import; without it, synthetic users are generated
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Synthetic users to generate [default: 200000, or 60000 with --quick]
    #[arg(long, conflicts_with = "data", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub users: Option<u32>,
    /// Short steps (3 s + 10 s); the tolerances are not judged
    #[arg(long)]
    pub quick: bool,
    /// "none": no modelled response time, the store as fast as it is; "modelled": the scenario's law, which is what it does by itself
    #[arg(long, value_name = "none|modelled")]
    pub law: Option<LawChoice>,
    /// Change a setting of the replicas, e.g. guards.bloom=off (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Only these profiles (repeatable) [default: the scenario's]
    #[arg(long = "profile", value_name = "PROFILE")]
    pub profiles: Vec<Profile>,
    /// protected, then protected with each guard switched off in turn
    #[arg(long, conflicts_with = "profiles")]
    pub ablation: bool,
    /// Rounds; profiles take turns within each
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// Times a step is measured, at most, until the machine carries it [default: 3, or 1 with --quick, --soak or --law none]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10))]
    pub attempts: Option<u32>,
    /// The lowest step for so long (3m to 4h), protected only; slopes of memory, open files and latency
    #[arg(long, value_name = "TIME", value_parser = soak, conflicts_with_all = ["quick", "profiles", "ablation", "repeat"])]
    pub soak: Option<Duration>,
    /// MySQL servers to spread the 16 shards over; each replica shares the scenario's store.pool_size out among them, but one given by
    /// --set is to each server
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub instances: u16,
    /// Where the report goes [default: reports/<time>-<scenario>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print report.json instead of the table
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LawChoice {
    None,
    Modelled,
}

impl LawChoice {
    /// What it makes of the scenario's law.
    ///
    /// # Errors
    /// There is none to be had.
    pub fn apply(self, scenario: &mut Scenario) -> anyhow::Result<()> {
        match self {
            Self::None => scenario.law = Law::None,
            Self::Modelled => ensure!(
                scenario.law != Law::None,
                "scenario {} has no law for --law modelled: write one into it ([law] base_ms, slope_ms, spread), or choose another scenario",
                scenario.name
            ),
        }
        Ok(())
    }
}
