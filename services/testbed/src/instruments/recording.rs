//! Records some requests of a step from the user to the store, and reads their traces afterwards.

use std::time::Duration;

use launcher::Description;
use loadtest::{StepOutcome, StepPlan};
use runtime::telemetry::TelemetryConfig;
use tracestore::{Client, Trace};

use crate::stack::service::{OTLP, TRACES};

/// Recorded requests a second: some hundreds a step, which is one of a hundred or fewer at the loads that matter.
const PER_S: f64 = 10.0;

/// The receiver of a stack.
pub struct Recording {
    client: Client,
    otlp: String,
}

/// For replicas: they record what the load generator samples, and no other requests, not even slow or failed ones: an overload has
/// thousands.
pub fn only_what_the_load_generator_chose() -> TelemetryConfig {
    TelemetryConfig { sample_ratio: 0.0, retrospective: false, logs: false, ..TelemetryConfig::default() }
}

/// Of the requests of this step, 0..=1.
pub fn sample_ratio(plan: &StepPlan) -> f64 {
    (PER_S / plan.offered_per_s()).min(1.0)
}

impl Recording {
    /// `None`: the stack has no receiver of traces.
    pub fn of(stack: &Description) -> anyhow::Result<Option<Self>> {
        let endpoint = |name| stack.endpoints.get(name).cloned();
        let Some((otlp, traces)) = endpoint(OTLP).zip(endpoint(TRACES)) else { return Ok(None) };
        Ok(Some(Self { client: Client::new(&traces)?, otlp }))
    }

    /// For the load generator.
    pub fn telemetry(&self, plan: &StepPlan) -> TelemetryConfig {
        TelemetryConfig {
            endpoint: self.otlp.clone(),
            sample_ratio: sample_ratio(plan),
            ..only_what_the_load_generator_chose()
        }
    }

    /// Forgets what was before.
    pub async fn begin(&self) -> anyhow::Result<()> {
        Ok(self.client.clear().await?)
    }

    /// The traces of the measured part.
    pub async fn end(&self, outcome: &StepOutcome) -> anyhow::Result<Vec<Trace>> {
        // What a process still holds is sent within its flush interval.
        let flush = Duration::from_millis(only_what_the_load_generator_chose().flush_ms);
        tokio::time::sleep(flush + flush / 2).await;
        let measured = outcome.started_ms * 1_000_000..outcome.ended_ms * 1_000_000;
        let mut traces = self.client.all().await?;
        traces.retain(|trace| trace.root().is_some_and(|root| measured.contains(&root.start_ns)));
        Ok(traces)
    }
}

#[cfg(test)]
mod tests {
    use loadtest::scenario::Scenario;

    use super::*;

    #[test]
    fn the_more_are_offered_the_fewer_of_them_are_recorded() {
        let scenario = Scenario::load("article").unwrap();
        let ratio = |users| sample_ratio(&StepPlan::of(&scenario, users, 0, "ids".as_ref(), "http://127.0.0.1:1"));
        assert_eq!((ratio(5), ratio(1000), ratio(5000)), (1.0, 0.01, 0.002));
    }

    #[test]
    fn what_it_tells_the_processes_is_valid() {
        let mut problems = Vec::new();
        only_what_the_load_generator_chose().validate(&mut problems);
        assert!(problems.is_empty(), "{problems:?}");
    }
}
