//! What holds for every experiment.

use std::collections::BTreeSet;

use clap::{CommandFactory, Parser};

use super::*;
use crate::cli::Cli;

/// Command lines of the examples: without the jq filter and the remark after them.
fn commands(experiment: &Experiment) -> Vec<Vec<String>> {
    let lines = experiment.examples.lines().filter_map(|line| line.trim().strip_prefix("./testbed "));
    let words = |line: &str| {
        let command = line.split(" | ").next().unwrap_or(line);
        let command = command.split("   ").next().unwrap_or(command);
        command.split_whitespace().map(str::to_owned).collect()
    };
    lines.map(words).collect()
}

#[test]
fn names_are_unique_and_every_example_is_a_valid_command() {
    let names: BTreeSet<&str> = ALL.iter().map(|experiment| experiment.name).collect();
    assert_eq!(names.len(), ALL.len());
    for experiment in ALL {
        assert!(experiment.examples.starts_with("Examples:"), "{}", experiment.name);
        let commands = commands(experiment);
        assert!(commands.len() > 1, "{} has too few examples", experiment.name);
        for words in commands {
            assert_eq!(words[..2], ["experiment", experiment.name], "{words:?}");
            let parsed = Cli::try_parse_from(std::iter::once("testbed".to_owned()).chain(words.clone()));
            assert!(parsed.is_ok(), "{words:?}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
        }
    }
}

#[test]
fn the_help_asks_the_question_of_the_experiment() {
    let command = Cli::command();
    let group = command.find_subcommand("experiment").unwrap();
    for experiment in ALL {
        let about = group.find_subcommand(experiment.name).and_then(clap::Command::get_about).unwrap();
        assert_eq!(about.to_string(), experiment.about);
    }
}

#[test]
fn every_experiment_can_be_quick_and_says_where_its_report_goes() {
    for experiment in ALL.iter().copied().chain([&example::EXPERIMENT]) {
        let mut command = (experiment.args)(clap::Command::new(experiment.name));
        let help = command.render_long_help().to_string();
        for flag in ["--quick", "--out", "--json"] {
            assert!(help.contains(flag), "{} has no {flag}", experiment.name);
        }
    }
}
