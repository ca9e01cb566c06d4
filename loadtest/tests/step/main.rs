//! Whole steps against a server in this process.
#![expect(
    clippy::unwrap_used,
    reason = "a failed test is what an unwrap is for; clippy exempts test functions, not their helpers"
)]

mod criticality;
mod open;
mod retries;
mod target;

use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use contract::http::{CRITICALITY, REQUEST_DEADLINE};
use loadtest::{
    ChildMessage, Progress, StepOutcome, StepPlan,
    arrivals::Arrivals,
    curve::{Curve, Point},
    loadgen_main,
    plan::Phase,
    run::run_step_until,
    run_step,
    scenario::KnownIds,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

type Answer = Arc<dyn Fn(&str) -> (Duration, Response) + Send + Sync>;

#[derive(Clone)]
struct Server {
    answer: Answer,
    asked: Arc<Mutex<Vec<String>>>,
    /// Header of each request, in the order of `asked`.
    deadlines: Arc<Mutex<Vec<Option<String>>>>,
    /// The same.
    criticalities: Arc<Mutex<Vec<Option<String>>>>,
}

#[derive(serde::Deserialize)]
struct Asked {
    user_id: String,
}

/// A server whose answer to a user id, and the time it takes, is `answer`'s.
async fn serve(answer: impl Fn(&str) -> (Duration, Response) + Send + Sync + 'static) -> (String, Server) {
    async fn recommendations(State(server): State<Server>, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
        let header = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        server.deadlines.lock().unwrap().push(header(REQUEST_DEADLINE));
        server.criticalities.lock().unwrap().push(header(CRITICALITY));
        let (wait, response) = (server.answer)(&asked.user_id);
        server.asked.lock().unwrap().push(asked.user_id);
        tokio::time::sleep(wait).await;
        response
    }
    let server = Server {
        answer: Arc::new(answer),
        asked: Arc::default(),
        deadlines: Arc::default(),
        criticalities: Arc::default(),
    };
    let router = Router::new().route("/recommendations", get(recommendations)).with_state(server.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, server)
}

fn from(source: &str) -> Response {
    let body = format!("{{\"source\":\"{source}\",\"model_version\":1,\"user_id\":\"u\",\"items\":[]}}");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn problem(status: u16, kind: &str) -> Response {
    let body = format!("{{\"type\":\"{kind}\",\"title\":\"t\",\"status\":{status},\"detail\":\"d\"}}");
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

/// 20 users, 10 requests a second each, for one second after one of warm-up.
struct Setup {
    plan: StepPlan,
    _folder: tempfile::TempDir,
}

fn setup(base_url: &str, known: usize) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let known_ids: PathBuf = folder.path().join("ids.txt");
    std::fs::write(&known_ids, (0..known).map(|number| format!("user {number}\n")).collect::<String>()).unwrap();
    let plan = StepPlan {
        name: "test".into(),
        base_url: base_url.into(),
        users: 20,
        curve: None,
        interval_ms: 100,
        arrival_grid_ms: 0,
        timeout_ms: 2000,
        retry: None,
        criticality: None,
        slo_ms: None,
        warm_up_ms: 1000,
        measure_ms: 1000,
        unknown_share: 0.0,
        known: KnownIds::Once,
        known_ids,
        seed: 5,
        worker_threads: 1,
        metrics: None,
        telemetry: None,
        arrivals: Arrivals::Closed,
        target: None,
    };
    Setup { plan, _folder: folder }
}

async fn run(plan: &StepPlan) -> StepOutcome {
    run_step(plan.clone(), |_| ()).await.unwrap()
}

/// Every planned instant of the window was sent or skipped, but for those a busy machine sends beyond the window's edges.
fn assert_planned(outcome: &StepOutcome) {
    let planned = outcome.offered_per_s * outcome.measured_s;
    let seen = (outcome.sent + outcome.skipped) as f64;
    let edge = 0.15 * planned + outcome.offered_per_s * outcome.send_lag.max_ms / 1000.0;
    assert!((seen - planned).abs() <= edge, "{seen} of {planned} planned, edge {edge}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planned_request_is_sent_counted_and_attributed() {
    let (url, server) =
        serve(|user| (Duration::ZERO, from(if user.starts_with("x-") { "popular" } else { "store" }))).await;
    let mut setup = setup(&url, 1000);
    setup.plan.unknown_share = 0.5;
    let progress = Mutex::new(Vec::<Progress>::new());
    let outcome = run_step(setup.plan.clone(), |second| progress.lock().unwrap().push(second)).await.unwrap();

    assert_planned(&outcome);
    assert_eq!(outcome.offered_per_s, 200.0);
    assert_eq!(outcome.errors.len(), 0, "{:?}", outcome.errors);
    assert_eq!((outcome.answered, outcome.error_pct), (outcome.good, 0.0));
    assert_eq!(outcome.known_sources.store, outcome.known_answered);
    assert_eq!(outcome.unknown_sources.popular, outcome.good - outcome.known_answered);
    assert_eq!(outcome.sources().store + outcome.sources().popular, outcome.good);
    assert_eq!(outcome.known_personal_pct, Some(100.0));
    assert_eq!(outcome.repeated_ids, 0);
    assert_eq!(outcome.ended_ms - outcome.started_ms, 1000);
    assert_eq!(outcome.series.iter().map(|second| second.good).sum::<u64>(), outcome.good);
    assert!(outcome.latency.p50_ms > 0.0 && outcome.latency.p50_ms <= outcome.latency.max_ms);
    assert_eq!(outcome.latency_curve.last().map(|(percentile, _)| *percentile), Some(100.0));

    // What the server saw agrees: the whole step is 2 s of 200 a second.
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(asked.iter().collect::<HashSet<_>>().len(), asked.len(), "an id was repeated");
    let counted = outcome.requests.unwrap();
    assert_eq!((counted.requests, counted.unsent, counted.resent), (asked.len() as u64, 0, 0));
    assert_eq!((counted.tries, outcome.retries), (None, None));
    assert!(
        server.deadlines.lock().unwrap().iter().all(Option::is_none),
        "without retries no request carries a deadline"
    );
    let unknown = asked.iter().filter(|id| id.starts_with("x-5-")).count();
    // Four standard deviations of a binomial distribution.
    let (half, deviation) = (asked.len() as f64 / 2.0, (asked.len() as f64 / 4.0).sqrt());
    assert!((unknown as f64 - half).abs() <= 4.0 * deviation, "{unknown} of {} unknown", asked.len());
    assert!(asked.iter().all(|id| id.starts_with("x-5-") || id.starts_with("user ")));

    let progress = progress.into_inner().unwrap();
    let phases: Vec<_> = progress.iter().map(|second| second.phase).collect();
    assert_eq!(phases, [Phase::WarmUp, Phase::Measure]);
    assert!(progress.iter().all(|second| second.total_s == 2 && second.good > 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seconds_spent_waiting_are_skipped_and_latency_counts_from_the_plan() {
    // 250 ms: every third planned instant is sent.
    let (url, _server) = serve(|_| (Duration::from_millis(250), from("store"))).await;
    let setup = setup(&url, 1000);
    let outcome = run(&setup.plan).await;
    assert_planned(&outcome);
    assert!(outcome.skipped > outcome.sent, "{} skipped, {} sent", outcome.skipped, outcome.sent);
    assert!(outcome.latency.p50_ms >= 249.0, "{:?}", outcome.latency);
    assert!(outcome.answered_per_s < 100.0, "{}", outcome.answered_per_s);
    // Of each three instants the two skipped ones waited for a part of the request only.
    let corrected = outcome.corrected.unwrap();
    assert_eq!(corrected.max_ms, outcome.latency.max_ms);
    assert!(corrected.mean_ms < outcome.latency.mean_ms, "{corrected:?} {:?}", outcome.latency);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_cut_short_has_the_outcome_of_its_whole_seconds() {
    let (url, _server) = serve(|_| (Duration::ZERO, from("store"))).await;
    let mut setup = setup(&url, 1000);
    setup.plan.measure_ms = 60_000;
    let end = tokio::sync::Notify::new();
    // After the warm-up and two measured seconds.
    let report = |second: Progress| {
        if second.elapsed_s == 3 {
            end.notify_one()
        }
    };
    let outcome = run_step_until(setup.plan.clone(), end.notified(), report).await.unwrap();
    assert!(outcome.measured_s < 60.0 && outcome.series.len() as f64 <= outcome.measured_s, "{}", outcome.measured_s);
    assert!(
        outcome.series.len() >= 2 && outcome.series[..2].iter().all(|second| second.sent > 0),
        "{:?}",
        outcome.series
    );
    assert_eq!((outcome.requests, outcome.errors.len()), (None, 0), "{:?}", outcome.errors);

    let early = run_step_until(StepPlan { warm_up_ms: 60_000, ..setup.plan }, async {}, |_| ()).await;
    let error = early.unwrap_err().to_string();
    assert!(error.contains("before all of them had started"), "{error}");
}

/// 20 users, 40 for the second second, 20 again, and none in the last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_follow_a_curve_and_late_and_failed_ones_are_beyond_the_slo() {
    let asked = AtomicUsize::new(0);
    let (url, _server) = serve(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        // After the warm-up of 200 requests.
        250..253 => (Duration::from_millis(1500), from("store")),
        253..255 => (Duration::ZERO, problem(503, contract::http::problem::STORE_CHECKOUT_TIMEOUT)),
        _ => (Duration::ZERO, from("store")),
    })
    .await;
    let mut setup = setup(&url, 2000);
    let points = [(1000, 20), (1000, 40), (2000, 40), (2000, 20), (3000, 20), (3000, 0)];
    let points = points.map(|(at_ms, users)| Point { at_ms, users });
    setup.plan.curve = Some(Curve::new(points.to_vec()).unwrap());
    setup.plan.measure_ms = 4000;
    setup.plan.timeout_ms = 10_000;
    setup.plan.slo_ms = Some(1200);
    let progress = Mutex::new(Vec::<Progress>::new());
    let outcome = run_step(setup.plan.clone(), |second| progress.lock().unwrap().push(second)).await.unwrap();

    // A busy machine sends later than planned.
    let edge = 5.0 + 400.0 * outcome.send_lag.max_ms / 1000.0;
    let skipped = outcome.skipped as f64;
    let sent: Vec<f64> = outcome.series.iter().map(|second| second.sent as f64).collect();
    assert_eq!(sent.len(), 4);
    for (sent, planned) in sent.iter().zip([200.0, 400.0, 200.0, 0.0]) {
        let range = planned - skipped - edge..=planned + edge;
        assert!(range.contains(sent), "{sent} of {planned} planned, {skipped} skipped, edge {edge}");
    }
    let all = outcome.sent as f64 + skipped;
    assert!((all - 800.0).abs() <= edge, "{all} of 800 planned, edge {edge}");
    assert_eq!((outcome.offered_per_s, outcome.users), (200.0, 20));
    // The step lasts until its end, although its users end before.
    assert_eq!(progress.into_inner().unwrap().len(), 5);

    assert_eq!(outcome.errors.values().sum::<u64>(), 2, "{:?}", outcome.errors);
    let beyond = outcome.beyond_slo.unwrap();
    assert!(beyond == 5 || beyond > 5 && outcome.send_lag.max_ms > 500.0, "{beyond}, {:?}", outcome.send_lag);
    assert_eq!(outcome.series.iter().filter_map(|second| second.beyond_slo).sum::<u64>(), beyond);
    let failed: u64 = outcome.series.iter().map(|second| second.errors).sum();
    assert_eq!(failed, 2, "a late good response is no error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_told_apart() {
    let (url, _server) = serve(|user| {
        let number: usize = user.trim_start_matches("user ").parse().unwrap();
        let now = |response| (Duration::ZERO, response);
        match number % 5 {
            0 => now(from("cache")),
            1 => now(problem(503, contract::http::problem::STORE_CHECKOUT_TIMEOUT)),
            2 => now((StatusCode::BAD_GATEWAY, "<html>").into_response()),
            3 => now("hello".into_response()),
            _ => (Duration::from_secs(30), from("cache")),
        }
    })
    .await;
    let mut setup = setup(&url, 1000);
    setup.plan.timeout_ms = 300;
    let outcome = run(&setup.plan).await;
    let classes: Vec<_> = outcome.errors.keys().map(String::as_str).collect();
    assert_eq!(classes, ["bad_body", "bad_status_502", "client_timeout", "store-checkout-timeout"]);
    assert_eq!(outcome.errors.values().sum::<u64>() + outcome.good, outcome.answered);
    assert!(outcome.error_pct > 50.0 && outcome.error_pct < 100.0, "{}", outcome.error_pct);
    assert_eq!(outcome.known_sources.cache, outcome.good);
    assert!(outcome.good_latency.max_ms <= outcome.latency.max_ms);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_or_hangs_up_is_an_error() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let plan = setup(&url, 1000);
    let outcome = run(&plan.plan).await;
    assert_eq!(outcome.errors.keys().collect::<Vec<_>>(), ["connect"]);
    assert_eq!((outcome.good, outcome.error_pct), (0, 100.0));

    let rude = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", rude.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = rude.accept().await.unwrap();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let _ = connection.read(&mut [0; 4096]).await;
                let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"source\"").await;
            });
        }
    });
    let plan = setup(&url, 1000);
    let outcome = run(&plan.plan).await;
    assert_eq!(outcome.errors.keys().collect::<Vec<_>>(), ["connection_reset"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_ids_are_used_up_before_one_is_repeated() {
    let (url, server) = serve(|_| (Duration::ZERO, from("cache"))).await;
    let setup = setup(&url, 50);
    let outcome = run(&setup.plan).await;
    let asked = server.asked.lock().unwrap().clone();
    assert!(asked.len() > 50, "{}", asked.len());
    assert_eq!(outcome.repeated_ids, asked.len() as u64 - 50);
    assert_eq!(asked.iter().collect::<HashSet<_>>().len(), 50);
}

#[tokio::test]
async fn a_plan_that_leads_elsewhere_or_has_no_ids_is_refused() {
    let mut setup = setup("http://192.0.2.1:80", 10);
    let error = run_step(setup.plan.clone(), |_| ()).await.unwrap_err().to_string();
    assert!(error.contains("must be a loopback address"), "{error}");
    setup.plan.base_url = "http://127.0.0.1:1".into();
    setup.plan.known_ids = "/nowhere".into();
    let error = run_step(setup.plan.clone(), |_| ()).await.unwrap_err().to_string();
    assert!(error.contains("known ids in /nowhere"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_step_stops_sending() {
    let (url, server) = serve(|_| (Duration::ZERO, from("cache"))).await;
    let mut setup = setup(&url, 1000);
    setup.plan.measure_ms = 60_000;
    let step = tokio::spawn(run_step(setup.plan.clone(), |_| ()));
    let count = || server.asked.lock().unwrap().len();
    within(Duration::from_secs(20), || count() > 20).await;
    step.abort();
    assert!(step.await.unwrap_err().is_cancelled());
    // Users look before they send: after an interval none does.
    let mut last = count();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if count() == last {
            break;
        }
        last = count();
        assert!(tokio::time::Instant::now() < deadline, "still sending");
    }
}

/// This binary, running only this test, is the child too: the variable tells it so.
#[test]
fn the_child_reports_every_second_and_ends_on_a_signal() {
    const ROLE: &str = "LOADTEST_CHILD_PLAN";
    if let Ok(plan) = std::env::var(ROLE) {
        let code = loadgen_main(plan.as_ref());
        std::process::exit(i32::from(code != ExitCode::SUCCESS));
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (url, _server) = runtime.block_on(serve(|_| (Duration::ZERO, from("cache"))));
    let mut setup = setup(&url, 1000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    let mut child = |measure_ms| {
        setup.plan.measure_ms = measure_ms;
        std::fs::write(&path, serde_json::to_string(&setup.plan).unwrap()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        // Two threads: with one, the harness prints the test's name without a line end first.
        command.args(["the_child_reports_every_second_and_ends_on_a_signal", "--exact", "--nocapture"]);
        command.args(["--test-threads", "2"]).env(ROLE, &path).stdout(Stdio::piped());
        Child(command.spawn().unwrap())
    };

    let mut whole = child(1000);
    let lines: Vec<_> = whole.lines().collect();
    assert!(matches!(lines[..2], [ChildMessage::Progress(_), ChildMessage::Progress(_)]), "{lines:?}");
    assert!(matches!(&lines[2..], [ChildMessage::Outcome(outcome)] if outcome.good > 0), "{lines:?}");
    assert!(whole.0.wait().unwrap().success());

    // goose takes SIGINT for itself; both must end the process.
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut long = child(60_000);
        let pid = Pid::from_raw(i32::try_from(long.0.id()).unwrap());
        let mut lines = long.lines();
        assert!(matches!(lines.next(), Some(ChildMessage::Progress(_))));
        let sent = Instant::now();
        kill(pid, signal).unwrap();
        let last = lines.last();
        assert!(matches!(&last, Some(ChildMessage::Error(error)) if error == "stopped by a signal"), "{last:?}");
        assert_eq!(long.0.wait().unwrap().code(), Some(1));
        assert!(sent.elapsed() < Duration::from_secs(20), "it ran on");
    }
}

/// Ended with the test, even if that panics.
struct Child(std::process::Child);

impl Child {
    /// Its own lines, without the harness's.
    fn lines(&mut self) -> impl Iterator<Item = ChildMessage> + use<> {
        let stdout = self.0.stdout.take().unwrap();
        BufReader::new(stdout).lines().filter_map(|line| ChildMessage::parse(&line.unwrap()).unwrap())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn within(limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_shows_its_counters_while_it_runs() {
    let (url, _server) = serve(|_| (Duration::ZERO, from("cache"))).await;
    let mut setup = setup(&url, 1000);
    // Free a moment ago; nobody else on this machine asks the kernel for exactly this one.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    setup.plan.metrics = Some(address);
    let http = runtime::http::plain().build().unwrap();
    let shown = async {
        loop {
            let answer = http.get(format!("http://{address}/metrics")).send().await;
            let text = match answer {
                Ok(answer) => answer.text().await.unwrap_or_default(),
                // Not there yet.
                Err(_) => String::new(),
            };
            let good = text.lines().find_map(|line| line.strip_prefix("loadgen_requests_good_total ")?.parse().ok());
            if good.is_some_and(|good: u64| good >= 100) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (outcome, text) = tokio::join!(run(&setup.plan), tokio::time::timeout(Duration::from_secs(20), shown));
    let text = text.expect("100 good answers are shown while the step sends 400");
    assert!(
        text.contains("loadgen_step{step=\"test\"} 1") && text.contains("loadgen_errors_total{class=\"connect\"} 0")
    );
    assert!(outcome.good > 0 && outcome.errors.is_empty());
    // The port is given back, once what is under way there has ended: a scenario's next step takes it again.
    within(Duration::from_secs(10), || std::net::TcpListener::bind(address).is_ok()).await;
}
