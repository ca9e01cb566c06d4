//! All metrics of an autoscaler.

use std::time::Duration;

use autoscaler::{
    ConditionType, Manifest,
    line::{StepAnswer, ValuesAnswer},
};
use launcher::Cores;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result};

/// A process starts within half a second; warming up for many users takes minutes.
const TIME_TO_READY_S: [f64; 12] = [0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0];

pub struct Metrics {
    desired: IntGauge,
    ready: IntGauge,
    starting: IntGauge,
    leaving: IntGauge,
    utilization: Gauge,
    decisions: IntCounterVec,
    conditions: IntGaugeVec,
    time_to_ready: Histogram,
    request: Cores,
}

/// Replicas of a stack by what they do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub desired: usize,
    pub ready: usize,
    pub starting: usize,
    pub leaving: usize,
}

impl Metrics {
    /// # Errors
    /// The registry has these metrics already.
    pub fn new(registry: &Registry, manifest: &Manifest, request: Cores) -> Result<Self> {
        let count = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("autoscaler_{name}_replicas"), help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let ratio = |name: &str, help: &str| {
            let gauge = Gauge::new(format!("autoscaler_{name}_ratio"), help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let decisions =
            Opts::new("autoscaler_decisions_total", "Decisions, by the direction in which they change the count");
        let conditions = Opts::new(
            "autoscaler_condition",
            "1 for the reason of the condition at the last decision, 0 for the reasons that it does not have",
        );
        let time_to_ready = HistogramOpts::new(
            "autoscaler_time_to_ready_seconds",
            "Time from the start of a replica's process until it is ready, without the first replicas",
        );
        let metrics = Self {
            desired: count("desired", "Replicas that the last decision wants")?,
            ready: count("ready", "Replicas that run and have been ready")?,
            starting: count("starting", "Replicas that run and have not been ready yet")?,
            leaving: count("leaving", "Replicas that have been asked to leave and have not ended")?,
            utilization: ratio(
                "cpu_utilization",
                "Mean used share of the CPU request at the last decision, by the pods that count",
            )?,
            decisions: IntCounterVec::new(decisions, &["direction"])?,
            conditions: IntGaugeVec::new(conditions, &["condition", "reason"])?,
            time_to_ready: Histogram::with_opts(time_to_ready.buckets(TIME_TO_READY_S.into()))?,
            request,
        };
        registry.register(Box::new(metrics.decisions.clone()))?;
        registry.register(Box::new(metrics.conditions.clone()))?;
        registry.register(Box::new(metrics.time_to_ready.clone()))?;
        count("min", "Minimum of the manifest")?.set(manifest.min_replicas().into());
        count("max", "Maximum of the manifest")?.set(manifest.max_replicas().into());
        let target = manifest
            .metrics()
            .iter()
            .find_map(|metric| used_share(metric.target_utilization_percent, metric.target_average_milli, request));
        ratio("target_utilization", "Used share of the CPU request that the manifest aims at")?
            .set(target.unwrap_or_default());
        let cores = Gauge::new("autoscaler_cpu_request_cores", "CPU request of each replica, which is also its limit")?;
        registry.register(Box::new(cores.clone()))?;
        cores.set(request.get());
        // Each series is there from the start.
        for direction in ["up", "down", "none"] {
            metrics.decisions.with_label_values(&[direction]);
        }
        for condition in ConditionType::ALL {
            for reason in condition.reasons() {
                metrics.conditions.with_label_values(&[condition.name(), reason]);
            }
        }
        Ok(metrics)
    }

    pub fn count(&self, counts: Counts) {
        let Counts { desired, ready, starting, leaving } = counts;
        for (gauge, count) in
            [(&self.desired, desired), (&self.ready, ready), (&self.starting, starting), (&self.leaving, leaving)]
        {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A decision without a valid metric leaves the utilisation as it was.
    pub fn decided(&self, answer: &StepAnswer) {
        let direction = match answer.replicas.cmp(&answer.replicas_before) {
            std::cmp::Ordering::Greater => "up",
            std::cmp::Ordering::Less => "down",
            std::cmp::Ordering::Equal => "none",
        };
        self.decisions.with_label_values(&[direction]).inc();
        if let Some(used) = answer.metrics.iter().find_map(|values| self.utilization_of(values)) {
            self.utilization.set(used);
        }
        for condition in ConditionType::ALL {
            // `Status/Reason`
            let shown = answer.conditions.get(condition.name()).and_then(|text| text.split_once('/'));
            for reason in condition.reasons() {
                let is_it = shown.is_some_and(|(_, shown)| shown == *reason);
                self.conditions.with_label_values(&[condition.name(), reason]).set(is_it.into());
            }
        }
    }

    pub fn became_ready(&self, after: Duration) {
        self.time_to_ready.observe(after.as_secs_f64());
    }

    fn utilization_of(&self, values: &ValuesAnswer) -> Option<f64> {
        used_share(values.utilization_percent, values.average_milli, self.request)
    }
}

/// Of the request: from a percentage of it, or else from thousandths of a core.
fn used_share(percent: Option<i32>, milli: Option<i64>, request: Cores) -> Option<f64> {
    let of_percent = percent.map(|percent| f64::from(percent) / 100.0);
    of_percent.or_else(|| milli.map(|milli| milli as f64 / 1_000.0 / request.get()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{autoscale::manifest, instruments::scrape::Reading};

    fn read(registry: &Registry) -> Reading {
        Reading::of([prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap().as_str()])
    }

    #[test]
    fn the_last_decision_is_shown_with_its_reasons() {
        let registry = Registry::new();
        let article = manifest::parse(manifest::ARTICLE).unwrap();
        let metrics = Metrics::new(&registry, &article, Cores::new(0.05).unwrap()).unwrap();
        let sum = |name: &str, labels: &[&str]| read(&registry).sum(name, labels);
        assert_eq!(
            ["min_replicas", "max_replicas", "target_utilization_ratio", "cpu_request_cores", "decisions_total"]
                .map(|name| sum(&format!("autoscaler_{name}"), &[])),
            [8.0, 20.0, 0.7, 0.05, 0.0]
        );
        let decide = |replicas, percent, limited: &str| {
            let conditions = BTreeMap::from([("ScalingLimited", limited.to_owned())]);
            let values = ValuesAnswer { utilization_percent: percent, average_milli: None, value_milli: None };
            metrics.decided(&StepAnswer {
                replicas_before: 8,
                proposed: 30,
                replicas,
                metrics: vec![values],
                conditions,
                error: None,
                error_text: None,
                explain: Vec::new(),
            });
        };
        let of = |reason: &str| sum("autoscaler_condition", &[&format!("reason=\"{reason}\"")]);
        decide(16, Some(140), "True/ScaleUpLimit");
        assert_eq!((of("ScaleUpLimit"), of("TooManyReplicas"), sum("autoscaler_condition", &[])), (1.0, 0.0, 1.0));
        assert_eq!(sum("autoscaler_cpu_utilization_ratio", &[]), 1.4);
        decide(8, None, "True/TooManyReplicas");
        assert_eq!((of("ScaleUpLimit"), of("TooManyReplicas"), sum("autoscaler_condition", &[])), (0.0, 1.0, 1.0));
        assert_eq!(sum("autoscaler_cpu_utilization_ratio", &[]), 1.4, "as it was last known");
        let decisions = |direction: &str| sum("autoscaler_decisions_total", &[&format!("direction=\"{direction}\"")]);
        assert_eq!((decisions("up"), decisions("down"), decisions("none")), (1.0, 0.0, 1.0));
    }

    #[test]
    fn an_average_is_a_share_of_the_request() {
        let request = Cores::new(0.05).unwrap();
        assert_eq!(used_share(None, Some(35), request), Some(0.7));
        assert_eq!(used_share(Some(50), Some(35), request), Some(0.5));
        assert_eq!(used_share(None, None, request), None);
    }
}
