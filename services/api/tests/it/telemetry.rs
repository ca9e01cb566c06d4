//! Spans and log lines of requests, received by an OTLP receiver.

mod receiver;

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, LazyLock, Mutex},
};

use api::{ApiConfig, Profile};
use contract::spans::attribute;
use reqwest::{Response, StatusCode};
use runtime::telemetry::{Context, TRACEPARENT};

use self::receiver::failed;
pub use self::receiver::{Receiver, attributes};
use crate::{Fixture, Replica, USED, wait_until};

const SERVER: &str = "GET /recommendations";

/// The log of this process, which all its tests share.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let writer = log.clone();
    runtime::logs::init_json(move || writer.clone());
    log
});

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lines_with(trace_id: u128) -> Vec<serde_json::Value> {
    let trace_id = format!("{trace_id:032x}");
    let text = String::from_utf8(LOG.0.lock().unwrap().clone()).unwrap();
    text.lines().filter(|line| line.contains(&trace_id)).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Only requests with a sampling decision are recorded, and they are exported soon.
pub fn exporting_to(receiver: &Receiver, mut config: ApiConfig) -> ApiConfig {
    LazyLock::force(&LOG);
    config.telemetry.endpoint = format!("http://{}", receiver.address);
    config.telemetry.sample_ratio = 0.0;
    config.telemetry.trust_caller = true;
    config.telemetry.flush_ms = 20;
    // The machine is shared with other tests: only deliberate delays may count as slow.
    config.telemetry.slow_ms = 600_000;
    config
}

async fn ask(replica: &Replica, user: &str, context: Context) -> Response {
    let url = format!("{}/recommendations?user_id={user}&limit=5", replica.base);
    replica.http.get(url).header(TRACEPARENT, context.to_string()).send().await.unwrap()
}

fn edges<const N: usize>(edges: [(&'static str, &'static str); N]) -> BTreeSet<(&'static str, &'static str)> {
    edges.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_and_an_unknown_id() {
    let Some(fixture) = Fixture::start().await else { return };
    let receiver = Receiver::start();
    let replica = Replica::start(exporting_to(&receiver, fixture.config(Profile::Protected))).await;

    let hit = Context::root(true);
    assert_eq!(ask(&replica, fixture.user(1), hit).await.status(), StatusCode::OK);
    let trace = receiver.trace_with(hit, &[SERVER, "GET"]).await;
    assert_eq!(trace.edges(hit), edges([("caller", SERVER), (SERVER, "GET")]));
    let server = attributes(trace.span(SERVER));
    for (key, value) in [
        (attribute::HTTP_REQUEST_METHOD, "GET"),
        (attribute::HTTP_ROUTE, "/recommendations"),
        (attribute::URL_PATH, "/recommendations"),
        (attribute::HTTP_RESPONSE_STATUS_CODE, "200"),
        (attribute::GUARD_RESULT, "present"),
        (attribute::CACHE_RESULT, "hit"),
        (attribute::ANSWER_SOURCE, "cache"),
    ] {
        assert_eq!(server.get(key).map(String::as_str), Some(value), "{key}");
    }
    let get = trace.span("GET");
    let redis = attributes(get);
    assert_eq!(
        (redis[attribute::DB_SYSTEM_NAME].as_str(), redis[attribute::SERVER_ADDRESS].as_str()),
        ("redis", "127.0.0.1")
    );
    assert_eq!(redis[attribute::SERVER_PORT], fixture.redis.port.to_string());
    let within = trace.span(SERVER);
    assert!(within.start_time_unix_nano <= get.start_time_unix_nano);
    assert!(get.end_time_unix_nano <= within.end_time_unix_nano && !failed(within));

    let unknown = Context::root(true);
    assert_eq!(ask(&replica, "nobody", unknown).await.status(), StatusCode::OK);
    let trace = receiver.trace_with(unknown, &[SERVER, "PIPELINE"]).await;
    assert_eq!(trace.edges(unknown), edges([("caller", SERVER), (SERVER, "PIPELINE")]));
    assert_eq!(attributes(trace.span(SERVER))[attribute::GUARD_RESULT], "absent");
    assert_eq!(attributes(trace.span("PIPELINE"))[attribute::DB_OPERATION_NAME], "PIPELINE SMISMEMBER");

    // Requests that are not sampled are not recorded. A later recorded request proves that they would have arrived.
    let (unsampled, after) = (Context::root(false), Context::root(true));
    ask(&replica, fixture.user(1), unsampled).await;
    replica.recommend(fixture.user(1), 5).await;
    let sampled = receiver.received();
    ask(&replica, fixture.user(1), after).await;
    receiver.trace_with(after, &[SERVER, "GET"]).await;
    assert_eq!(receiver.received() - sampled, 2);
    assert!(receiver.trace(unsampled.trace_id).0.is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_and_one_that_shares_its_load() {
    let Some(fixture) = Fixture::start().await else { return };
    let receiver = Receiver::start();
    let mut config = exporting_to(&receiver, fixture.config(Profile::Protected));
    config.guards.warmup = false;
    config.http.deadline_ms = 60_000;
    let replica = Replica::start(config).await;
    let (first, second) = (Context::root(true), Context::root(true));
    let lock = fixture.lock_tables().await;
    let user = fixture.user(2);
    let (led, joined, ()) = tokio::join!(
        ask(&replica, user, first),
        async {
            wait_until("the load is in flight", async || replica.metric(USED).await == 1.0).await;
            ask(&replica, user, second).await
        },
        async {
            // This request has missed: its next step is the load in flight.
            receiver.trace_with(second, &["GET"]).await;
            drop(lock);
        }
    );
    assert_eq!((led.status(), joined.status()), (StatusCode::OK, StatusCode::OK));

    let led = receiver.trace_with(first, &[SERVER, "load", "rank", "cache fill", "SET"]).await;
    assert_eq!(
        led.edges(first),
        edges([
            ("caller", SERVER),
            (SERVER, "GET"),
            (SERVER, "load"),
            ("load", "pool wait"),
            ("load", "SELECT behaviour"),
            ("load", "rank"),
            ("load", "cache fill"),
            ("cache fill", "SET"),
        ])
    );
    let query = attributes(led.span("SELECT behaviour"));
    assert_eq!(query[attribute::DB_SYSTEM_NAME], "mysql");
    assert!(query[attribute::DB_NAMESPACE].starts_with("shard_") && query.contains_key(attribute::SERVER_PORT));

    let joined = receiver.trace_with(second, &[SERVER, "load wait"]).await;
    assert_eq!(joined.edges(second), edges([("caller", SERVER), (SERVER, "GET"), (SERVER, "load wait")]));
    let link = &joined.span("load wait").links[0];
    let load = led.span("load");
    assert_eq!((&link.trace_id, &link.span_id), (&load.trace_id, &load.span_id));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_up_and_events() {
    let Some(fixture) = Fixture::start().await else { return };
    let receiver = Receiver::start();
    let replica = Replica::start(exporting_to(&receiver, fixture.config(Profile::Protected))).await;
    let post = async |path: &str, context: Context, body: String| {
        let request = replica.http.post(format!("{}{path}", replica.base)).header(TRACEPARENT, context.to_string());
        request.header("content-type", "application/json").body(body).send().await.unwrap().status()
    };

    const SIGN_UP: &str = "POST /users";
    let sign_up = Context::root(true);
    assert_eq!(post("/users", sign_up, r#"{"user_id": "somebody"}"#.into()).await, StatusCode::CREATED);
    let trace = receiver.trace_with(sign_up, &[SIGN_UP]).await;
    let expected = [("caller", SIGN_UP), (SIGN_UP, "SADD"), (SIGN_UP, "pool wait"), (SIGN_UP, "INSERT users")];
    assert_eq!(trace.edges(sign_up), edges(expected));
    assert_eq!(trace.0.len(), expected.len() + 1, "announced before and after");
    let insert = attributes(trace.span("INSERT users"));
    assert_eq!(insert[attribute::DB_OPERATION_NAME], "INSERT");
    assert_eq!(insert[attribute::DB_COLLECTION_NAME], "users");
    assert_eq!(insert[attribute::DB_NAMESPACE], contract::shard_of("somebody").schema());

    const EVENTS: &str = "POST /events";
    let (first, second) = ("somebody", fixture.user(1));
    let event =
        |user: &str| format!(r#"{{"user_id": "{user}", "item_id": "{}", "event": "view"}}"#, fixture.dataset.items[0]);
    let events = Context::root(true);
    let body = format!("[{}, {}]", event(first), event(second));
    assert_eq!(post("/events", events, body).await, StatusCode::ACCEPTED);
    let trace = receiver.trace_with(events, &[EVENTS]).await;
    assert_eq!(
        trace.edges(events),
        edges([
            ("caller", EVENTS),
            (EVENTS, "SADD"),
            (EVENTS, "pool wait"),
            (EVENTS, "INSERT behaviour"),
            (EVENTS, "DEL"),
        ])
    );
    let inserts: Vec<_> = trace.0.iter().filter(|span| span.name == "INSERT behaviour").map(attributes).collect();
    let shards: BTreeSet<&str> = inserts.iter().map(|insert| insert[attribute::DB_NAMESPACE].as_str()).collect();
    let expected = [first, second].map(|user| contract::shard_of(user).schema());
    assert_eq!(shards, expected.iter().map(String::as_str).collect());
    replica.stop().await;
}

/// By default the caller's decision is not trusted; only the configuration can change that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untrusted_caller_does_not_decide_what_is_recorded() {
    let Some(fixture) = Fixture::start().await else { return };
    let receiver = Receiver::start();
    let mut config = exporting_to(&receiver, fixture.config(Profile::Protected));
    config.telemetry.trust_caller = ApiConfig::new(Profile::Protected, config.store.clone(), "").telemetry.trust_caller;
    let replica = Replica::start(config).await;
    for n in 0..10 {
        assert_eq!(ask(&replica, fixture.user(n), Context::root(true)).await.status(), StatusCode::OK);
    }
    // Exports the remaining spans.
    replica.stop().await;
    assert_eq!(receiver.received(), 0);
}

/// Sampled or not, with or without a caller's trace: one log line and at least one span.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_reported_once() {
    let Some(fixture) = Fixture::start().await else { return };
    let receiver = Receiver::start();
    let mut config = exporting_to(&receiver, fixture.config(Profile::Protected));
    config.guards.warmup = false;
    config.store.pool_size = 1;
    config.store.checkout_timeout_ms = 100;
    config.http.deadline_ms = 60_000;
    let replica = Replica::start(config).await;
    let lock = fixture.lock_tables().await;
    let (sampled, unsampled) = (Context::root(true), Context::root(false));
    let holder = async {
        assert_eq!(ask(&replica, fixture.user(1), Context::root(false)).await.status(), StatusCode::OK);
    };
    let failing = async {
        wait_until("the connection is busy", async || replica.metric(USED).await == 1.0).await;
        for (user, context) in [(2, Some(sampled)), (3, Some(unsampled)), (4, None)] {
            let answer = match context {
                Some(context) => ask(&replica, fixture.user(user), context).await,
                None => replica.get(&format!("/recommendations?user_id={}", fixture.user(user))).await,
            };
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        drop(lock);
    };
    tokio::join!(holder, failing);

    let trace = receiver.trace_with(sampled, &[SERVER, "load", "pool wait"]).await;
    assert_eq!(
        trace.edges(sampled),
        edges([("caller", SERVER), (SERVER, "GET"), (SERVER, "load"), ("load", "pool wait")])
    );
    assert_eq!(attributes(trace.span("pool wait"))[attribute::ERROR_TYPE], "checkout_timeout");
    let server = trace.span(SERVER);
    assert!(failed(server) && failed(trace.span("load")));
    assert_eq!(attributes(server)[attribute::ERROR_TYPE], "store-checkout-timeout");
    assert_eq!(attributes(server)[attribute::HTTP_RESPONSE_STATUS_CODE], "503");

    let trace = receiver.trace_with(unsampled, &[SERVER]).await;
    assert_eq!(trace.edges(unsampled), edges([("caller", SERVER)]));
    assert_eq!(attributes(trace.span(SERVER))[attribute::RETROSPECTIVE], "true");

    wait_until("the third is recorded as well", async || receiver.trace_ids().len() == 3).await;
    for trace_id in receiver.trace_ids() {
        let (trace, lines) = (receiver.trace(trace_id), lines_with(trace_id));
        assert_eq!(lines.len(), 1, "{lines:?}");
        let span_id = u64::from_be_bytes(trace.span(SERVER).span_id[..].try_into().unwrap());
        assert_eq!(lines[0]["span_id"], format!("{span_id:016x}"));
        assert_eq!((&lines[0]["status"], &lines[0]["level"]), (&503.into(), &"WARN".into()));
        let error = lines[0]["error"].as_str().unwrap();
        assert!(error.contains("no connection to the store came free"), "{error}");
    }
    replica.stop().await;
}

/// A slow request gets a span afterwards, with its real start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_request_is_recorded_afterwards() {
    let Some(fixture) = Fixture::start().await else { return };
    let receiver = Receiver::start();
    let mut config = exporting_to(&receiver, fixture.config(Profile::Protected));
    config.telemetry.slow_ms = 1;
    config.cache.local_ms = 60_000;
    config.guards.warmup = false;
    let replica = Replica::start(config).await;
    let slow = Context::root(false);
    let lock = fixture.lock_tables().await;
    let (answer, ()) = tokio::join!(ask(&replica, fixture.user(1), slow), async {
        wait_until("the load is in flight", async || replica.metric(USED).await == 1.0).await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        drop(lock);
    });
    assert_eq!(answer.status(), StatusCode::OK);
    let trace = receiver.trace_with(slow, &[SERVER]).await;
    assert_eq!(trace.edges(slow), edges([("caller", SERVER)]));
    let span = trace.span(SERVER);
    assert!(!failed(span) && span.end_time_unix_nano - span.start_time_unix_nano >= 2_000_000);

    // An answer from memory, before the router, is recorded as well.
    let local = Context::root(true);
    ask(&replica, fixture.user(1), local).await;
    let trace = receiver.trace_with(local, &[SERVER]).await;
    assert_eq!(trace.edges(local), edges([("caller", SERVER)]));
    assert_eq!(replica.metric("cache_local_hits_total").await, 1.0);
    replica.stop().await;
}

/// Requests are not affected. Every lost span is counted, and all others arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_receiver_loses_only_counted_spans() {
    const QUEUE: usize = 64;
    const SPANS_OF_A_HIT: usize = 2;
    let Some(fixture) = Fixture::start().await else { return };
    let mut receiver = Receiver::start();
    let mut config = exporting_to(&receiver, fixture.config(Profile::Protected));
    config.telemetry.queue = QUEUE;
    let replica = Replica::start(config).await;
    let mut made = 0;
    let mut hits = async |count: usize| {
        for n in 0..count {
            assert_eq!(ask(&replica, fixture.user(n % 50), Context::root(true)).await.status(), StatusCode::OK);
        }
        made += count * SPANS_OF_A_HIT;
        made
    };
    // Few enough to fit into the queue in any case.
    let made_before = hits(QUEUE / 4).await;
    wait_until("all have arrived", async || receiver.received() == made_before).await;
    wait_until("and are counted", async || replica.metric("telemetry_spans_sent_total").await == made_before as f64)
        .await;

    receiver.kill();
    hits(QUEUE * 2).await;
    let dropped = replica.metric("telemetry_spans_dropped_total{reason=\"queue_full\"}").await;
    assert!(dropped > 0.0, "this tested nothing");

    receiver.restart();
    let made = hits(QUEUE / 4).await;
    wait_until("what was not dropped arrives", async || {
        let dropped = replica.metric("telemetry_spans_dropped_total").await;
        receiver.received() as f64 + dropped == made as f64
    })
    .await;
    // The receiver has a batch shortly before the replica gets its response.
    wait_until("and all of it is counted", async || {
        replica.metric("telemetry_spans_sent_total").await == receiver.received() as f64
    })
    .await;
    let last = Context::root(true);
    ask(&replica, fixture.user(1), last).await;
    receiver.trace_with(last, &[SERVER, "GET"]).await;
    replica.stop().await;
}
