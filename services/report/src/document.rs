//! A `report.json` of either kind, read again.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    findings::Findings,
    schema::{Report, SCHEMA_VERSION, Step},
};

/// The report of an evaluation, or of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    Evaluation(Box<Report>),
    Experiment(Box<Findings>),
}

impl Document {
    /// # Errors
    /// The file cannot be read, is no report, or has a schema that this program does not read.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("cannot use {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut value: Value = serde_json::from_str(text).context("it is no report: it is not JSON")?;
        let version = value.get("schema_version").and_then(Value::as_u64).context("it is no report")?;
        let is_experiment = value.get("experiment").is_some();
        let removed = ["recoveries", "outages", "soak"].into_iter().find(|field| value.get(field).is_some());
        match (version, is_experiment, removed) {
            // Version 2 removed fields from the report of an evaluation and left the others as they were.
            (1, false, None) => {}
            (1, true, _) => bail!(
                "its schema version is 1, and this program reads experiments of version {SCHEMA_VERSION}: run the experiment again, or read \
                 it with the revision that wrote it (revision.git in the file)"
            ),
            (1, false, Some(field)) => bail!(
                "its schema version is 1 and it has '{field}', which is a section since version {SCHEMA_VERSION}: make the report again, or \
                 read it with the revision that wrote it (revision.git in the file)"
            ),
            // Version 3 changed the measurements before a step's last one, see `upgrade`.
            (2, ..) => {}
            _ => ensure!(
                version == u64::from(SCHEMA_VERSION),
                "its schema version is {version}, and this program reads versions up to {SCHEMA_VERSION}: use the revision of the testbed \
                 that wrote it (revision.git in the file)"
            ),
        }
        if version < u64::from(SCHEMA_VERSION) {
            upgrade(&mut value)?;
        }
        if is_experiment {
            return Ok(Self::Experiment(serde_json::from_value(value).context("it is no report of an experiment")?));
        }
        Ok(Self::Evaluation(serde_json::from_value(value).context("it is no report")?))
    }

    /// The steps of load in it; `None` of an experiment without.
    pub fn into_steps(self) -> Option<Report> {
        match self {
            Self::Evaluation(report) => Some(*report),
            Self::Experiment(findings) => findings.steps_report(),
        }
    }
}

/// Before version 3, `discarded` had the reasons of each earlier measurement as one text. Each becomes a step without figures.
fn upgrade(value: &mut Value) -> Result<()> {
    let steps = value.get_mut("steps").and_then(Value::as_array_mut);
    for attempt in steps.into_iter().flatten().filter_map(|step| step.get_mut("discarded")?.as_array_mut()).flatten() {
        if let Some(reasons) = attempt.as_str() {
            *attempt = serde_json::to_value(Step { invalid_reasons: vec![reasons.to_owned()], ..Step::default() })?;
        }
    }
    Ok(())
}
