//! The rules of the experiment, as HorizontalPodAutoscalers. Pure.

use anyhow::Context as _;
use autoscaler::Manifest;
use launcher::Cores;

use crate::autoscale::{REQUEST_CORES, Rule, manifest};

/// External metric of [`in_flight`]: requests that are waiting or being answered.
pub const IN_FLIGHT: &str = "requests_in_flight";

/// Fewest and most replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub min: u32,
    pub max: u32,
}

/// The article's rule between these limits. With equal limits the count is fixed.
///
/// # Errors
/// A limit is not positive, or the fewest are more than the most.
pub fn article(limits: Limits, hurry: u32) -> anyhow::Result<Rule> {
    rule(manifest::ARTICLE, limits, hurry)
}

/// The article's target with Kubernetes' behaviour: without a window for scaling out.
///
/// # Errors
/// As [`article`].
pub fn kubernetes_default(limits: Limits, hurry: u32) -> anyhow::Result<Rule> {
    let (text, _) = manifest::ARTICLE.split_once("  behavior:").context("the article's rule has no behavior")?;
    rule(text, limits, hurry)
}

/// One request in flight for each replica, with Kubernetes' behaviour.
///
/// # Errors
/// As [`article`].
pub fn in_flight(limits: Limits, hurry: u32) -> anyhow::Result<Rule> {
    let (head, _) = manifest::ARTICLE.split_once("  metrics:").context("the article's rule has no metrics")?;
    let metric = format!("{{metric: {{name: {IN_FLIGHT}}}, target: {{type: AverageValue, averageValue: 1}}}}");
    rule(&format!("{head}  metrics:\n    - type: External\n      external: {metric}\n"), limits, hurry)
}

fn rule(text: &str, Limits { min, max }: Limits, hurry: u32) -> anyhow::Result<Rule> {
    let text = text
        .replace("minReplicas: 8", &format!("minReplicas: {min}"))
        .replace("maxReplicas: 20", &format!("maxReplicas: {max}"));
    Ok(Rule { manifest: Manifest::parse(&text)?, request: Cores::new(REQUEST_CORES)?, hurry })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { min: 8, max: 20 };

    #[test]
    fn the_rule_is_the_articles_between_the_given_limits() {
        for (min, max) in [(8, 8), (8, 20), (20, 20), (2, 700)] {
            let case = article(Limits { min, max }, 10).unwrap().case("x", 8);
            assert_eq!((case.min_replicas, case.max_replicas), (Some(min as i32), Some(max as i32)));
            let metric = &case.metrics.unwrap()[0];
            assert_eq!(metric.target_utilization_percent, Some(70));
            assert_eq!(case.behavior.unwrap().scale_up.unwrap().stabilization_window_s, Some(120));
        }
        assert!(article(Limits { min: 9, max: 8 }, 10).is_err());
    }

    #[test]
    fn the_other_rules_differ_in_behaviour_or_metric() {
        let case = kubernetes_default(LIMITS, 1).unwrap().case("x", 8);
        assert!(case.behavior.is_none_or(|behavior| behavior.scale_up.is_none()));
        assert_eq!(case.metrics.unwrap()[0].target_utilization_percent, Some(70));
        let case = in_flight(LIMITS, 1).unwrap().case("x", 8);
        let metric = &case.metrics.unwrap()[0];
        assert_eq!((metric.name.as_deref(), metric.target_average_milli), (Some(IN_FLIGHT), Some(1_000)));
        assert_eq!((case.min_replicas, case.max_replicas), (Some(8), Some(20)));
    }
}
