//! A set of child processes with one scratch directory.

mod quotas;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Child as OsChild, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    create_dir_all,
    description::{DescribedChild, Description},
    logs,
    process::{ProcessIdentity, Stat, nix_pid, wait_blocking},
    quota::{self, Cores, QuotaMode},
    spawner,
};

/// Environment variable of every child: the stack's directory. `orphans` finds processes by it.
pub(crate) const STACK_VARIABLE: &str = "TESTBED_STACK";

/// Time for a child to end after its stop signal.
const CHILD_STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Time for all children of a stack; remaining ones are then killed.
const STACK_STOP_DEADLINE: Duration = Duration::from_secs(15);
/// SIGKILL may take time: a process may be inside a disk operation.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// How to start a child.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Names the log and the scratch directory; a restarted child uses the same ones.
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Added to this process's environment.
    pub env: Vec<(OsString, OsString)>,
    /// Asks the child to end in an orderly way. Default: SIGTERM.
    pub stop_signal: Signal,
    /// Sent by the kernel when this process dies. Default: SIGKILL. A program with children of its own needs a signal that it can pass on.
    pub death_signal: Signal,
    /// `check` ignores its death: the stack works without it.
    pub expendable: bool,
    /// Its CPU quota, if the kernel enforces the quotas of this stack (`Stack::set_quotas`).
    pub cores: Option<Cores>,
}

impl Spec {
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            stop_signal: Signal::SIGTERM,
            death_signal: Signal::SIGKILL,
            expendable: false,
            cores: None,
        }
    }

    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    #[must_use]
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.stop_signal = signal;
        self
    }

    #[must_use]
    pub fn expendable(mut self) -> Self {
        self.expendable = true;
        self
    }

    #[must_use]
    pub fn cores(mut self, cores: Cores) -> Self {
        self.cores = Some(cores);
        self
    }

    #[must_use]
    pub fn death_signal(mut self, signal: Signal) -> Self {
        self.death_signal = signal;
        self
    }
}

/// A child of one stack. Not valid for another stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChildId(usize);

struct Child {
    spec_name: String,
    stop_signal: Signal,
    process: OsChild,
    identity: ProcessIdentity,
    /// It is expendable, or this process sent it a signal that ends it: its death is no failure.
    may_end: bool,
}

/// Children that end with it. See the crate's documentation for the guarantee.
pub struct Stack {
    dir: PathBuf,
    description: Description,
    /// By `ChildId`; none after the child was stopped.
    children: Vec<Option<Child>>,
    keep_scratch: bool,
    batch: bool,
    /// None: no quotas.
    quotas: Option<QuotaMode>,
}

