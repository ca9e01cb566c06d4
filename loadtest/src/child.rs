//! The load generator as a separate process: its CPU time is measured separately, and goose's signal handler stays out of the parent.
//! It reports to the parent by lines of JSON on stdout.

use std::{io::Write, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{
    plan::{Progress, StepOutcome, StepPlan},
    run::run_step_until,
};

/// A line of the child's stdout: one `Progress` per second, then one `Outcome` or one `Error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildMessage {
    Progress(Progress),
    Outcome(Box<StepOutcome>),
    Error(String),
}

impl ChildMessage {
    /// Parses a line; `None` if it is not a message, such as a warning that goose logs to stdout.
    ///
    /// # Errors
    /// The line starts like a message but cannot be parsed.
    pub fn parse(line: &str) -> Result<Option<Self>> {
        if !line.starts_with("{\"") {
            return Ok(None);
        }
        serde_json::from_str(line).map(Some).context("load generator: malformed line")
    }
}

/// The `main` of the child: runs the plan in this file (JSON) and prints messages. SIGUSR1 ends the step with the
/// outcome until then; SIGTERM, SIGINT and a closed stdout end it without. Must not be called from within an async runtime.
pub fn loadgen_main(plan_path: &Path) -> ExitCode {
    let (message, code) = match run(plan_path) {
        Ok(outcome) => (ChildMessage::Outcome(Box::new(outcome)), ExitCode::SUCCESS),
        Err(error) => (ChildMessage::Error(format!("{error:#}")), ExitCode::FAILURE),
    };
    match print(&message) {
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
        let mut cut_short = signal(SignalKind::user_defined1()).context("SIGUSR1")?;
        let stdout_closed = Notify::new();
        let report = |progress| {
            if print(&ChildMessage::Progress(progress)).is_err() {
                stdout_closed.notify_one();
            }
        };
        let end = async { cut_short.recv().await.unwrap_or_default() };
        tokio::select! {
            outcome = run_step_until(plan, end, report) => outcome,
            _ = terminated.recv() => bail!("stopped by a signal"),
            () = stdout_closed.notified() => bail!("cannot report the progress: stdout is closed"),
        }
    });
    // Users may still wait for a response.
    runtime.shutdown_background();
    result
}

/// Each connection is an open file, and the usual soft limit is 1024.
fn raise_open_files() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("limit of open files")
}

fn print(message: &ChildMessage) -> Result<()> {
    let mut text = serde_json::to_string(message)?;
    text.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}
