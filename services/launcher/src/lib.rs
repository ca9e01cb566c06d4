//! Runs real servers (MariaDB, MySQL, Redis, nginx, etcd, Prometheus, Kafka) as child processes on scratch directories and free loopback ports.
//!
//! Depends on no other crate of the project. Begin with [`Stack`].
//!
//! A [`Stack`] owns its children. Three mechanisms guarantee that they end:
//! - the stack is stopped or dropped (also by a panic): signals, a deadline, SIGKILL, and every child is reaped;
//! - the owner is killed: the kernel sends each child its death signal;
//! - a process survives both (a worker of an nginx whose master was killed): [`orphans`] finds and ends it.
//!
//! Cgroups of CPU quotas ([`quota`]) end with the stack too.

pub mod cpu;
mod description;
pub mod etcd;
pub mod exporters;
pub mod kafka;
mod logs;
pub mod mariadb;
mod maven;
pub mod mysql8;
pub mod nginx;
pub mod orphans;
mod ports;
pub mod process;
mod programs;
pub mod prometheus;
pub mod quota;
pub mod redis;
pub mod scheduling;
mod spawner;
mod stack;
pub mod testing;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use nix::sys::signal::Signal;

pub use crate::{
    description::{DescribedChild, Description},
    ports::free_port,
    process::ProcessIdentity,
    programs::find_program,
    quota::{Cores, CpuUsage, KernelQuotas, QuotaChoice, QuotaMode},
    stack::{ChildId, Spec, Stack},
};

/// Directory of the testbed's state: `$TESTBED_HOME`, else `$XDG_STATE_HOME/recommendation-testbed`, else
/// `~/.local/state/recommendation-testbed`. This function does not create it.
pub fn home() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("TESTBED_HOME").unwrap_or_else(|| {
        let state = set("XDG_STATE_HOME")
            .unwrap_or_else(|| std::env::home_dir().unwrap_or_else(std::env::temp_dir).join(".local/state"));
        state.join("recommendation-testbed")
    });
    std::path::absolute(&home).unwrap_or(home)
}

/// Directory of all stacks. Creates it, and resolves symbolic links, because it is compared with paths in /proc.
pub(crate) fn stacks_dir() -> anyhow::Result<PathBuf> {
    let dir = home().join("stacks");
    create_dir_all(&dir)?;
    dir.canonicalize().with_context(|| format!("cannot resolve {}", dir.display()))
}

pub(crate) fn create_dir_all(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}

/// Raises this process's soft limit of open files to the hard limit and returns it. Children inherit it; `Stack::create` calls this.
///
/// # Errors
/// The kernel refuses, which it does not do up to the hard limit.
pub fn raise_nofile_limit() -> anyhow::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")?;
    }
    Ok(hard)
}

/// 32 random bits for names of scratch directories. The standard library's hash seeds are its only source of randomness.
pub(crate) fn random() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let seed = std::hash::RandomState::new().build_hasher().finish();
    u32::try_from(seed >> 32).expect("32 bits remain")
}
