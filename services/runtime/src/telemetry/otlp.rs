//! The two ways by which OpenTelemetry's messages go, and what their answers mean.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use prost::{Message, bytes::BufMut};
use reqwest::Url;
use tonic::{
    Code, Request, Response, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use super::{
    config::{Protocol, TelemetryConfig},
    messages::{Envelope, Service},
    outbox::{Batch, Delivery},
};

/// Where a kind of message goes.
struct Signal {
    grpc: &'static str,
    /// Below the address of a receiver by HTTP.
    http: &'static str,
}

const TRACES: Signal =
    Signal { grpc: "/opentelemetry.proto.collector.trace.v1.TraceService/Export", http: "v1/traces" };
const LOGS: Signal = Signal { grpc: "/opentelemetry.proto.collector.logs.v1.LogsService/Export", http: "v1/logs" };
/// Some receivers close idle connections after a minute.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);

pub(super) struct Client {
    envelope: Envelope,
    way: Way,
}

enum Way {
    Grpc(Grpc<Channel>),
    Http { client: reqwest::Client, base: Url },
}

/// A request to export, as it is sent.
struct Export {
    head: Vec<u8>,
    items: Arc<Vec<u8>>,
}

impl Client {
    /// To be called within the runtime that sends. Connects when there is something to send, and again after it broke.
    pub fn new(config: &TelemetryConfig, service: &Service) -> anyhow::Result<Self> {
        let context = || format!("telemetry.endpoint: {}", config.endpoint);
        let way = match config.protocol {
            Protocol::Grpc => {
                let endpoint = Endpoint::from_shared(config.endpoint.clone()).with_context(context)?;
                let channel = endpoint.connect_timeout(config.timeout()).tcp_nodelay(true).connect_lazy();
                Way::Grpc(Grpc::new(channel))
            }
            Protocol::Http => {
                // With a slash at its end a path is one to go on from.
                let base = Url::parse(&format!("{}/", config.endpoint.trim_end_matches('/'))).with_context(context)?;
                ensure!(!base.cannot_be_a_base(), "telemetry.endpoint: {base} is no address of a server");
                let client = crate::http::client_for(base.as_str()).pool_idle_timeout(IDLE_CONNECTION).build()?;
                Way::Http { client, base }
            }
        };
        Ok(Self { envelope: Envelope::of(service), way })
    }

    pub async fn send_spans(&self, batch: &Batch) -> Delivery {
        self.send(TRACES, batch, refused_spans).await
    }

    pub async fn send_lines(&self, batch: &Batch) -> Delivery {
        self.send(LOGS, batch, refused_lines).await
    }

    async fn send<T: Message + Default + 'static>(
        &self,
        signal: Signal,
        batch: &Batch,
        refused: impl Fn(&T) -> i64,
    ) -> Delivery {
        let export = Export { head: self.envelope.head(batch.bytes.len()), items: Arc::clone(&batch.bytes) };
        match &self.way {
            Way::Grpc(grpc) => {
                let mut grpc = grpc.clone();
                if let Err(error) = grpc.ready().await {
                    tracing::debug!(%error, "telemetry was not taken");
                    return Delivery::Later;
                }
                let path = PathAndQuery::from_static(signal.grpc);
                taken(grpc.unary(Request::new(export), path, Written(PhantomData)).await, refused)
            }
            Way::Http { client, base } => {
                let body = [&*export.head, &**export.items].concat();
                post(client, base.join(signal.http), body, refused).await
            }
        }
    }
}

/// Requests that are written already, and answers of this type.
struct Written<T>(PhantomData<T>);

impl<T: Message + Default + 'static> Codec for Written<T> {
    type Encode = Export;
    type Decode = T;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(PhantomData)
    }

    fn decoder(&mut self) -> Self {
        Self(PhantomData)
    }
}

impl<T> Encoder for Written<T> {
    type Item = Export;
    type Error = Status;

    fn encode(&mut self, export: Export, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(export.head.len() + export.items.len());
        out.put_slice(&export.head);
        out.put_slice(&export.items);
        Ok(())
    }
}

impl<T: Message + Default> Decoder for Written<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, answer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        T::decode(answer).map(Some).map_err(|error| Status::internal(error.to_string()))
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
    body: Vec<u8>,
    refused: impl Fn(&T) -> i64,
) -> Delivery {
    let url = match url {
        Ok(url) => url,
        Err(error) => {
            tracing::debug!(%error, "telemetry has nowhere to go");
            return Delivery::Refused;
        }
    };
    let sent = client.post(url).header("content-type", "application/x-protobuf").body(body).send();
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
