//! The flags of `load --target`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use loadtest::arrivals::{DEFAULT_MAX_IN_FLIGHT, Spacing};

use super::duration;

#[derive(Args, Default)]
#[command(next_help_heading = "Somebody else's service")]
pub struct TargetArgs {
    /// Load this http:// URL instead of the running stack. {id} in its path or query is replaced by the ids of --ids. Answers with status 2xx
    /// are good
    #[arg(long, value_name = "URL", requires = "offered")]
    pub target: Option<String>,
    /// Permit addresses that are not loopback. Prints what will be sent; at most 5,000 requests/s, for at most an hour
    #[arg(long, requires = "target")]
    pub allow_remote: bool,
    /// Requests per second, whether or not earlier ones were answered (open arrivals), instead of --users, who wait for their answers
    #[arg(long, value_name = "N", requires_all = ["target", "lasting"], value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub rate: Option<u32>,
    /// Time between the requests of --rate: always the same, or random and independent [default: constant]
    // clap waives a requirement that conflicts with what is there.
    #[arg(long, value_name = "SPACING", requires = "rate", conflicts_with = "users", value_enum)]
    pub spacing: Option<ArrivalSpacing>,
    /// Most requests of --rate in flight; a request that finds as many is not sent, and counted as dropped [default: 10000]
    #[arg(long, value_name = "N", requires = "rate", conflicts_with = "users", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub max_in_flight: Option<u32>,
    /// File with one id per line. All are used in shuffled order, again from the start when all were used
    #[arg(long, value_name = "FILE", requires = "target")]
    pub ids: Option<PathBuf>,
    /// Select ids at random instead: the n-th line has the weight n^-EXPONENT (0 to 5)
    #[arg(long, value_name = "EXPONENT", requires = "ids")]
    pub zipf: Option<f64>,
    /// Timeout of a request, e.g. 500ms (10ms to 1m) [default: 3s]
    #[arg(long, value_name = "TIME", requires = "target", value_parser = duration)]
    pub timeout: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ArrivalSpacing {
    Constant,
    Poisson,
}

impl TargetArgs {
    pub fn spacing(&self) -> Spacing {
        match self.spacing {
            None | Some(ArrivalSpacing::Constant) => Spacing::Constant,
            Some(ArrivalSpacing::Poisson) => Spacing::Poisson,
        }
    }

    pub fn max_in_flight(&self) -> u32 {
        self.max_in_flight.unwrap_or(DEFAULT_MAX_IN_FLIGHT)
    }
}
