//! `testbed experiment NAME`: a scenario made for one question, and the answer as verdicts. Those about heartbeats need no load on
//! the service: each is a file of its own.

mod alerts;

mod codecs;
mod collector;
mod detectors;
mod findings;
pub mod outage;
mod reconnect;
mod senders;
pub mod switchover;
mod transports;

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use api::Profile;
use loadtest::scenario::Scenario;
use report::experiments;

use self::switchover::{Round, Strategy};
use crate::commands::evaluate::publish;
use crate::{
    cli::{ExperimentArgs, ExperimentCommand, SwitchoverArgs},
    data,
    evaluation::{self, Order, Variant},
    exit,
    instruments::machine,
};

pub async fn run(command: ExperimentCommand) -> anyhow::Result<ExitCode> {
    match command {
        ExperimentCommand::Overload(args) => overload(args).await,
        ExperimentCommand::Penetration(args) => penetration(args).await,
        ExperimentCommand::Outage(args) => outage(args).await,
        ExperimentCommand::Switchover(args) => switchover(args).await,
        ExperimentCommand::Alerts(args) => alerts::run(args).await,
        ExperimentCommand::Collector(args) => collector::run(args).await,
        ExperimentCommand::Transports(args) => transports::run(args).await,
        ExperimentCommand::Codecs(args) => codecs::run(args).await,
        ExperimentCommand::Senders(args) => senders::run(args).await,
        ExperimentCommand::Reconnect(args) => reconnect::run(args).await,
        ExperimentCommand::Detectors(args) => detectors::run(args).await,
    }
}

/// Every request is to cost a query: nothing is warmed up, and a cached list is expired when it is written.
const ALL_MISS: [&str; 3] = ["guards.warmup=off", "cache.fresh_ms=1", "cache.stale_ms=0"];
/// Beside `protected` as it is.
const ADMISSION: [&str; 2] = ["adaptive", "off"];

async fn overload(args: ExperimentArgs) -> anyhow::Result<ExitCode> {
    let scenario = scenario("overload", args.quick)?;
    let knee_per_s = scenario.store_capacity_per_s().context("the scenario overload has no law")?;
    let switched = |switch| Variant {
        name: format!("protected admission={switch}"),
        profile: Profile::Protected,
        sets: vec![format!("http.admission={switch}")],
    };
    let variants = std::iter::once(Variant::plain(Profile::Protected)).chain(ADMISSION.map(switched)).collect();
    let shown = ["protected admission=off".to_owned()];
    let order = order(scenario, variants, &args, ALL_MISS.map(str::to_owned).to_vec());
    let mut report = evaluation::run(&order).await?;
    report.conclude(None);
    report.verdicts = experiments::overload(&report, knee_per_s, &shown);
    publish(&report, &order.out, args.json)
}

async fn penetration(args: ExperimentArgs) -> anyhow::Result<ExitCode> {
    let scenario = scenario("penetration", args.quick)?;
    let variants = [Profile::Baseline, Profile::Protected].map(Variant::plain).to_vec();
    let order = order(scenario, variants, &args, Vec::new());
    let mut report = evaluation::run(&order).await?;
    report.conclude(None);
    report.verdicts = experiments::penetration(&report, &Profile::Protected.to_string());
    publish(&report, &order.out, args.json)
}

/// Lists expire within the run, so that an outage meets fresh, stale and missing ones.
const SHORT_LIVED: [&str; 2] = ["cache.fresh_ms=20000", "cache.refresh_ahead_ms=5000"];
const QUICK_OUTAGE_USERS: u32 = 600;
const QUICK_OUTAGE_KNOWN: u32 = 10_000;

