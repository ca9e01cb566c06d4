//! What an experiment found: the shape of its `report.json`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    manifest::Manifest,
    schema::{DataInfo, Knee, Law, Machine, Report, Revision, ScenarioInfo, Step, Waterfall},
    section::{Section, Verdict},
    validity::Validity,
};

/// All experiments answer this type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Findings {
    pub schema_version: u32,
    /// Its name. The report of an evaluation has no such key.
    pub experiment: String,
    /// When it began, RFC 3339.
    pub created: String,
    /// What was done, in words.
    pub what: String,
    /// A shortened run: shown, but not judged.
    pub quick: bool,
    pub machine: Machine,
    pub versions: BTreeMap<String, String>,
    pub revision: Revision,
    /// Steps of load; empty in an experiment without.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What the steps ran under, and the windows of load that are not steps; absent without both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<StepConditions>,
    pub sections: Vec<Section>,
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
    /// Of the windows of load that are not steps, by name.
    #[serde(default)]
    pub validity: BTreeMap<String, Validity>,
    #[serde(default)]
    pub remarks: Vec<String>,
}

/// As the fields of the same names in [`Report`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepConditions {
    pub scenario: ScenarioInfo,
    pub law: Law,
    pub data: DataInfo,
    pub model_version: u64,
    pub profiles: Vec<String>,
    pub repeats: u32,
    pub knees: Vec<Knee>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waterfalls: Vec<Waterfall>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
}

impl Findings {
    /// Takes over the steps of a report and all that belongs to them.
    #[must_use]
    pub fn with_steps(self, report: Report) -> Self {
        let conditions = StepConditions {
            scenario: report.scenario,
            law: report.law,
            data: report.data,
            model_version: report.model_version,
            profiles: report.profiles,
            repeats: report.repeats,
            knees: report.knees,
            waterfalls: report.waterfalls,
            changed: report.changed,
            manifest: report.manifest,
        };
        Self {
            machine: report.machine,
            versions: report.versions,
            steps: report.steps,
            conditions: Some(conditions),
            sections: [report.sections, self.sections].concat(),
            remarks: [report.remarks, self.remarks].concat(),
            ..self
        }
    }

    /// The steps as a report of their own, with the sections and verdicts of the experiment; `None` without steps.
    pub fn steps_report(&self) -> Option<Report> {
        self.report_of_conditions().filter(|report| !report.steps.is_empty())
    }

    /// As [`Findings::steps_report`], but also of an experiment that shows its conditions and no steps.
    pub(crate) fn report_of_conditions(&self) -> Option<Report> {
        let conditions = self.conditions.clone()?;
        Some(Report {
            schema_version: self.schema_version,
            created: self.created.clone(),
            scenario: conditions.scenario,
            law: conditions.law,
            machine: self.machine.clone(),
            versions: self.versions.clone(),
            revision: self.revision.clone(),
            data: conditions.data,
            model_version: conditions.model_version,
            quick: self.quick,
            profiles: conditions.profiles,
            repeats: conditions.repeats,
            steps: self.steps.clone(),
            knees: conditions.knees,
            verdicts: self.verdicts.clone(),
            sections: self.sections.clone(),
            waterfalls: conditions.waterfalls,
            changed: conditions.changed,
            remarks: self.remarks.clone(),
            seed: None,
            manifest: conditions.manifest,
        })
    }
}
