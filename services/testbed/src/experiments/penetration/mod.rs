//! `experiment penetration`: unknown ids on top of steady real users, and their share in the collapse of the article's table.

mod collapse;
mod judgement;

use std::{process::ExitCode, time::SystemTime};

use api::Profile;
use clap::{Args, FromArgMatches};

use super::{
    Experiment,
    publish::{Found, publish},
    under_load::{self, LoadArgs},
};
use crate::evaluation::{self, Variant};

pub const EXPERIMENT: Experiment = Experiment {
    name: "penetration",
    about: "Unknown ids from 0 to 90 % on top of steady real users: what real users still get, and how many queries reach the store",
    examples: "Examples:
  ./testbed experiment penetration         baseline and protected, then the article's steps (about 14 minutes)
  ./testbed experiment penetration --quick --out /tmp/penetration
  ./testbed experiment penetration --json | jq '.steps[] | {profile, users, known_good_per_s}'",
    args: LoadArgs::augment_args,
    run: |matches| Box::pin(async move { run(&LoadArgs::from_arg_matches(&matches)?).await }),
};

async fn run(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let scenario = under_load::scenario("penetration", args.run.quick)?;
    let variants = [Profile::Baseline, Profile::Protected].map(Variant::plain).to_vec();
    let plan = under_load::plan(scenario, variants, args, &[], begun);
    let mut report = evaluation::run(&plan).await?;
    report.conclude(None);
    let plan =
        under_load::plan(collapse::scenario(args.run.quick)?, collapse::variants(args.run.quick)?, args, &[], begun);
    let mut collapse = evaluation::run(&plan).await?;
    collapse.conclude(None);
    let mut verdicts = judgement::verdicts(&report, &Profile::Protected.to_string());
    verdicts.extend(collapse::verdict(&collapse));
    let found = Found {
        what: "Real users send a steady load. On top of it a growing flood asks for ids that do not exist. Do the real users notice? And which part \
               of the article's collapse comes from such ids?"
            .into(),
        verdicts,
        sections: vec![collapse::section(&collapse)],
        steps: Some(report),
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}
