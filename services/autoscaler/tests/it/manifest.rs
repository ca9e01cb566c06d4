//! Manifests of HorizontalPodAutoscalers: what they fill in, and what is refused.

use autoscaler::{Manifest, line};
use proptest::prelude::*;

const MANIFEST: &str = "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: recommendation
  managedFields: [{manager: kubectl}]
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: recommendation}
  minReplicas: 8
  maxReplicas: 20
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: 70}
    - type: External
      external:
        metric: {name: lag, selector: {matchLabels: {topic: behaviour}}}
        target: {type: AverageValue, averageValue: 1500m}
  behavior:
    scaleUp:
      stabilizationWindowSeconds: 120
      tolerance: 0.05
      policies:
        - {type: Percent, value: 50, periodSeconds: 60}
    scaleDown:
      selectPolicy: Min
status: {currentReplicas: 8}
";

fn filled(case: &str) -> line::Case {
    let mut case = line::parse(case.as_bytes()).unwrap();
    Manifest::parse(MANIFEST).unwrap().fill(&mut case);
    case
}

#[test]
fn a_case_takes_what_it_leaves_out() {
    let case = filled(r#"{"id":"a","kind":"reconcile","current_replicas":8,"steps":[]}"#);
    assert_eq!((case.min_replicas, case.max_replicas), (Some(8), Some(20)));
    let metrics = case.metrics.clone().unwrap();
    assert_eq!(metrics[0].target_utilization_percent, Some(70));
    assert_eq!((metrics[1].name.as_deref(), metrics[1].target_average_milli), (Some("lag"), Some(1_500)));
    let up = case.behavior.clone().unwrap().scale_up.unwrap();
    assert_eq!((up.stabilization_window_s, up.tolerance), (Some(120), Some(0.05)));
    let answer = line::answer(&case).unwrap();
    assert_eq!((answer.tolerance_up, answer.tolerance_down), (Some(0.05), Some(0.1)));

    // Its own values stay.
    let case =
        filled(r#"{"id":"a","kind":"reconcile","current_replicas":8,"max_replicas":4,"metrics":[],"behavior":{}}"#);
    assert_eq!((case.min_replicas, case.max_replicas, case.metrics.unwrap().len()), (None, Some(4), 0));
    assert_eq!(case.behavior.unwrap().scale_up, None);

    let case = filled(r#"{"id":"a","kind":"resource","current_replicas":8}"#);
    assert_eq!((case.target_utilization_percent, case.tolerance_up, case.tolerance_down), (Some(70), Some(0.05), None));
    let case = filled(r#"{"id":"a","kind":"external","current_replicas":8}"#);
    assert_eq!(case.target_average_milli, Some(1_500));
}

#[test]
fn without_metrics_the_target_is_80_percent_of_cpu() {
    let text = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nspec: {maxReplicas: 3}\n";
    let mut case = line::parse(br#"{"id":"a","kind":"reconcile","current_replicas":1}"#).unwrap();
    Manifest::parse(text).unwrap().fill(&mut case);
    assert_eq!(case.metrics.unwrap()[0].target_utilization_percent, Some(80));
}

#[test]
fn what_the_api_server_refuses_is_refused_with_line_and_field() {
    for (from, to, expected) in [
        (
            "autoscaling/v2\n",
            "autoscaling/v1\n",
            "line 1: apiVersion: \"autoscaling/v1\" instead of \"autoscaling/v2\"",
        ),
        ("HorizontalPodAutoscaler", "Deployment", "line 2: kind: \"Deployment\""),
        ("apiVersion: autoscaling/v2\n", "", "apiVersion: is missing"),
        ("  maxReplicas: 20\n", "", "spec.maxReplicas: is missing"),
        ("maxReplicas: 20", "maxReplicas: 0", "line 9: spec.maxReplicas: 0 is not positive"),
        ("maxReplicas: 20", "maxReplicas: 7", "line 8: spec.minReplicas: 8 is above maxReplicas, which is 7"),
        ("minReplicas: 8", "minReplicas: -1", "line 8: spec.minReplicas: -1 is negative"),
        ("minReplicas: 8", "minReplicas: many", "line 8"),
        ("minReplicas: 8", "minReplica: 8", "minReplica"),
        (
            "averageUtilization: 70",
            "averageUtilization: 0",
            "spec.metrics[0].resource.target.averageUtilization: is not positive",
        ),
        ("averageUtilization: 70", "averageValue: -1", "\"-1\" is not positive"),
        (
            "averageUtilization: 70",
            "averageUtilization: 70, averageValue: 1",
            "must have either averageUtilization or averageValue",
        ),
        ("averageValue: 1500m", "averageValue: lots", "\"lots\" is not a quantity"),
        ("averageValue: 1500m", "averageValue: 10E", "\"10E\" is too large"),
        ("type: Utilization", "type: Percent", "spec.metrics[0].resource.target.type"),
        ("name: cpu", "name: gpu", "spec.metrics[0].resource.name: \"gpu\" is neither cpu nor memory"),
        ("    - type: External\n", "    - type: Pods\n", "Pods metrics are not planned"),
        ("    - type: External\n", "    - type: Resource\n", "spec.metrics[1]: must have exactly the source"),
        (
            "stabilizationWindowSeconds: 120",
            "stabilizationWindowSeconds: 3601",
            "line 21: spec.behavior.scaleUp.stabilizationWindowSeconds",
        ),
        ("stabilizationWindowSeconds: 120", "stabilisationWindowSeconds: 120", "stabilisationWindowSeconds"),
        ("tolerance: 0.05", "tolerance: -1m", "line 22: spec.behavior.scaleUp.tolerance: is negative"),
        ("periodSeconds: 60", "periodSeconds: 1801", "policies[0].periodSeconds: 1801 is not in 1..=1800"),
        ("value: 50", "value: 0", "policies[0].value: 0 is not positive"),
        ("selectPolicy: Min", "selectPolicy: Least", "Least"),
        ("selectPolicy: Min", "policies: []", "spec.behavior.scaleDown.policies: must have at least one policy"),
        ("metadata:", "metadata: [", "line"),
    ] {
        let text = MANIFEST.replacen(from, to, 1);
        assert_ne!(text, MANIFEST, "{from}");
        let error = Manifest::parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

proptest! {
    #[test]
    fn no_damaged_manifest_panics(at in any::<prop::sample::Index>(), byte in 0_u8..128) {
        let mut bytes = MANIFEST.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = Manifest::parse(text);
        }
    }

    #[test]
    fn no_quantity_panics(text in "[-+]?[0-9.]{0,30}[a-zA-Z]{0,3}[-+]?[0-9]{0,12}") {
        if let Ok(quantity) = autoscaler::Quantity::parse(&text) {
            let _ = (quantity.milli(), quantity.approximate(), quantity.to_f64());
        }
    }
}
