//! `experiment switchover`: workers are killed and stopped, while other clients write. Measures the time until the majority has confirmed the
//! failure, until the new primaries work, and until clients that know nothing of it are redirected to them. All writes are recorded and checked.
//!
//! Begin with [`measure`]: `deaths` runs a series of deaths, `fence_off` the positive control of the check. `clients` write and follow the
//! monitors, `recorder` checks the writes, `traces` reads the traces of the deaths. `judgement` and `words` are pure.

mod clients;
mod deaths;
mod fence_off;
mod judgement;
mod mutants;
mod recorder;
mod traces;
mod words;

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::{Args, FromArgMatches};
use launcher::{Stack, mariadb};
use runtime::telemetry::TelemetryConfig;
use stores::{Store, StoreMetrics};

use self::{
    deaths::{Servers, Variant},
    fence_off::FenceOff,
    judgement::{Series, Strategy},
};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::stack::service::{self, Traces, start_traces};

pub const EXPERIMENT: Experiment = Experiment {
    name: "switchover",
    about: "Workers killed and stopped in turns: time until the majority confirms it, new primaries work and clients are redirected; then \
            etcd stopped, which must have no effect. The history of all writes is checked",
    examples: "Examples:
  ./testbed experiment switchover            fixed, dynamic and majority, 20 deaths of each kind at 1 s and 100 ms beats (about 25 minutes)
  ./testbed experiment switchover --quick    3 of each kind, by majority, judged for stale writes and the counter check only
  ./testbed experiment switchover --strategy majority --beat-ms 100
  ./testbed experiment switchover --json | jq '.sections[0].measured[] | {strategy, interval_ms, false_alarms}'",
    args: SwitchoverArgs::augment_args,
    run: |matches| Box::pin(async move { run(SwitchoverArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct SwitchoverArgs {
    /// Only this strategy (repeatable) [default: all, or majority with --quick]
    #[arg(long = "strategy", value_name = "STRATEGY")]
    strategies: Vec<Strategy>,
    /// Only this interval of the heartbeats (repeatable) [default: 1000 and 100]
    #[arg(long = "beat-ms", value_name = "MS", value_parser = clap::value_parser!(u64).range(50..=10_000))]
    beats_ms: Vec<u64>,
    /// Deaths of each kind [default: 20, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    kills: Option<u16>,
    /// Afterwards etcd is stopped for this many seconds, under the majority rule; 0: not at all [default: 60, or 5 with --quick]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u16).range(0..=3_600))]
    etcd_away_s: Option<u16>,
    #[command(flatten)]
    run: RunArgs,
}

/// Deaths of each kind.
const KILLS: u16 = 20;
const QUICK_KILLS: u16 = 3;
const BEATS_MS: [u64; 2] = [1_000, 100];
const ETCD_AWAY_S: u16 = 60;
const QUICK_ETCD_AWAY_S: u16 = 5;
const WORKERS: usize = 3;
async fn run(args: SwitchoverArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let quick = args.run.quick;
    let strategies = match (args.strategies.is_empty(), quick) {
        (false, _) => args.strategies,
        (true, true) => vec![Strategy::Majority],
        (true, false) => Strategy::ALL.to_vec(),
    };
    let intervals_ms = if args.beats_ms.is_empty() { BEATS_MS.to_vec() } else { args.beats_ms };
    let kills = args.kills.unwrap_or(if quick { QUICK_KILLS } else { KILLS }).into();
    let etcd_away_s = args.etcd_away_s.unwrap_or(if quick { QUICK_ETCD_AWAY_S } else { ETCD_AWAY_S });
    let etcd_away = Duration::from_secs(etcd_away_s.into());
    let variant =
        |strategy| intervals_ms.iter().map(move |&interval_ms| Variant { strategy, interval_ms, kills, etcd_away });
    let variants: Vec<Variant> = strategies.into_iter().flat_map(variant).collect();
    let (all, fence_off) = measure(&variants).await?;
    let found = Found {
        what: format!(
            "Three monitors and {WORKERS} workers. Workers are killed (SIGKILL) and stopped (SIGSTOP) in turns, {kills} times each, while \
             clients write through all workers. The history of all writes is checked against the store."
        ),
        sections: vec![words::section(&all)?, words::history(&all, &fence_off)?],
        verdicts: judgement::verdicts(&all, &fence_off, quick),
        validity: all.iter().map(|one| (one.name(), one.validity.clone())).collect(),
        judged_when_quick: true,
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

/// Runs all variants on one store, then the positive control of the counter check.
///
/// # Errors
/// A server cannot be started, or a worker does not come back.
async fn measure(variants: &[Variant]) -> anyhow::Result<(Vec<Series>, FenceOff)> {
    let mut stack = Stack::create("switchover")?;
    let mysql = mariadb::start(&mut stack, "mysql-00", &mariadb::Options::default()).await?;
    let config = service::direct_store(&[format!("127.0.0.1:{}", mysql.port)]);
    stores::migrate(&config).await?;
    let store = Store::new(config.clone(), &StoreMetrics::new(&prometheus::Registry::new())?)?;
    let http = runtime::http::plain().timeout(Duration::from_secs(5)).build()?;
    let receiver = start_traces(&mut stack, &http, Traces::addresses()?).await?;
    let telemetry = TelemetryConfig { logs: false, ..TelemetryConfig::to(&format!("http://{}", receiver.otlp)) };
    let traces = tracestore::Client::new(&format!("http://{}", receiver.admin))?;
    let servers = Servers { config: &config, store: &store, telemetry: &telemetry, traces: &traces };
    let mut all = Vec::new();
    for variant in variants {
        eprintln!("{}, a heartbeat every {} ms", variant.strategy, variant.interval_ms);
        let series = deaths::series(&mut stack, &servers, *variant).await?;
        eprintln!("  {}", series.check.text());
        all.push(series);
    }
    let fence_off = fence_off::measure(&mut stack, &config, &store).await?;
    eprintln!("{}", fence_off.text());
    stack.stop().await?;
    Ok((all, fence_off))
}
