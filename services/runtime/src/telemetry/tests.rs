//! Exports to receivers that decode the messages.

mod receiver;

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use contract::spans::{SCHEMA_URL, attribute};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    trace::v1::{Span as Message, Status as MessageStatus, span as message, status::StatusCode as MessageCode},
};
use prost::Message as _;
use tokio::sync::mpsc;
use tracing_subscriber::layer::SubscriberExt;

use self::receiver::Receiver;
use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn counted(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum()
}

fn dropped(registry: &Registry, what: &str, reason: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == format!("telemetry_{what}_dropped_total")).unwrap();
    let metric = family.get_metric().iter().find(|metric| metric.get_label()[0].value() == reason).unwrap();
    metric.get_counter().get_value()
}

fn started(config: &TelemetryConfig) -> (Telemetry, Registry) {
    let registry = Registry::new();
    let service = Service { name: "test", listen: "here".into() };
    (Telemetry::start(config, service, &registry).unwrap(), registry)
}

fn all_to(receiver: &Receiver) -> TelemetryConfig {
    TelemetryConfig {
        sample_ratio: 1.0,
        flush_ms: 10,
        logs: false,
        ..TelemetryConfig::to(&format!("http://{}", receiver.address))
    }
}

fn key_value(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[tokio::test]
async fn spans_arrive_unchanged() {
    let receiver = Receiver::start(|_| 0).await;
    let config = TelemetryConfig { trust_caller: true, ..all_to(&receiver) };
    let (telemetry, registry) = started(&config);
    let caller = Context { trace_id: 7 << 100, span_id: 9, sampled: true };
    let there = Context { trace_id: 8, span_id: u64::MAX, sampled: false };
    let long = "y".repeat(span::TEXT_BYTES - 1) + "é and more";
    let (context, parent_id) = telemetry.incoming(Some(caller.to_string().as_bytes())).new_span();
    let began = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    let whole = telemetry.record((context, parent_id), Kind::Server, format_args!("GET {long}"), began);
    whole.set_all([("text", AttributeValue::Text(&long)), ("int", AttributeValue::Int(-3)), ("bool", true.into())]);
    whole.link(Some(there));
    (0..17).for_each(|_| whole.event(&long));
    whole.fail("timeout");
    whole.end_at(began + Duration::from_secs(2));
    let child = whole.child_since(Kind::Client, "child", began);
    // An end before the start is corrected.
    child.end_at(began.checked_sub(Duration::from_secs(1)).unwrap());
    let child_id = child.context().unwrap().span_id;
    (0..100).for_each(|n: usize| child.set("many", n));
    drop((child, whole));
    telemetry.stop(PATIENCE).await;

    let requests = receiver.spans();
    let of_resource = &requests[0].resource_spans[0];
    let mut resource: Vec<&str> =
        of_resource.resource.as_ref().unwrap().attributes.iter().map(|kv| kv.key.as_str()).collect();
    resource.sort_unstable();
    assert_eq!(resource, ["service.instance.id", "service.name", "service.namespace", "service.version"]);
    let of_scope = &of_resource.scope_spans[0];
    assert_eq!((&*of_resource.schema_url, &*of_scope.schema_url), (SCHEMA_URL, SCHEMA_URL));
    assert_eq!(of_scope.scope.as_ref().unwrap().name, "testbed");
    let [child, whole] = &of_scope.spans[..] else { panic!("{of_scope:?}") };
    let expected = Message {
        trace_id: caller.trace_id.to_be_bytes().into(),
        span_id: context.span_id.to_be_bytes().into(),
        parent_span_id: 9_u64.to_be_bytes().into(),
        // Sampled, and below a span of another process.
        flags: 0x301,
        // Truncated at the end of a character.
        name: format!("GET {}", "y".repeat(span::TEXT_BYTES - 4)),
        kind: message::SpanKind::Server.into(),
        start_time_unix_nano: whole.start_time_unix_nano,
        end_time_unix_nano: whole.start_time_unix_nano + 2_000_000_000,
        attributes: vec![
            key_value("text", Any::StringValue("y".repeat(span::TEXT_BYTES - 1))),
            key_value("int", Any::IntValue(-3)),
            key_value("bool", Any::BoolValue(true)),
            key_value(attribute::ERROR_TYPE, Any::StringValue("timeout".into())),
        ],
        links: vec![message::Link {
            trace_id: there.trace_id.to_be_bytes().into(),
            span_id: there.span_id.to_be_bytes().into(),
            flags: 0x100,
            ..message::Link::default()
        }],
        status: Some(MessageStatus { message: String::new(), code: MessageCode::Error.into() }),
        events: whole.events.clone(),
        dropped_events_count: 1,
        ..Message::default()
    };
    assert_eq!(*whole, expected);
    let texts: Vec<&str> = whole.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(texts, vec!["y".repeat(span::TEXT_BYTES - 1); span::LIMITS.max_events_per_span as usize]);
    assert_eq!((child.span_id.as_slice(), &child.parent_span_id), (&child_id.to_be_bytes()[..], &whole.span_id));
    assert_eq!((child.flags, child.start_time_unix_nano), (0x101, whole.start_time_unix_nano));
    assert_eq!(child.end_time_unix_nano, child.start_time_unix_nano);
    let most = span::LIMITS.max_attributes_per_span as usize;
    assert_eq!((child.attributes.len(), child.dropped_attributes_count), (most, 100 - most as u32));
    assert_eq!(counted(&registry, "telemetry_spans_sent_total"), 2.0);
}

#[tokio::test]
async fn by_http_as_well() {
    let (received, mut requests) = mpsc::unbounded_channel();
    let take = move |body: Bytes| {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let name = request.resource_spans[0].scope_spans[0].spans[0].name.clone();
        received.send(request).unwrap();
        async move { if name == "bad" { StatusCode::BAD_REQUEST } else { StatusCode::OK } }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = TelemetryConfig {
        protocol: Protocol::Http,
        sample_ratio: 1.0,
        flush_ms: 10,
        logs: false,
        ..TelemetryConfig::to(&format!("http://{}/otlp/", listener.local_addr().unwrap()))
    };
    let server =
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/otlp/v1/traces", post(take))).await });
    let registry = Registry::new();
    let service = Service { name: "test", listen: "here".into() };
    let telemetry = Telemetry::start(&config, service, &registry).unwrap();

    let incoming = telemetry.incoming(None);
    assert!(incoming.is_sampled);
    let (context, parent_id) = incoming.new_span();
    let began = Instant::now();
    telemetry.record((context, parent_id), Kind::Server, "good", began).set("k", 7_usize);
    let request = requests.recv().await.unwrap();
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((span.name.as_str(), &span.trace_id[..]), ("good", &context.trace_id.to_be_bytes()[..]));
    assert!(span.parent_span_id.is_empty() && span.attributes[0].key == "k");
    let of = request.resource_spans[0].resource.as_ref().unwrap();
    assert!(of.attributes.iter().any(|kv| kv.key == contract::spans::resource::SERVICE_NAME));

    drop(telemetry.record(incoming.new_span(), Kind::Server, "bad", began));
    requests.recv().await.unwrap();
    drop(telemetry.record(incoming.new_span(), Kind::Server, "last", began));
    telemetry.stop(Duration::from_secs(30)).await;
    assert_eq!(requests.recv().await.unwrap().resource_spans[0].scope_spans[0].spans[0].name, "last");
    assert_eq!(counted(&registry, "telemetry_spans_sent_total"), 2.0);
    assert_eq!(counted(&registry, "telemetry_spans_dropped_total"), 1.0);
    server.abort();
}

/// A gRPC receiver accepts 4 MiB per message, and a client's query may be as long as a request's header.
#[tokio::test]
async fn many_of_the_longest_queries_are_accepted() {
    const FLOOD: usize = 2_048;
    let receiver = Receiver::start(|_| 0).await;
    let (telemetry, registry) = started(&TelemetryConfig { trust_caller: true, ..all_to(&receiver) });
    let query = "x".repeat(8_192);
    for _ in 0..FLOOD {
        let incoming = telemetry.incoming(Some(Context::root(true).to_string().as_bytes()));
        let span = telemetry.record(incoming.new_span(), Kind::Server, "GET /recommendations", Instant::now());
        // Too large for one message if the values were not truncated.
        for key in [attribute::URL_PATH, attribute::URL_QUERY, attribute::URL_FULL] {
            span.set(key, query.as_str());
        }
    }
    telemetry.stop(PATIENCE).await;
    assert_eq!((receiver.spans_received(), counted(&registry, "telemetry_spans_sent_total")), (FLOOD, FLOOD as f64));
    assert_eq!(counted(&registry, "telemetry_spans_dropped_total"), 0.0);
}

/// By reason, and with both protocols.
#[tokio::test]
async fn lost_items_are_counted_exactly() {
    // This receiver rejects one span of each batch.
    let receiver = Receiver::start(|_| 1).await;
    let (telemetry, registry) = started(&all_to(&receiver));
    for batch in 1..=3 {
        (0..10).for_each(|_| {
            drop(telemetry.record(telemetry.incoming(None).new_span(), Kind::Server, "x", Instant::now()))
        });
        receiver.wait_for(batch * 10).await;
    }
    telemetry.stop(PATIENCE).await;
    let batches = receiver.spans().len() as f64;
    assert_eq!(counted(&registry, "telemetry_spans_sent_total"), 30.0 - batches);
    assert_eq!(dropped(&registry, "spans", "refused"), batches);

    // This receiver refuses all spans, without retries.
    let refusing = Receiver::start(|_| i64::MAX).await;
    let (telemetry, registry) = started(&all_to(&refusing));
    drop(telemetry.record(telemetry.incoming(None).new_span(), Kind::Server, "x", Instant::now()));
    refusing.wait_for(1).await;
    telemetry.stop(PATIENCE).await;
    assert_eq!((dropped(&registry, "spans", "refused"), refusing.spans().len()), (1.0, 1));

    // No receiver: spans that are left at the end and later ones are counted, too.
    let config = TelemetryConfig { timeout_ms: 100, ..TelemetryConfig::to("http://127.0.0.1:1") };
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let (telemetry, registry) = started(&TelemetryConfig { protocol, sample_ratio: 1.0, ..config.clone() });
        let span = || telemetry.record(telemetry.incoming(None).new_span(), Kind::Server, "x", Instant::now());
        (0..1_000).for_each(|_| drop(span()));
        telemetry.stop(PATIENCE).await;
        drop(span());
        assert_eq!(dropped(&registry, "spans", "unreachable"), 1_001.0, "{protocol:?}");
    }
}

/// A receiver that stops while it has a batch has not refused it.
#[tokio::test]
async fn a_connection_that_breaks_is_no_refusal() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PREFACE: usize = 24;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = TelemetryConfig {
        sample_ratio: 1.0,
        flush_ms: 10,
        logs: false,
        timeout_ms: 100,
        ..TelemetryConfig::to(&format!("http://{}", listener.local_addr().unwrap()))
    };
    let (telemetry, registry) = started(&config);
    drop(telemetry.record(telemetry.incoming(None).new_span(), Kind::Server, "a long enough name", Instant::now()));
    let (mut connection, _) = listener.accept().await.unwrap();
    connection.write_all(&SETTINGS).await.unwrap();
    let mut got = Vec::new();
    // Until the batch is there, which follows the preface and some settings.
    while got.len() < PREFACE || !got.windows(6).any(|window| window == b"enough") {
        connection.read_buf(&mut got).await.unwrap();
    }
    drop((connection, listener));
    telemetry.stop(PATIENCE).await;
    assert_eq!((dropped(&registry, "spans", "unreachable"), dropped(&registry, "spans", "refused")), (1.0, 0.0));
}

