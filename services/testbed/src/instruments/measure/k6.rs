//! The same step by k6, a second opinion on what users see.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use launcher::{ChildId, Spec, Stack};
use loadtest::{
    k6::{self, K6Plan, Pacing},
    plan::StepPlan,
};
use report::{Scheduling, Step, Validity};

use super::{Snapshot, Target, figures};

/// k6 compiles the script and brings every VU to life before the common start.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Beyond the request timeout, to write the summary.
const END_SLACK: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Of its log, for an error.
const SHOWN_LINES: usize = 12;

/// # Errors
/// k6 is not on PATH: with what to do about it.
pub fn program() -> anyhow::Result<PathBuf> {
    launcher::find_program(&["k6"]).context(k6::HOW_TO_GET)
}

/// `k6 v1.8.1`, or `unknown`.
pub fn version(program: &Path) -> String {
    let output = std::process::Command::new(program).arg("version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    if words.is_empty() { "unknown".into() } else { words.join(" ") }
}

/// Runs the step's twin; `profile` is the caller's to fill in. There is no series: k6's summary holds none.
///
/// # Errors
/// k6 fails or does not end in time: with the last lines it printed.
pub async fn step(
    stack: &mut Stack,
    target: &Target,
    program: &Path,
    plan: &StepPlan,
    pacing: Pacing,
) -> anyhow::Result<Step> {
    let dir = stack.child_dir("k6")?;
    let [script, file, summary] = ["scenario.js", "plan.json", "summary.json"].map(|name| dir.join(name));
    let k6_plan = K6Plan::new(plan.clone(), pacing, &summary)?;
    let write = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    write(&script, k6::SCRIPT.as_bytes())?;
    write(&file, &serde_json::to_vec(&k6_plan)?)?;
    // Of the step before: it must not be taken for this one's.
    let _ = std::fs::remove_file(&summary);
    let log = Log::from_end_of(stack.log_path("k6"));
    // Thresholds are for runs by hand; here a dropped iteration makes the step invalid. Without an address there is no control port.
    let spec = Spec::new("k6", program)
        .args(["run", "--quiet", "--no-color", "--no-thresholds", "--no-usage-report", "--address", ""])
        .args(["-e", &format!("PLAN={}", file.display())])
        .args([&script]);
    let child = stack.spawn(spec)?;
    let result = watch(stack, child, target, plan, &log).await;
    stack.stop_child(child).await?;
    let (before, after) = result?;
    let text = std::fs::read_to_string(&summary)
        .map_err(|_| anyhow::anyhow!("k6 wrote no summary; it said:\n{}", log.tail()))?;
    let outcome = k6::outcome(plan, &text)?;
    let validity = Validity::of(outcome.step.send_lag.p99_ms, after.cpu_pct_since(&before));
    // k6 has more threads than cores, so its waits are recorded and not judged. It asks for no nice value.
    let scheduling = Scheduling { nice_granted: None, ..after.scheduling_since(&before) };
    let mut step = Step { scheduling: Some(scheduling), ..figures(&outcome.step, &before, &after, &validity) };
    if pacing == Pacing::Open && outcome.dropped_iterations > 0 {
        step.valid = false;
        step.invalid_reasons.push(format!("k6 dropped {} iterations: no open loop", outcome.dropped_iterations));
    }
    Ok(step)
}

/// Reads the counters when the measured part begins and ends, then waits for k6 to be done.
async fn watch(
    stack: &Stack,
    child: ChildId,
    target: &Target,
    plan: &StepPlan,
    log: &Log,
) -> anyhow::Result<(Snapshot, Snapshot)> {
    let deadline = Instant::now() + START_DEADLINE;
    let (pid, start_ms) = loop {
        let pid = stack.pid(child).with_context(|| format!("k6 ended at once:\n{}", log.tail()))?;
        if let Some(start_ms) = k6::start_ms(&log.text()) {
            break (pid, start_ms);
        }
        if Instant::now() > deadline {
            bail!("k6 did not start within {START_DEADLINE:?}:\n{}", log.tail());
        }
        tokio::time::sleep(POLL).await;
    };
    let measure_from = UNIX_EPOCH + Duration::from_millis(start_ms + plan.warm_up_ms);
    sleep_until(measure_from).await;
    let before = target.snapshot(Some(pid)).await?;
    sleep_until(measure_from + Duration::from_millis(plan.measure_ms)).await;
    let after = target.snapshot(Some(pid)).await?;
    let deadline = Instant::now() + Duration::from_millis(plan.timeout_ms) + END_SLACK;
    while stack.pid(child).is_some() {
        if Instant::now() > deadline {
            bail!("k6 does not end:\n{}", log.tail());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok((before, after))
}

/// By the wall clock, which is the only one that k6 shares.
async fn sleep_until(at: SystemTime) {
    tokio::time::sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await;
}

/// What k6 prints from here on.
struct Log {
    path: PathBuf,
    offset: usize,
}

impl Log {
    fn from_end_of(path: PathBuf) -> Self {
        let offset = std::fs::metadata(&path).map_or(0, |meta| meta.len() as usize);
        Self { path, offset }
    }

    fn text(&self) -> String {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.offset..).unwrap_or_default()).into_owned()
    }

    fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}
