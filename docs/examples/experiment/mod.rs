//! `experiment ping`: how the round-trip time of Redis' PING grows with the number of connections.

use std::{
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use clap::{Args, FromArgMatches};
use launcher::{Stack, redis};
use report::{Chart, Curve, Drawing, Section, Table, Verdict};
use serde::Serialize;
use statistics::percentile;
use tokio::task::JoinSet;

use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "ping",
    about: "Round-trip time of Redis' PING under a growing number of connections",
    examples: "Examples:
  ./testbed experiment ping            1 to 64 connections, 3 s each
  ./testbed experiment ping --json | jq '.sections[0].measured[] | {connections, p99_ms}'",
    args: PingArgs::augment_args,
    run: |matches| Box::pin(async move { run(&PingArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct PingArgs {
    /// Largest number of connections
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    connections: u32,
    #[command(flatten)]
    run: RunArgs,
}

const STEP: Duration = Duration::from_secs(3);
const QUICK_STEP: Duration = Duration::from_millis(200);
const MAX_P99_MS: f64 = 20.0;

#[derive(Debug, Serialize)]
struct Measured {
    connections: u32,
    pings_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

async fn run(args: &PingArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let length = if args.run.quick { QUICK_STEP } else { STEP };
    // Every child of the stack ends with it, also when this future is dropped by Ctrl-C.
    let mut stack = Stack::create("ping")?;
    let server = redis::start(&mut stack, &redis::Options::default()).await?;
    let client = ::redis::Client::open(server.url.as_str())?;
    let steps = std::iter::successors(Some(1), |connections| Some(connections * 4));
    let mut all = Vec::new();
    for connections in steps.take_while(|connections| *connections <= args.connections) {
        all.push(step(&client, connections, length).await?);
    }
    stack.stop().await?;
    let found = Found {
        what: format!("Each connection sends one PING after the other for {} ms.", length.as_millis()),
        sections: vec![section(&all)?],
        verdicts: verdicts(&all),
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

async fn step(client: &::redis::Client, connections: u32, length: Duration) -> anyhow::Result<Measured> {
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let mut connection = client.get_multiplexed_async_connection().await?;
        tasks.spawn(async move {
            let (start, mut times) = (Instant::now(), Vec::new());
            while start.elapsed() < length {
                let sent = Instant::now();
                ::redis::cmd("PING").query_async::<String>(&mut connection).await?;
                times.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    Ok(measured(connections, &times, length))
}

fn measured(connections: u32, times: &[f64], length: Duration) -> Measured {
    let at = |percent| percentile(times, percent);
    Measured {
        connections,
        pings_per_s: times.len() as f64 / length.as_secs_f64(),
        p50_ms: at(50.0).unwrap_or(f64::INFINITY),
        p99_ms: at(99.0).unwrap_or(f64::INFINITY),
    }
}

fn section(all: &[Measured]) -> anyhow::Result<Section> {
    let row = |one: &Measured| {
        let cells = [one.pings_per_s, one.p50_ms, one.p99_ms].map(|value| format!("{value:.2}"));
        std::iter::once(one.connections.to_string()).chain(cells).collect()
    };
    let head = ["step", "pings/s", "p50, ms", "p99, ms"];
    let table = Table::new("By number of connections", "", &head, all.iter().map(row).collect());
    let points = all.iter().map(|one| (f64::from(one.connections), one.p99_ms)).collect();
    let curves = vec![Curve { name: "p99".into(), points }];
    let drawing = Drawing::LogLog { x_label: "connections".into(), y_label: "ms".into(), curves };
    let chart = Chart::new("Round-trip time", "Lower is better.", drawing);
    let section = Section::new("Round-trip time of PING", "", serde_json::to_value(all)?);
    Ok(section.with_tables(vec![table]).with_charts(vec![chart]))
}

fn verdicts(all: &[Measured]) -> Vec<Verdict> {
    let worst = all.iter().map(|one| one.p99_ms).fold(0.0, f64::max);
    let (expected, measured) = (format!("≤ {MAX_P99_MS} ms"), format!("{worst:.2} ms"));
    vec![Verdict::new("p99 of every step", expected, measured, worst <= MAX_P99_MS, "")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks_and_judged() {
        let times: Vec<f64> = (1..=200).map(f64::from).collect();
        let one = measured(4, &times, Duration::from_secs(2));
        assert_eq!((one.pings_per_s, one.p50_ms, one.p99_ms), (100.0, 100.0, 198.0));
        assert_eq!(verdicts(&[one])[0].passed, Some(false));
        assert_eq!(measured(1, &[], STEP).p99_ms, f64::INFINITY, "no answer is never in time");
    }

    #[tokio::test]
    async fn it_runs_and_writes_its_report() {
        if !launcher::testing::have(&["redis-server"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let command = (EXPERIMENT.args)(clap::Command::new(EXPERIMENT.name));
        let words = ["ping", "--quick", "--connections", "4", "--out", out.to_str().unwrap()];
        (EXPERIMENT.run)(command.get_matches_from(words)).await.unwrap();
        let text = std::fs::read_to_string(out.join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((report["experiment"].as_str(), report["quick"].as_bool()), (Some("ping"), Some(true)));
        let measured = report["sections"][0]["measured"].as_array().unwrap();
        assert_eq!(measured.len(), 2, "1 and 4 connections");
        assert!(measured[1]["p99_ms"].as_f64().unwrap() > 0.0, "{report}");
        assert!(out.join("report.html").is_file());
    }
}
