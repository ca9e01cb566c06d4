use super::*;
use crate::{
    arrivals::{Arrivals, Open, Spacing},
    retry::{Backoff, Budget, Retry},
    scenario::Law,
};

/// The store of the scenario `overload`, 1064 queries a second, served oldest first, and clients that give a try up after 1 s.
fn scenario(attempts: u32, budget: Budget) -> Scenario {
    let mut scenario = Scenario::load("overload").unwrap();
    scenario.arrivals = Arrivals::Open(Open { spacing: Spacing::Poisson, max_in_flight: 20_000, curve: None });
    scenario.store.order = Order::Oldest;
    (scenario.timeout_ms, scenario.warm_up_s, scenario.measure_s) = (1000 * u64::from(attempts), 0, 30);
    scenario.retry = Some(Retry { attempts, per_try_timeout_ms: 1000, backoff: Backoff::None, budget });
    scenario
}

fn stalled(scenario: &Scenario, for_s: f64) -> Scenario {
    let stall = Fault { step: None, at_s: 5.0, for_s, kind: FaultKind::Stall };
    Scenario { faults: vec![stall], ..scenario.clone() }
}

fn sum(seconds: &[Second], figure: fn(&Second) -> u64) -> f64 {
    seconds.iter().map(figure).sum::<u64>() as f64
}

#[test]
fn below_the_capacity_every_request_succeeds_at_its_first_try() {
    let seconds = run(&scenario(4, Budget::None), 600, 1, GivenUp::Stays).unwrap();
    let (first, good) = (sum(&seconds, |s| s.first_tries), sum(&seconds, |s| s.good));
    // Six deviations of a Poisson distribution; at the end some are under way.
    assert!((first - 18_000.0).abs() < 6.0 * 18_000_f64.sqrt(), "{first}");
    assert!(first - good < 150.0, "{first} {good}");
    assert_eq!((sum(&seconds, |s| s.retries), sum(&seconds, |s| s.zombies)), (0.0, 0.0));
}

#[test]
fn the_same_arguments_give_the_same_figures() {
    let stalled = stalled(&scenario(4, Budget::Adaptive { adaptive_k: 2.0 }), 2.0);
    let figures = |seed| run(&stalled, 800, seed, GivenUp::Stays).unwrap();
    assert_eq!(figures(3), figures(3));
    assert_ne!(figures(3), figures(4));
}

/// The load that the store carried before the stall keeps it overloaded afterwards: retries, and work for clients that have given up.
#[test]
fn a_stall_outlives_itself_with_retries_and_not_without() {
    let after = |attempts| {
        let seconds = run(&stalled(&scenario(attempts, Budget::None), 3.0), 800, 1, GivenUp::Stays).unwrap();
        let last = &seconds[25..];
        (sum(last, |s| s.good) / sum(last, |s| s.requests), sum(last, |s| s.zombies) / sum(last, |s| s.queries))
    };
    let (good, zombies) = after(4);
    assert!(good < 0.1 && zombies > 0.9, "{good} {zombies}");
    let (good, zombies) = after(1);
    assert!(good > 0.95 && zombies < 0.01, "{good} {zombies}");
}

/// A fluid model of the same store gives critical stalls of 2.2, 1.8, 1.3, 1.0 and 0.9 s, and none below a quarter of the capacity.
#[test]
fn the_critical_stall_falls_with_the_rate() {
    let scenario = scenario(4, Budget::None);
    let critical = |per_s| critical_stall_ms(&scenario, per_s, 1, GivenUp::Stays, (20, 50));
    assert_eq!(critical(240), None, "four tries of all requests are below the capacity");
    for (per_s, fluid_ms) in [(300, 2200.0), (400, 1800.0), (600, 1300.0), (800, 1000.0), (1000, 900.0)] {
        let ms = critical(per_s).unwrap() as f64;
        assert!((0.8..1.2).contains(&(ms / fluid_ms)), "{per_s}/s: {ms} ms, fluid model {fluid_ms} ms");
    }
    assert_eq!(critical(1200), Some(0), "more than the capacity");
}

#[test]
fn each_cure_lets_the_store_recover() {
    let plain = stalled(&scenario(4, Budget::None), 2.0);
    let goodput = |scenario: &Scenario, given_up| {
        let last = &run(scenario, 800, 1, given_up).unwrap()[25..];
        sum(last, |s| s.good) / sum(last, |s| s.requests)
    };
    assert!(goodput(&plain, GivenUp::Stays) < 0.1);
    let mut newest = plain.clone();
    newest.store.order = Order::Newest;
    let mut deadline = plain.clone();
    deadline.store.checkout_timeout_ms = 900;
    let tokens = Budget::Tokens { budget_pct: 10.0, budget_min_per_s: 0.0 };
    let budget = stalled(&scenario(4, tokens), 2.0);
    for (name, cured) in [("newest first", newest), ("a budget", budget), ("a shorter wait", deadline)] {
        let share = goodput(&cured, GivenUp::Stays);
        assert!(share > 0.9, "{name}: {share}");
    }
}