/// A partial success says by HTTP what it says by gRPC.
#[tokio::test]
async fn a_partial_success_by_http() {
    use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = TelemetryConfig {
        protocol: Protocol::Http,
        sample_ratio: 1.0,
        logs: false,
        ..TelemetryConfig::to(&format!("http://{}", listener.local_addr().unwrap()))
    };
    let take = async || {
        let partial_success = Some(ExportTracePartialSuccess { rejected_spans: 2, error_message: "no".into() });
        ([("content-type", "application/x-protobuf")], ExportTraceServiceResponse { partial_success }.encode_to_vec())
    };
    let server =
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", post(take))).await });
    let (telemetry, registry) = started(&config);
    (0..5).for_each(|_| drop(telemetry.record(telemetry.incoming(None).new_span(), Kind::Server, "x", Instant::now())));
    telemetry.stop(PATIENCE).await;
    assert_eq!(counted(&registry, "telemetry_spans_sent_total"), 3.0);
    assert_eq!(dropped(&registry, "spans", "refused"), 2.0);
    server.abort();
}

#[tokio::test]
async fn log_lines_arrive_unchanged_except_those_of_the_export() {
    let receiver = Receiver::start(|_| 0).await;
    let subscriber = tracing_subscriber::registry()
        .with(tracing_subscriber::filter::LevelFilter::TRACE)
        .with(crate::telemetry::log_bridge::ForwardLayer);
    let _here = tracing::subscriber::set_default(subscriber);
    let (telemetry, registry) = started(&TelemetryConfig { logs: true, ..all_to(&receiver) });
    let (trace_id, span_id) = (format!("{:032x}", 3), format!("{:016x}", 4));
    tracing::warn!(trace_id, span_id, k = "v", n = 7, error = %"broken", "went wrong");
    tracing::debug!("is not sent");
    receiver.wait_for_lines(1).await;
    telemetry.stop(PATIENCE).await;
    let lines = receiver.lines();
    let of_scope = &lines[0].resource_logs[0].scope_logs[0];
    assert_eq!(of_scope.scope.as_ref().map(|scope| scope.name.as_str()), Some(module_path!()));
    let [line] = &of_scope.log_records[..] else { panic!("{lines:?}") };
    assert_eq!((line.severity_text.as_str(), line.severity_number), ("WARN", 13));
    assert_eq!((&line.trace_id[..], &line.span_id[..]), (&3_u128.to_be_bytes()[..], &4_u64.to_be_bytes()[..]));
    let text = line.body.as_ref().and_then(|body| body.value.clone());
    assert_eq!(text, Some(Any::StringValue("went wrong".into())));
    let expected = [
        key_value("k", Any::StringValue("v".into())),
        key_value("n", Any::IntValue(7)),
        key_value("error", Any::StringValue("broken".into())),
    ];
    assert_eq!(line.attributes, expected);
    assert!(line.time_unix_nano > 0 && line.event_name.is_empty());
    assert_eq!(receiver.lines_received(), 1, "{lines:?}");
    assert_eq!(counted(&registry, "telemetry_log_lines_sent_total"), 1.0);
    assert_eq!(counted(&registry, "telemetry_spans_sent_total"), 0.0);
}

