//! `experiment detectors`: failure detectors on seeded traces with many values of their parameters, to see whether one unchanged setting is
//! good everywhere; `--trace`: one detector on a given file.

mod curves;
mod one;
mod sweep;
mod words;

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use clap::{Args, FromArgMatches};
use heartbeat::trace::Condition;

use super::{
    Experiment,
    publish::{RunArgs, publish},
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "detectors",
    about: "Failure detectors: detection time of a crash and mistakes on healthy nodes, under 37 conditions and two heartbeat intervals",
    examples: "Examples:
  ./testbed experiment detectors             48 hours of each condition, all parameters swept (about 7 minutes of CPU)
  ./testbed experiment detectors --quick     2 hours of each, not judged
  ./testbed experiment detectors --json | jq '.sections[0].measured[] | {condition, interval_ms, p99_s: .hindsight.detection_p99_s}'
  ./testbed experiment detectors --trace mine.csv --detector phi-normal --param threshold=12 --json
  ./testbed experiment detectors --trace mine.csv --detector fixed --param suspect=3 --crash-at 60000000000

A trace is CSV with a line per heartbeat sent: seq,send_ns,recv_ns, with 'lost' for recv_ns if it did not arrive. Parameters
that are durations are in heartbeat intervals; an unknown name is answered with the known ones.",
    args: DetectorsArgs::augment_args,
    run: |matches| Box::pin(async move { run(DetectorsArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct DetectorsArgs {
    /// Judge one detector on this trace instead: lines of seq,send_ns,recv_ns (or 'lost'), both stamps of one clock
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "out"])]
    trace: Option<PathBuf>,
    /// The detector to judge [default: adaptive]
    #[arg(long, value_name = "NAME", requires = "trace")]
    detector: Option<String>,
    /// One of its parameters (repeatable)
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = param, requires = "trace")]
    params: Vec<(String, f64)>,
    /// Instant at which the sender crashes, on the clock of send_ns [default: 1000 crashes spread over the trace]
    #[arg(long, value_name = "NS", requires = "trace")]
    crash_at: Option<u64>,
    #[command(flatten)]
    run: RunArgs,
}

/// `threshold=8`
fn param(text: &str) -> Result<(String, f64), String> {
    let known =
        text.split_once('=').and_then(|(name, value)| Some((name.trim().to_owned(), value.trim().parse().ok()?)));
    known.ok_or_else(|| format!("'{text}' is not a parameter: write NAME=NUMBER, e.g. threshold=8"))
}

/// Drawn after the adaptive detector was frozen, and used for nothing else: it was developed on traces and conditions of other seeds.
const JUDGED_SEED: u64 = 1783082505;
/// Conditions whose parameters are drawn too, of each kind.
const DRAWN_PER_KIND: u64 = 2;
/// Traces of a day per condition and heartbeat interval.
const DAYS: u64 = 2;
const DAY_S: u64 = 86_400;
/// Length of the one trace of a quick run.
const QUICK_S: u64 = 2 * 3_600;
/// Instants per trace at which the sender is supposed to crash.
const CRASHES: usize = 1_000;
/// Heartbeat intervals that are judged. Goal for the p99 detection time at each, relative to the best unchanged setting of the other
/// detectors.
const RATES_MS: [u64; 2] = [1_000, 100];
const GOALS: [(u64, f64); 2] = [(1_000, 0.45), (100, 0.3)];
/// Mistakes a day: mean over all conditions, and maximum on one.
const MEAN_MISTAKES: f64 = 1.0;
const MOST_MISTAKES: f64 = 3.0;
/// On plain conditions, of the detection time of the timeout fitted in hindsight.
const PLAIN_GOAL: f64 = 1.25;

fn conditions() -> Vec<Condition> {
    let drawn = Condition::DRAWN_KINDS * DRAWN_PER_KIND;
    Condition::ALL.into_iter().chain((0..drawn).map(|n| Condition::Drawn(JUDGED_SEED.wrapping_add(n)))).collect()
}

async fn run(args: DetectorsArgs) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.trace {
        return one::run(file, &args);
    }
    let begun = SystemTime::now();
    let plan = sweep::Plan {
        conditions: conditions(),
        seed: JUDGED_SEED,
        traces: if args.run.quick { 1 } else { DAYS },
        length_s: if args.run.quick { QUICK_S } else { DAY_S },
        crashes: CRASHES,
    };
    // On a separate thread, so that an interruption does not wait for it.
    let (done, found) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let outcome = sweep::run(&plan);
        // After an interruption the receiver is gone.
        let _ = done.send((outcome, plan));
    });
    let (outcome, plan) = found.await?;
    publish(&EXPERIMENT, begun, words::found(&outcome, &plan), &args.run)
}

/// `digits` decimals, or a dash for no number.
fn text(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "–".into() }
}