#[test]
fn crosstalk_lowers_the_goodput_of_an_overloaded_store() {
    let mut scenario = scenario(1, Budget::None);
    let goodput = |scenario: &Scenario| sum(&run(scenario, 1500, 1, GivenUp::Leaves).unwrap()[10..], |s| s.queries);
    let linear = goodput(&scenario);
    // The same response time with 100 queries in flight: 94 ms + 99 ms.
    scenario.law = Law::Modelled { base_ms: 74.0, slope_ms: 0.2, crosstalk_ms: 0.01, spread: 0.3 };
    let ratio = goodput(&scenario) / linear;
    assert!((ratio - 94.0 / 193.0).abs() < 0.03, "{ratio}");
}

#[test]
fn every_request_has_one_end() {
    for (given_up, order) in [(GivenUp::Leaves, Order::Newest), (GivenUp::Stays, Order::Oldest)] {
        let mut scenario = stalled(&scenario(4, Budget::None), 4.0);
        (scenario.store.order, scenario.store.max_waiting) = (order, 500);
        // The load ends with the curve, long before the run.
        let factors = (0..30).map(|second| f64::from(u8::from(second < 20))).collect();
        let curve = Some(crate::rate_curve::RateCurve::new(factors).unwrap());
        scenario.arrivals = Arrivals::Open(Open { spacing: Spacing::Constant, max_in_flight: 20_000, curve });
        let seconds = run(&scenario, 900, 1, given_up).unwrap();
        let [requests, good, failed] =
            [sum(&seconds, |s| s.requests), sum(&seconds, |s| s.good), sum(&seconds, |s| s.failed)];
        assert_eq!(requests, 18_000.0);
        assert_eq!(good + failed, requests, "{given_up:?}");
        let [queries, zombies, retries] =
            [sum(&seconds, |s| s.queries), sum(&seconds, |s| s.zombies), sum(&seconds, |s| s.retries)];
        assert_eq!(queries - zombies, good);
        assert!(retries > 0.0 && failed > 0.0);
    }
}

/// Share of the requests that succeed in the last five of 30 seconds, after a disturbance that begins at second 5.
fn goodput(per_s: u32, (cached_users, disturbance): (u32, Disturbance)) -> f64 {
    let scenario = scenario(4, Budget::None);
    let seconds = run_disturbed(&scenario, per_s, 1, GivenUp::Leaves, (cached_users, &[disturbance])).unwrap();
    sum(&seconds[25..], |s| s.good) / sum(&seconds[25..], |s| s.requests)
}

#[test]
fn a_loss_of_capacity_sticks_if_it_is_long_enough() {
    let slow = |for_us: u64| goodput(800, (0, Disturbance::Slow(5_000_000..5_000_000 + for_us, 5.0)));
    assert!(slow(100_000) > 0.95, "{}", slow(100_000));
    assert!(slow(8_000_000) < 0.2, "{}", slow(8_000_000));
}

#[test]
fn replicas_that_stand_still_overload_the_others() {
    let pause = |for_us: u64| {
        let during = 5_000_000..5_000_000 + for_us;
        goodput(800, (0, Disturbance::Pause { replicas: 1, during }))
    };
    assert!(pause(100_000) > 0.95, "{}", pause(100_000));
    assert!(pause(8_000_000) < 0.2, "{}", pause(8_000_000));
}

#[test]
fn a_cache_carries_more_than_the_store_until_it_is_cold() {
    let flush = |per_s: u32, share: f64| goodput(per_s, (5_000, Disturbance::Flush { at_us: 5_000_000, share }));
    assert_eq!(flush(2_000, 0.0), 1.0);
    assert!(flush(800, 1.0) > 0.95, "the store alone carries it: {}", flush(800, 1.0));
    assert!(flush(2_000, 0.2) > 0.95, "{}", flush(2_000, 0.2));
    assert!(flush(2_000, 1.0) < 0.5, "{}", flush(2_000, 1.0));
}

#[test]
fn a_deleted_list_is_loaded_once() {
    let flush = [Disturbance::Flush { at_us: 5_000_000, share: 1.0 }];
    let seconds = run_disturbed(&scenario(4, Budget::None), 500, 1, GivenUp::Leaves, (1_000, &flush)).unwrap();
    assert_eq!(sum(&seconds[..5], |s| s.queries), 0.0);
    // Some users ask twice before the first answer: at most 0.3 s of their requests.
    let queries = sum(&seconds, |s| s.queries);
    assert!((1_000.0..1_300.0).contains(&queries), "{queries}");
}

#[test]
fn what_it_does_not_model_has_no_figures() {
    let good = scenario(2, Budget::None);
    let none = |scenario: Scenario| run(&scenario, 100, 1, GivenUp::Leaves).is_none();
    assert!(none(Scenario { law: Law::None, ..good.clone() }));
    assert!(none(Scenario { arrivals: Arrivals::Closed, ..good.clone() }));
    assert!(none(Scenario { retry: None, ..good.clone() }));
    assert_eq!(critical_stall_ms(&Scenario { retry: None, ..good }, 100, 1, GivenUp::Leaves, (5, 100)), None);
}
