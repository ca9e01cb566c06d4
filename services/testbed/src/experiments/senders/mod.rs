//! `experiment senders`: tens of thousands of senders in one process; the article uses goroutines for that.

use std::{
    net::Ipv4Addr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use clap::{Args, FromArgMatches};
use heartbeat::{auth::Keys, clock::Clock, table::Table as Nodes, transport::Ingest, transport::udp::Receiver};
use launcher::{Spec, Stack};
use report::{Section, Table, Validity, Verdict};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::{
    instruments::clock_watch::ClockWatch,
    roles::fleet::{Mode, Outcome, Plan, SECRET},
    stack::service::own_program,
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "senders",
    about: "50,000 heartbeat senders in one process: how late their ticks are, their cost, and how they stop",
    examples: "Examples:
  ./testbed experiment senders             20 s each: ticks only, a datagram each, in batches (about 2 minutes)
  ./testbed experiment senders --quick     5,000 senders for 2 s
  ./testbed experiment senders --json | jq '.sections[0].measured[] | {name, late_p99_ms}'",
    args: RunArgs::augment_args,
    run: |matches| Box::pin(async move { run(&RunArgs::from_arg_matches(&matches)?).await }),
};

const SENDERS: u32 = 50_000;
const QUICK_SENDERS: u32 = 5_000;
const INTERVAL_MS: u64 = 1_000;
const RUN_MS: u64 = 20_000;
const QUICK_RUN_MS: u64 = 2_000;
/// Beyond the run: the program starts, the senders start and stop.
const GRACE: Duration = Duration::from_secs(60);
const MODES: [(Mode, &str); 3] =
    [(Mode::Ticks, "ticks only"), (Mode::Single, "a datagram each"), (Mode::Batched, "in batches")];
/// For the 99th percentile.
const MAX_LATE_MS: f64 = 10.0;
const MAX_STOP_MS: f64 = 1_000.0;

#[derive(Debug, Serialize)]
struct Measured {
    #[serde(rename = "way")]
    mode: Mode,
    name: &'static str,
    senders: u32,
    #[serde(flatten)]
    outcome: Outcome,
    /// Share of the sent heartbeats in the monitor's table.
    arrived_pct: Option<f64>,
    #[serde(skip)]
    validity: Validity,
}

async fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let (senders, run_ms) = if args.quick { (QUICK_SENDERS, QUICK_RUN_MS) } else { (SENDERS, RUN_MS) };
    let mut stack = Stack::create("senders")?;
    let mut all = Vec::new();
    for (mode, name) in MODES {
        all.push(measure(&mut stack, mode, name, senders, run_ms).await?);
    }
    stack.stop().await?;
    let found = Found {
        what: format!(
            "{senders} senders in one process of two threads, each a task with its own schedule and beat, once every {INTERVAL_MS} ms; \
             measured for {} s after the first interval. The monitor is another process of the same machine.",
            run_ms / 1_000
        ),
        sections: vec![
            Section::new("Ticks, cost and stopping", "", serde_json::to_value(&all)?).with_tables(vec![table(&all)]),
        ],
        verdicts: all.iter().flat_map(verdicts).collect(),
        validity: all.iter().map(|one| (one.name.to_owned(), one.validity.clone())).collect(),
        remarks: vec!["The runtime's timer alone makes a tick up to 1 ms late.".into()],
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, args)
}

