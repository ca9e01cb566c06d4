//! Real OTLP bytes over sockets: by tonic's client, and by hand.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{net::SocketAddr, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse, trace_service_client::TraceServiceClient,
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use runtime::client::ClientError;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tracestore::{Client, Config, Kind, Limits, Reason, Receiver, Selection, TraceId};

struct Running {
    otlp: String,
    admin: String,
    client: Client,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn start(limits: Limits) -> Running {
    let port = || SocketAddr::from(([127, 0, 0, 1], launcher::free_port().unwrap()));
    let receiver = Receiver::bind(Config { listen: port(), admin: port(), limits }).await.unwrap();
    let (otlp, admin) = receiver.urls().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(receiver.serve(stop.clone()));
    Running { otlp, client: Client::new(&admin).unwrap(), admin, stop, task }
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// One request by hand: status line and body.
    async fn raw(&self, head: &str, body: &[u8]) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.otlp.strip_prefix("http://").unwrap()).await.unwrap();
        let head = format!("{head}host: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let status = String::from_utf8_lossy(&answer[..end]).lines().next().unwrap().to_owned();
        (status, answer[end + 4..].to_vec())
    }

    async fn metric(&self, name: &str) -> f64 {
        let text = reqwest::get(format!("{}/metrics", self.admin)).await.unwrap().text().await.unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn message(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![
            attribute("service.name", Value::StringValue(service.into())),
            attribute("service.instance.id", Value::StringValue("3".into())),
        ],
        ..Resource::default()
    };
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }],
    }
}

fn span(trace: u8, id: u8, parent: Option<u8>, name: &str) -> Span {
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: parent.map_or_else(Vec::new, |parent| vec![parent; 8]),
        name: name.into(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_002_500_000,
        attributes: vec![attribute("http.response.status_code", Value::IntValue(200))],
        ..Span::default()
    }
}

fn id(trace: u8) -> TraceId {
    TraceId::from_bytes(&[trace; 16]).unwrap()
}

const POST: &str = "POST /v1/traces HTTP/1.1\r\ncontent-type: application/x-protobuf\r\n";

#[tokio::test]
async fn spans_of_two_processes_by_grpc_and_by_http_become_one_trace() {
    let running = start(Limits::default()).await;
    let channel = tonic::transport::Channel::from_shared(running.otlp.clone()).unwrap().connect().await.unwrap();
    let mut grpc = TraceServiceClient::new(channel);
    let answer = grpc.export(message("load", vec![span(1, 1, None, "GET /recommendations")])).await.unwrap();
    assert_eq!(answer.into_inner().partial_success, None);

    let failed = Span {
        status: Some(Status { code: StatusCode::Error.into(), message: "no connection came free".into() }),
        ..span(1, 2, Some(1), "checkout")
    };
    let (status, body) = running.raw(POST, &message("api", vec![failed]).encode_to_vec()).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(ExportTraceServiceResponse::decode(&*body).unwrap().partial_success, None);

    let trace = running.client.trace(id(1)).await.unwrap().unwrap();
    assert_eq!((trace.reasons.as_slice(), trace.spans.len()), (&[Reason::Open][..], 2));
    let [load, api] = &trace.spans[..] else { unreachable!() };
    assert_eq!((&*load.service, load.kind, load.duration_ns, load.failed), ("load", Kind::Server, 2_500_000, false));
    assert_eq!(load.attributes["http.response.status_code"], "200");
    assert_eq!((&*api.service, api.instance.as_deref(), api.parent), ("api", Some("3"), Some(load.id)));
    assert!(api.failed && api.message == "no connection came free");
    let list = running.client.list(Selection::Errors, 10).await.unwrap();
    assert_eq!((list.len(), list[0].id, list[0].name.as_str()), (1, id(1), "GET /recommendations"));
    assert_eq!(running.metric("tracestore_spans_received_total").await, 2.0);
    running.end().await;
}

/// With quotas of one each.
#[tokio::test]
async fn a_settled_trace_is_judged_by_the_clock() {
    let quotas = tracestore::Quotas { slow: 1, failed: 1, sample: 0, ..Limits::default().quotas };
    let running = start(Limits { quotas, settle: Duration::ZERO, ..Limits::default() }).await;
    let slow = Span { end_time_unix_nano: 1_700_000_001_000_000_000, ..span(2, 1, None, "slow") };
    let spans = vec![span(1, 1, None, "fast"), slow, span(3, 1, None, "fast too")];
    running.raw(POST, &message("api", spans).encode_to_vec()).await;
    while running.metric("tracestore_traces_judged_total").await < 3.0 {
        tokio::task::yield_now().await;
    }
    let list = running.client.list(Selection::Slowest, 10).await.unwrap();
    assert_eq!(
        list.iter().map(|trace| (trace.id, trace.reasons.as_slice())).collect::<Vec<_>>(),
        [(id(2), &[Reason::Slow][..])]
    );
    assert!(running.client.trace(id(1)).await.unwrap().is_none());
    running.client.clear().await.unwrap();
    assert_eq!(running.client.list(Selection::Newest, 10).await.unwrap(), []);
    running.end().await;
}

#[tokio::test]
async fn what_is_not_otlp_is_refused_and_does_no_harm() {
    let running = start(Limits::default()).await;
    let good = message("api", vec![span(1, 1, None, "x")]).encode_to_vec();
    for (head, body, expected) in [
        ("POST /v1/traces HTTP/1.1\r\ncontent-type: application/json\r\n", &b"{}"[..], "415"),
        ("POST /v1/traces HTTP/1.1\r\n", &good[..], "415"),
        (&format!("{POST}content-encoding: gzip\r\n"), &good[..], "415"),
        (POST, b"\xff\xff\xff", "400"),
        (POST, &good[..good.len() - 1], "400"),
        ("GET /v1/traces HTTP/1.1\r\n", b"", "405"),
        ("POST /v1/logs HTTP/1.1\r\ncontent-type: application/x-protobuf\r\n", b"", "404"),
    ] {
        let (status, _) = running.raw(head, body).await;
        assert!(status.contains(expected), "{head}: {status}");
    }
    let without_id = Span { span_id: Vec::new(), ..span(1, 1, None, "x") };
    let (status, body) =
        running.raw(POST, &message("api", vec![without_id, span(1, 2, None, "x")]).encode_to_vec()).await;
    let partial = ExportTraceServiceResponse::decode(&*body).unwrap().partial_success.unwrap();
    assert_eq!((status.as_str(), partial.rejected_spans), ("HTTP/1.1 200 OK", 1));
    assert_eq!(running.metric("tracestore_spans_dropped_total{reason=\"invalid\"}").await, 1.0);
    assert_eq!(running.client.trace(id(1)).await.unwrap().unwrap().spans.len(), 1);

    let ask = async |path: &str| reqwest::get(format!("{}{path}", running.admin)).await.unwrap().status().as_u16();
    assert_eq!(ask("/traces?choice=best").await, 400);
    assert_eq!(ask("/traces?limit=2001").await, 400);
    assert_eq!(ask("/traces/xyz").await, 400);
    assert_eq!(ask("/traces/4bf92f3577b34da6a3ce929d0e0e4736").await, 404);
    assert_eq!(ask("/nothing").await, 404);
    assert_eq!((ask("/healthz").await, ask("/readyz").await), (200, 200));
    let error = running.client.list(Selection::Newest, 2001).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused { detail, .. } if detail.contains("at most 2000")), "{error}");
    running.end().await;
}
