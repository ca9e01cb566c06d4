//! `experiment overload --policies`: all admission policies under the same loads.

mod compared;
mod figures;
mod judgement;
mod measured;
mod windows;
mod words;

use std::{process::ExitCode, time::SystemTime};

use loadtest::scenario::Scenario;

use self::{
    compared::DEFAULT,
    figures::{Cost, PolicyFigures},
    windows::{LENGTHS, QUICK},
};
use super::{ALL_MISS, EXPERIMENT};
use crate::{
    evaluation::{self, AfterSteps, Variant},
    experiments::{
        publish::{Found, publish},
        under_load::{self, LoadArgs},
    },
};

/// The scenario. Its step starts the replicas, and is not shown.
///
/// # Errors
/// The built-in text has an error.
fn scenario() -> anyhow::Result<Scenario> {
    Scenario::parse("policies", include_str!("scenario.toml"))
}

/// `names`: of the policies; all without one.
pub async fn run(names: &[String], args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let chosen = compared::chosen(names, args.run.quick)?;
    let mut scenario = scenario()?;
    let lengths = if args.run.quick { QUICK } else { LENGTHS };
    if args.run.quick {
        (scenario.warm_up_s, scenario.measure_s) = (lengths.warm_up, lengths.load);
    }
    let capacity_per_s = windows::capacity_per_s(&scenario)?;
    let store_per_s = scenario.store_capacity_per_s().unwrap_or_default();
    let variants: Vec<Variant> = chosen.iter().map(|policy| policy.variant(&scenario)).collect();
    let mut plan = under_load::plan(scenario, variants, args, &ALL_MISS, begun);
    plan.after_steps_s = lengths.seconds();
    let mut all: Vec<PolicyFigures> = Vec::new();
    let mut cost: Option<(Cost, report::Validity)> = None;
    let mut report = evaluation::run_with(&plan, async |mut after: AfterSteps<'_>| {
        all.push(measured::policy(&mut after, lengths).await?);
        if after.variant.name == DEFAULT && cost.is_none() {
            cost = Some(measured::cost(&mut after, lengths).await?);
        }
        Ok(())
    })
    .await?;
    // The windows are the result: charts over a single step say nothing.
    report.steps.clear();
    let mut validity = words::validity(&all);
    validity.extend(cost.iter().map(|(_, validity)| ("cost of a rejection".to_owned(), validity.clone())));
    let found = Found {
        what: format!(
            "Open arrivals from a client that tries each request up to three times, in three criticalities; nine of ten requests need the store, \
             which carries {capacity_per_s:.0} requests/s. Every policy gets the same requests: 1, 2 and 5 times the capacity, a spike, half the \
             capacity, and a slow replica."
        ),
        sections: words::sections(&all, cost.as_ref().map(|(cost, _)| *cost), (store_per_s, capacity_per_s))?,
        verdicts: judgement::verdicts(&all, cost.as_ref().map(|(cost, validity)| (*cost, validity))),
        validity,
        steps: Some(report),
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}
