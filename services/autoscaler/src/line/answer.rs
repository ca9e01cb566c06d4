//! From a case to its answer.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    ExternalValue, Groups, MetricError, MetricValues, Pods, Proposal, Request, ResourceQuestion, external_replicas,
    limit_rate,
    line::{
        check::{self, Problem, START_MS},
        input::{Case, Kind},
        session::Session,
        step_answer::{StepAnswer, sentences, shown},
    },
    normalize, resource_replicas, stabilize,
};

/// A line of output. Fields that do not apply are left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Answer {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Mean over the pods that count, before missing and unready ones are added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_milli: Option<i64>,
    /// Of an external metric: the total, or per replica for a target per replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_milli: Option<i64>,
    /// After the windows, before rates and limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stabilized: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub conditions: BTreeMap<&'static str, String>,
    /// Left out if all pods count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupsAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance_up: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance_down: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<StepAnswer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_text: Option<String>,
    /// A sentence for each rule that changed the number.
    pub explain: Vec<String>,
}

/// How many pods count, and the names of the others, sorted, by the reason for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupsAnswer {
    pub ready: usize,
    pub unready: Vec<String>,
    pub missing: Vec<String>,
    pub ignored: Vec<String>,
}

/// # Errors
///
/// A field that the kind needs is missing, or its value cannot be.
pub fn answer(case: &Case) -> Result<Answer, Problem> {
    let mut answer = match case.kind {
        Kind::Resource => resource(case)?,
        Kind::External => external(case)?,
        Kind::Stabilize => of_windows(case)?,
        Kind::Rate => of_rates(case)?,
        Kind::Normalize => of_all_limits(case)?,
        Kind::Reconcile => steps(case)?,
    };
    answer.id.clone_from(&case.id);
    Ok(answer)
}

fn resource(case: &Case) -> Result<Answer, Problem> {
    let flags = check::flags(case)?;
    let question = ResourceQuestion {
        resource: check::needed("resource", case.resource)?,
        container: case.container.as_deref().unwrap_or(""),
        target: check::resource_target(case.target_utilization_percent, case.target_average_milli)?,
        tolerances: check::tolerances(case, &flags)?,
        flags: &flags,
    };
    let pods = check::pods(&case.pods, &case.orphan_metrics, START_MS)?;
    match resource_replicas(&question, &pods, check::current(case)?, START_MS) {
        Ok((proposal, groups)) => Ok(Answer {
            utilization_percent: proposal.values.utilization_percent,
            average_milli: proposal.values.average_milli,
            groups: names(&groups, &pods),
            ..proposed(&proposal)
        }),
        Err(failure) => {
            Ok(Answer { groups: failure.groups.and_then(|groups| names(&groups, &pods)), ..failed(&failure.error) })
        }
    }
}

fn names(groups: &Groups, pods: &Pods) -> Option<GroupsAnswer> {
    let of = |indices: &[usize]| {
        let mut names: Vec<String> = indices.iter().map(|index| pods.pods[*index].name.clone()).collect();
        names.sort_unstable();
        names
    };
    (!groups.are_all_ready()).then(|| GroupsAnswer {
        ready: groups.ready.len(),
        unready: of(&groups.unready),
        missing: of(&groups.missing),
        ignored: of(&groups.ignored),
    })
}

fn external(case: &Case) -> Result<Answer, Problem> {
    let flags = check::flags(case)?;
    let target = check::external_target(case.target_value_milli, case.target_average_milli)?;
    let tolerances = check::tolerances(case, &flags)?;
    let current = check::current(case)?;
    let status = check::count("status_replicas", case.status_replicas.unwrap_or(current))?;
    let pods = check::pods(&case.pods, &case.orphan_metrics, START_MS)?;
    let value = ExternalValue { series_milli: &case.values_milli, current, status };
    match external_replicas(&value, target, tolerances, &pods) {
        Ok(proposal) => {
            let MetricValues { average_milli, value_milli, .. } = proposal.values;
            Ok(Answer { usage_milli: value_milli.or(average_milli), ..proposed(&proposal) })
        }
        Err(error) => Ok(failed(&error)),
    }
}

fn of_windows(case: &Case) -> Result<Answer, Problem> {
    let (behavior, mut history) = (needed_behavior(case)?, check::history(case, START_MS)?);
    let (current, wanted) = (check::current(case)?, wanted(case)?);
    let stable = stabilize(&behavior, &mut history, current, wanted, START_MS);
    Ok(Answer {
        replicas: Some(stable.replicas),
        reason: Some(stable.reason),
        explain: sentences(stable.rule.as_slice()),
        ..Answer::default()
    })
}

fn of_rates(case: &Case) -> Result<Answer, Problem> {
    let (behavior, history) = (needed_behavior(case)?, check::history(case, START_MS)?);
    let (limits, current, wanted) = (check::limits(case)?, check::current(case)?, wanted(case)?);
    let rated = limit_rate(&behavior, &history, limits, current, wanted, START_MS);
    Ok(Answer {
        replicas: Some(rated.replicas),
        reason: Some(rated.reason),
        explain: sentences(rated.rule.as_slice()),
        ..Answer::default()
    })
}

fn of_all_limits(case: &Case) -> Result<Answer, Problem> {
    let (spec, mut history) = (check::spec(case)?, check::history(case, START_MS)?);
    let request = Request { current: check::current(case)?, wanted: wanted(case)?, now_ms: START_MS };
    let normalized = normalize(&spec, &mut history, request);
    Ok(Answer {
        replicas: Some(normalized.replicas),
        stabilized: Some(normalized.stabilized),
        conditions: shown(&history.conditions),
        explain: sentences(&normalized.rules),
        ..Answer::default()
    })
}

fn steps(case: &Case) -> Result<Answer, Problem> {
    let mut session = Session::new(case)?;
    let tolerances = session.tolerances();
    let (mut steps, mut pods) = (Vec::with_capacity(case.steps.len()), 0);
    for (at, input) in case.steps.iter().enumerate() {
        let of_step = |Problem { field, what }| Problem { field: format!("steps[{at}].{field}"), what };
        let (step, seen) = session.decide(input).map_err(of_step)?;
        pods += seen as u64;
        if pods > check::MOST_PODS_OF_STEPS {
            let what = format!("all steps together have more than {} pods", check::MOST_PODS_OF_STEPS);
            return Err(of_step(Problem::new("load", what)));
        }
        steps.push(step);
    }
    let numbered = |(at, step): (usize, &StepAnswer)| {
        step.explain.iter().map(|sentence| format!("Step {}: {sentence}", at + 1)).collect::<Vec<_>>()
    };
    Ok(Answer {
        tolerance_up: Some(tolerances.up),
        tolerance_down: Some(tolerances.down),
        explain: steps.iter().enumerate().flat_map(numbered).collect(),
        steps: Some(steps),
        ..Answer::default()
    })
}

fn wanted(case: &Case) -> Result<i32, Problem> {
    check::count("desired_replicas", check::needed("desired_replicas", case.desired_replicas)?)
}

fn needed_behavior(case: &Case) -> Result<crate::Behavior, Problem> {
    let input = case.behavior.as_ref().ok_or_else(|| Problem::new("behavior", "is missing"))?;
    check::behavior(input, &check::flags(case)?)
}

fn proposed(proposal: &Proposal) -> Answer {
    Answer { replicas: Some(proposal.replicas), explain: sentences(&proposal.rules), ..Answer::default() }
}

fn failed(error: &MetricError) -> Answer {
    Answer { error: Some(error.code()), error_text: Some(error.to_string()), ..Answer::default() }
}
