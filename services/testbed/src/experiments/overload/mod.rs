//! `experiment overload`: steps to twice the knee, then a surge and its end; with `--policies` the admission policies (`policies`).

mod judgement;
mod policies;
mod surge;

use std::{process::ExitCode, time::SystemTime};

use anyhow::Context;
use api::Profile;
use clap::{Args, FromArgMatches};

use self::surge::{QUICK_SURGE, Recovery, SURGE};
use super::{
    Experiment,
    publish::{Found, publish},
    under_load::{self, LoadArgs},
};
use crate::evaluation::{self, Variant};

pub const EXPERIMENT: Experiment = Experiment {
    name: "overload",
    about: "Steps to 2 × the knee, then a surge and its end: goodput, and seconds until back to normal; or all admission policies",
    examples: "Examples:
  ./testbed experiment overload              fixed limit, adaptive, off (about 13 minutes)
  ./testbed experiment overload --quick      the same in about 6 minutes, not judged
  ./testbed experiment overload --policies   all admission policies (about 30 minutes)
  ./testbed experiment overload --policies --quick   five of them in about 8 minutes, not judged
  ./testbed experiment overload --policies --policy adaptive codel   these two, side by side
  ./testbed experiment overload --policies --json | jq '.sections[0].measured[] | {policy, loads}'
  ./testbed experiment overload --json | jq '.sections[] | select(.title == \"After a surge\")'",
    args: OverloadArgs::augment_args,
    run: |matches| {
        Box::pin(async move {
            let args = OverloadArgs::from_arg_matches(&matches)?;
            if args.policies { policies::run(&args.policy, &args.load).await } else { run(&args.load).await }
        })
    },
};

#[derive(Args)]
struct OverloadArgs {
    /// Compares the admission policies instead: 1, 2 and 5 times the capacity, a spike, half the capacity, a slow replica
    #[arg(long)]
    policies: bool,
    /// Only these policies: none, client-throttling, default, or a value of http.admission
    #[arg(long, num_args = 1.., value_name = "NAME", requires = "policies")]
    policy: Vec<String>,
    #[command(flatten)]
    load: LoadArgs,
}

/// Every request costs a query: nothing is warmed up, and a cached list is expired when it is written.
const ALL_MISS: [&str; 3] = ["guards.warmup=off", "cache.fresh_ms=1", "cache.stale_ms=0"];
/// Values of `http.admission` to compare with the default.
const ADMISSION: [&str; 2] = ["adaptive", "off"];

async fn run(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let scenario = under_load::scenario("overload", args.run.quick)?;
    let surge = if args.run.quick { QUICK_SURGE } else { SURGE };
    let knee_per_s = scenario.store_capacity_per_s().context("the scenario overload has no law")?;
    let switched = |switch| Variant {
        name: format!("protected admission={switch}"),
        profile: Profile::Protected,
        sets: vec![format!("http.admission={switch}")],
        scenario: None,
    };
    let variants = std::iter::once(Variant::plain(Profile::Protected)).chain(ADMISSION.map(switched)).collect();
    let not_judged = ["protected admission=off".to_owned()];
    let mut plan = under_load::plan(scenario, variants, args, &ALL_MISS, begun);
    plan.after_steps_s = surge.seconds(&plan.scenario);
    let mut recoveries: Vec<Recovery> = Vec::new();
    let mut report = evaluation::run_with(&plan, async |mut after| {
        recoveries.push(surge.run(&mut after).await?);
        Ok(())
    })
    .await?;
    report.conclude(None);
    let found = Found {
        what: format!(
            "Every request needs the store. Steps go from half to twice the rate that the store's connections can carry. After the steps the \
             load rises from {} to {} users for {} s and falls again. How much is still answered, and how soon is the service back to normal?",
            surge.base_users, surge.peak_users, surge.for_s
        ),
        sections: vec![surge::section(&recoveries, report.repeats)?],
        verdicts: judgement::verdicts(&report, &recoveries, knee_per_s, &not_judged),
        validity: recoveries.iter().map(|recovery| (recovery.name(), recovery.validity.clone())).collect(),
        steps: Some(report),
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

#[cfg(test)]
mod tests {
    use loadtest::scenario::Scenario;

    use super::*;
    use crate::stack::service;

    #[test]
    fn the_replicas_accept_the_settings() {
        let plan = service::Plan::new("test", &Scenario::load("article").unwrap());
        plan.check(Profile::Protected, &ALL_MISS.map(str::to_owned)).unwrap();
        for switch in ADMISSION {
            plan.check(Profile::Protected, &[format!("http.admission={switch}")]).unwrap();
        }
        assert!(plan.check(Profile::Protected, &["no.such=1".to_owned()]).is_err());
    }
}
