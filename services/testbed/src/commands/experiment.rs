//! `testbed experiment`.

use std::process::ExitCode;

use crate::{cli::ExperimentCommand, experiments::ALL};

pub async fn run(command: ExperimentCommand) -> anyhow::Result<ExitCode> {
    match command {
        ExperimentCommand::Run(experiment, matches) => (experiment.run)(matches).await,
        ExperimentCommand::List { json: false } => {
            let width = ALL.iter().map(|experiment| experiment.name.len()).max().unwrap_or_default();
            for experiment in ALL {
                println!("{:<width$}  {}", experiment.name, experiment.about);
            }
            Ok(ExitCode::SUCCESS)
        }
        ExperimentCommand::List { json: true } => {
            let one = |experiment: &&crate::experiments::Experiment| {
                serde_json::json!({
                    "name": experiment.name,
                    "about": experiment.about,
                    "examples": experiment.examples,
                })
            };
            println!("{}", serde_json::to_string_pretty(&ALL.iter().map(one).collect::<Vec<_>>())?);
            Ok(ExitCode::SUCCESS)
        }
    }
}
