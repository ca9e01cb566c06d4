//! `docs`: documents made from the code, for contributors.

use std::path::PathBuf;

use clap::Subcommand;

/// Print a document that is made from the code
#[derive(Subcommand)]
#[command(after_help = "Examples:
  ./testbed docs configuration > docs/configuration.md
  ./testbed docs configuration --check docs/configuration.md")]
pub enum DocsCommand {
    /// Every setting of every process, and every key of a scenario
    Configuration {
        /// Compare with this file instead; exit code 1 if it is out of date
        #[arg(long, value_name = "FILE")]
        check: Option<PathBuf>,
    },
}
