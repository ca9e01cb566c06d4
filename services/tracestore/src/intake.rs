//! Receives spans: OTLP over gRPC, and over HTTP with Protobuf bodies, on one port.

use std::time::Instant;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use prost::Message as _;

use crate::{Shared, otlp};

/// Maximum bytes of a message. An exporter sends 512 spans at a time by default.
const MAX_BODY_BYTES: usize = 8 << 20;

pub(crate) fn router(shared: Shared) -> Router {
    let grpc = TraceServiceServer::new(Grpc(shared.clone())).max_decoding_message_size(MAX_BODY_BYTES);
    Router::new()
        .route("/v1/traces", post(http).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)))
        .with_state(shared)
        .route_service("/opentelemetry.proto.collector.trace.v1.TraceService/{method}", grpc)
}

fn take(shared: &Shared, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse {
    let (spans, invalid) = otlp::spans(request);
    let now = Instant::now();
    let mut store = shared.lock();
    for (trace, span) in spans {
        store.add(trace, span, now);
    }
    drop(store);
    shared.metrics.dropped_invalid.inc_by(invalid);
    let partial_success = (invalid > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(invalid).unwrap_or(i64::MAX),
        error_message: "spans without a valid trace id and span id".into(),
    });
    ExportTraceServiceResponse { partial_success }
}

struct Grpc(Shared);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        Ok(tonic::Response::new(take(&self.0, request.into_inner())))
    }
}

async fn http(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    const PROTOBUF: &str = "application/x-protobuf";
    let is = |name, value| headers.get(name).is_some_and(|found| found == value);
    if !is(header::CONTENT_TYPE, PROTOBUF) {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/x-protobuf\n")
            .into_response();
    }
    if headers.contains_key(header::CONTENT_ENCODING) && !is(header::CONTENT_ENCODING, "identity") {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed request bodies are not supported\n").into_response();
    }
    match ExportTraceServiceRequest::decode(body) {
        Ok(request) => {
            let answer = take(&shared, request).encode_to_vec();
            ([(header::CONTENT_TYPE, PROTOBUF)], answer).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("not an ExportTraceServiceRequest: {error}\n")).into_response(),
    }
}
