//! Explanations: a sentence for each rule that changed the number, with its figures.

use autoscaler::line;

fn explain(case: &str) -> Vec<String> {
    line::answer(&line::parse(case.as_bytes()).unwrap()).unwrap().explain
}

#[test]
fn a_step_that_a_window_and_a_policy_hold_back_says_so() {
    let case = r#"{"id":"x","kind":"reconcile","resource":"cpu","current_replicas":8,"min_replicas":8,"max_replicas":20,
        "metrics":[{"type":"Resource","target_utilization_percent":70}],
        "behavior":{"scale_up":{"stabilization_window_s":120,"policies":[{"type":"Pods","value":2,"period_s":60}]}},
        "steps":[{"load":{"request_milli":2000,"total_milli":16000}},
                 {"after_ms":120000,"load":{"request_milli":2000,"total_milli":16000}},
                 {"after_ms":60000,"set_replicas":30}]}"#;
    assert_eq!(
        explain(case),
        [
            "Step 1: Usage is 100 % of the request, the target is 70 % of the request: 1.43 × 8 pods, rounded up, is 12.",
            "Step 1: The metrics ask for 12; the lowest recommendation of the last 120 s makes it 8.",
            "Step 2: Usage is 100 % of the request, the target is 70 % of the request: 1.43 × 8 pods, rounded up, is 12.",
            "Step 2: The policy of 2 pods per 60 s, from 8, limits scaling out: 10 instead of 12.",
            "Step 3: The count 30 is above the maximum: it becomes 20 at once.",
        ]
    );
}

#[test]
fn nothing_that_changed_nothing_is_told() {
    let case = r#"{"id":"x","kind":"rate","current_replicas":8,"desired_replicas":9,"max_replicas":20,"behavior":{}}"#;
    assert_eq!(explain(case), [""; 0]);
}

#[test]
fn a_number_that_does_not_fit_is_told() {
    let case = r#"{"id":"x","kind":"external","current_replicas":3,"values_milli":[9223372036854775807,1],"target_average_milli":1}"#;
    assert_eq!(
        explain(case),
        [
            "A number does not fit Kubernetes' integers: it continues with a wrong or cut number.",
            "The metric is 9223372036854775.807, the target is 0.001 per replica: 9223372036854775.807 / 0.001, rounded up, is 2147483647.",
        ]
    );
}
