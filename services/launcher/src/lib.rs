//! Real servers as child processes on scratch directories and free loopback ports, and the guarantee that they end.
//!
//! A [`Stack`] owns its children. They end, whatever happens:
//! - the stack is stopped or dropped (also by a panic): signals, a deadline, SIGKILL, and every child is reaped;
//! - the owner is killed: the kernel sends each child its death signal;
//! - something slips through both (a worker of an nginx whose master was killed): [`orphans`] finds and ends it.

pub mod cpu;
pub mod etcd;
pub mod exporters;
mod logs;
pub mod mariadb;
pub mod mysql8;
pub mod nginx;
pub mod orphans;
mod ports;
pub mod process;
mod programs;
pub mod prometheus;
pub mod redis;
mod spawner;
mod stack;
pub mod testing;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use nix::sys::signal::Signal;

pub use crate::{
    ports::free_port,
    process::ProcessIdentity,
    programs::find_program,
    stack::{ChildId, DescribedChild, Description, Spec, Stack},
};

/// Where state lives: `$TESTBED_HOME`, else `$XDG_STATE_HOME/recommendation-testbed`, else
/// `~/.local/state/recommendation-testbed`. Not created by asking.
pub fn home() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("TESTBED_HOME").unwrap_or_else(|| {
        let state = set("XDG_STATE_HOME")
            .unwrap_or_else(|| std::env::home_dir().unwrap_or_else(std::env::temp_dir).join(".local/state"));
        state.join("recommendation-testbed")
    });
    std::path::absolute(&home).unwrap_or(home)
}

/// The directory the stacks live in, created, and without symbolic links: it is compared with what /proc shows.
pub(crate) fn stacks_dir() -> anyhow::Result<PathBuf> {
    let dir = home().join("stacks");
    create_dir_all(&dir)?;
    dir.canonicalize().with_context(|| format!("cannot resolve {}", dir.display()))
}

pub(crate) fn create_dir_all(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}

/// Raises the soft limit of open files of this process to its hard limit and returns it. Children inherit it;
/// `Stack::create` calls this.
///
/// # Errors
/// The kernel refuses, which it does not do below the hard limit.
pub fn raise_nofile_limit() -> anyhow::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")?;
    }
    Ok(hard)
}

/// 32 bits nobody chose, for names of scratch directories. The standard library's hash seeds are its only randomness.
pub(crate) fn random() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let seed = std::hash::RandomState::new().build_hasher().finish();
    u32::try_from(seed >> 32).expect("32 bits remain")
}
