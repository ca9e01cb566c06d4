//! The load generator as a process of its own, driven through one plan: the only loop that does so.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use launcher::{ChildId, Signal, Spec, Stack};
use loadtest::{
    child::ChildMessage,
    plan::{Progress, StepOutcome, StepPlan},
};
use report::{Scheduling, Validity};
use tokio::time::{Instant, sleep_until};

use super::{
    cpu_watch::CpuWatch,
    scheduling::NICE,
    target::{Snapshot, Target},
};
use crate::stack::service::{ServiceStack, own_program};

/// Between two looks at what the generator printed.
const POLL: Duration = Duration::from_millis(20);
/// Beyond the length of the plan: the generator starts, and the last requests end.
const GRACE: Duration = Duration::from_secs(60);

/// What happens while the load runs.
#[derive(Debug, Clone, Copy)]
pub enum Moment<'a> {
    /// A second of the load is over; the last one of the warm-up is the beginning of the measured part.
    Second(&'a Progress),
    /// The instant that the handler asked for.
    Alarm,
}

/// What a handler wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The load goes on. An instant is that of an alarm, and replaces an earlier one.
    GoOn(Option<Instant>),
    /// The load ends now, and the measured part with it.
    End,
}

/// Is, or has, the stack that the generator becomes a child of.
pub trait HasStack {
    fn stack(&mut self) -> &mut Stack;
}

impl HasStack for Stack {
    fn stack(&mut self) -> &mut Stack {
        self
    }
}

impl HasStack for ServiceStack {
    fn stack(&mut self) -> &mut Stack {
        &mut self.stack
    }
}

/// The measured part of a plan.
pub struct Window {
    pub outcome: StepOutcome,
    /// Counters when the measured part begins.
    pub before: Snapshot,
    /// Counters when it ends.
    pub after: Snapshot,
    pub scheduling: Scheduling,
    pub validity: Validity,
}