/// Any client can send `traceparent: …-01`.
#[tokio::test]
async fn an_untrusted_caller_does_not_decide() {
    let off = TelemetryConfig { retrospective: false, ..TelemetryConfig::to("http://127.0.0.1:1") };
    let caller = |sampled| Context { sampled, ..Context::root(sampled) };
    for (trust_caller, ratio, said, expected) in
        [(false, 0.0, true, false), (false, 1.0, false, true), (true, 0.0, true, true), (true, 1.0, false, false)]
    {
        let config = TelemetryConfig { trust_caller, sample_ratio: ratio, ..off.clone() };
        let (telemetry, _) = started(&config);
        let caller = caller(said);
        let incoming = telemetry.incoming(Some(caller.to_string().as_bytes()));
        let (context, parent_id) = incoming.new_span();
        assert_eq!(incoming.is_sampled, expected, "{config:?}");
        // The trace id is used in both cases, with this process's decision.
        let sampled = Context { span_id: context.span_id, sampled: expected, ..caller };
        assert_eq!((context, parent_id), (sampled, caller.span_id));
        let span = telemetry.record((context, parent_id), Kind::Server, "x", Instant::now());
        assert_eq!(span.is_recorded(), expected);
        drop(span);
        telemetry.stop(Duration::ZERO).await;
    }
}

