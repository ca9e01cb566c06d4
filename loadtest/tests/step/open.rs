//! Open arrivals against a server that is slow or stalls. The service time is a lower bound of the latency; a busy machine adds to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use loadtest::{
    StepOutcome,
    arrivals::{Arrivals, Open, Spacing},
};

use super::{Setup, from, run, serve, setup};

/// 200 requests a second for one second after one of warm-up.
fn open(base_url: &str, spacing: Spacing, max_in_flight: u32) -> Setup {
    let mut setup = setup(base_url, 2000);
    setup.plan.users = 200;
    setup.plan.interval_ms = 1000;
    setup.plan.arrivals = Arrivals::Open(Open { spacing, max_in_flight, curve: None });
    setup
}

/// Each planned request is sent or dropped; a late generator moves sends over the edges of the measured part.
fn assert_all_counted(outcome: &StepOutcome) {
    let planned = outcome.offered_per_s * outcome.measured_s;
    let seen = (outcome.sent + outcome.dropped) as f64;
    let edge = 2.0 + outcome.offered_per_s * outcome.send_lag.max_ms / 1000.0;
    assert!((seen - planned).abs() <= edge, "{seen} of {planned} planned, edge {edge}");
    assert_eq!((outcome.skipped, outcome.corrected), (0, None));
}

/// 10 requests at a time of 250 ms are 40 a second: most of the 200 find all slots busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_all_slots_busy_is_dropped_and_never_sent_late() {
    let in_flight = Arc::new(InFlight::default());
    let seen = Arc::clone(&in_flight);
    let service = Duration::from_millis(250);
    let (url, server) = serve(move |_| {
        seen.began(service);
        (service, from("store"))
    })
    .await;
    let setup = open(&url, Spacing::Constant, 10);
    let outcome = run(&setup.plan).await;
    assert_all_counted(&outcome);
    assert!(outcome.sent <= 50 && outcome.dropped > outcome.sent, "{} sent, {} dropped", outcome.sent, outcome.dropped);
    assert!(outcome.answered > 0 && outcome.answered == outcome.good, "{:?}", outcome.errors);
    assert!(outcome.latency.p50_ms >= 249.0, "{:?}", outcome.latency);
    let most = in_flight.most.load(Ordering::Relaxed);
    assert!((1..=10).contains(&most), "{most} in flight");
    // Both seconds of the step; a slot sends at most once per service time.
    let asked = server.asked.lock().unwrap().len();
    assert!(asked <= 10 * 9, "{asked} requests");
    assert!(outcome.arrivals.contains("at most 10 in flight"), "{}", outcome.arrivals);
}

/// 20 users who wait would send 40 a second; open arrivals are sent all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_do_not_wait_for_the_answers_before_them() {
    let (url, _server) = serve(|_| (Duration::from_millis(500), from("store"))).await;
    let setup = open(&url, Spacing::Constant, 1000);
    let outcome = run(&setup.plan).await;
    assert_all_counted(&outcome);
    assert_eq!(outcome.dropped, 0);
    assert!(outcome.latency.p50_ms >= 499.0, "{:?}", outcome.latency);
}

/// The server takes a second for ten requests in a row: all slots wait for them, and what is planned meanwhile is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_drops_the_arrivals_of_its_time() {
    let asked = AtomicUsize::new(0);
    let (url, _server) = serve(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        // After the warm-up of 200 requests.
        250..260 => (Duration::from_secs(1), from("store")),
        _ => (Duration::ZERO, from("store")),
    })
    .await;
    let mut setup = open(&url, Spacing::Poisson, 10);
    setup.plan.measure_ms = 4000;
    let outcome = run(&setup.plan).await;
    assert!(outcome.dropped > 0, "{outcome:?}");
    // Six standard deviations of a Poisson distribution of 800.
    let seen = (outcome.sent + outcome.dropped) as f64;
    let edge = 170.0 + 200.0 * outcome.send_lag.max_ms / 1000.0;
    assert!((seen - 800.0).abs() <= edge, "{seen} of 800 planned, edge {edge}");
    assert!(outcome.latency.max_ms >= 999.0, "{:?}", outcome.latency);
    assert_eq!(outcome.answered, outcome.good);
}

/// Requests that the server holds.
#[derive(Default)]
struct InFlight {
    now: AtomicU64,
    most: AtomicU64,
}

impl InFlight {
    /// A request that is answered after `service` at the earliest. It counts for half of it: at the end the slot may have its answer, and
    /// send again, before the server has noticed.
    fn began(self: &Arc<Self>, service: Duration) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        let held = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(service / 2).await;
            held.now.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
