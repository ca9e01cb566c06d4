//! `experiment`: a subcommand for each of `experiments::ALL`.

use clap::{ArgMatches, Command, FromArgMatches, Subcommand, error::ErrorKind};

use crate::experiments::{ALL, Experiment};

const LIST: &str = "list";

/// What stands after `experiment`.
pub enum ExperimentCommand {
    Run(&'static Experiment, ArgMatches),
    List { json: bool },
}

fn subcommand(experiment: &Experiment) -> Command {
    // After the arguments: a flattened struct of arguments brings its own text.
    (experiment.args)(Command::new(experiment.name)).about(experiment.about).after_help(experiment.examples)
}

fn list() -> Command {
    let json = clap::Arg::new("json").long("json").action(clap::ArgAction::SetTrue).help("Print the list as JSON");
    Command::new(LIST).about("List all experiments").arg(json).after_help(
        "Examples:
  ./testbed experiment list
  ./testbed experiment list --json | jq -r '.[].name'",
    )
}

impl Subcommand for ExperimentCommand {
    fn augment_subcommands(command: Command) -> Command {
        command
            .about("Answer one question about the stack with a report and verdicts")
            .after_help(
                "Examples:
  ./testbed experiment list
  ./testbed experiment overload --quick
  ./testbed experiment penetration --repeat 3 --out /tmp/penetration",
            )
            .subcommands(ALL.iter().map(|experiment| subcommand(experiment)))
            .subcommand(list())
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        name == LIST || ALL.iter().any(|experiment| experiment.name == name)
    }
}

impl FromArgMatches for ExperimentCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let Some((name, matches)) = matches.subcommand() else {
            return Err(clap::Error::raw(ErrorKind::MissingSubcommand, "name an experiment\n"));
        };
        if name == LIST {
            return Ok(Self::List { json: matches.get_flag("json") });
        }
        let known = ALL.iter().find(|experiment| experiment.name == name);
        let unknown = || clap::Error::raw(ErrorKind::InvalidSubcommand, format!("there is no experiment {name}\n"));
        Ok(Self::Run(known.ok_or_else(unknown)?, matches.clone()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
