//! `testbed bench NAME`: compares alternatives in one run.

mod answering;
mod bloom;
mod codecs;
mod events;
mod heartbeats;
mod hit;
mod proxy;
mod slots;
mod telemetry;

use std::{collections::BTreeMap, process::ExitCode};

use crate::{
    cli::{BenchArgs, BenchCommand},
    exit,
    instruments::comparison::{Comparison, Conditions},
    instruments::machine,
};

pub async fn run(command: BenchCommand) -> anyhow::Result<ExitCode> {
    let (comparison, BenchArgs { json, check, .. }) = match command {
        BenchCommand::Faultproxy(args) => (proxy::run(args).await?, args),
        BenchCommand::Hit(args) => (hit::run(args).await?, args),
        BenchCommand::Bloom(args) => (bloom::run(args).await?, args),
        BenchCommand::Heartbeats(args) => (heartbeats::run(args).await?, args),
        BenchCommand::Codecs(args) => (codecs::run(args).await?, args),
        BenchCommand::Telemetry(args) => (telemetry::run(args).await?, args),
        BenchCommand::Slots(args) => (slots::run(args).await?, args),
        BenchCommand::Events(args) => (events::run(args).await?, args),
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&comparison)?);
    } else {
        print!("{}", comparison.table());
    }
    Ok(if check && misses_an_aim(&comparison) { ExitCode::from(exit::MISSED) } else { ExitCode::SUCCESS })
}

fn misses_an_aim(comparison: &Comparison) -> bool {
    comparison.marks.iter().any(|mark| mark.met == Some(false))
}

/// Machine, versions and revision of the figures; `servers` are names and versions of the measured servers.
fn conditions(servers: &[(&str, &str)], remarks: Vec<String>) -> Conditions {
    let mut versions: BTreeMap<String, String> = machine::own_versions();
    versions.extend(servers.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())));
    Conditions { machine: machine::read(), versions, revision: machine::revision(), remarks: with_build(remarks) }
}

/// Figures of a debug build must not be compared with others.
fn with_build(mut remarks: Vec<String>) -> Vec<String> {
    if cfg!(debug_assertions) {
        remarks.push("This is a debug build: its figures say nothing about a release build.".into());
    }
    remarks
}
