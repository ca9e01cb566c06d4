//! The two ways by which OpenTelemetry's messages go, and what their answers mean.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceResponse, logs_service_client::LogsServiceClient},
    trace::v1::{ExportTraceServiceResponse, trace_service_client::TraceServiceClient},
};
use prost::Message;
use reqwest::Url;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

use super::{
    config::{Protocol, TelemetryConfig},
    lines::Line,
    messages::{Messages, Service},
    outbox::Delivery,
    span::Ended,
};

/// Below the address of a receiver by HTTP.
const TRACES: &str = "v1/traces";
const LOGS: &str = "v1/logs";
/// Some receivers close idle connections after a minute.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);

pub(super) struct Client {
    messages: Messages,
    way: Way,
}

enum Way {
    Grpc(Box<Grpc>),
    Http { client: reqwest::Client, base: Url },
}

struct Grpc {
    traces: TraceServiceClient<Channel>,
    logs: LogsServiceClient<Channel>,
}

impl Client {
    /// To be called within the runtime that sends. Connects when there is something to send, and again after it broke.
    pub fn new(config: &TelemetryConfig, service: &Service) -> anyhow::Result<Self> {
        let context = || format!("telemetry.endpoint: {}", config.endpoint);
        let way = match config.protocol {
            Protocol::Grpc => {
                let endpoint = Endpoint::from_shared(config.endpoint.clone()).with_context(context)?;
                let channel = endpoint.connect_timeout(config.timeout()).tcp_nodelay(true).connect_lazy();
                let (traces, logs) = (TraceServiceClient::new(channel.clone()), LogsServiceClient::new(channel));
                Way::Grpc(Box::new(Grpc { traces, logs }))
            }
            Protocol::Http => {
                // With a slash at its end a path is one to go on from.
                let base = Url::parse(&format!("{}/", config.endpoint.trim_end_matches('/'))).with_context(context)?;
                ensure!(!base.cannot_be_a_base(), "telemetry.endpoint: {base} is no address of a server");
                let client = reqwest::Client::builder().no_proxy().pool_idle_timeout(IDLE_CONNECTION).build()?;
                Way::Http { client, base }
            }
        };
        Ok(Self { messages: Messages::of(service), way })
    }

    pub async fn send_spans(&self, batch: &[Ended]) -> Delivery {
        let request = self.messages.spans(batch);
        match &self.way {
            Way::Grpc(grpc) => taken(grpc.traces.clone().export(request).await, refused_spans),
            Way::Http { client, base } => post(client, base.join(TRACES), &request, refused_spans).await,
        }
    }

    pub async fn send_lines(&self, batch: &[Line]) -> Delivery {
        let request = self.messages.lines(batch);
        match &self.way {
            Way::Grpc(grpc) => taken(grpc.logs.clone().export(request).await, refused_lines),
            Way::Http { client, base } => post(client, base.join(LOGS), &request, refused_lines).await,
        }
    }
}

fn refused_spans(answer: &ExportTraceServiceResponse) -> i64 {
    answer.partial_success.as_ref().map_or(0, |partial| partial.rejected_spans)
}

fn refused_lines(answer: &ExportLogsServiceResponse) -> i64 {
    answer.partial_success.as_ref().map_or(0, |partial| partial.rejected_log_records)
}

fn taken<T>(answer: Result<Response<T>, Status>, refused: impl Fn(&T) -> i64) -> Delivery {
    match answer {
        Ok(answer) => Delivery::Taken { refused: u64::try_from(refused(answer.get_ref())).unwrap_or(0) },
        Err(status) => {
            tracing::debug!(%status, "telemetry was not taken");
            match status.code() {
                // As the protocol's specification has it; and whoever is out of resources now may have some later.
                Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss
                | Code::ResourceExhausted => Delivery::Later,
                // No word of the receiver's: a connection that broke under way.
                Code::Unknown | Code::Internal if std::error::Error::source(&status).is_some() => Delivery::Later,
                _ => Delivery::Refused,
            }
        }
    }
}

async fn post<T: Message + Default>(
    client: &reqwest::Client,
    url: Result<Url, impl std::fmt::Display>,
    request: &impl Message,
    refused: impl Fn(&T) -> i64,
) -> Delivery {
    let url = match url {
        Ok(url) => url,
        Err(error) => {
            tracing::debug!(%error, "telemetry has nowhere to go");
            return Delivery::Refused;
        }
    };
    let sent = client.post(url).header("content-type", "application/x-protobuf").body(request.encode_to_vec()).send();
    let answer = match sent.await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "telemetry was not taken");
            return Delivery::Later;
        }
    };
    match answer.status().as_u16() {
        200..300 => {
            // An answer that cannot be read is still a yes.
            let answer = T::decode(answer.bytes().await.unwrap_or_default()).unwrap_or_default();
            Delivery::Taken { refused: u64::try_from(refused(&answer)).unwrap_or(0) }
        }
        429 | 502 | 503 | 504 => Delivery::Later,
        status => {
            tracing::debug!(status, "telemetry was refused");
            Delivery::Refused
        }
    }
}
