//! The one binary: commands for people, and `serve ROLE` for the processes that they start.

mod bare;
mod cli;
mod cluster;
mod commands;
mod comparison;
mod data;
mod endpoints;
mod evaluation;
mod fleet;
mod hammer;
mod heartbeats;
mod machine;
mod measure;
mod outage;
mod plane;
mod progress;
mod recording;
mod scrape;
mod sink;
mod switchover;
mod time_spent;
mod waterfall;

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
