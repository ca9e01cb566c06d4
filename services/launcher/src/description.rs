//! `stack.json`: the description of a stack that other processes read.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::process::ProcessIdentity;

const DESCRIPTION_FILE: &str = "stack.json";

/// `stack.json`: the stack's description for other processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub name: String,
    /// The process that owns the stack.
    pub owner: ProcessIdentity,
    /// Unix time in milliseconds.
    pub created_ms: u64,
    /// Named addresses that the owner set.
    pub endpoints: BTreeMap<String, String>,
    /// Directory of the Unix sockets; removed with the stack.
    pub sockets: PathBuf,
    /// Cgroups of the children's CPU quotas; removed with the stack.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    /// Children not yet stopped, in start order.
    pub children: Vec<DescribedChild>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribedChild {
    pub name: String,
    #[serde(flatten)]
    pub process: ProcessIdentity,
}

impl Description {
    /// # Errors
    /// The directory has no readable `stack.json`.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(DESCRIPTION_FILE);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("cannot parse {}", path.display()))
    }

    /// Replaces the file atomically: a reader sees the old or the new one.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let (path, draft) = (dir.join(DESCRIPTION_FILE), dir.join(".stack.json"));
        let text = serde_json::to_vec_pretty(self).context("cannot describe the stack")?;
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
