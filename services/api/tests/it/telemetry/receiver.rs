//! A minimal OTLP receiver that keeps every span. It has a separate runtime, so that killing it closes its connections as a killed process
//! does.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, status::StatusCode},
};
use runtime::telemetry::Context;
use tokio::{net::TcpSocket, runtime::Runtime};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::wait_until;

pub struct Receiver {
    pub address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    running: Option<Runtime>,
}

struct Keeper(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Keeper {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let of_scope = request.into_inner().resource_spans.into_iter().flat_map(|spans| spans.scope_spans);
        self.0.lock().unwrap().extend(of_scope.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    pub fn start() -> Self {
        let address = ([127, 0, 0, 1], launcher::free_port().unwrap()).into();
        let mut receiver = Self { address, spans: Arc::default(), running: None };
        receiver.restart();
        receiver
    }

    /// Restarts on the same port, with the spans that it has.
    pub fn restart(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (spans, address) = (Arc::clone(&self.spans), self.address);
        // Bound before this returns, so that later exports arrive.
        let listener = {
            let _within = runtime.enter();
            let socket = TcpSocket::new_v4().unwrap();
            // Connections of the previous receiver may linger.
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            socket.listen(64).unwrap()
        };
        runtime.spawn(async move {
            let service = TraceServiceServer::new(Keeper(spans));
            Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)).await
        });
        self.running = Some(runtime);
    }

    /// Returns when all tasks have ended. Waits in a thread, because a runtime must not wait within another one.
    pub fn kill(&mut self) {
        let running = self.running.take().unwrap();
        std::thread::spawn(|| running.shutdown_timeout(Duration::from_secs(10))).join().unwrap();
    }

    pub fn received(&self) -> usize {
        self.spans.lock().unwrap().len()
    }

    pub fn trace(&self, trace_id: u128) -> Trace {
        let spans = self.spans.lock().unwrap();
        Trace(spans.iter().filter(|span| span.trace_id == trace_id.to_be_bytes()).cloned().collect())
    }

    /// Ids of all traces.
    pub fn trace_ids(&self) -> BTreeSet<u128> {
        let spans = self.spans.lock().unwrap();
        spans.iter().map(|span| u128::from_be_bytes(span.trace_id[..].try_into().unwrap())).collect()
    }

    /// The trace, once it has all of these spans.
    pub async fn trace_with(&self, context: Context, names: &[&str]) -> Trace {
        let has = |name: &&str| self.trace(context.trace_id).0.iter().any(|span| span.name == *name);
        wait_until(&format!("{names:?} are there"), async || names.iter().all(has)).await;
        self.trace(context.trace_id)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // A runtime must not be dropped within another.
        if let Some(runtime) = self.running.take() {
            runtime.shutdown_background();
        }
    }
}

pub struct Trace(pub Vec<Span>);

impl Trace {
    /// Names of parent and child. `caller` is the span in the request's header.
    pub fn edges(&self, caller: Context) -> BTreeSet<(&str, &str)> {
        self.0.iter().map(|span| (self.parent(span, caller), span.name.as_str())).collect()
    }

    fn parent(&self, span: &Span, caller: Context) -> &str {
        if span.parent_span_id == caller.span_id.to_be_bytes() {
            return "caller";
        }
        let parent = self.0.iter().find(|other| other.span_id == span.parent_span_id);
        parent.map_or("nobody", |parent| parent.name.as_str())
    }

    pub fn span(&self, name: &str) -> &Span {
        let mut found = self.0.iter().filter(|span| span.name == name);
        let span = found.next().expect(name);
        assert!(found.next().is_none(), "several spans {name}");
        span
    }
}

/// As text.
pub fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(value) => value.to_string(),
        other => format!("{other:?}"),
    };
    let of = |kv: &opentelemetry_proto::tonic::common::v1::KeyValue| {
        kv.value.as_ref().and_then(|value| value.value.as_ref()).map(text).unwrap_or_default()
    };
    span.attributes.iter().map(|kv| (kv.key.as_str(), of(kv))).collect()
}

pub fn failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32)
}