/// Telemetry starts with every endpoint that `validate` accepts, and only with these.
#[tokio::test]
async fn every_valid_endpoint_can_be_used() {
    let mut taken = 0;
    for endpoint in [
        "http://host",
        "http://host/",
        "http://host:4317",
        "http://[::1]:4318/a/path/",
        "http://user:word@host:1/a%20b",
        "http://host/#fragment",
        "http:host:4317",
        "http:/host",
        "http:\\\\host:4317",
        "http://ho st",
        "http://höst",
        "http://host:99999",
        "http://host:port",
        "http://host/|",
        "http://host/\u{7f}",
        "http://host?query",
        "http://%",
        "http://",
        "http://:1",
        "http://[::1",
        "HTTP://HOST",
        " http://host ",
        "https://host",
        "host:4317",
        "",
    ] {
        for protocol in [Protocol::Grpc, Protocol::Http] {
            let config = TelemetryConfig { protocol, ..TelemetryConfig::to(endpoint) };
            let mut problems = Vec::new();
            config.validate(&mut problems);
            let service = Service { name: "test", listen: "here".into() };
            match Telemetry::start(&config, service, &Registry::new()) {
                Ok(telemetry) => {
                    assert!(problems.is_empty(), "{endpoint}: {problems:?}");
                    telemetry.stop(PATIENCE).await;
                    taken += 1;
                }
                Err(error) => assert_eq!(problems.len(), 1, "{endpoint}: {error:#}"),
            }
        }
    }
    assert!(taken >= 12, "{taken}");
}

#[test]
fn ratios() {
    assert!((0..100).all(|_| Ratio::new(1.0).sample() && !Ratio::new(0.0).sample()));
    let tenth = Ratio::new(0.1);
    let held = (0..10_000_u64).filter(|n| tenth.includes(n * (u64::MAX / 10_000))).count();
    assert!((1_000..=1_001).contains(&held), "{held}");
}

#[test]
fn without_telemetry_nothing_is_recorded_and_the_trace_id_is_kept() {
    let off = Telemetry::default();
    let caller = Context::root(true);
    let incoming = off.incoming(Some(caller.to_string().as_bytes()));
    let (context, parent_id) = incoming.new_span();
    assert!(!incoming.is_sampled && off.start_trace().is_none());
    assert_eq!((context.trace_id, parent_id), (caller.trace_id, caller.span_id));
    let span = off.record((context, parent_id), Kind::Server, "x", Instant::now());
    assert!(!span.is_recorded() && !span.child(Kind::Internal, "y").is_recorded());
}
