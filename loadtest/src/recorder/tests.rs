use super::*;
use crate::{
    arrivals::{Arrivals, Open, Spacing},
    figures::Tail,
    plan::Phase,
    retry::{Backoff, Budget, Retry},
};

/// One second of warm-up, two measured; one user a second.
fn plan() -> StepPlan {
    StepPlan { users: 1, warm_up_ms: 1000, measure_ms: 2000, ..crate::plan::tests::plan() }
}

fn request(recorder: &mut Recorder, known: bool, times_ms: [u64; 3], result: Result<Source, &'static str>) {
    let [planned_us, sent_us, ended_us] = times_ms.map(|ms| ms * 1000);
    recorder.sent(planned_us, sent_us);
    let result = result.map(Some).map_err(Cow::Borrowed);
    recorder.completed(Completed { planned_us, ended_us, known, criticality: None, result });
}

fn outcome(recorder: Recorder) -> StepOutcome {
    recorder.outcome(&plan(), std::time::Duration::from_secs(1_700_000_000), 3).unwrap()
}

#[test]
fn a_request_belongs_to_the_window_by_its_end() {
    let mut recorder = Recorder::new(&plan()).unwrap();
    request(&mut recorder, true, [100, 101, 999], Ok(Source::Cache)); // before
    request(&mut recorder, true, [900, 902, 1000], Ok(Source::Cache)); // sent before, ended within
    request(&mut recorder, false, [2500, 2510, 2999], Ok(Source::Popular)); // within
    request(&mut recorder, true, [2900, 2900, 3000], Ok(Source::Store)); // sent within, ended after
    let skipped = [999_999, 1_000_000, 2_999_999, 3_000_000];
    assert_eq!(recorder.skipped(skipped.into_iter(), 3_000_000), 4);
    let outcome = outcome(recorder);
    assert_eq!((outcome.sent, outcome.answered, outcome.good, outcome.skipped), (2, 2, 2, 2));
    assert_eq!((outcome.known_answered, outcome.known_sources.cache, outcome.unknown_sources.popular), (1, 1, 1));
    assert_eq!((outcome.started_ms, outcome.ended_ms), (1_700_000_001_000, 1_700_000_003_000));
    assert_eq!((outcome.offered_per_s, outcome.answered_per_s, outcome.repeated_ids), (1.0, 1.0, 3));
    // From the plan, not from the send: 100 ms and 499 ms.
    assert!((outcome.latency.mean_ms - 299.5).abs() < 1.0, "{:?}", outcome.latency);
    assert!((outcome.send_lag.max_ms - 10.0).abs() < 0.1, "{:?}", outcome.send_lag);
    let series: Vec<_> = outcome.series.iter().map(|second| (second.second, second.sent, second.good)).collect();
    assert_eq!(series, [(0, 0, 1), (1, 2, 1)]);
}

#[test]
fn a_request_is_late_in_each_second_from_its_planned_instant_until_it_was_sent() {
    let shards = [(); 2].map(|()| {
        let mut recorder = Recorder::new(&plan()).unwrap();
        request(&mut recorder, true, [1500, 1510, 1600], Ok(Source::Cache)); // not more than 10 ms
        request(&mut recorder, true, [1900, 2400, 2500], Ok(Source::Cache));
        request(&mut recorder, true, [2900, 9000, 9100], Ok(Source::Cache)); // sent after the end
        recorder
    });
    let [first, second] = shards;
    let outcome = outcome(first.merge(&second).unwrap());
    let late: Vec<_> = outcome.series.iter().map(|second| (second.sent, second.late, second.send_lag_max_ms)).collect();
    assert_eq!(late, [(2, Some(2), Some(500.0)), (2, Some(4), Some(6100.0))]);
}

#[test]
fn errors_count_by_class_and_against_personal_answers() {
    let mut recorder = Recorder::new(&plan()).unwrap();
    for (known, result) in [
        (true, Ok(Source::Store)),
        (true, Ok(Source::Stale)),
        (true, Ok(Source::Popular)),
        (true, Err("client_timeout")),
        (false, Err("client_timeout")),
        (false, Err("connect")),
    ] {
        request(&mut recorder, known, [1000, 1000, 1500], result);
    }
    let outcome = outcome(recorder);
    assert_eq!((outcome.errors["client_timeout"], outcome.errors["connect"], outcome.error_pct), (2, 1, 50.0));
    assert_eq!((outcome.known_answered, outcome.known_personal_pct), (4, Some(50.0)));
    assert_eq!(outcome.series[0].errors, 3);
}