impl Stack {
    /// An empty stack on a new scratch directory, `home()/stacks/<name>-<random>`. Also raises this process's limit of
    /// open files, which its children inherit.
    ///
    /// # Errors
    /// The name is no file name, or the directory cannot be made.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        check_name(name)?;
        crate::raise_nofile_limit()?;
        let stacks = crate::stacks_dir()?;
        let sockets = socket_dir()?;
        let created_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        let description = Description {
            name: name.to_owned(),
            owner: ProcessIdentity::current(),
            created_ms: u64::try_from(created_ms).unwrap_or(u64::MAX),
            endpoints: BTreeMap::new(),
            sockets,
            cgroups: Vec::new(),
            children: Vec::new(),
        };
        let dir = stacks.join(format!("{name}-{:08x}", crate::random()));
        // Not create_dir_all: a directory that exists belongs to somebody else.
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let sockets = &description.sockets;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(sockets)
            .with_context(|| format!("cannot create {}", sockets.display()))?;
        let stack = Self { dir, description, children: Vec::new(), keep_scratch: false, batch: false, quotas: None };
        create_dir_all(&stack.dir.join("logs"))?;
        stack.description.write(&stack.dir)?;
        Ok(stack)
    }

    /// The scratch directory: `stack.json`, `logs/`, and one directory per child.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The child's working directory; created if missing.
    ///
    /// # Errors
    /// The name is not valid, or the directory cannot be created.
    pub fn child_dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        check_name(name)?;
        ensure!(name != "logs", "a child cannot be called logs");
        let dir = self.dir.join(name);
        create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Path of a child's Unix socket: accessible to this user only, and short enough for every server.
    pub fn socket_path(&self, name: &str) -> PathBuf {
        self.description.sockets.join(name)
    }

    pub fn log_path(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// Empties a child's log of more than `max_bytes`. The child goes on at its beginning: logs are appended to.
    ///
    /// # Errors
    /// The log cannot be emptied.
    pub fn bound_log(&self, name: &str, max_bytes: u64) -> anyhow::Result<()> {
        let log = self.log_path(name);
        if fs::metadata(&log).is_ok_and(|file| file.len() > max_bytes) {
            let emptied = fs::File::options().write(true).truncate(true).open(&log);
            emptied.with_context(|| format!("cannot empty {}", log.display()))?;
        }
        Ok(())
    }

    /// Keeps the scratch directory when the stack ends; `orphans::reap` removes it.
    pub fn keep_scratch(&mut self) {
        self.keep_scratch = true;
    }

    /// Starts further children under SCHED_BATCH: a process that wakes up does not interrupt the running one. With many processes on few
    /// cores this saves context switches, a tenth of the CPU time on a virtual machine.
    pub fn batch(&mut self) {
        self.batch = true;
    }

    /// Scheduling policy of further children, by its name in sched(7): what `batch` requests, unless this process runs under another
    /// policy.
    pub fn policy(&self) -> &'static str {
        spawner::policy_of_children(self.batch)
    }

    /// Writes an address to `stack.json`, for other processes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_endpoint(&mut self, name: &str, address: &str) -> anyhow::Result<()> {
        self.description.endpoints.insert(name.to_owned(), address.to_owned());
        self.description.write(&self.dir)
    }

    /// Removes an address from `stack.json`. Does nothing if there is none.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remove_endpoint(&mut self, name: &str) -> anyhow::Result<()> {
        self.description.endpoints.remove(name);
        self.description.write(&self.dir)
    }

    /// Starts a child in its own scratch directory and process group. Its output is appended to `logs/<name>.log`; it has no input. Blocks
    /// for the milliseconds that a process takes to start.
    ///
    /// # Errors
    /// The program cannot be started, a child with this name runs already, or the spec has a quota that the kernel refuses or no
    /// `set_quotas` has prepared.
    pub fn spawn(&mut self, spec: Spec) -> anyhow::Result<ChildId> {
        let taken = self.children.iter().flatten().any(|child| child.spec_name == spec.name);
        ensure!(!taken, "the stack has a child called {} already", spec.name);
        let dir = self.child_dir(&spec.name)?;
        let log_path = self.log_path(&spec.name);
        let log = fs::File::options().append(true).create(true).open(&log_path);
        let log = log.with_context(|| format!("cannot open {}", log_path.display()))?;
        let cgroups = self.cgroups_of(&spec)?;
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.args)
            .envs(spec.env)
            .env(STACK_VARIABLE, &self.dir)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the log")?)
            .stderr(log);
        let process = spawner::spawn(command, spec.death_signal, self.batch, cgroups)
            .with_context(|| format!("cannot start {} ({})", spec.name, spec.program.display()))?;
        let pid = process.id();
        // Not reaped yet, so /proc still lists it, even if it has ended.
        let start_ticks = Stat::read(pid).map_or(0, |stat| stat.start_ticks);
        let identity = ProcessIdentity { pid, start_ticks };
        self.description.children.push(DescribedChild { name: spec.name.clone(), process: identity });
        let child =
            Child { spec_name: spec.name, stop_signal: spec.stop_signal, process, identity, may_end: spec.expendable };
        // The stack must own it before anything can fail.
        self.children.push(Some(child));
        self.description.write(&self.dir)?;
        Ok(ChildId(self.children.len() - 1))
    }

    /// The child's pid while it runs.
    pub fn pid(&self, id: ChildId) -> Option<u32> {
        self.child(id).filter(|child| child.exit().is_none()).map(|child| child.identity.pid)
    }

    /// Name and pid of every running child, in start order.
    pub fn running(&self) -> Vec<(&str, u32)> {
        let alive = self.children.iter().flatten().filter(|child| child.exit().is_none());
        alive.map(|child| (child.spec_name.as_str(), child.identity.pid)).collect()
    }

    /// # Errors
    /// A child ended that this process neither stopped nor killed: its name, how it ended, and the last lines of its log.
    pub fn check(&self) -> anyhow::Result<()> {
        self.children.iter().flatten().filter(|child| !child.may_end).try_for_each(|child| self.check_child(child))
    }

    fn check_child(&self, child: &Child) -> anyhow::Result<()> {
        let Some(exit) = child.exit() else { return Ok(()) };
        let name = &child.spec_name;
        bail!("{name} ended unexpectedly, {exit}; the end of its log:\n{}", logs::tail(&self.log_path(name)))
    }

    /// Calls `ready` every 10 ms, with a timeout of 1 s each, until it returns true. Borrows the stack shared, so that several children can
    /// be awaited at the same time.
    ///
    /// # Errors
    /// The child ended, or was not ready by the deadline; with the last lines of its log.
    pub async fn wait_ready<F>(
        &self,
        id: ChildId,
        deadline: Duration,
        mut ready: impl FnMut() -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = bool>,
    {
        let child = self.child(id).ok_or_else(|| anyhow!("the child was stopped"))?;
        let end = Instant::now() + deadline;
        loop {
            self.check_child(child)?;
            if tokio::time::timeout(Duration::from_secs(1), ready()).await == Ok(true) {
                // If the child found its port in use, another program may have answered.
                return self.check_child(child);
            }
            if Instant::now() >= end {
                let (name, log) = (&child.spec_name, self.log_path(&child.spec_name));
                bail!("{name} was not ready after {deadline:?}; the end of its log:\n{}", logs::tail(&log));
            }
            sleep(POLL).await;
        }
    }

    /// Runs a child that ends on its own, such as one that prepares a directory.
    ///
    /// # Errors
    /// It cannot be started, fails, or is not done by the deadline (then it is killed).
    pub async fn run(&mut self, spec: Spec, deadline: Duration) -> anyhow::Result<()> {
        let (id, end) = (self.spawn(spec)?, Instant::now() + deadline);
        let exit = loop {
            let exit = self.child(id).and_then(Child::exit);
            if exit.is_some() || Instant::now() >= end {
                break exit;
            }
            sleep(POLL).await;
        };
        let Some(child) = self.take(id) else { bail!("the child was stopped") };
        let name = child.spec_name.clone();
        end_now(child)?;
        match exit {
            Some(Exit::Code(0)) => Ok(()),
            Some(exit) => bail!("{name} failed, {exit}; the end of its log:\n{}", logs::tail(&self.log_path(&name))),
            None => {
                bail!(
                    "{name} did not finish within {deadline:?}; the end of its log:\n{}",
                    logs::tail(&self.log_path(&name))
                )
            }
        }
    }

    /// Sends a signal to the child, but not to its children: an intended fault. `check` ignores a death by SIGKILL, SIGTERM, SIGINT or
    /// SIGQUIT sent here.
    ///
    /// # Errors
    /// The child was stopped or has ended.
    pub fn kill(&mut self, id: ChildId, signal: Signal) -> anyhow::Result<()> {
        let child = self.child(id).context("the child was stopped")?;
        if let Some(exit) = child.exit() {
            let name = &child.spec_name;
            bail!("{name} has ended already, {exit}; the end of its log:\n{}", logs::tail(&self.log_path(name)));
        }
        let child = self.children.get_mut(id.0).and_then(Option::as_mut).context("the child was stopped")?;
        if matches!(signal, Signal::SIGKILL | Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) {
            child.may_end = true;
        }
        kill(nix_pid(child.identity.pid), signal)
            .with_context(|| format!("cannot send {signal} to {}", child.spec_name))
    }

    /// From now on the child's end does not fail `check`, as with `Spec::expendable`.
    pub fn make_expendable(&mut self, id: ChildId) {
        if let Some(child) = self.children.get_mut(id.0).and_then(Option::as_mut) {
            child.may_end = true;
        }
    }

    /// Stops one child: stop signal, 5 s, SIGKILL to its process group, reaped. Does nothing if it was stopped before. Its name can be used
    /// again.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop_child(&mut self, id: ChildId) -> anyhow::Result<()> {
        self.stop_child_until(id, Instant::now() + CHILD_STOP_DEADLINE).await
    }

    async fn stop_child_until(&mut self, id: ChildId, end: Instant) -> anyhow::Result<()> {
        let Some(child) = self.child(id) else { return Ok(()) };
        let (name, pid) = (child.spec_name.clone(), child.identity.pid);
        if child.exit().is_none() {
            // Fails only if it has ended meanwhile, which the loop notices.
            let _ = kill(nix_pid(pid), child.stop_signal);
            while self.child(id).is_some_and(|child| child.exit().is_none()) {
                if Instant::now() >= end {
                    tracing::warn!(child = name, "did not stop in time and was killed");
                    break;
                }
                sleep_until((Instant::now() + POLL).min(end)).await;
            }
        }
        let Some(child) = self.take(id) else { return Ok(()) };
        end_now(child)?;
        let removed = self.remove_cgroups_of(&name);
        self.description.write(&self.dir).and(removed)
    }

    /// Stops all children in reverse start order, within 15 s, then removes the scratch directory. Kills children that do not stop in 5 s.
    ///
    /// # Errors
    /// A child does not end, or the directory cannot be removed. All other children are ended nevertheless.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let end = Instant::now() + STACK_STOP_DEADLINE;
        let mut result = Ok(());
        for index in (0..self.children.len()).rev() {
            let child_end = end.min(Instant::now() + CHILD_STOP_DEADLINE);
            result = result.and(self.stop_child_until(ChildId(index), child_end).await);
        }
        result.and(self.remove_scratch())
    }

    fn child(&self, id: ChildId) -> Option<&Child> {
        self.children.get(id.0)?.as_ref()
    }

    fn take(&mut self, id: ChildId) -> Option<Child> {
        let child = self.children.get_mut(id.0)?.take()?;
        self.description.children.retain(|described| described.process != child.identity);
        Some(child)
    }

    fn remove_scratch(&self) -> anyhow::Result<()> {
        // No process listens on them any more.
        let sockets = remove_dir(&self.description.sockets);
        // Before the directory: as long as it is there, `down` finds the stack again.
        quota::remove(&self.description.cgroups)?;
        if self.keep_scratch { sockets } else { sockets.and(remove_dir(&self.dir)) }
    }
}

