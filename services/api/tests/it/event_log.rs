//! `POST /events` through Kafka.

use std::time::Duration;

use api::{ApiConfig, Profile};
use contract::{
    Event, ShardId, event_message,
    http::{EventsAccepted, Source, problem as kinds},
    shard_of,
};
use eventlog::{Consumer, ConsumerMetrics, Message};
use launcher::{Signal, kafka};
use prometheus::Registry;
use reqwest::StatusCode;
use runtime::telemetry::{Context, TRACEPARENT};

use crate::{
    Fixture, Replica, problem,
    telemetry::{Receiver, attributes, exporting_to},
    wait_until,
};

const DEADLINE_MS: u64 = 2_000;

/// `None`: skipped.
async fn start() -> Option<(Fixture, kafka::Kafka)> {
    if !launcher::testing::have_kafka().await {
        return None;
    }
    let mut fixture = Fixture::start().await?;
    let kafka = kafka::start(&mut fixture.stack, &kafka::Options::default()).await.unwrap();
    Some((fixture, kafka))
}

fn config(fixture: &Fixture, kafka: &kafka::Kafka) -> ApiConfig {
    let mut config = fixture.config(Profile::Protected);
    config.kafka.brokers = kafka.bootstrap.clone();
    config
}

fn event(user: &str, item: &str) -> String {
    format!(r#"{{"user_id":"{user}","item_id":"{item}","event":"cart"}}"#)
}

fn consumer(kafka: &kafka::Kafka) -> Consumer {
    let config = eventlog::KafkaConfig { brokers: kafka.bootstrap.clone(), ..Default::default() };
    Consumer::start(&config, ConsumerMetrics::new(&Registry::new()).unwrap()).unwrap()
}

/// All messages of a partition.
async fn messages(consumer: &Consumer, partition: ShardId) -> Vec<Message> {
    let end = consumer.end(partition).await.unwrap() as usize;
    let mut subscription = consumer.subscribe(partition, 0).await.unwrap();
    let mut messages = Vec::new();
    while messages.len() < end {
        messages.extend(subscription.next_batch(end, Duration::from_millis(20)).await.unwrap());
    }
    subscription.close().await;
    messages
}

fn decoded(message: &Message) -> Event {
    event_message::decode(message.payload.as_ref().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_through_kafka() {
    let Some((fixture, kafka)) = start().await else { return };
    let receiver = Receiver::start();
    let replica = Replica::start(exporting_to(&receiver, config(&fixture, &kafka))).await;
    let consumer = consumer(&kafka);

    // Two users of two partitions, in the order of the request; their lists stay.
    let (a, b) = (fixture.user(3), fixture.user(4));
    assert_ne!(shard_of(a), shard_of(b), "the case needs two partitions");
    assert_eq!(replica.recommend(a, 5).await.source, Source::Cache);
    let body = format!("[{},{},{}]", event(a, "x"), event(b, "y"), event(a, "z"));
    let answer = replica.post("/events", &body).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let accepted: EventsAccepted = answer.json().await.unwrap();
    let positions: Vec<_> = accepted.positions.iter().map(|at| (usize::from(at.partition), at.offset)).collect();
    assert_eq!(positions, [(shard_of(a).index(), 0), (shard_of(b).index(), 0), (shard_of(a).index(), 1)]);
    assert_eq!(replica.recommend(a, 5).await.source, Source::Cache);
    let of_a = messages(&consumer, shard_of(a)).await;
    let (first, second) = (decoded(&of_a[0]), decoded(&of_a[1]));
    assert_eq!((first.item_id.as_str(), second.item_id.as_str()), ("x", "z"));
    assert!(first.at_ms < second.at_ms, "the order of the request is the order of time");
    assert_eq!(of_a[0].traceparent, None, "the request was not sampled");

    // As many events as a request may have, of a new user.
    let many = |count: usize| format!("[{}]", vec![event("somebody new", "i"); count].join(","));
    let answer = replica.post("/events", &many(1_000)).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let accepted: EventsAccepted = answer.json().await.unwrap();
    assert_eq!((accepted.accepted, accepted.positions.len()), (1_000, 1_000));
    let partition = shard_of("somebody new");
    let end = accepted.positions[999].offset + 1;
    assert_eq!(consumer.end(partition).await.unwrap(), end);
    // It is announced: the guard does not call it absent.
    let checked = "guard_checks_total{result=\"newcomer\"}";
    let before = replica.metric(checked).await;
    assert_eq!(replica.recommend("somebody%20new", 5).await.source, Source::Popular);
    assert_eq!(replica.metric(checked).await, before + 1.0);

    // Nothing of a refused batch is sent.
    let (status, _) = problem(replica.post("/events", &many(1_001)).await).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let long = "x".repeat(65);
    for bad in [event("somebody new", &long), event(&long, "i"), r#"{"user_id":"u"}"#.to_owned()] {
        let body = format!("[{},{bad}]", event("somebody new", "i"));
        assert_eq!(replica.post("/events", &body).await.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(consumer.end(partition).await.unwrap(), end);
    assert_eq!(replica.metric("events_accepted_total").await, 1_003.0);
    assert_eq!(replica.metric("api_event_produce_seconds_count").await, 2.0);

    // A sampled request: the messages carry the span that sent them.
    let context = Context::root(true);
    let request = replica.http.post(format!("{}/events", replica.base)).header("content-type", "application/json");
    let sent = request.header(TRACEPARENT, context.to_string()).body(event(b, "traced")).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::ACCEPTED);
    let trace = receiver.trace_with(context, &["POST /events", "send behaviour"]).await;
    assert!(trace.edges(context).contains(&("POST /events", "send behaviour")), "{:?}", trace.edges(context));
    let span = trace.span("send behaviour");
    let attributes = attributes(span);
    assert_eq!(attributes["messaging.system"], "kafka");
    assert_eq!(attributes["messaging.destination.name"], "behaviour");
    assert_eq!(attributes["messaging.batch.message_count"], "1");
    let of_b = messages(&consumer, shard_of(b)).await;
    let carried = Context::parse(of_b.last().unwrap().traceparent.as_ref().unwrap().as_bytes()).unwrap();
    assert_eq!((carried.trace_id, carried.sampled), (context.trace_id, true));
    assert_eq!(carried.span_id.to_be_bytes().as_slice(), span.span_id.as_slice());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_broker_only_events_fail() {
    let Some((mut fixture, kafka)) = start().await else { return };
    fixture.stack.kill(kafka.child, Signal::SIGKILL).unwrap();
    fixture.stack.stop_child(kafka.child).await.unwrap();
    let mut config = config(&fixture, &kafka);
    config.http.deadline_ms = DEADLINE_MS;
    // It becomes ready without the broker.
    let replica = Replica::start(config).await;
    let user = fixture.user(5);
    let body = event(user, "x");
    let refused = async || {
        // A 503 and not a 504: the request's deadline was kept.
        let answer = replica.post("/events", &body).await;
        assert_eq!(answer.headers()["retry-after"], "2");
        let (status, problem) = problem(answer).await;
        assert_eq!((status, problem.kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, kinds::EVENT_LOG_UNAVAILABLE));
        assert!(problem.detail.contains("perhaps some are written: send all again"), "{}", problem.detail);
    };
    refused().await;
    assert_eq!(replica.recommend(user, 5).await.source, Source::Cache);
    assert_eq!(replica.metric("api_event_produce_failures_total{reason=\"unavailable\"}").await, 1.0);

    let options = kafka::Options { port: Some(kafka.port), ..Default::default() };
    let kafka = kafka::start(&mut fixture.stack, &options).await.unwrap();
    let accepted = async || replica.post("/events", &body).await.status() == StatusCode::ACCEPTED;
    wait_until("events are accepted", accepted).await;
    // While it runs.
    fixture.stack.kill(kafka.child, Signal::SIGKILL).unwrap();
    fixture.stack.stop_child(kafka.child).await.unwrap();
    refused().await;
    kafka::start(&mut fixture.stack, &options).await.unwrap();
    wait_until("events are accepted again", accepted).await;
    replica.stop().await;
}