async fn measure(
    stack: &mut Stack,
    mode: Mode,
    name: &'static str,
    senders: u32,
    run_ms: u64,
) -> anyhow::Result<Measured> {
    let receiver = Receiver::bind((Ipv4Addr::LOCALHOST, launcher::free_port()?).into()).await?;
    let monitor = receiver.local_addr()?;
    let nodes = Arc::new(Nodes::new(senders as usize));
    let ingest = Arc::new(Ingest::new(Clock::start(), Keys::new(SECRET), nodes, None));
    let stop = CancellationToken::new();
    let receiving = tokio::spawn(receiver.run(Arc::clone(&ingest), stop.clone()));
    let ended = stop.drop_guard();

    let dir = stack.child_dir("fleet")?;
    let (file, result) = (dir.join("plan.json"), dir.join("result.json"));
    let plan = Plan { mode, monitor, senders, interval_ms: INTERVAL_MS, run_ms, result };
    std::fs::write(&file, serde_json::to_vec(&plan)?)?;
    let spec = Spec::new("fleet", own_program()?).args(["serve", "fleet"]).args([&file]);
    let watch = ClockWatch::start()?;
    stack.run(spec, Duration::from_millis(run_ms) + GRACE).await?;
    let validity = watch.finish();
    let outcome = std::fs::read(&plan.result).with_context(|| format!("cannot read {}", plan.result.display()))?;
    let outcome: Outcome = serde_json::from_slice(&outcome)?;
    drop(ended);
    receiving.await??;
    let arrived = ingest.counts().accepted() as f64;
    let arrived_pct = (mode != Mode::Ticks).then_some(100.0 * arrived / outcome.sent_beats as f64);
    Ok(Measured { mode, name, senders, outcome, arrived_pct, validity })
}

fn table(all: &[Measured]) -> Table {
    type Show = fn(&Measured) -> String;
    let figures: [(&str, &str, Show); 13] = [
        ("senders", "tens of thousands", |m| m.senders.to_string()),
        ("beats/s", "", |m| format!("{:.0}", m.outcome.beats as f64 / m.outcome.seconds)),
        ("skipped", "", |m| m.outcome.skipped.to_string()),
        ("late, p50, ms", "", |m| format!("{:.2}", m.outcome.late_p50_ms)),
        ("late, p99, ms", "", |m| format!("{:.2}", m.outcome.late_p99_ms)),
        ("late, p99.9, ms", "", |m| format!("{:.2}", m.outcome.late_p999_ms)),
        ("late, most, ms", "", |m| format!("{:.2}", m.outcome.late_max_ms)),
        ("CPU, % of one core", "", |m| format!("{:.0}", 100.0 * m.outcome.cpu_s / m.outcome.seconds)),
        ("CPU per beat, µs", "", |m| format!("{:.1}", 1e6 * m.outcome.cpu_s / m.outcome.beats as f64)),
        ("memory per sender, bytes", "2048 at first", |m| {
            format!("{:.0}", m.outcome.memory_bytes / f64::from(m.senders))
        }),
        ("all started after, ms", "very fast", |m| format!("{:.0}", m.outcome.start_ms)),
        ("all stopped after, ms", "", |m| format!("{:.0}", m.outcome.stop_ms)),
        ("arrived, %", "", |m| m.arrived_pct.map_or_else(|| "–".into(), |pct| format!("{pct:.2}"))),
    ];
    let row = |(name, article, show): &(&str, &str, Show)| {
        let cells = all.iter().map(show).chain([(*article).to_owned()]);
        std::iter::once((*name).to_owned()).chain(cells).collect()
    };
    let head: Vec<&str> = std::iter::once("figure").chain(all.iter().map(|m| m.name)).chain(["article"]).collect();
    Table::new(
        "Senders in one process",
        "Late: from the planned instant to the heartbeat. The article states a goroutine's initial stack, and no measurement.",
        &head,
        figures.iter().map(row).collect(),
    )
}

fn verdicts(measured: &Measured) -> Vec<Verdict> {
    let Measured { name, outcome, validity, .. } = measured;
    let verdicts = [
        Verdict::new(
            &format!("{name}: in time"),
            format!("p99 ≤ {MAX_LATE_MS} ms late, none skipped"),
            format!("{:.2} ms, {} skipped", outcome.late_p99_ms, outcome.skipped),
            outcome.late_p99_ms <= MAX_LATE_MS && outcome.skipped == 0,
            "",
        ),
        Verdict::new(
            &format!("{name}: all stop on one signal"),
            format!("≤ {MAX_STOP_MS} ms"),
            format!("{:.0} ms", outcome.stop_ms),
            outcome.all_stopped && outcome.stop_ms <= MAX_STOP_MS,
            "",
        ),
    ];
    verdicts.map(|verdict| verdict.within(validity)).to_vec()
}