impl Drop for Stack {
    /// Kills and reaps the remaining children: milliseconds as a rule, at most 5 s per child.
    fn drop(&mut self) {
        let left: Vec<Child> = self.children.drain(..).rev().flatten().collect();
        for child in &left {
            child.kill_group();
        }
        for child in left {
            if let Err(error) = end_now(child) {
                tracing::error!(error = format!("{error:#}"), "cannot end a child of the stack");
            }
        }
        if self.dir.exists()
            && let Err(error) = self.remove_scratch()
        {
            tracing::warn!(error = format!("{error:#}"), "cannot remove the scratch directory");
        }
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Code(i32),
    Signal(Signal),
    Unknown,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "by {signal}"),
            Self::Unknown => f.write_str("in an unknown way"),
        }
    }
}

impl Child {
    /// None while it runs. Does not reap: the pid and process group of an unreaped child cannot be reused, so signals cannot hit another
    /// process.
    fn exit(&self) -> Option<Exit> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(nix_pid(self.identity.pid)), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => None,
            Ok(WaitStatus::Exited(_, code)) => Some(Exit::Code(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(Exit::Signal(signal)),
            Ok(_) | Err(_) => Some(Exit::Unknown),
        }
    }

    /// Kills the child and its descendants in the group. Fails only if none is left.
    fn kill_group(&self) {
        let _ = killpg(nix_pid(self.identity.pid), Signal::SIGKILL);
    }
}

