//! `test` and `setup`: the script `testbed` answers them, as they build and install. They are here for help and completions.

use clap::Args;

/// Build and run the tests with the real servers that they need; the last line is the count
#[derive(Args)]
#[command(after_help = "The script `testbed` in the root of the repository runs this command.

Examples:
  ./testbed test
  ./testbed test --full          also the tests that take minutes
  ./testbed test warm_up         only tests whose names contain warm_up")]
pub struct TestArgs {
    /// Also run the tests that take minutes
    #[arg(long)]
    pub full: bool,
    /// Only run tests whose names contain this text; further arguments of `cargo test` may follow
    #[arg(value_name = "FILTER", trailing_var_arg = true, allow_hyphen_values = true)]
    pub filter: Vec<String>,
}

/// Install the compiler's and the servers' missing Debian packages, and nothing else
#[derive(Args)]
#[command(after_help = "The script `testbed` in the root of the repository runs this command.

Examples:
  ./testbed setup")]
pub struct SetupArgs {}
