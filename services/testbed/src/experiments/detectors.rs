//! `experiment detectors`: failure detectors on seeded traces, their parameters swept, and whether one unchanged setting is good
//! everywhere; `--trace`: one detector on anybody's file.

mod curves;
mod one;
mod shown;
mod sweep;

use std::{process::ExitCode, time::SystemTime};

use super::findings::{self, Found};
use crate::cli::DetectorsArgs;

/// The adaptive detector was developed on the traces of other seeds. This one was drawn after it was frozen, and is used for nothing else.
const JUDGED_SEED: u64 = 3331574318;
/// Traces of a day per condition and beat rate.
const DAYS: u64 = 3;
const DAY_S: u64 = 86_400;
/// Instead, of a quick run: one trace of so long.
const QUICK_S: u64 = 2 * 3_600;
/// Instants per trace at which the sender is supposed to crash.
const CRASHES: usize = 1_000;
/// The best unchanged setting of the others, times this, is the goal.
const GOAL: f64 = 0.6;
/// On plain conditions, beside the timeout fitted in hindsight.
const PLAIN_GOAL: f64 = 1.25;

pub async fn run(args: DetectorsArgs) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.trace {
        return one::run(file, &args);
    }
    let begun = SystemTime::now();
    let plan = sweep::Plan {
        seed: JUDGED_SEED,
        traces: if args.findings.quick { 1 } else { DAYS },
        length_s: if args.findings.quick { QUICK_S } else { DAY_S },
        crashes: CRASHES,
    };
    // On a thread of its own: who interrupts the command does not wait for it.
    let (done, found) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let outcome = sweep::run(&plan);
        // Nobody waits any more after an interruption.
        let _ = done.send((outcome, plan));
    });
    let (outcome, plan) = found.await?;
    findings::publish("detectors", begun, shown::found(&outcome, &plan), &args.findings)
}

/// Intervals of beats that are judged.
const RATES_MS: [u64; 2] = [1_000, 100];

fn text(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "–".into() }
}
