//! `testbed experiment NAME`: one question each, answered by a report with verdicts.
//!
//! An experiment is a folder and one line in [`ALL`]. The folder has its run, its judgement (pure) and its words; `publish` writes and
//! shows its report, `under_load` runs a scenario for it. docs/examples/experiment is a complete small one.

mod alerts;
mod autoscaling;
mod codecs;
mod collector;
mod corruption;
mod decoupling;
mod detectors;
mod exactly_once;
mod failover;
mod gray;
mod metastable;
mod outage;
mod overload;
mod penetration;
mod publish;
mod reconnect;
mod senders;
mod sharding;
mod switchover;
mod transports;
mod under_load;

use std::process::ExitCode;

use clap::ArgMatches;
use futures::future::LocalBoxFuture;

/// In the order of the help.
pub const ALL: &[&Experiment] = &[
    &overload::EXPERIMENT,
    &penetration::EXPERIMENT,
    &metastable::EXPERIMENT,
    &outage::EXPERIMENT,
    &switchover::EXPERIMENT,
    &gray::EXPERIMENT,
    &exactly_once::EXPERIMENT,
    &failover::EXPERIMENT,
    &decoupling::EXPERIMENT,
    &corruption::EXPERIMENT,
    &sharding::EXPERIMENT,
    &autoscaling::EXPERIMENT,
    &alerts::EXPERIMENT,
    &collector::EXPERIMENT,
    &transports::EXPERIMENT,
    &codecs::EXPERIMENT,
    &senders::EXPERIMENT,
    &reconnect::EXPERIMENT,
    &detectors::EXPERIMENT,
];

/// A question that can be put on the command line.
pub struct Experiment {
    /// Of the subcommand and of its reports.
    pub name: &'static str,
    /// The question, in a sentence.
    pub about: &'static str,
    /// The end of the help: command lines with what they do, and their duration.
    pub examples: &'static str,
    /// Adds its arguments to the subcommand.
    pub args: fn(clap::Command) -> clap::Command,
    /// Reads the arguments and runs it. Exit code 2: judged, and a verdict failed.
    pub run: fn(ArgMatches) -> LocalBoxFuture<'static, anyhow::Result<ExitCode>>,
}

#[cfg(test)]
#[path = "../../../docs/examples/experiment/mod.rs"]
mod example;

#[cfg(test)]
mod tests;
