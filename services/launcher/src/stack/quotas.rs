//! CPU quotas of a stack's children.

use std::fs::File;

use anyhow::{Context as _, bail};

use super::{ChildId, Spec, Stack};
use crate::quota::{Cores, CpuUsage, KernelQuotas, QuotaChoice, QuotaMode};

impl Stack {
    /// Decides how the quotas of further children hold (`Spec::cores`), and makes the stack's cgroup if the kernel enforces them. To be called
    /// before the first child: in cgroup v2 this process may have to move, and its children do not move with it.
    ///
    /// # Errors
    /// `QuotaChoice::Kernel`, and cgroups are not usable: the reason. Or `stack.json` cannot be written.
    pub fn set_quotas(&mut self, choice: QuotaChoice) -> anyhow::Result<&QuotaMode> {
        let name = self.dir.file_name().and_then(|name| name.to_str()).context("the stack's directory has no name")?;
        let mode = QuotaMode::choose(choice, || {
            let quotas = KernelQuotas::find(name)?;
            // Before they are made: if this process is killed in between, `down` finds them.
            self.description.cgroups = quotas.directories();
            self.description.write(&self.dir).map_err(|error| format!("{error:#}"))?;
            quotas.open()
        })?;
        Ok(self.quotas.insert(mode))
    }

    /// How the children's quotas hold. None before `set_quotas`.
    pub fn quotas(&self) -> Option<&QuotaMode> {
        self.quotas.as_ref()
    }

    /// CPU and throttled time of a child with a kernel quota. Restarting a child sets them to zero.
    ///
    /// # Errors
    /// The child was stopped or has no kernel quota, or its figures cannot be read.
    pub fn cpu_usage(&self, id: ChildId) -> anyhow::Result<CpuUsage> {
        let child = self.child(id).context("the child was stopped")?;
        let Some(QuotaMode::Kernel(quotas)) = &self.quotas else {
            bail!("{} has no kernel quota", child.spec_name);
        };
        quotas.usage(&child.spec_name)
    }

    /// Changes the quota of a child that was started with one: a server that started and got its data with more. Does nothing if quotas are
    /// modelled.
    ///
    /// # Errors
    /// The child was stopped or started without a quota, or the kernel refuses this one.
    pub fn set_cores(&self, id: ChildId, cores: Cores) -> anyhow::Result<()> {
        let name = &self.child(id).context("the child was stopped")?.spec_name;
        match &self.quotas {
            Some(QuotaMode::Kernel(quotas)) => quotas
                .change(name, cores)
                .with_context(|| format!("cannot give {name} a quota of {} cores", cores.get())),
            Some(QuotaMode::Modelled { .. }) => Ok(()),
            None => bail!("{name} has no quota: call set_quotas first"),
        }
    }

    /// The cgroups that a new child enters. None if its quota is modelled.
    pub(super) fn cgroups_of(&self, spec: &Spec) -> anyhow::Result<Vec<File>> {
        match (spec.cores, &self.quotas) {
            (None, _) | (Some(_), Some(QuotaMode::Modelled { .. })) => Ok(Vec::new()),
            (Some(cores), Some(QuotaMode::Kernel(quotas))) => quotas
                .enter(&spec.name, cores)
                .with_context(|| format!("cannot give {} a quota of {} cores", spec.name, cores.get())),
            (Some(_), None) => bail!("{} has a CPU quota, but the stack has none: call set_quotas first", spec.name),
        }
    }

    pub(super) fn remove_cgroups_of(&self, child: &str) -> anyhow::Result<()> {
        match &self.quotas {
            Some(QuotaMode::Kernel(quotas)) => quotas.remove_child(child),
            _ => Ok(()),
        }
    }
}
