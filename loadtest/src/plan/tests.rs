use super::*;
use crate::curve::Point;

pub(crate) fn plan() -> StepPlan {
    StepPlan {
        name: "test".into(),
        base_url: "http://127.0.0.1:8080".into(),
        users: 10,
        curve: None,
        interval_ms: 1000,
        arrival_grid_ms: 0,
        timeout_ms: 3000,
        retry: None,
        criticality: None,
        slo_ms: None,
        warm_up_ms: 0,
        measure_ms: 1000,
        unknown_share: 0.5,
        known: KnownIds::Once,
        known_ids: "ids.txt".into(),
        seed: 1,
        worker_threads: 1,
        metrics: None,
        telemetry: None,
        arrivals: Arrivals::Closed,
        target: None,
    }
}

#[test]
fn only_loopback_is_accepted() {
    for good in ["http://127.0.0.1:8080", "http://127.1.2.3", "http://[::1]:80/", "http://127.0.0.1:1/prefix"] {
        StepPlan { base_url: good.into(), ..plan() }.check().unwrap();
    }
    for bad in [
        "http://example.org",
        "http://localhost:8080",
        "https://127.0.0.1",
        "http://10.0.0.1:8080",
        "http://0.0.0.0:8080",
        "http://127.0.0.1.example.org",
        "http://127.0.0.1@example.org/",
        "127.0.0.1:8080",
        "",
    ] {
        assert!(StepPlan { base_url: bad.into(), ..plan() }.check().is_err(), "{bad}");
    }
}

fn with_curve(users: u32, points: &[(u64, u32)]) -> StepPlan {
    let points = points.iter().map(|&(at_ms, users)| Point { at_ms, users }).collect();
    StepPlan { users, curve: Some(Curve::new(points).unwrap()), ..plan() }
}

#[test]
fn a_curve_lies_within_the_step() {
    with_curve(10, &[(0, 10), (0, 20_000), (1000, 20_000)]).check().unwrap();
    with_curve(0, &[(0, 0), (1000, 1)]).check().unwrap();
    for (users, points, reason) in [
        (9, &[(0, 10)], "users must be the first value of the curve, 10, is 9"),
        (10, &[(1001, 10)], "within the measured part of 1000 ms, the last one is at 1001 ms"),
    ] {
        let error = with_curve(users, points).check().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    for users in [0, 20_001] {
        let error = StepPlan { users, ..plan() }.check().unwrap_err().to_string();
        assert!(error.contains("users must be 1..=20000"), "{error}");
    }
}

#[test]
fn users_and_rate_are_those_of_the_curve() {
    let surge = StepPlan { warm_up_ms: 500, ..with_curve(10, &[(200, 10), (200, 40), (700, 40), (700, 10)]) };
    assert_eq!(surge.all_users(), 40);
    assert_eq!([0, 699, 700, 1199, 1200, 1500].map(|ms| surge.users_at(ms)), [10, 10, 40, 40, 10, 10]);
    assert_eq!(surge.offered_per_s(), 25.0);
    assert_eq!((plan().all_users(), plan().users_at(700), plan().offered_per_s()), (10, 10, 10.0));
}

#[test]
fn the_slo_has_a_range() {
    for (slo_ms, good) in [(0, false), (1, true), (60_000, true), (60_001, false)] {
        assert_eq!(StepPlan { slo_ms: Some(slo_ms), ..plan() }.check().is_ok(), good, "{slo_ms}");
    }
}

#[test]
fn a_plan_survives_json_and_a_misspelt_field_does_not() {
    let text = serde_json::to_string(&plan()).unwrap();
    assert_eq!(serde_json::from_str::<StepPlan>(&text).unwrap(), plan());
    assert!(serde_json::from_str::<StepPlan>(&text.replace("\"users\"", "\"user\"")).is_err());
    let curve = StepPlan { slo_ms: Some(200), ..with_curve(10, &[(0, 10), (500, 20)]) };
    let text = serde_json::to_string(&curve).unwrap();
    assert_eq!(serde_json::from_str::<StepPlan>(&text).unwrap(), curve);
}

#[test]
fn the_log_can_be_read_again() {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
    histogram.record_n(1000, 5).unwrap();
    let seconds = std::time::Duration::from_secs;
    let text = hdr_log("s", seconds(1_700_000_000), seconds(60), &[("all", &histogram)]).unwrap();
    let entries: Vec<_> = IntervalLogIterator::new(text.as_bytes()).map(|entry| entry.unwrap()).collect();
    let interval = entries.iter().find_map(|entry| match entry {
        LogEntry::Interval(interval) => Some(interval),
        _ => None,
    });
    let interval = interval.expect("one interval");
    assert_eq!(interval.tag().unwrap().as_str(), "all");
    assert_eq!(interval.duration(), seconds(60));
}

#[test]
fn a_target_is_bounded_by_the_plans_highest_rate() {
    let target = |allow_remote| Target {
        template: "/x/{id}".into(),
        addresses: vec!["192.0.2.1:80".parse().unwrap()],
        allow_remote,
    };
    let plan = |users, target| StepPlan { users, unknown_share: 0.0, target: Some(target), ..plan() };
    let good = plan(5000, target(true));
    good.check().unwrap();
    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<StepPlan>(&text).unwrap(), good);
    let error = |plan: StepPlan| plan.check().unwrap_err().to_string();
    assert!(error(plan(5000, target(false))).contains("192.0.2.1:80 is not a loopback address"));
    assert!(error(plan(5001, target(true))).contains("at most 5000 requests/s"));
    assert!(error(StepPlan { unknown_share: 0.1, ..good.clone() }).contains("no unknown ids"));
    let surge = with_curve(10, &[(0, 10), (500, 5001)]);
    let surge = StepPlan { curve: surge.curve, ..plan(10, target(true)) };
    assert!(error(surge).contains("5001 are planned"));
}
