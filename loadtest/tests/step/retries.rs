//! Requests that are sent again. A busy machine delays tries; no test depends on how long one takes.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use contract::http::problem::{INVALID_REQUEST, STORE_CHECKOUT_TIMEOUT};
use loadtest::{
    StepOutcome,
    arrivals::{Arrivals, Open, Spacing},
    retry::{Backoff, Budget, Retry},
};

use super::{Server, Setup, from, problem, run, serve, setup};

const LONG: Duration = Duration::from_secs(30);

/// `attempts` tries, at once and without a budget. A slow machine is no reason for another try: all have time.
fn retrying(base_url: &str, attempts: u32) -> Setup {
    let mut setup = setup(base_url, 2000);
    setup.plan.timeout_ms = 30_000;
    let (backoff, budget) = (Backoff::None, Budget::None);
    setup.plan.retry = Some(Retry { attempts, per_try_timeout_ms: 30_000, backoff, budget });
    setup
}

/// As [`retrying`], with tries of at most 200 ms within `timeout_ms`.
fn impatient(base_url: &str, attempts: u32, timeout_ms: u64) -> Setup {
    let mut setup = retrying(base_url, attempts);
    setup.plan.timeout_ms = timeout_ms;
    setup.plan.retry.as_mut().unwrap().per_try_timeout_ms = 200;
    setup
}

/// Number of requests for a user, this one included.
fn counter() -> impl Fn(&str) -> u32 {
    let seen = Mutex::new(HashMap::<String, u32>::new());
    move |user| *seen.lock().unwrap().entry(user.to_owned()).and_modify(|count| *count += 1).or_insert(1)
}

/// The counts of the client agree with each other. Returns first tries and retries of the whole step.
fn assert_counted(outcome: &StepOutcome) -> (u64, u64) {
    let counted = outcome.requests.unwrap();
    let tries = counted.tries.unwrap();
    assert_eq!(tries.first + tries.retries, counted.requests);
    let series = |figure: fn(&loadtest::figures::Second) -> u64| outcome.series.iter().map(figure).sum::<u64>();
    let retries = outcome.retries.unwrap();
    assert_eq!((retries.first_tries, outcome.sent), (outcome.sent, series(|second| second.sent)));
    assert_eq!(retries.retries, series(|second| second.retries.unwrap()));
    (tries.first, tries.retries)
}

/// The server saw every try. Only without timeouts: a server need not see a request whose client closed the connection.
fn assert_seen(outcome: &StepOutcome, server: &Server) {
    let (counted, seen) = (outcome.requests.unwrap(), server.asked.lock().unwrap().len() as u64);
    let expected = counted.requests - counted.unsent..=counted.requests - counted.unsent + counted.resent;
    assert!(expected.contains(&seen), "{seen} {counted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_second_try_succeeds_is_good() {
    for arrivals in
        [Arrivals::Closed, Arrivals::Open(Open { spacing: Spacing::Poisson, max_in_flight: 1000, curve: None })]
    {
        let count = counter();
        let (url, server) = serve(move |user| match count(user) {
            1 => (Duration::ZERO, problem(503, STORE_CHECKOUT_TIMEOUT)),
            _ => (Duration::ZERO, from("store")),
        })
        .await;
        let mut setup = retrying(&url, 3);
        if !arrivals.is_closed() {
            (setup.plan.users, setup.plan.interval_ms, setup.plan.arrivals) = (200, 1000, arrivals);
        }
        let outcome = run(&setup.plan).await;
        let (first, retries) = assert_counted(&outcome);
        assert_seen(&outcome, &server);
        assert_eq!((outcome.good, outcome.errors.len()), (outcome.answered, 0), "{:?}", outcome.errors);
        assert!(outcome.good > 0 && first == retries, "{first} {retries}");
        let figures = outcome.retries.unwrap();
        assert_eq!((figures.budget_spent, figures.throttled, figures.zombie_share), (0, 0, None));
        // Tries at the edges of the measured part may be on different sides of it.
        assert!((figures.tries_per_request.unwrap() - 2.0).abs() < 0.2, "{figures:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_try_that_times_out_is_followed_by_the_next_and_carries_its_end() {
    let count = counter();
    let (url, server) = serve(move |user| (if count(user) == 1 { LONG } else { Duration::ZERO }, from("cache"))).await;
    let setup = impatient(&url, 5, 1000);
    let begun_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let outcome = run(&setup.plan).await;
    assert_counted(&outcome);
    assert!(outcome.good > 0, "{:?}", outcome.errors);
    assert!(outcome.good_latency.p50_ms >= 199.0, "{:?}", outcome.good_latency);
    let ended_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    for deadline in server.deadlines.lock().unwrap().iter() {
        let deadline: u64 = deadline.as_ref().unwrap().parse().unwrap();
        assert!((begun_ms..=ended_ms + 200).contains(&deadline), "{deadline}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_stop_at_the_deadline_of_the_request() {
    let (url, _server) = serve(|_| (LONG, from("cache"))).await;
    let setup = impatient(&url, 10, 500);
    let outcome = run(&setup.plan).await;
    let (first, retries) = assert_counted(&outcome);
    // Tries of 200, 200 and at most 100 ms.
    assert!(retries > 0 && retries <= 2 * first, "{retries} retries of {first} requests");
    assert_eq!(outcome.errors.keys().collect::<Vec<_>>(), ["client_timeout"]);
    assert!(outcome.latency.p50_ms >= 399.0, "{:?}", outcome.latency);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_fail_again_is_not_sent_again() {
    let (url, server) = serve(|_| (Duration::ZERO, problem(400, INVALID_REQUEST))).await;
    let outcome = run(&retrying(&url, 10).plan).await;
    let (first, retries) = assert_counted(&outcome);
    assert_seen(&outcome, &server);
    assert!(first > 0 && retries == 0, "{first} {retries}");
    assert_eq!(outcome.errors.keys().collect::<Vec<_>>(), ["invalid-request"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_limits_the_retries_of_all_users_together() {
    let (url, server) = serve(|_| (Duration::ZERO, problem(503, STORE_CHECKOUT_TIMEOUT))).await;
    let mut setup = retrying(&url, 4);
    setup.plan.retry.as_mut().unwrap().budget = Budget::Tokens { budget_pct: 10.0, budget_min_per_s: 0.0 };
    let outcome = run(&setup.plan).await;
    let (first, retries) = assert_counted(&outcome);
    assert_seen(&outcome, &server);
    assert!(retries > 0 && 10 * retries <= first + 10, "{retries} retries of {first} requests");
    let figures = outcome.retries.unwrap();
    assert!(figures.budget_spent > 0 && outcome.good == 0, "{figures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adaptive_client_stops_sending_to_a_server_that_fails() {
    let (url, server) = serve(|_| (Duration::ZERO, problem(503, STORE_CHECKOUT_TIMEOUT))).await;
    let mut setup = retrying(&url, 2);
    setup.plan.retry.as_mut().unwrap().budget = Budget::Adaptive { adaptive_k: 2.0 };
    let outcome = run(&setup.plan).await;
    assert_counted(&outcome);
    assert_seen(&outcome, &server);
    let throttled = outcome.retries.unwrap().throttled;
    assert!(throttled > outcome.sent, "{throttled} throttled, {} sent", outcome.sent);
    assert_eq!(outcome.errors["client_throttled"], throttled);
    assert_eq!(outcome.errors.values().sum::<u64>(), outcome.answered);
}
