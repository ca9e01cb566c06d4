//! `up --autoscale`: what is asked for, checked before anything starts, and the line of a decision in the log.

use std::{path::Path, time::SystemTime};

use anyhow::Context;
use api::Profile;
use autoscaler::Manifest;
use launcher::{Cores, QuotaChoice};
use serde::{Deserialize, Serialize};

use crate::{
    autoscale::{Controller, Options, REQUEST_CORES, Rule, Step, WORK_US, manifest},
    cli::UpArgs,
    stack::service::{Plan, Quota, ServiceStack},
};

/// How the replicas' quotas hold, as text; among the endpoints of an autoscaled stack.
pub const QUOTA: &str = "quota";
/// How many times as fast as this machine's clock the autoscaler's runs.
pub const HURRY: &str = "hurry";

/// Part of the supervisor's input.
#[derive(Debug, Serialize, Deserialize)]
pub struct Scaling {
    /// The text of the manifest.
    manifest: String,
    quota: QuotaChoice,
    hurry: u32,
}

impl Scaling {
    /// `None`: no scaling is asked for.
    ///
    /// # Errors
    /// The manifest cannot be followed, or the kernel cannot enforce the quotas that are asked for.
    pub fn of(args: &UpArgs) -> anyhow::Result<Option<Self>> {
        if !args.autoscale {
            return Ok(None);
        }
        args.quota.check()?;
        let manifest = match &args.hpa {
            Some(file) => checked(file).with_context(|| format!("cannot scale by {}", file.display()))?,
            None => manifest::ARTICLE.to_owned(),
        };
        Ok(Some(Self { manifest, quota: args.quota, hurry: args.hurry }))
    }

    /// Begins at the minimum, with sockets up to the maximum.
    ///
    /// # Errors
    /// The machine has no core.
    pub fn fill(&self, plan: &mut Plan) -> anyhow::Result<()> {
        let manifest = self.manifest()?;
        plan.replicas = u32::try_from(manifest.min_replicas())?;
        plan.slots = Some(u32::try_from(manifest.max_replicas())?);
        plan.quota = Some(Quota { choice: self.quota, cores: Cores::new(REQUEST_CORES)?, work_us: WORK_US });
        Ok(())
    }

    /// # Errors
    /// `Controller::start`
    pub async fn start(&self, profile: Profile, service: &mut ServiceStack) -> anyhow::Result<Controller> {
        let quota = service.stack.quotas().map_or_else(String::new, ToString::to_string);
        service.stack.set_endpoint(QUOTA, &quota)?;
        service.stack.set_endpoint(HURRY, &self.hurry.to_string())?;
        let (manifest, request) = (self.manifest()?, Cores::new(REQUEST_CORES)?);
        let options = Options { rule: Rule { manifest, request, hurry: self.hurry }, profile, sets: Vec::new() };
        Controller::start(options, service).await
    }

    fn manifest(&self) -> anyhow::Result<Manifest> {
        manifest::parse(&self.manifest)
    }
}

fn checked(file: &Path) -> anyhow::Result<String> {
    let text = manifest::read(file)?;
    manifest::parse(&text)?;
    Ok(text)
}

/// The line of a decision that changes the count.
pub fn line(step: &Step, now: SystemTime) -> Option<String> {
    let answer = &step.answer;
    if answer.replicas == answer.replicas_before {
        return None;
    }
    let used = answer.metrics.iter().find_map(|values| values.utilization_percent);
    let used = used.map_or_else(String::new, |percent| format!(", {percent} % of the CPU request used"));
    Some(format!(
        "{} autoscaler: {} → {} replicas{used}: {}",
        humantime::format_rfc3339_seconds(now),
        answer.replicas_before,
        answer.replicas,
        answer.explain.join(" ")
    ))
}
