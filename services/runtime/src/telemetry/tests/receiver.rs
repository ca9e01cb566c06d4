//! A gRPC receiver that keeps what it gets. It refuses messages of more than 4 MiB, as gRPC receivers do by default.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::collector::{
    logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tokio::{sync::watch, task::JoinHandle};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

pub struct Receiver {
    pub address: SocketAddr,
    kept: Arc<Kept>,
    server: JoinHandle<()>,
}

struct Kept {
    spans: Mutex<Vec<ExportTraceServiceRequest>>,
    lines: Mutex<Vec<ExportLogsServiceRequest>>,
    counts: watch::Sender<(usize, usize)>,
    rejects: fn(usize) -> i64,
}

struct Shared(Arc<Kept>);

#[tonic::async_trait]
impl TraceService for Shared {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        let of_scope = request.resource_spans.iter().flat_map(|spans| &spans.scope_spans);
        let count: usize = of_scope.map(|scope| scope.spans.len()).sum();
        self.0.spans.lock().unwrap().push(request);
        self.0.counts.send_modify(|(spans, _)| *spans += count);
        match (self.0.rejects)(count) {
            i64::MAX => Err(Status::invalid_argument("not at all")),
            0 => Ok(Response::new(ExportTraceServiceResponse::default())),
            rejected_spans => {
                let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message: String::new() });
                Ok(Response::new(ExportTraceServiceResponse { partial_success }))
            }
        }
    }
}

#[tonic::async_trait]
impl LogsService for Shared {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let request = request.into_inner();
        let of_scope = request.resource_logs.iter().flat_map(|logs| &logs.scope_logs);
        let count: usize = of_scope.map(|scope| scope.log_records.len()).sum();
        self.0.lines.lock().unwrap().push(request);
        self.0.counts.send_modify(|(_, lines)| *lines += count);
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

impl Receiver {
    /// `rejects` returns the number of spans of a batch to reject; `i64::MAX`: refuse the whole batch.
    pub async fn start(rejects: fn(usize) -> i64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Arc::new(Kept {
            spans: Mutex::default(),
            lines: Mutex::default(),
            counts: watch::Sender::new((0, 0)),
            rejects,
        });
        let services = [Shared(Arc::clone(&kept)), Shared(Arc::clone(&kept))];
        let server = tokio::spawn(async move {
            let [spans, lines] = services;
            let server = Server::builder()
                .add_service(TraceServiceServer::new(spans))
                .add_service(LogsServiceServer::new(lines));
            server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        Self { address, kept, server }
    }

    pub fn spans(&self) -> Vec<ExportTraceServiceRequest> {
        self.kept.spans.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<ExportLogsServiceRequest> {
        self.kept.lines.lock().unwrap().clone()
    }

    pub fn spans_received(&self) -> usize {
        self.kept.counts.borrow().0
    }

    pub fn lines_received(&self) -> usize {
        self.kept.counts.borrow().1
    }

    /// Number of all spans.
    pub async fn wait_for(&self, spans: usize) {
        self.kept.counts.subscribe().wait_for(|(got, _)| *got >= spans).await.unwrap();
    }

    pub async fn wait_for_lines(&self, lines: usize) {
        self.kept.counts.subscribe().wait_for(|(_, got)| *got >= lines).await.unwrap();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}
