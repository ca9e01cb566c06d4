//! Finds processes and directories of stacks from outside: `status` shows them, `down` ends them.
//!
//! A process belongs to a stack by its environment (`TESTBED_STACK`), or by its working directory if the server overwrites its environment
//! with its title. The working directory of other processes is ignored: it may be a user's shell.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::{
    Signal,
    description::Description,
    process::{ProcessIdentity, Stat, all_pids, wait_blocking},
    quota::{self, KernelQuotas},
    stack::{STACK_VARIABLE, remove_dir},
};

const TERM_DEADLINE: Duration = Duration::from_secs(5);
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// Time for an owner to stop its stack: more than the 15 s that it gives its children.
const OWNER_DEADLINE: Duration = Duration::from_secs(20);
/// A directory without `stack.json` may just be in creation.
const YOUNG: Duration = Duration::from_secs(60);
/// Processes may fork while they are ended; each round finds fewer.
const REAP_ROUNDS: usize = 5;

const WRITE_OVER_ENVIRONMENT: [&str; 2] = ["nginx", "redis-server"];

/// A live process of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackProcess {
    pub process: ProcessIdentity,
    /// The kernel's short name of the program, e.g. `redis-server`.
    pub command: String,
}

/// A stack on this machine: a directory, processes, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundStack {
    pub dir: PathBuf,
    /// None: `stack.json` is missing or damaged.
    pub description: Option<Description>,
    pub owner_alive: bool,
    pub processes: Vec<StackProcess>,
}

impl FoundStack {
    /// Its owner is dead: its processes and its directory are leftovers.
    pub fn is_orphaned(&self) -> bool {
        !self.owner_alive
    }

    /// The stack's name; without a description, its directory's.
    pub fn name(&self) -> &str {
        let from_dir = || self.dir.file_name().and_then(OsStr::to_str).unwrap_or("?");
        self.description.as_ref().map_or_else(from_dir, |description| &description.name)
    }
}

/// All stacks below `home()`, living and orphaned, sorted by directory name.
///
/// # Errors
/// The directory of stacks cannot be read.
pub fn find() -> anyhow::Result<Vec<FoundStack>> {
    let stacks = crate::stacks_dir()?;
    let mut members = members(&stacks);
    for entry in fs::read_dir(&stacks).with_context(|| format!("cannot read {}", stacks.display()))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members.entry(entry.path()).or_default();
        }
    }
    let found = members.into_iter().map(|(dir, processes)| {
        let description = Description::read(&dir).ok();
        let owner_alive = description.as_ref().is_some_and(|description| description.owner.is_alive());
        FoundStack { dir, description, owner_alive, processes }
    });
    Ok(found
        .filter(|found| found.description.is_some() || !found.processes.is_empty() || !is_young(&found.dir))
        .collect())
}

/// Asks a living owner to stop its stack (SIGTERM, 20 s), then ends the remaining processes. Returns the number of processes ended by
/// force.
///
/// # Errors
/// As `reap`.
pub fn stop(found: &FoundStack) -> anyhow::Result<usize> {
    if let Some(Description { owner, .. }) = found.description
        && owner.signal(Signal::SIGTERM)
        && !owner.wait_gone(OWNER_DEADLINE)
    {
        tracing::warn!(pid = owner.pid, "the owner of the stack does not end; ending the processes of its stack");
    }
    reap(found)
}

/// Ends the processes of the stack (SIGTERM, 5 s, SIGKILL) and removes its cgroups and its directory, but leaves the owner alone. A recycled pid is not
/// touched. Returns the number of processes ended.
///
/// # Errors
/// A process does not end or keeps forking, or a cgroup or the directory cannot be removed.
pub fn reap(found: &FoundStack) -> anyhow::Result<usize> {
    let stacks = crate::stacks_dir()?;
    let mut ended = 0;
    for _ in 0..REAP_ROUNDS {
        let left = members(&stacks).remove(&found.dir).unwrap_or_default();
        if left.is_empty() {
            // Before the directory: as long as it is there, the stack can be found again.
            quota::remove(&cgroups(found))?;
            if let Some(description) = &found.description {
                remove_dir(&description.sockets)?;
            }
            remove_dir(&found.dir)?;
            return Ok(ended);
        }
        ended += left.len();
        end_all(&left)?;
    }
    bail!("processes of {} keep forking", found.dir.display())
}

/// Cgroups of the stack; without a description, those that its name says.
fn cgroups(found: &FoundStack) -> Vec<PathBuf> {
    if let Some(description) = &found.description {
        return description.cgroups.clone();
    }
    let quotas = found.dir.file_name().and_then(OsStr::to_str).and_then(|stack| KernelQuotas::find(stack).ok());
    quotas.map_or_else(Vec::new, |quotas| quotas.directories())
}

fn end_all(members: &[StackProcess]) -> anyhow::Result<()> {
    for (signal, deadline) in [(Signal::SIGTERM, TERM_DEADLINE), (Signal::SIGKILL, KILL_DEADLINE)] {
        for member in members {
            member.process.signal(signal);
        }
        if wait_blocking(deadline, || !members.iter().any(|member| member.process.is_alive())) {
            return Ok(());
        }
    }
    let left: Vec<String> = members
        .iter()
        .filter(|member| member.process.is_alive())
        .map(|member| format!("{} ({})", member.command, member.process.pid))
        .collect();
    bail!("these processes do not end: {}", left.join(", "))
}

/// Living processes by the directory of their stack, without this process.
fn members(stacks: &Path) -> BTreeMap<PathBuf, Vec<StackProcess>> {
    let mut members: BTreeMap<PathBuf, Vec<StackProcess>> = BTreeMap::new();
    for pid in all_pids().into_iter().filter(|pid| *pid != std::process::id()) {
        let Some(stat) = Stat::read(pid).filter(Stat::is_alive) else { continue };
        if let Some(dir) = stack_of(pid, &stat.command, stacks) {
            let process = ProcessIdentity { pid, start_ticks: stat.start_ticks };
            members.entry(dir).or_default().push(StackProcess { process, command: stat.command });
        }
    }
    members
}

/// None also for processes of other users, whose environment is not readable.
fn stack_of(pid: u32, command: &str, stacks: &Path) -> Option<PathBuf> {
    let path = if WRITE_OVER_ENVIRONMENT.contains(&command) {
        fs::read_link(format!("/proc/{pid}/cwd")).ok()?
    } else {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let prefix = [STACK_VARIABLE.as_bytes(), b"="].concat();
        let value = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(&prefix[..]))?;
        PathBuf::from(OsStr::from_bytes(value))
    };
    Some(stacks.join(path.strip_prefix(stacks).ok()?.components().next()?))
}

fn is_young(dir: &Path) -> bool {
    let age = dir.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_none_or(|age| age < YOUNG)
}
