//! `load`.

use std::path::PathBuf;

use clap::Args;

/// Run the steps of a scenario against the running stack (`up`)
#[derive(Args)]
#[command(after_help = "Examples:
  ./testbed load smoke
  ./testbed load article --step 3000
  ./testbed load zipf --out /tmp/zipf
  ./testbed load smoke --engine k6        goose's figures and its k6 twin's side by side
  ./testbed load zipf --step 500 --engine k6-open")]
pub struct LoadArgs {
    /// A built-in scenario (article, penetration, overload, outage, zipf, smoke) or a TOML file
    #[arg(value_name = "NAME|FILE")]
    pub scenario: String,
    /// Only this step, by its number of users
    #[arg(long, value_name = "USERS")]
    pub step: Option<u32>,
    /// Lay another program's figures beside goose's: k6 with the same users, or k6 with an open-loop arrival rate
    #[arg(long, value_enum, default_value = "goose")]
    pub engine: Engine,
    /// Write the report here
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    Goose,
    K6,
    K6Open,
}