#[test]
fn shards_add_up_and_seconds_are_told_while_they_pass() {
    let shards = [1, 2].map(|count| {
        let mut recorder = Recorder::new(&plan()).unwrap();
        for _ in 0..count {
            request(&mut recorder, true, [1000, 1001, 1100], Ok(Source::Cache));
            request(&mut recorder, false, [1000, 1001, 1200], Err("connect"));
        }
        recorder
    });
    let second = progress(&plan(), 1, shards.iter()).unwrap();
    assert_eq!((second.phase, second.elapsed_s, second.total_s), (Phase::Measure, 2, 3));
    assert_eq!((second.sent, second.good, second.errors, second.offered_per_s), (6, 3, 3, 1.0));
    assert!(second.p50_ms.is_some_and(|p50| (p50 - 100.0).abs() < 2.0), "{second:?}");
    assert!(second.max_ms.is_some_and(|max| (max - 200.0).abs() < 4.0), "{second:?}");
    assert_eq!(progress(&plan(), 0, shards.iter()).unwrap().max_ms, None);
    let [first, second] = shards;
    let outcome = outcome(first.merge(&second).unwrap());
    assert_eq!((outcome.sent, outcome.answered, outcome.good, outcome.errors["connect"]), (6, 6, 3, 3));
    assert_eq!(outcome.known_sources.cache, 3);
    let told = &outcome.series[0];
    assert!((told.max_ms.unwrap() - 200.0).abs() < 4.0);
    assert_eq!(told.p99_ms, None, "six requests have no 99th percentile");
    assert!((told.p50_ms.unwrap() - 100.0).abs() < 2.0 && (told.mean_ms.unwrap() - 150.0).abs() < 3.0, "{told:?}");
    // Three of 100 ms and three of 200 ms, each below an edge of its own: 131 and 262 ms.
    let bands: Vec<_> = told.latency_counts.iter().enumerate().filter(|(_, count)| **count > 0).collect();
    assert_eq!(bands, [(18, &3), (20, &3)]);
    assert_eq!(crate::latency_bands::upper_edge_ms(18), 131.072);
}

#[test]
fn a_second_has_a_percentile_from_a_thousand_requests_on() {
    let second = |count: u64| {
        let mut recorder = Recorder::new(&plan()).unwrap();
        for n in 0..count {
            request(&mut recorder, true, [1000, 1001, if n < 20 { 1200 } else { 1100 }], Ok(Source::Cache));
        }
        outcome(recorder).series[0].clone()
    };
    assert_eq!(second(999).tail().map(Tail::name), Some("max"));
    let full = second(1000);
    assert_eq!(full.tail().map(Tail::name), Some("p99"));
    assert!((full.p99_ms.unwrap() - 200.0).abs() < 4.0 && (full.max_ms.unwrap() - 200.0).abs() < 4.0, "{full:?}");
    assert_eq!(second(0).tail(), None);
}

#[test]
fn late_and_failed_requests_are_beyond_the_slo() {
    let plan = StepPlan { slo_ms: Some(200), ..plan() };
    let shards = [(); 2].map(|()| {
        let mut recorder = Recorder::new(&plan).unwrap();
        request(&mut recorder, true, [100, 100, 900], Ok(Source::Cache)); // late, in the warm-up
        request(&mut recorder, true, [1000, 1150, 1200], Ok(Source::Cache)); // in time
        request(&mut recorder, true, [1000, 1150, 1201], Ok(Source::Cache)); // late by its plan, not by its sending
        request(&mut recorder, true, [2000, 2000, 2100], Err("connect"));
        request(&mut recorder, true, [2000, 2000, 2900], Err("client_timeout"));
        request(&mut recorder, true, [2000, 2000, 3000], Ok(Source::Cache)); // late, after the window
        recorder
    });
    let [first, second] = shards;
    let merged = first.merge(&second).unwrap();
    let outcome = merged.outcome(&plan, std::time::Duration::ZERO, 0).unwrap();
    assert_eq!(outcome.beyond_slo, Some(6));
    assert_eq!(outcome.series.iter().map(|second| second.beyond_slo).collect::<Vec<_>>(), [Some(2), Some(4)]);
}

#[test]
fn nothing_is_beyond_an_slo_that_is_not_there() {
    let mut recorder = Recorder::new(&plan()).unwrap();
    request(&mut recorder, true, [1000, 1000, 2500], Err("client_timeout"));
    let outcome = outcome(recorder);
    assert_eq!((outcome.beyond_slo, outcome.series[1].beyond_slo), (None, None));
    assert!(!serde_json::to_string(&outcome).unwrap().contains("beyond_slo"));
}

