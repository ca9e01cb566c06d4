//! The binary of the testbed: commands for users, and `serve ROLE` for the processes that the commands start.
//!
//! `cli` parses the command line and `commands` runs it. `experiments` has one folder per experiment, `evaluation` runs a scenario,
//! `autoscale` scales the replicas of a stack, `stack` starts the servers, `instruments` measure them, and `roles` are processes that only measurements need. Begin reading at
//! `commands.rs`.

mod autoscale;
mod cli;
mod commands;
mod data;
mod evaluation;
mod exit;
mod experiments;
mod instruments;
mod progress;
mod reports;
mod roles;
mod stack;

use std::process::ExitCode;

use clap::Parser;

/// See ARCHITECTURE.md, "Allocator".
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            exit::failed(&error)
        }
    }
}

/// Help and version are printed to stdout and are no errors.
fn not_parsed(error: &clap::Error) -> ExitCode {
    // The reader may have closed the pipe, as `head` does.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS }
}