async fn outage(args: ExperimentArgs) -> anyhow::Result<ExitCode> {
    let mut scenario = scenario("outage", args.quick)?;
    if args.quick {
        scenario.steps = vec![QUICK_OUTAGE_USERS];
    }
    let variants = vec![Variant::plain(Profile::Protected)];
    let mut order = order(scenario, variants, &args, SHORT_LIVED.map(str::to_owned).to_vec());
    if args.quick {
        order.source = data::Source::Generator(QUICK_OUTAGE_KNOWN);
    }
    let mut report = evaluation::run(&order).await?;
    report.conclude(None);
    report.verdicts = experiments::outage(&report);
    publish(&report, &order.out, args.json)
}

/// Deaths of each kind.
const KILLS: u16 = 20;
const QUICK_KILLS: u16 = 3;
const BEATS_MS: [u64; 2] = [1_000, 100];
const ETCD_AWAY_S: u16 = 60;
const QUICK_ETCD_AWAY_S: u16 = 5;

async fn switchover(args: SwitchoverArgs) -> anyhow::Result<ExitCode> {
    let created = SystemTime::now();
    let kills = args.kills.unwrap_or(if args.quick { QUICK_KILLS } else { KILLS }).into();
    let strategies = match (args.strategies.is_empty(), args.quick) {
        (false, _) => args.strategies,
        (true, true) => vec![Strategy::Majority],
        (true, false) => Strategy::ALL.to_vec(),
    };
    let beats_ms = if args.beats_ms.is_empty() { BEATS_MS.to_vec() } else { args.beats_ms };
    let etcd_away_s = args.etcd_away_s.unwrap_or(if args.quick { QUICK_ETCD_AWAY_S } else { ETCD_AWAY_S });
    let etcd_away = Duration::from_secs(etcd_away_s.into());
    let rounds: Vec<Round> = beats_ms.into_iter().map(|interval_ms| Round { interval_ms, kills, etcd_away }).collect();
    let series = switchover::run(&strategies, &rounds, &|line| eprintln!("{line}")).await?;
    let report = switchover::Report {
        created: evaluation::rfc3339(created),
        machine: machine::read(),
        revision: machine::revision(),
        quick: args.quick,
        verdicts: switchover::verdicts(&series, args.quick),
        series,
    };
    let out = args.out.unwrap_or_else(|| evaluation::default_out(created, "switchover"));
    let json = serde_json::to_string_pretty(&report)?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let text = report.text();
    for (file, text) in [("switchover.json", &json), ("switchover.md", &text)] {
        let file = out.join(file);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("{}", if args.json { &json } else { &text });
    eprintln!("report: {}", out.display());
    Ok(exit::judged(&report.verdicts))
}

fn scenario(name: &str, quick: bool) -> anyhow::Result<Scenario> {
    let mut scenario = Scenario::load(name)?;
    if quick {
        evaluation::shorten(&mut scenario);
    }
    Ok(scenario)
}

fn order(scenario: Scenario, variants: Vec<Variant>, args: &ExperimentArgs, sets: Vec<String>) -> Order {
    let created = SystemTime::now();
    Order {
        command: "experiment",
        out: args.out.clone().unwrap_or_else(|| evaluation::default_out(created, &scenario.name)),
        scenario,
        variants,
        // Ids that come twice cost the same here as new ones: a small data set does, and is there soon.
        source: data::Source::Generator(evaluation::QUICK_USERS),
        quick: args.quick,
        repeat: args.repeat,
        attempts: 1,
        instances: 1,
        sets,
        soak: false,
        traces: false,
        created,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::service;

    #[test]
    fn the_settings_are_the_replicas_own() {
        let plan = service::Plan::new("test", &Scenario::load("article").unwrap());
        plan.check(Profile::Protected, &ALL_MISS.map(str::to_owned)).unwrap();
        plan.check(Profile::Protected, &SHORT_LIVED.map(str::to_owned)).unwrap();
        for switch in ADMISSION {
            plan.check(Profile::Protected, &[format!("http.admission={switch}")]).unwrap();
        }
        assert!(plan.check(Profile::Protected, &["no.such=1".to_owned()]).is_err());
    }
}
