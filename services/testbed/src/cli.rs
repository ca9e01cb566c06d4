//! What can be said on the command line. Help texts carry examples; what a command does is in `commands/`.

mod data;
mod evaluate;
mod experiment;
mod load;
mod report;
mod serve;
mod stack;

use std::time::Duration;

use clap::{Parser, Subcommand};
use worker::config::Transport;

pub use self::{data::*, evaluate::*, experiment::*, load::*, report::*, serve::*, stack::*};

#[derive(Parser)]
#[command(
    name = "testbed",
    version,
    about = "A recommendation service to measure, break and cure: baseline and protected side by side",
    after_help = "Examples:
  ./testbed evaluate                    the article's load table, measured here (about 15 minutes)
  ./testbed evaluate --quick            the same in under 4 minutes, tolerances not judged
  ./testbed up && ./testbed load smoke  the stack to try by hand; ./testbed down ends it
  ./testbed test                        every test, with the real servers it needs (answered by the script `testbed`)",
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
    #[command(subcommand)]
    Serve(ServeCommand),
}

/// An odd number: one more has no better majority.
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

/// `5s`, `500ms`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|_| format!("'{text}' is no time, e.g. 5s or 500ms"))?;
    let allowed = Duration::from_millis(1)..=Duration::from_secs(86_400);
    if allowed.contains(&duration) { Ok(duration) } else { Err("must be at least 1 ms and at most a day".into()) }
}

/// As `duration`, within what a soak can be.
fn soak(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(u64::from(loadtest::plan::MAX_MEASURE_S));
    let length = duration(text)?;
    if (Duration::from_secs(180)..=longest).contains(&length) {
        Ok(length)
    } else {
        Err("a soak takes from 3m (fewer minutes have no slope) to 4h".into())
    }
}

#[cfg(test)]
mod tests;
