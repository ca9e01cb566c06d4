//! `experiment metastable`: a trigger disturbs the system and goes away. Does the system recover, or do the retries of its clients keep it
//! overloaded? Four classes, the boundary between both by bisection, a model beside it, and what cures it.
//!
//! `plan` says which cells are measured, in their order; `bisect`, `cell`, `classes`, `cures`, `prediction`, `judgement` and `words` are
//! pure; `run` measures one cell, `runner` a class, and `journal` remembers cells.

mod bisect;
mod cell;
mod classes;
mod cures;
mod journal;
mod judgement;
mod plan;
mod prediction;
mod run;
mod runner;
mod words;

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use clap::{Args, FromArgMatches, builder::PossibleValuesParser};
use serde_json::{Map, Value, json};

use self::{classes::Class, journal::Journal, judgement::Measured, plan::Settings, runner::Runner};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::{evaluation::manifest, reports};

pub const EXPERIMENT: Experiment = Experiment {
    name: "metastable",
    about: "Does a short disturbance leave the system overloaded? Four triggers under clients that retry: from which it recovers, from which not, \
            beside a model, and which cure moves the boundary",
    examples: "Examples:
  ./testbed experiment metastable                three seeds and every cure (about 58 minutes)
  ./testbed experiment metastable --resume DIR   go on with a run that was interrupted
  ./testbed experiment metastable --quick        a stuck and a cured cell per class (about 4 minutes)
  ./testbed experiment metastable --class retry-storm --scale 4 --seeds 1
  ./testbed experiment metastable --json | jq '.sections[0].measured.cells[] | {class, size, state}'",
    args: MetastableArgs::augment_args,
    run: |matches| Box::pin(async move { run(MetastableArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct MetastableArgs {
    /// Only these classes [default: all]
    #[arg(long, value_name = "CLASS", num_args = 1.., value_parser = PossibleValuesParser::new(classes::ALL.iter().map(|class| class.name)))]
    class: Vec<String>,
    /// Seeds, each with a map of its own
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10))]
    seeds: u64,
    /// Divide loads, connections and users by this, for a small machine
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10))]
    scale: u32,
    /// Go on with the run in this directory: its valid cells are not measured again
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
}

/// A cell that is not valid is measured once more, unless the run is quick.
const ATTEMPTS: u32 = 2;

async fn run(args: MetastableArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let MetastableArgs { class, seeds, scale, resume, run } = args;
    let chosen: Vec<&'static Class> =
        classes::ALL.iter().filter(|one| class.is_empty() || class.iter().any(|name| name == one.name)).collect();
    let settings = Settings { seeds, scale };
    let out = resume.clone().or(run.out).unwrap_or_else(|| reports::default_out(begun, EXPERIMENT.name));
    let written = written(&chosen, settings, run.quick, &manifest::own_binary()?);
    let mut journal = match resume {
        Some(dir) => Journal::resume(&dir, &written)?,
        None => Journal::create(&out, &written)?,
    };
    let before = journal.len();
    let mut measured = Measured { seeds: if run.quick { 1 } else { seeds }, ..Measured::default() };
    for class in chosen {
        let mut runner = Runner::new(class, (scale, if run.quick { 1 } else { ATTEMPTS }), &mut journal)?;
        if run.quick {
            plan::quick(&mut runner, settings, &mut measured).await?;
        } else {
            plan::whole(&mut runner, settings, &mut measured).await?;
        }
        runner.stop().await?;
    }
    let found = Found {
        what: "Open arrivals whose client sends a failed request up to four times, with a timeout of 1 s each. A trigger disturbs the system and goes \
               away; the load stays. The model's boundaries were computed before the cells were measured."
            .into(),
        sections: words::sections(&measured)?,
        verdicts: judgement::verdicts(&measured),
        validity: measured.cells.iter().map(|cell| (cell.key.name(), cell.validity.clone())).collect(),
        remarks: remarks(run.quick, scale, before),
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &RunArgs { out: Some(out), ..run })
}

/// What all cells of a run depend on.
fn written(chosen: &[&Class], settings: Settings, quick: bool, binary_blake3: &str) -> Map<String, Value> {
    let classes: Vec<&str> = chosen.iter().map(|class| class.name).collect();
    let value = json!({
        "classes": classes,
        "seeds": settings.seeds,
        "scale": settings.scale,
        "quick": quick,
        "binary_blake3": binary_blake3,
    });
    value.as_object().cloned().unwrap_or_default()
}

/// `before`: cells of the run that this one goes on with.
fn remarks(quick: bool, scale: u32, before: usize) -> Vec<String> {
    let quick = quick.then(|| "A quick run holds a stuck cell for 15 s instead of 60 s, and has one seed.".to_owned());
    let scaled = (scale > 1).then(|| format!("Loads, connections and users are divided by {scale}."));
    let resumed =
        (before > 0).then(|| format!("The run was interrupted and resumed: {before} cells were measured before."));
    quick.into_iter().chain(scaled).chain(resumed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_other_classes_seeds_or_size_has_other_settings() {
        let all: Vec<&Class> = classes::ALL.iter().collect();
        let settings = Settings { seeds: 3, scale: 1 };
        let base = written(&all, settings, false, "a");
        assert_eq!(base, written(&all, settings, false, "a"));
        let others = [
            written(&all[..1], settings, false, "a"),
            written(&all, Settings { seeds: 2, ..settings }, false, "a"),
            written(&all, Settings { scale: 2, ..settings }, false, "a"),
            written(&all, settings, true, "a"),
            written(&all, settings, false, "b"),
        ];
        assert!(others.iter().all(|other| *other != base));
    }
}
