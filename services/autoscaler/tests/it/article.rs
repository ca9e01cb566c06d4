//! The article's rule as an autoscaler: 8 to 20 replicas, above 70 % of CPU for two minutes. Steps every 15 s with kept history.

use autoscaler::{
    Behavior, Container, Flags, History, Metric, Observation, Phase, Pod, Pods, Ready, Resource, ResourceTarget, Rule,
    Rules, Sample, Spec, Status, Usage, reconcile,
};

const TICK_MS: i64 = 15_000;

fn spec() -> Spec {
    let flags = Flags::default();
    Spec {
        min_replicas: 8,
        max_replicas: 20,
        resource: Resource::Cpu,
        metrics: vec![Metric::Resource { target: ResourceTarget::UtilizationPercent(70) }],
        behavior: Some(Behavior {
            up: Rules { window_s: 120, ..Rules::default_up() },
            down: Rules::default_down(&flags),
        }),
        flags,
    }
}

/// `replicas` pods of 2 CPU, each of them busy for `percent`.
fn busy(replicas: i32, percent: i64, now_ms: i64) -> Observation {
    let pod = |number: i32| Pod {
        name: format!("p{number}"),
        phase: Phase::Running,
        deleted: false,
        started_ms: Some(now_ms - 3_600_000),
        ready: Some(Ready { status: Status::True, changed_ms: Some(now_ms - 3_590_000) }),
        containers: vec![Container { name: "app".into(), request_milli: Some(2_000), sidecar: false }],
        sample: Some(Sample {
            at_ms: now_ms,
            window_ms: 15_000,
            containers: vec![Usage { container: "app".into(), milli: Some(percent * 20) }],
        }),
    };
    Observation { pods: Pods { pods: (0..replicas).map(pod).collect(), orphans: Vec::new() }, ..Observation::default() }
}

/// Runs steps every `tick_ms` for ten minutes of warm-up at 50 % and then as `percent_at` (time since the end of warm-up) says. Returns
/// when the count first changed, since the end of warm-up, and to what.
fn first_change(tick_ms: i64, phase_ms: i64, percent_at: impl Fn(i64) -> i64) -> Option<(i64, i32)> {
    const WARM_UP_MS: i64 = 600_000;
    let (spec, mut history) = (spec(), History::default());
    let mut now_ms = phase_ms - TICK_MS;
    loop {
        now_ms += tick_ms;
        let since = now_ms - WARM_UP_MS;
        let percent = if since < 0 { 50 } else { percent_at(since) };
        let decision = reconcile(&spec, &mut history, now_ms, 8, &busy(8, percent, now_ms));
        if decision.replicas != 8 {
            return Some((since, decision.replicas));
        }
        if since > 1_200_000 {
            return None;
        }
    }
}

#[test]
fn a_rise_fires_105_to_135_seconds_later_by_the_phase_of_the_ticks() {
    let mut fired = Vec::new();
    for phase_ms in (0..TICK_MS).step_by(500) {
        let fires_after = |tick_ms| {
            let (since, replicas) = first_change(tick_ms, phase_ms, |_| 100).unwrap();
            assert_eq!(replicas, 12, "8 pods at 100 % against 70 %");
            since
        };
        // Exact ticks: 120 s after the last low recommendation.
        let exact = fires_after(TICK_MS);
        assert!((105_000..120_000).contains(&exact), "phase {phase_ms}: {exact}");
        // Ticks that drift: one step later.
        let drifting = fires_after(TICK_MS + 1);
        assert!((105_000..=135_000).contains(&drifting), "phase {phase_ms}: {drifting}");
        // Half of the ticks come a little early: the window still holds.
        let early = fires_after(TICK_MS - 1);
        assert!((105_000..=135_000).contains(&early), "phase {phase_ms}: {early}");
        fired.extend([exact, drifting, early]);
    }
    assert!(fired.iter().any(|at| *at < 106_000) && fired.iter().any(|at| *at > 125_000), "{fired:?}");
}

#[test]
fn a_dip_inside_the_two_minutes_prevents_scaling() {
    let dips = |since: i64| if since % 105_000 < TICK_MS { 50 } else { 100 };
    assert_eq!(first_change(TICK_MS, 0, dips), None);
    // Without the dips the same load fires.
    assert!(first_change(TICK_MS, 0, |_| 100).is_some());
}

#[test]
fn nothing_scales_in_during_the_first_window() {
    let spec = Spec { min_replicas: 1, ..spec() };
    let mut history = History::default();
    for step in 0..20 {
        let now_ms = step * TICK_MS;
        let decision = reconcile(&spec, &mut history, now_ms, 8, &busy(8, 1, now_ms));
        assert_eq!((decision.replicas, decision.proposed), (8, 1), "step {step}");
        let held = |rule: &Rule| matches!(rule, Rule::Stabilized { wanted: 1, replicas: 8, window_ms: 300_000, .. });
        assert!(decision.rules.iter().any(held), "{:?}", decision.rules);
    }
    let decision = reconcile(&spec, &mut history, 300_000, 8, &busy(8, 1, 300_000));
    assert_eq!(decision.replicas, 1, "the first recommendation is exactly as old as the window");
}

#[test]
fn a_small_excess_changes_nothing() {
    // 77.9 % counts as 77 %, which is 1.1 times the target: within the tolerance.
    assert_eq!(first_change(TICK_MS, 0, |_| 77), None);
    assert_eq!(first_change(TICK_MS, 0, |_| 78), Some((105_000, 9)));
}

/// The history needs no more slots than there are steps in the longest window.
#[test]
fn the_history_is_bounded() {
    let (spec, mut history) = (spec(), History::default());
    let mut replicas = 8;
    for step in 0..10_000 {
        let now_ms = step * TICK_MS;
        let percent = if step % 40 < 20 { 100 } else { 10 };
        replicas = reconcile(&spec, &mut history, now_ms, replicas, &busy(replicas, percent, now_ms)).replicas;
    }
    assert!(history.recommendations.len() <= 22, "{}", history.recommendations.len());
    assert!(history.scale_ups.len() + history.scale_downs.len() <= 6);
}
