//! `load`, `load events`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use loadtest::event_load::MAX_PER_S;

use super::{TargetArgs, whole_seconds};

/// Send load to the running stack (`up`), or with --target to somebody else's service: the steps of a scenario, or a steady load
#[derive(Args)]
#[command(
    group(ArgGroup::new("offered").args(["users", "rate"])),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  ./testbed load --users 200 --for 30s    200 users who send once a second, without a scenario
  ./testbed load events --rate 500        events of users, without reads
  ./testbed load smoke
  ./testbed load article --step 3000
  ./testbed load zipf --out /tmp/zipf
  ./testbed load open                     requests that do not wait for answers
  ./testbed load smoke --engine k6        figures of goose and of k6, which runs the same step
  ./testbed load zipf --step 500 --engine k6-open

Examples with a service of your own, without a stack:
  ./testbed load --target http://127.0.0.1:8080/ --users 50 --for 30s
  ./testbed load --target 'http://127.0.0.1:8080/items?id={id}' --ids ids.txt --rate 500 --spacing poisson --for 1m --out /tmp/items
  ./testbed load --target 'http://staging.example.org/items/{id}' --ids ids.txt --allow-remote --rate 100 --for 30s"
)]
pub struct LoadArgs {
    #[command(subcommand)]
    pub command: Option<LoadCommand>,
    /// A built-in scenario (article, penetration, overload, outage, open, zipf, smoke) or a TOML file
    #[arg(value_name = "NAME|FILE", required_unless_present_any = ["users", "rate", "target"], conflicts_with_all = ["users", "target"])]
    pub scenario: Option<String>,
    /// Instead of a scenario: number of users. Each sends one request per second after a warm-up of 3 s; the timeout is 3 s. On the running
    /// stack all ids exist, and few users send most requests (Zipf)
    #[arg(long, value_name = "N", requires = "lasting", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub users: Option<u32>,
    /// Duration of the measured load with --users or --rate, in whole seconds, e.g. 30s or 2m
    #[arg(long = "for", value_name = "TIME", requires = "offered", value_parser = whole_seconds)]
    pub lasting: Option<u32>,
    /// Only run this step, by its number of users (open arrivals: requests per second)
    #[arg(long, value_name = "USERS", conflicts_with_all = ["users", "target"])]
    pub step: Option<u32>,
    /// Load generator: goose; goose, then k6 with the same users; or goose, then k6 with a constant arrival rate (open loop)
    #[arg(long, value_name = "ENGINE", value_enum, default_value = "goose", conflicts_with = "target")]
    pub engine: Engine,
    /// Write the report into this directory
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print report.json instead of the table
    #[arg(long)]
    pub json: bool,
    // The last ones, because their heading in the help ends with the list.
    #[command(flatten)]
    pub target: TargetArgs,
}

#[derive(Subcommand)]
pub enum LoadCommand {
    Events(EventsArgs),
}

/// Send realistic behaviour of users to the running stack, at a rate that does not depend on the answers
#[derive(Args)]
#[command(
    after_help = "Sessions are bursts of one user; each request has 1 to 20 events of one user. Few users and few items have most events
(Zipf). A view may lead to a cart, a purchase and a rating. Latency begins at the planned instant. The exit code is 0 also if
events failed: they are counted.

Examples:
  ./testbed load events --rate 500
  ./testbed load events --rate 2000 --for 1m
  ./testbed load events --rate 200 --for 10s --json | jq '{accepted, failed, latency}'"
)]
pub struct EventsArgs {
    /// Events per second, on average
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PER_S)))]
    pub rate: u32,
    /// Duration in whole seconds, e.g. 30s or 2m
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = whole_seconds)]
    pub lasting: u32,
    /// Seed of users, items, kinds and instants
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Give each event this machine's time: an event that is sent twice then counts once. Otherwise it gets the time of the server
    #[arg(long)]
    pub timestamps: bool,
    /// Print the counts as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    Goose,
    K6,
    K6Open,
}
