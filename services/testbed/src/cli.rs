//! The command line: commands, flags and their help, each with examples. `commands` implements them.

mod data;
mod docs;
mod durations;
mod evaluate;
mod experiment;
mod load;
mod plan;
mod report;
mod script;
mod serve;
mod shell;
mod stack;
mod target;

use clap::{Parser, Subcommand};
use worker::config::Transport;

use self::durations::{duration, milliseconds, soak, whole_seconds};
pub use self::{
    data::*, docs::*, evaluate::*, experiment::*, load::*, plan::*, report::*, script::*, serve::*, shell::*, stack::*,
    target::*,
};

/// Version of the package, and the commit that it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("TESTBED_COMMIT_SUFFIX"));

#[derive(Parser)]
#[command(
    name = "testbed",
    version = VERSION,
    about = "A recommendation service to measure and to break: a baseline and a protected configuration side by side",
    after_help = "Examples:
  ./testbed evaluate                    measure the article's load table on this machine (about 15 minutes)
  ./testbed evaluate --quick            the same in under 4 minutes; tolerances are not judged
  ./testbed up && ./testbed load smoke  start the stack and send a small load; ./testbed down stops it
  ./testbed fault redis kill            break a part of the running stack
  ./testbed COMMAND --help              flags and examples of a command

Exit codes:
  0    success; a --quick run judges nothing and ends with 0
  1    error
  2    a tolerance, an aim (bench --check) or a condition (report diff --fail-on) was missed
  3    undecided: nothing was missed, but a figure could not be judged because its steps were not valid
  64   the command line is not valid
  130  interrupted",
    // Lines of the checked-in help do not depend on the terminal; narrower terminals wrap them.
    max_term_width = 120,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Evaluate(Box<EvaluateArgs>),
    #[command(subcommand)]
    Experiment(ExperimentCommand),
    Up(UpArgs),
    Down(DownArgs),
    Status(StatusArgs),
    Doctor(DoctorArgs),
    #[command(subcommand)]
    Data(DataCommand),
    Load(LoadArgs),
    #[command(subcommand)]
    Fault(FaultCommand),
    Trace(TraceArgs),
    #[command(subcommand)]
    Bench(BenchCommand),
    Report(ReportArgs),
    Plan(PlanArgs),
    Test(TestArgs),
    Setup(SetupArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    #[command(subcommand)]
    Serve(ServeCommand),
    #[command(subcommand, hide = true)]
    Docs(DocsCommand),
}

/// An odd number: a fourth monitor would not improve the majority.
fn monitors(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("1 or 3".into()),
    }
}

fn beats(text: &str) -> Result<Transport, String> {
    match text {
        "udp" => Ok(Transport::Udp),
        "tcp" => Ok(Transport::Tcp),
        _ => Err("udp or tcp".into()),
    }
}

#[cfg(test)]
mod tests;
