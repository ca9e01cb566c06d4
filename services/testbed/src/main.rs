//! The one binary: commands for people, and `serve ROLE` for the processes that they start.
//!
//! `cli` says what can be typed, `commands` does it. `experiments` are questions to the stack (one folder each), `evaluation` runs
//! a scenario, `stack` starts what is measured, `instruments` measure it, `roles` are processes that only measurements need.

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

/// Lists of 1 kB are allocated and freed by the thousand; see ARCHITECTURE.md, "Allocator".
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
