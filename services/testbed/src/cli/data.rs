//! `data`.

use std::path::PathBuf;

use clap::Subcommand;

/// Import, generate and judge behaviour data
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed data generate --users 1000 --out users.csv
  ./testbed data quality users.csv
  ./testbed data import users.csv")]
pub enum DataCommand {
    /// Load a file into the running stack (`up`) and rebuild the model from all its data
    #[command(
        after_help = "Formats: RecBole atomic files (user_id:token item_id:token rating:float timestamp:float, tabs)
and CSV with the header user_id,item_id,event,timestamp[,weight] (events view, cart, purchase, rating).

Examples:
  ./testbed data import ratings.inter
  ./testbed data import --strict events.csv"
    )]
    Import {
        file: PathBuf,
        /// Write nothing if any row is bad
        #[arg(long)]
        strict: bool,
        #[arg(long)]
        json: bool,
    },
    /// Migrate and fill the store of a stack that TESTBED_ENDPOINTS describes, unless that was done before with as many users
    #[command(after_help = "For a stack that neither `up` nor `evaluate` has started, such as compose.yaml's:
  TESTBED_ENDPOINTS=deploy/compose/endpoints.toml testbed data prepare --users 20000")]
    Prepare {
        /// Behaviour data to import; without it, synthetic users are generated
        #[arg(long, value_name = "FILE")]
        data: Option<PathBuf>,
        /// Synthetic users to generate
        #[arg(long, default_value_t = 20_000, conflicts_with = "data", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        users: u32,
    },
    /// Write seeded synthetic behaviour as CSV
    #[command(after_help = "Examples:
  ./testbed data generate --users 1000 > users.csv
  ./testbed data generate --users 200000 --seed 7 --out users.csv")]
    Generate {
        #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        users: u32,
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
        items: u32,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where to write; standard output without it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Rank held-out behaviour: NDCG@10, hit rate@10 and recall@10 beside popularity
    #[command(after_help = "Examples:
  ./testbed data quality ratings.inter
  ./testbed data quality --json events.csv | jq .ndcg_ratio")]
    Quality {
        file: PathBuf,
        #[arg(long)]
        strict: bool,
        #[arg(long)]
        json: bool,
    },
}
