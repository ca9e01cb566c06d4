//! One detector on a trace from a file.

use std::{fs::File, io::BufReader, path::Path, process::ExitCode};

use anyhow::Context;
use heartbeat::{
    detector::{AnyDetector, DetectorKind},
    quality::{Quality, QualityMeter, Replay},
    trace::Trace,
};
use serde::Serialize;

use super::{CRASHES, DetectorsArgs, text};

/// Of the instants of the crashes, without --crash-at.
const SEED: u64 = 1;

/// `--trace FILE --json`.
#[derive(Serialize)]
struct Judged<'a> {
    detector: &'a str,
    /// In force; durations are in intervals.
    params: Vec<(&'static str, f64)>,
    interval_ms: f64,
    beats: usize,
    lost_pct: f64,
    #[serde(flatten)]
    quality: Quality,
}

pub fn run(file: &Path, args: &DetectorsArgs) -> anyhow::Result<ExitCode> {
    let name = args.detector.as_deref().unwrap_or("adaptive");
    let from = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let trace = Trace::read(BufReader::new(from), None).with_context(|| format!("{} is no trace", file.display()))?;
    let detector = AnyDetector::named(name, trace.interval, &args.params)?;
    let replay = match args.crash_at {
        Some(at) => Replay::new(&trace, vec![at]),
        None => Replay::with_crashes(&trace, CRASHES, SEED),
    };
    let mut meter = QualityMeter::default();
    meter.run(&replay, detector, u64::MAX);
    let quality = meter.quality();
    if quality.crashes == 0 {
        let last = trace.beats.last().map_or(0, |beat| beat.sent);
        let when = args.crash_at.map_or_else(|| format!("the last one was sent at {last} ns"), |at| format!("{at} ns"));
        anyhow::bail!(
            "no heartbeat had arrived before {when}, so a crash cannot be detected. If heartbeats were sent before, send_ns and recv_ns are \
             of different clocks: subtract the difference"
        );
    }
    let given = |name: &str| args.params.iter().rev().find(|given| given.0 == name).map(|given| given.1);
    let judged = Judged {
        detector: name,
        params: DetectorKind::named(name)?
            .params
            .iter()
            .map(|p| (p.name, given(p.name).unwrap_or(p.default)))
            .collect(),
        interval_ms: trace.interval as f64 / 1e6,
        beats: trace.beats.len(),
        lost_pct: 100.0 * trace.loss(),
        quality,
    };
    if args.run.json {
        println!("{}", serde_json::to_string_pretty(&judged)?);
    } else {
        print(&judged);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(judged: &Judged) {
    let Judged { quality: q, .. } = judged;
    let params: Vec<String> = judged.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    println!("{} ({})", judged.detector, params.join(", "));
    println!("{} beats every {:.1} ms, {:.2} % lost", judged.beats, judged.interval_ms, judged.lost_pct);
    let (p50, p99) = (text(q.detection_p50_s, 3), text(q.detection_p99_s, 3));
    println!(
        "detection time T_D   p50 {p50} s, p99 {p99} s, max {} s ({} crashes)",
        text(q.detection_max_s, 3),
        q.crashes
    );
    println!("mistakes             {} ({} a day)", q.mistakes, text(q.mistakes_per_day, 2));
    println!("recurrence T_MR      {} s", q.mistake_recurrence_s.map_or_else(|| "–".into(), |s| text(s, 1)));
    println!("duration T_M         {} s", text(q.mistake_duration_s, 3));
    println!("query accuracy P_A   {}", text(q.query_accuracy, 7));
}