/// Runs the plan to its end. `on_moment` is called for every second, and may answer the instant of an alarm; a later instant replaces it.
/// Lines are kept while `on_moment` runs.
///
/// # Errors
/// `on_moment` fails, the generator fails or is late, or any child of the stack ends: its figures would be those of another experiment.
pub async fn drive<S: HasStack>(
    stack: &mut S,
    target: &Target,
    plan: &StepPlan,
    mut on_moment: impl AsyncFnMut(&mut S, Moment<'_>) -> anyhow::Result<Option<Instant>>,
) -> anyhow::Result<Window> {
    drive_until(stack, target, plan, async |stack, moment| on_moment(stack, moment).await.map(Next::GoOn)).await
}

/// As [`drive`], but `on_moment` may end the load before the plan does.
///
/// # Errors
/// As [`drive`].
pub async fn drive_until<S: HasStack>(
    stack: &mut S,
    target: &Target,
    plan: &StepPlan,
    mut on_moment: impl AsyncFnMut(&mut S, Moment<'_>) -> anyhow::Result<Next>,
) -> anyhow::Result<Window> {
    let mut generator = Generator::start(stack.stack(), plan)?;
    let pid = generator.pid;
    let cpu = CpuWatch::start(generator.timeout);
    let (mut before, mut after, mut alarm, mut is_ended) = (None, None, None, false);
    if plan.warm_up_ms == 0 {
        // No line says that the measured part begins. Nothing else loads the stack while the generator starts.
        before = Some(target.snapshot(Some(pid)).await?);
    }
    let mut outcome = 'load: loop {
        let lines = tokio::select! {
            lines = generator.lines(stack.stack()) => lines?,
            () = until(alarm) => {
                alarm = match on_moment(stack, Moment::Alarm).await? {
                    Next::GoOn(next) => next,
                    Next::End => {
                        if after.is_none() {
                            after = Some(target.snapshot(Some(pid)).await?);
                        }
                        generator.end(stack.stack(), &mut is_ended)?;
                        None
                    }
                };
                continue;
            }
        };
        for line in lines {
            match line {
                ChildMessage::Progress(now) => {
                    if now.elapsed_s == now.total_s && after.is_none() {
                        after = Some(target.snapshot(Some(pid)).await?);
                    }
                    match on_moment(stack, Moment::Second(&now)).await? {
                        Next::GoOn(next) => alarm = next.or(alarm),
                        Next::End => {
                            // While it runs: a process that has ended has no accounts, and its connections are closed.
                            if after.is_none() {
                                after = Some(target.snapshot(Some(pid)).await?);
                            }
                            generator.end(stack.stack(), &mut is_ended)?;
                        }
                    }
                    if before.is_none() && measured_ms(plan, &now).is_some() {
                        before = Some(target.snapshot(Some(pid)).await?);
                    }
                }
                ChildMessage::Outcome(outcome) => break 'load *outcome,
                ChildMessage::Error(error) => bail!("the load generator failed: {error}"),
            }
        }
    };
    let after = match after {
        Some(after) => after,
        None => target.snapshot(Some(pid)).await?,
    };
    generator.stop(stack.stack()).await?;
    let before = before.context("the load generator reported no measured part")?;
    cpu.fill(&mut outcome.series, outcome.started_ms);
    let scheduling = after.scheduling_since(&before);
    let validity = Validity::of(outcome.send_lag.p99_ms, after.cpu_pct_since(&before)).with_scheduling(&scheduling);
    Ok(Window { outcome, before, after, scheduling, validity })
}

/// How long the measured part has run; `None` during the warm-up. A line is printed when its second is over, so the last line of the
/// warm-up answers 0.
pub fn measured_ms(plan: &StepPlan, now: &Progress) -> Option<u64> {
    (u64::from(now.elapsed_s) * 1000).checked_sub(plan.warm_up_ms)
}

async fn until(alarm: Option<Instant>) {
    match alarm {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct Generator {
    child: ChildId,
    pid: u32,
    lines: Lines,
    timeout: Duration,
    deadline: Instant,
}

impl Generator {
    fn start(stack: &mut Stack, plan: &StepPlan) -> anyhow::Result<Self> {
        let file = stack.child_dir("loadgen")?.join("plan.json");
        std::fs::write(&file, serde_json::to_vec(plan)?).with_context(|| format!("cannot write {}", file.display()))?;
        let lines = Lines::from_end_of(stack.log_path("loadgen"))?;
        // It stands for machines of its own, so the processes that it measures must not keep it waiting. Where the system does not permit
        // this, `nice` says so and runs it anyway.
        let spec = Spec::new("loadgen", "nice")
            .args(["-n", &NICE.to_string()])
            .args([own_program()?])
            .args(["serve", "loadgen"])
            .args([file]);
        let child = stack.spawn(spec)?;
        let pid = stack.pid(child).context("the load generator ended at once")?;
        let timeout = Duration::from_millis(plan.warm_up_ms + plan.measure_ms + plan.timeout_ms) + GRACE;
        Ok(Self { child, pid, lines, timeout, deadline: Instant::now() + timeout })
    }

    /// Waits for the next lines, at least one. Can be dropped without losing any.
    async fn lines(&mut self, stack: &Stack) -> anyhow::Result<Vec<ChildMessage>> {
        loop {
            ensure!(Instant::now() <= self.deadline, "the load generator was not done after {:?}", self.timeout);
            let lines = self.lines.read()?;
            if !lines.is_empty() {
                return Ok(lines);
            }
            stack.check()?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks for the outcome until now, once. A generator that is done has printed it.
    fn end(&self, stack: &mut Stack, is_ended: &mut bool) -> anyhow::Result<()> {
        if std::mem::replace(is_ended, true) || stack.pid(self.child).is_none() {
            return Ok(());
        }
        stack.kill(self.child, Signal::SIGUSR1)
    }

    async fn stop(self, stack: &mut Stack) -> anyhow::Result<()> {
        stack.stop_child(self.child).await
    }
}

/// What a child prints, line by line, read from its log.
struct Lines {
    file: File,
    rest: String,
}

impl Lines {
    /// Skips what earlier children of the same name have printed.
    fn from_end_of(path: PathBuf) -> anyhow::Result<Self> {
        let open = File::options().read(true).append(true).create(true).open(&path);
        let mut file = open.with_context(|| format!("cannot open {}", path.display()))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, rest: String::new() })
    }

    fn read(&mut self) -> anyhow::Result<Vec<ChildMessage>> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        let Some(end) = self.rest.rfind('\n') else { return Ok(Vec::new()) };
        let whole: String = self.rest.drain(..=end).collect();
        // Anything else, such as a library's warning, stays in the log.
        whole.lines().filter_map(|line| ChildMessage::parse(line).transpose()).collect()
    }
}
