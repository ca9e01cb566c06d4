//! What the load generator itself costs: `cargo run --release -p loadtest --example generator_cost -- [users] [threads] [seconds]`.
//!
//! The answers come from a static handler in a process of its own; the CPU shown is the load generator's alone.

use std::{
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result};
use loadtest::{ChildMessage, StepPlan, arrivals::Arrivals, scenario::KnownIds};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => serve().map(|()| ExitCode::SUCCESS),
        Some("load") => Ok(loadtest::loadgen_main(arguments[1].as_ref())),
        _ => measure(&arguments).map(|()| ExitCode::SUCCESS),
    }
}

fn measure(arguments: &[String]) -> Result<()> {
    let number = |at: usize, default: u32| arguments.get(at).map_or(Ok(default), |text| text.parse::<u32>());
    let own = std::env::current_exe()?;
    let folder = tempfile::tempdir()?;
    let mut server = Command::new(&own).arg("serve").stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    BufReader::new(server.stdout.take().context("stdout")?).read_line(&mut address)?;
    let plan = StepPlan {
        name: "cost".into(),
        base_url: format!("http://{}", address.trim()),
        users: number(0, 5000)?,
        curve: None,
        interval_ms: 1000,
        arrival_grid_ms: 0,
        timeout_ms: 3000,
        retry: None,
        criticality: None,
        slo_ms: None,
        warm_up_ms: 3000,
        measure_ms: u64::from(number(2, 15)?) * 1000,
        unknown_share: 0.5,
        known: KnownIds::Once,
        known_ids: folder.path().join("ids.txt"),
        seed: 1,
        worker_threads: number(1, 2)? as usize,
        metrics: None,
        telemetry: None,
        arrivals: Arrivals::Closed,
        target: None,
    };
    std::fs::write(&plan.known_ids, (0..200_000).map(|number| format!("u{number}\n")).collect::<String>())?;
    let path = folder.path().join("plan.json");
    std::fs::write(&path, serde_json::to_string(&plan)?)?;
    let mut load = Command::new(&own).arg("load").arg(&path).stdout(Stdio::piped()).spawn()?;
    let (mut at_start, mut at_end, mut total) = (None, 0.0, None);
    for line in BufReader::new(load.stdout.take().context("stdout")?).lines() {
        match ChildMessage::parse(&line?)? {
            // The CPU is taken while the process lives; the first second of the measured part is left out.
            Some(ChildMessage::Progress(progress)) if progress.phase == loadtest::plan::Phase::Measure => {
                at_end = cpu_s(load.id())?;
                at_start.get_or_insert((progress.elapsed_s, at_end));
                total = Some(progress.elapsed_s);
            }
            Some(ChildMessage::Outcome(outcome)) => {
                let (first, before) = at_start.context("no progress")?;
                let seconds = f64::from(total.context("no progress")? - first);
                let per_request = 1e6 * (at_end - before) / (seconds * outcome.answered_per_s);
                println!(
                    "{} users, {} threads: {:.0} sent/s, {} errors, {per_request:.1} µs CPU per request; \
                     send lag p50 {:.2} p99 {:.2} max {:.2} ms; latency p50 {:.2} p99 {:.2} ms",
                    outcome.users,
                    plan.worker_threads,
                    outcome.sent_per_s,
                    outcome.answered - outcome.good,
                    outcome.send_lag.p50_ms,
                    outcome.send_lag.p99_ms,
                    outcome.send_lag.max_ms,
                    outcome.latency.p50_ms,
                    outcome.latency.p99_ms
                );
            }
            Some(ChildMessage::Error(error)) => println!("{error}"),
            _ => {}
        }
    }
    server.kill()?;
    server.wait()?;
    load.wait()?;
    Ok(())
}

/// User and system time of a process, by `/proc/PID/stat`; clock ticks are 10 ms on Linux.
fn cpu_s(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

#[tokio::main]
async fn serve() -> Result<()> {
    let body = format!("{{\"source\":\"cache\",\"items\":\"{}\"}}", "x".repeat(900));
    let router = axum::Router::new().route("/recommendations", axum::routing::get(move || async move { body.clone() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}
