//! A case whose steps come one after the other: the whole case of `testbed plan`, or a live autoscaler that does not know its next step yet.

use crate::{
    History, MetricError, Pods, Spec, Tolerances,
    line::{
        BadLine,
        check::{self, Problem, START_MS},
        input::{Case, StepInput},
        step_answer::{self, StepAnswer},
    },
    reconcile,
};

/// An autoscaler between two of its steps.
#[derive(Debug, Clone)]
pub struct Session {
    spec: Spec,
    history: History,
    now_ms: i64,
    replicas: i32,
    /// Of the last load, to be used again.
    spare: Pods,
}

impl Session {
    /// Begins with the limits, metrics, history and count of a case of kind `reconcile`. Its steps are left out.
    ///
    /// # Errors
    ///
    /// A field that the kind needs is missing, or its value cannot be.
    pub fn start(case: &Case) -> Result<Self, BadLine> {
        Self::new(case).map_err(BadLine)
    }

    /// Decides the next step.
    ///
    /// # Errors
    ///
    /// A value cannot be.
    pub fn step(&mut self, input: &StepInput) -> Result<StepAnswer, BadLine> {
        self.decide(input).map(|(answer, _)| answer).map_err(BadLine)
    }

    pub(super) fn new(case: &Case) -> Result<Self, Problem> {
        let (spec, history) = (check::spec(case)?, check::history(case, START_MS)?);
        Ok(Self { spec, history, now_ms: START_MS, replicas: check::current(case)?, spare: Pods::default() })
    }

    pub(super) fn tolerances(&self) -> Tolerances {
        self.spec.tolerances()
    }

    /// Also answers how many pods the step has.
    pub(super) fn decide(&mut self, input: &StepInput) -> Result<(StepAnswer, usize), Problem> {
        if input.after_ms < 0 {
            return Err(Problem::new("after_ms", format!("{} is negative", input.after_ms)));
        }
        self.now_ms = self.now_ms.saturating_add(input.after_ms);
        if let Some(min) = input.set_min_replicas {
            self.spec.min_replicas = check::count("set_min_replicas", min)?;
            if min > self.spec.max_replicas {
                let max = self.spec.max_replicas;
                return Err(Problem::new("set_min_replicas", format!("{min} is above max_replicas, which is {max}")));
            }
        }
        let current = check::count("set_replicas", input.set_replicas.unwrap_or(self.replicas))?;
        let seen = check::observation(input, current, self.now_ms, std::mem::take(&mut self.spare))?;
        let pods = seen.pods.pods.len();
        let decision = reconcile(&self.spec, &mut self.history, self.now_ms, current, &seen);
        self.replicas = decision.replicas;
        if input.load.is_some() {
            self.spare = seen.pods;
        }
        let answer = StepAnswer {
            replicas_before: decision.replicas_before,
            proposed: decision.proposed,
            replicas: decision.replicas,
            metrics: decision.metrics.iter().map(step_answer::values).collect(),
            conditions: step_answer::shown(&decision.conditions),
            error: decision.error.as_ref().map(MetricError::code),
            error_text: decision.error.as_ref().map(MetricError::to_string),
            explain: step_answer::sentences(&decision.rules),
        };
        Ok((answer, pods))
    }
}
