//! Somebody else's endpoint: servers that are written here, byte by byte where it matters.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use loadtest::{
    StepOutcome, StepPlan,
    arrivals::{Arrivals, Open, Spacing},
    run_step,
    target::Endpoint,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{Setup, run, setup};

/// 20 users who send 10 requests a second each to this URL, with these ids; a second of warm-up, a second measured.
async fn target(url: &str, ids: &str) -> Setup {
    let mut setup = setup("", 0);
    std::fs::write(&setup.plan.known_ids, ids).unwrap();
    let endpoint = Endpoint::parse(url).unwrap();
    setup.plan.base_url = endpoint.base_url();
    setup.plan.target = Some(endpoint.resolve(false).await.unwrap());
    setup
}

/// 200 requests a second that wait for no answer.
fn open(plan: StepPlan, max_in_flight: u32) -> StepPlan {
    let arrivals = Arrivals::Open(Open { spacing: Spacing::Constant, max_in_flight, curve: None });
    StepPlan { users: 200, interval_ms: 1000, arrivals, ..plan }
}

/// Keeps the path and query of each request, and waits before its answer.
async fn serve(
    answer: impl Fn(usize) -> (Duration, Response) + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
    let router = Router::new().fallback(move |request: Request| {
        let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
        async move {
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.push(request.uri().to_string());
                seen.len() - 1
            };
            let (wait, response) = answer(number);
            tokio::time::sleep(wait).await;
            response
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

/// Answers each request with these bytes; closes the connection after each if `closes`. Returns the URL and the number of connections.
async fn serve_bytes(answer: &'static str, closes: bool) -> (String, Arc<AtomicUsize>) {
    async fn connection(mut stream: TcpStream, answer: &str, closes: bool) -> std::io::Result<()> {
        let mut request = Vec::new();
        while stream.read_buf(&mut request).await? > 0 {
            if request.ends_with(b"\r\n\r\n") {
                request.clear();
                for piece in answer.split('|') {
                    stream.write_all(piece.as_bytes()).await?;
                }
                if closes {
                    return stream.shutdown().await;
                }
            }
        }
        Ok(())
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(connection(stream, answer, closes));
        }
    });
    (url, connections)
}

fn assert_all_good(outcome: &StepOutcome) {
    assert!(outcome.answered > 0 && outcome.answered == outcome.good, "{:?}", outcome.errors);
    assert_eq!(outcome.known_answered, 0, "nothing is known of the users of a foreign service");
    assert_eq!((outcome.known_personal_pct, outcome.sources()), (None, loadtest::figures::Sources::default()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_answer_2xx_is_good_and_latency_is_the_service_time() {
    let (url, asked) = serve(|_| (Duration::from_millis(20), StatusCode::CREATED.into_response())).await;
    let setup = target(&format!("{url}/a/b?c=d"), "never read").await;
    let outcome = run(&setup.plan).await;
    assert_all_good(&outcome);
    assert!(outcome.latency.p50_ms >= 20.0, "{:?}", outcome.latency);
    assert!(asked.lock().unwrap().iter().all(|path| path == "/a/b?c=d"));
    assert_eq!(outcome.repeated_ids, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_encoded_and_all_are_used_in_turn() {
    let (url, asked) = serve(|_| (Duration::ZERO, "ok".into_response())).await;
    let setup = target(&format!("{url}/x/{{id}}/y?z=1"), "a b\nü/%\nc&d=\n").await;
    let outcome = run(&setup.plan).await;
    assert_all_good(&outcome);
    let asked = asked.lock().unwrap();
    let count = |path: &str| asked.iter().filter(|asked| *asked == path).count();
    let counts = ["/x/a%20b/y?z=1", "/x/%C3%BC%2F%25/y?z=1", "/x/c%26d%3D/y?z=1"].map(count);
    assert_eq!(counts.iter().sum::<usize>(), asked.len(), "{asked:?}");
    let [least, most] = [counts.iter().min(), counts.iter().max()].map(|count| *count.unwrap());
    assert!(least > 0 && most - least <= 1, "{counts:?}");
    assert!(outcome.repeated_ids > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_the_class_of_their_status() {
    let (url, _) = serve(|number| {
        let status = if number.is_multiple_of(2) { StatusCode::NOT_FOUND } else { StatusCode::FOUND };
        // A document such as our own service sends means nothing here.
        (Duration::ZERO, (status, "{\"type\":\"/problems/overloaded\"}").into_response())
    })
    .await;
    let outcome = run(&target(&url, "").await.plan).await;
    assert_eq!((outcome.good, outcome.error_pct), (0, 100.0));
    assert_eq!(outcome.errors.keys().map(String::as_str).collect::<Vec<_>>(), ["bad_status_302", "bad_status_404"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_nobody_listens_on_and_a_server_that_never_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut setup = target(&url, "").await;
    setup.plan.timeout_ms = 100;
    let outcome = run(&setup.plan).await;
    assert_eq!(outcome.errors.keys().map(String::as_str).collect::<Vec<_>>(), ["client_timeout"]);
    assert!(outcome.latency.p50_ms >= 99.0, "{:?}", outcome.latency);
    drop(listener);
    let outcome = run(&setup.plan).await;
    assert_eq!(outcome.errors.keys().map(String::as_str).collect::<Vec<_>>(), ["connect"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunked_answers_and_connections_that_the_server_closes() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n|hel\r\n2\r\nlo\r\n|0\r\n\r\n";
    let (url, connections) = serve_bytes(chunked, false).await;
    assert_all_good(&run(&target(&url, "").await.plan).await);
    assert!(connections.load(Ordering::Relaxed) <= 20, "one connection per user at most");
    for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.0 200 OK\r\n\r\nok"] {
        let (url, connections) = serve_bytes(answer, true).await;
        let outcome = run(&target(&url, "").await.plan).await;
        assert_all_good(&outcome);
        assert!(connections.load(Ordering::Relaxed) as u64 >= outcome.answered, "{answer:?}");
    }
    let (url, _) = serve_bytes("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok", true).await;
    let outcome = run(&target(&url, "").await.plan).await;
    assert_eq!(outcome.errors.keys().map(String::as_str).collect::<Vec<_>>(), ["connection_reset"]);
}

/// The server stands still for 700 ms, from its 250th request on, as a stop of the whole process would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_is_skipped_by_users_and_dropped_by_open_arrivals() {
    /// Requests after this one wait for as long as the first of them.
    const FIRST: usize = 250;
    let server = async || {
        let until = Mutex::new(None::<std::time::Instant>);
        serve(move |number| {
            let now = std::time::Instant::now();
            let wait = if number < FIRST {
                Duration::ZERO
            } else {
                until.lock().unwrap().get_or_insert(now + Duration::from_millis(700)).saturating_duration_since(now)
            };
            (wait, "ok".into_response())
        })
        .await
    };
    let (url, _) = server().await;
    let mut setup = target(&url, "").await;
    setup.plan.measure_ms = 3000;
    let outcome = run(&setup.plan).await;
    assert_all_good(&outcome);
    // Each of the 20 users plans six further instants while it waits; its latency starts at the planned one.
    assert!(outcome.skipped >= 60 && outcome.dropped == 0, "{} skipped", outcome.skipped);
    assert!(outcome.latency.max_ms >= 690.0, "{:?}", outcome.latency);
    assert!(outcome.corrected.unwrap().p90_ms > outcome.latency.p50_ms, "{:?}", outcome.corrected);

    let (url, asked) = server().await;
    let mut setup = target(&url, "").await;
    setup.plan.measure_ms = 3000;
    let plan = open(setup.plan.clone(), 10);
    let outcome = run(&plan).await;
    assert_all_good(&outcome);
    // 140 are planned while the server stands still, and 10 are in flight.
    assert!(outcome.dropped >= 100 && outcome.skipped == 0, "{} dropped", outcome.dropped);
    assert!(outcome.latency.max_ms >= 690.0, "{:?}", outcome.latency);
    assert!(asked.lock().unwrap().len() < 800);
}

#[tokio::test]
async fn what_must_not_be_loaded_is_refused_before_anything_is_sent() {
    // A documentation address: nothing is there, and nothing may be sent to it.
    let remote = Endpoint::parse("http://192.0.2.1:9/").unwrap();
    let refused = async |allow_remote: bool, change: &dyn Fn(&mut StepPlan)| {
        let mut setup = setup("http://192.0.2.1:9", 1);
        setup.plan.target = Some(remote.clone().resolve(allow_remote).await.unwrap());
        change(&mut setup.plan);
        run_step(setup.plan, |_| ()).await.unwrap_err().to_string()
    };
    let error = refused(false, &|_| ()).await;
    assert!(error.contains("192.0.2.1:9") && error.contains("--allow-remote"), "{error}");
    let error = refused(true, &|plan| *plan = StepPlan { users: 5001, ..open(plan.clone(), 10) }).await;
    assert!(error.contains("at most 5000 requests/s"), "{error}");
    let error = refused(true, &|plan| plan.users = 501).await;
    assert!(error.contains("and 5010 are planned"), "{error}");
    let error = refused(true, &|plan| plan.measure_ms = 3_601_000).await;
    assert!(error.contains("at most 3600 s"), "{error}");

    let (url, asked) = serve(|_| (Duration::ZERO, "ok".into_response())).await;
    for (ids, reason) in [("", "empty"), ("a\n\nb\n", "line 2 of the ids"), ("a\tb", "line 1 of the ids")] {
        let setup = target(&format!("{url}/{{id}}"), ids).await;
        let error = format!("{:#}", run_step(setup.plan, |_| ()).await.unwrap_err());
        assert!(error.contains(reason), "{error}");
    }
    let setup = target(&format!("{url}/{{id}}"), "a").await;
    let plan = StepPlan { known_ids: "no/such/file".into(), ..setup.plan };
    assert!(run_step(plan, |_| ()).await.unwrap_err().to_string().contains("no/such/file"));
    assert_eq!(asked.lock().unwrap().len(), 0);
}
