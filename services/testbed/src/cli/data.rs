//! `data`.

use std::path::PathBuf;

use clap::Subcommand;

/// Import or generate behaviour data, or measure the quality of its recommendations
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed data generate --users 1000 --out users.csv
  ./testbed data quality users.csv
  ./testbed data import users.csv")]
pub enum DataCommand {
    /// Import a file into the running stack (`up`) and rebuild the model from all data of its store
    #[command(
        after_help = "Formats: RecBole atomic files (user_id:token item_id:token rating:float timestamp:float, tabs)
and CSV with the header user_id,item_id,event,timestamp[,weight] (events view, cart, purchase, rating).

Examples:
  ./testbed data import ratings.inter
  ./testbed data import --strict events.csv"
    )]
    Import {
        /// File with behaviour data
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Import nothing if a row is invalid; without it, invalid rows are left out
        #[arg(long)]
        strict: bool,
        /// Print the counts as JSON
        #[arg(long)]
        json: bool,
    },
    /// Migrate and fill the store of the stack that TESTBED_ENDPOINTS describes; does nothing if it has data of at least as many users
    #[command(
        after_help = "For a stack that neither `up` nor `evaluate` has started, such as the stack of compose.yaml.

Examples:
  TESTBED_ENDPOINTS=deploy/compose/endpoints.toml testbed data prepare --users 20000"
    )]
    Prepare {
        /// File with behaviour data to import [default: synthetic users]
        #[arg(long, value_name = "FILE")]
        data: Option<PathBuf>,
        /// Number of synthetic users
        #[arg(long, value_name = "N", default_value_t = 20_000, conflicts_with = "data", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        users: u32,
    },
    /// Write synthetic behaviour data as CSV; the same seed gives the same data
    #[command(after_help = "Examples:
  ./testbed data generate --users 1000 > users.csv
  ./testbed data generate --users 200000 --seed 7 --out users.csv")]
    Generate {
        /// Number of users
        #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        users: u32,
        /// Number of items
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
        items: u32,
        /// Seed of the generator
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Measure the model on held-out events: NDCG@10, hit rate@10 and recall@10, beside a ranking by popularity
    #[command(after_help = "Examples:
  ./testbed data quality ratings.inter
  ./testbed data quality --json events.csv | jq .ndcg_ratio
  ./testbed data quality --trec trec ratings.inter    also writes trec/qrels and trec/run, for ranx or trec_eval")]
    Quality {
        /// File with behaviour data
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Fail if a row is invalid; without it, invalid rows are left out
        #[arg(long)]
        strict: bool,
        /// Write the held-out items and the model's lists into this directory, as TREC's files `qrels` and `run`
        #[arg(long, value_name = "DIR")]
        trec: Option<PathBuf>,
        /// Print the figures as JSON
        #[arg(long)]
        json: bool,
    },
}
