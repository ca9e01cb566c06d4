//! `testbed load --target`: the same load generator, recorder and report for somebody else's HTTP endpoint. No stack needs to run.

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::Context;
use launcher::Stack;
use loadtest::{
    arrivals::{Arrivals, Open},
    plan::{DEFAULT_RUN_SEED, StepPlan},
    scenario::KnownIds,
    target::{Endpoint, PLACE},
};
use report::{DataInfo, DataSource, Law, Report, ScenarioInfo, Step, TargetInfo, numbers::count};

use super::{publish, write_log};
use crate::{
    cli::{LoadArgs, TargetArgs},
    exit,
    instruments::{machine, measure, target::Target},
    progress::{self, stage},
    reports,
};

const NAME: &str = "target";
const WARM_UP_MS: u64 = 3_000;
const DEFAULT_TIMEOUT_MS: u64 = 3_000;

/// The ids of the requests.
struct Ids {
    /// Empty: the requests have none.
    path: PathBuf,
    known: KnownIds,
    number: u64,
    words: String,
}

pub async fn run(args: &LoadArgs, url: &str) -> anyhow::Result<ExitCode> {
    let created = SystemTime::now();
    let endpoint = Endpoint::parse(url).map_err(|error| exit::usage(format!("--target: {error:#}")))?;
    let ids = ids(&args.target, &endpoint)?;
    let plan = plan(args, endpoint, &ids).await?;
    plan.check()?;
    if args.target.allow_remote {
        eprintln!("{}", announcement(url, &plan));
    }
    let (step, log) = measured(args, &plan).await?;
    let mut report = report(url, &plan, &ids, Step { profile: NAME.into(), hdr_log: log, ..step });
    report.created = reports::rfc3339(created);
    report.conclude(None);
    publish(&report, args)
}

fn ids(args: &TargetArgs, endpoint: &Endpoint) -> anyhow::Result<Ids> {
    let file = match (&args.ids, endpoint.has_id()) {
        (Some(file), true) => file,
        (None, true) => {
            return Err(exit::usage(format!("--target has {PLACE}: give --ids a file with one id per line")));
        }
        (Some(_), false) => {
            return Err(exit::usage(format!(
                "--target has no {PLACE}, so that no id of --ids would be sent: write {PLACE} where an id belongs"
            )));
        }
        (None, false) => {
            let words = "none, all requests have the same URL".into();
            return Ok(Ids { path: PathBuf::new(), known: KnownIds::Once, number: 0, words });
        }
    };
    let problem = || format!("cannot read the ids in {}", file.display());
    let number = std::fs::read_to_string(file).with_context(problem)?.lines().count() as u64;
    // The load generator has another working directory.
    let path = std::fs::canonicalize(file).with_context(problem)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (known, how) = match args.zipf {
        None => (KnownIds::Once, "in shuffled order, again from the start when all were used".to_owned()),
        Some(exponent) => {
            let known = KnownIds::Zipf { exponent };
            (known, known.describe())
        }
    };
    let words = format!("{} of {name}, {how}", count(number as f64));
    Ok(Ids { path, known, number, words })
}

/// Resolves the host, once.
async fn plan(args: &LoadArgs, endpoint: Endpoint, ids: &Ids) -> anyhow::Result<StepPlan> {
    let TargetArgs { allow_remote, rate, timeout, .. } = args.target;
    let (users, arrivals) = match (rate, args.users) {
        (Some(rate), _) => {
            let (spacing, max_in_flight) = (args.target.spacing(), args.target.max_in_flight());
            (rate, Arrivals::Open(Open { spacing, max_in_flight, curve: None }))
        }
        (None, Some(users)) => (users, Arrivals::Closed),
        (None, None) => return Err(exit::usage("--target needs --users or --rate")),
    };
    let seconds = args.lasting.ok_or_else(|| exit::usage("--target needs --for"))?;
    let base_url = endpoint.base_url();
    Ok(StepPlan {
        name: format!("{NAME} {users}"),
        base_url,
        users,
        curve: None,
        interval_ms: 1000,
        arrival_grid_ms: 0,
        timeout_ms: timeout.map_or(DEFAULT_TIMEOUT_MS, |timeout| timeout.as_millis() as u64),
        retry: None,
        criticality: None,
        slo_ms: None,
        warm_up_ms: WARM_UP_MS,
        measure_ms: u64::from(seconds) * 1000,
        unknown_share: 0.0,
        known: ids.known,
        known_ids: ids.path.clone(),
        seed: statistics::seed::of_step(DEFAULT_RUN_SEED, 1, 0),
        worker_threads: 1,
        metrics: None,
        telemetry: None,
        arrivals,
        target: Some(endpoint.resolve(allow_remote).await?),
    })
}

/// What will be sent, and where.
fn announcement(url: &str, plan: &StepPlan) -> String {
    let seconds = (plan.warm_up_ms + plan.measure_ms).div_ceil(1000);
    let requests = count(plan.offered_per_s() * seconds as f64);
    let most = if plan.arrivals.is_closed() { "at most" } else { "about" };
    format!(
        "Sending to {} ({url}): {}, for {seconds} s (of which {} s are warm-up), {most} {requests} requests over at most {} connections at a \
         time. Ctrl-C stops at once.",
        addresses(plan).join(", "),
        offer(plan),
        plan.warm_up_ms / 1000,
        count(f64::from(plan.all_users())),
    )
}