#[test]
fn nothing_measured_is_all_zeros() {
    let outcome = outcome(Recorder::new(&plan()).unwrap());
    assert_eq!((outcome.answered, outcome.error_pct, outcome.known_personal_pct), (0, 0.0, None));
    assert_eq!(outcome.latency, Latency::default());
    assert_eq!(outcome.latency_curve, []);
    assert!(serde_json::to_string(&outcome).unwrap().contains("\"p99_ms\":null"));
}

/// What a user that does not wait would have seen: 2.5 s for the first request, 1.5 s and 0.5 s for the two that were skipped.
#[test]
fn skipped_instants_are_in_the_corrected_latency() {
    let mut recorder = Recorder::new(&plan()).unwrap();
    request(&mut recorder, true, [400, 400, 2900], Ok(Source::Store));
    assert_eq!(recorder.skipped([1_400_000, 2_400_000].into_iter(), 2_900_000), 2);
    // It ended after the window, as did the request.
    request(&mut recorder, true, [500, 500, 3001], Ok(Source::Store));
    recorder.skipped([1_500_000, 2_500_000].into_iter(), 3_001_000);
    let outcome = outcome(recorder);
    assert_eq!((outcome.answered, outcome.skipped, outcome.dropped), (1, 4, 0));
    assert!((outcome.latency.mean_ms - 2500.0).abs() < 2.0, "{:?}", outcome.latency);
    let corrected = outcome.corrected.unwrap();
    assert!((corrected.mean_ms - 1500.0).abs() < 2.0 && (corrected.p50_ms - 1500.0).abs() < 2.0, "{corrected:?}");
    assert_eq!(corrected.max_ms, outcome.latency.max_ms);
    assert!(outcome.hdr_log.contains("Tag=corrected"), "{}", outcome.hdr_log);
    assert!(outcome.arrivals.starts_with("closed: "));
}

#[test]
fn open_arrivals_are_dropped_and_not_corrected() {
    let open = Open { spacing: Spacing::Constant, max_in_flight: 1, curve: None };
    let plan = StepPlan { arrivals: Arrivals::Open(open), ..plan() };
    let shards = [(); 2].map(|()| {
        let mut recorder = Recorder::new(&plan).unwrap();
        request(&mut recorder, true, [1000, 1000, 1500], Ok(Source::Store));
        [999_999, 1_000_000, 2_999_999, 3_000_000].into_iter().for_each(|at| recorder.dropped(at));
        recorder
    });
    let [first, second] = shards;
    let outcome = first.merge(&second).unwrap().outcome(&plan, std::time::Duration::ZERO, 0).unwrap();
    assert_eq!((outcome.answered, outcome.dropped, outcome.skipped, outcome.corrected), (2, 4, 0, None));
    assert!(!outcome.hdr_log.contains("corrected") && outcome.arrivals.starts_with("open, constant"));
}

#[test]
fn tries_count_by_their_sending_and_for_the_whole_step() {
    let (backoff, budget) = (Backoff::None, Budget::None);
    let retry = Some(Retry { attempts: 4, per_try_timeout_ms: 1000, backoff, budget });
    let plan = StepPlan { retry, ..plan() };
    let shards = [(); 2].map(|()| {
        let mut recorder = Recorder::new(&plan).unwrap();
        request(&mut recorder, true, [900, 900, 1200], Ok(Source::Store));
        [999_999, 1_000_000, 1_999_999, 2_000_000, 2_999_999, 3_000_000]
            .into_iter()
            .for_each(|at| recorder.retried(at));
        request(&mut recorder, true, [1500, 1500, 1600], Err("connect"));
        [999_999, 1_600_000].into_iter().for_each(|at| recorder.budget_spent(at));
        [999_999, 1_700_000, 2_999_999].into_iter().for_each(|at| recorder.throttled(at));
        recorder
    });
    let [first, second] = shards;
    let merged = first.merge(&second).unwrap();
    assert_eq!(merged.tries(), Tries { first: 4, retries: 12 });
    let outcome = merged.outcome(&plan, std::time::Duration::ZERO, 0).unwrap();
    let expected = RetryFigures {
        first_tries: 2,
        retries: 8,
        tries_per_request: Some(5.0),
        budget_spent: 2,
        throttled: 4,
        zombie_share: None,
    };
    assert_eq!(outcome.retries, Some(expected));
    let series: Vec<_> = outcome.series.iter().map(|second| (second.sent, second.retries)).collect();
    assert_eq!(series, [(2, Some(4)), (0, Some(4))]);
}

#[test]
fn without_retries_nothing_is_said_of_them() {
    let mut recorder = Recorder::new(&plan()).unwrap();
    request(&mut recorder, true, [1000, 1000, 1500], Ok(Source::Store));
    assert!(!serde_json::to_string(&outcome(recorder)).unwrap().contains("retries"));
}
