//! The load generator as a process of its own, so that its CPU is counted apart and goose's signal handler stays out of the
//! parent. It tells the parent how it goes by lines of JSON on stdout.

use std::{io::Write, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{
    plan::{Progress, StepOutcome, StepPlan},
    run::run_step,
};

/// What the child says. One `Progress` per second, then one `Outcome` or one `Error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Progress(Progress),
    Outcome(Box<StepOutcome>),
    Error(String),
}

impl Line {
    /// A line of the child's stdout; `None` for one that is not ours (goose may log a warning there).
    ///
    /// # Errors
    /// It begins like one of ours and is none.
    pub fn parse(line: &str) -> Result<Option<Self>> {
        if !line.starts_with("{\"") {
            return Ok(None);
        }
        serde_json::from_str(line).map(Some).context("load generator: malformed line")
    }
}

/// The whole life of the child: runs the plan of that file (JSON), prints lines, ends soon after SIGTERM or SIGINT or when
/// nobody reads what it prints. Must not be called from within an async runtime.
pub fn loadgen_main(plan_path: &Path) -> ExitCode {
    let (line, code) = match run(plan_path) {
        Ok(outcome) => (Line::Outcome(Box::new(outcome)), ExitCode::SUCCESS),
        Err(error) => (Line::Error(format!("{error:#}")), ExitCode::FAILURE),
    };
    match print(&line) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(plan_path: &Path) -> Result<StepOutcome> {
    let text = std::fs::read_to_string(plan_path).with_context(|| format!("cannot read {}", plan_path.display()))?;
    let plan: StepPlan = serde_json::from_str(&text).with_context(|| format!("plan {}", plan_path.display()))?;
    plan.check()?;
    raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(plan.worker_threads)
        .enable_all()
        .build()
        .context("runtime")?;
    let result = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).context("SIGTERM")?;
        let unread = Notify::new();
        let report = |progress| {
            if print(&Line::Progress(progress)).is_err() {
                unread.notify_one();
            }
        };
        tokio::select! {
            outcome = run_step(plan, report) => outcome,
            _ = terminated.recv() => bail!("stopped by a signal"),
            () = unread.notified() => bail!("nobody reads the progress"),
        }
    });
    // Users may still wait for an answer.
    runtime.shutdown_background();
    result
}

/// Connections are files; the usual soft limit of 1024 is far below the hard one.
fn raise_open_files() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("limit of open files")
}

fn print(line: &Line) -> Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}