/// "200 requests/s", "200 users who send once a second".
fn offer(plan: &StepPlan) -> String {
    let number = count(f64::from(plan.users));
    if plan.arrivals.is_closed() {
        format!("{number} users who send once a second")
    } else {
        format!("{number} requests/s")
    }
}

fn addresses(plan: &StepPlan) -> Vec<String> {
    plan.target.iter().flat_map(|target| &target.addresses).map(ToString::to_string).collect()
}

/// The step, and the file of its histograms.
async fn measured(args: &LoadArgs, plan: &StepPlan) -> anyhow::Result<(Step, Option<String>)> {
    let target = Target::foreign(plan.base_url.clone())?;
    let mut stack = Stack::create("load")?;
    let name = offer(plan);
    let bar = progress::load_bar((plan.warm_up_ms + plan.measure_ms).div_ceil(1000));
    stage(&bar, &name);
    let show = progress::follow(&bar, &name, 0);
    let (step, outcome) = measure::foreign::step(&mut stack, &target, plan, show).await?;
    bar.finish_and_clear();
    stack.stop().await?;
    let log = args.out.as_ref().map(|out| write_log(out, NAME, &outcome)).transpose()?;
    Ok((step, log))
}

fn report(url: &str, plan: &StepPlan, ids: &Ids, step: Step) -> Report {
    let target = TargetInfo {
        url: url.to_owned(),
        addresses: addresses(plan),
        remote: plan.target.as_ref().is_some_and(loadtest::target::Target::is_remote),
        ids: ids.words.clone(),
    };
    Report {
        schema_version: report::SCHEMA_VERSION,
        created: String::new(),
        scenario: ScenarioInfo {
            name: NAME.into(),
            description: format!("{} to a service that is not of this testbed.", offer(plan)),
            steps: vec![plan.users],
            warm_up_s: plan.warm_up_ms as f64 / 1000.0,
            measure_s: plan.measure_ms as f64 / 1000.0,
            interval_ms: plan.interval_ms,
            arrival_grid_ms: plan.arrival_grid_ms,
            timeout_ms: plan.timeout_ms,
            unknown_share: vec![0.0],
            known: plan.known.describe(),
            arrivals: plan.arrivals.describe(),
            retries: String::new(),
            target: Some(target),
        },
        law: Law::None,
        machine: machine::read(),
        versions: machine::own_versions(),
        revision: machine::revision(),
        data: DataInfo {
            source: DataSource::File,
            name: "ids of the target".into(),
            users: ids.number,
            items: 0,
            events: 0,
            bad_rows: 0,
        },
        manifest: None,
        model_version: 0,
        quick: false,
        profiles: vec![NAME.into()],
        repeats: 1,
        steps: vec![step],
        knees: Vec::new(),
        sections: Vec::new(),
        waterfalls: Vec::new(),
        verdicts: Vec::new(),
        changed: Vec::new(),
        seed: None,
        remarks: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use loadtest::arrivals::Spacing;

    use super::*;
    use crate::cli::Engine;

    fn args(target: TargetArgs, users: Option<u32>) -> LoadArgs {
        LoadArgs {
            command: None,
            scenario: None,
            users,
            lasting: Some(60),
            step: None,
            engine: Engine::Goose,
            target,
            out: None,
            json: false,
        }
    }

    #[tokio::test]
    async fn what_will_be_sent_is_said() {
        let url = "http://192.0.2.1:81/x";
        let said = async |rate, users| {
            let args = args(TargetArgs { allow_remote: true, rate, ..TargetArgs::default() }, users);
            let endpoint = Endpoint::parse(url).unwrap();
            let ids = ids(&args.target, &endpoint).unwrap();
            let plan = plan(&args, endpoint, &ids).await.unwrap();
            plan.check().unwrap();
            announcement(url, &plan)
        };
        assert_eq!(
            said(Some(200), None).await,
            "Sending to 192.0.2.1:81 (http://192.0.2.1:81/x): 200 requests/s, for 63 s (of which 3 s are warm-up), about 12,600 requests over \
             at most 1,300 connections at a time. Ctrl-C stops at once."
        );
        let users = said(None, Some(50)).await;
        assert!(
            users.contains("50 users who send once a second, for 63 s") && users.contains("at most 3,150 requests")
        );
    }

    #[tokio::test]
    async fn arrivals_are_those_of_the_flags() {
        let target = TargetArgs { rate: Some(7), max_in_flight: Some(3), ..TargetArgs::default() };
        let args = args(TargetArgs { spacing: Some(crate::cli::ArrivalSpacing::Poisson), ..target }, None);
        let endpoint = Endpoint::parse("http://127.0.0.1:1/").unwrap();
        let ids = ids(&args.target, &endpoint).unwrap();
        let plan = plan(&args, endpoint, &ids).await.unwrap();
        let open = Open { spacing: Spacing::Poisson, max_in_flight: 3, curve: None };
        assert_eq!((plan.users, plan.arrivals, plan.timeout_ms), (7, Arrivals::Open(open), 3000));
    }
}