/// Kills the child's group, including processes that an ended child left in it, and reaps the child.
fn end_now(mut child: Child) -> anyhow::Result<()> {
    child.kill_group();
    let mut reaped = false;
    wait_blocking(KILL_DEADLINE, || {
        reaped = !matches!(child.process.try_wait(), Ok(None));
        reaped
    });
    ensure!(reaped, "{} (pid {}) does not end after SIGKILL", child.spec_name, child.identity.pid);
    Ok(())
}

/// Removes a directory into which a dying process may still write.
pub(crate) fn remove_dir(dir: &Path) -> anyhow::Result<()> {
    let mut last = Ok(());
    wait_blocking(Duration::from_secs(2), || {
        last = fs::remove_dir_all(dir);
        last.is_ok() || !dir.exists()
    });
    if dir.exists() { last.with_context(|| format!("cannot remove {}", dir.display())) } else { Ok(()) }
}

/// Not below `home()`: a socket's path has at most 107 bytes.
fn socket_dir() -> anyhow::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("testbed-{:08x}", crate::random()));
    ensure!(dir.as_os_str().len() <= 64, "TMPDIR is too long for Unix sockets: {}", dir.display());
    Ok(dir)
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    ensure!((1..=64).contains(&name.len()), "the name {name:?} must have 1 to 64 bytes");
    ensure!(name.chars().all(good), "the name {name:?} may only contain letters, digits, - and _");
    Ok(())
}

/// `--name=value`, where the value need not be UTF-8.
pub(crate) fn flag(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut flag = OsString::from(name);
    flag.push("=");
    flag.push(value);
    flag
}
