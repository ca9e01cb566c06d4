//! OpenTelemetry's exporter, by gRPC or HTTP, and the results of its exports.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{LogExporter, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    logs::{LogBatch, LogExporter as _, SdkLogRecord},
    trace::{SpanData, SpanExporter as _},
};
use tonic::transport::Endpoint;
use tracing::{Dispatch, dispatcher, instrument::WithSubscriber};

use super::{
    config::{Protocol, TelemetryConfig},
    queue::ExportResult,
    resource,
    response::ExportResponse,
};

/// A batch is retried for this long. Meanwhile the others wait in the queue.
const RETRY_FOR: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Never reached: `RETRY_FOR` ends first.
const MAX_RETRIES: usize = 1_000;
/// Shorter than the minute after which some receivers close idle connections.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);
/// Interval of keep-alive pings while a response is awaited. They detect a receiver that vanished without closing its connection.
const PING: Duration = Duration::from_secs(5);

pub(super) struct Exporter {
    spans: SpanExporter,
    lines: LogExporter,
    span_signal: Signal,
    log_signal: Signal,
    scope: InstrumentationScope,
}

/// The state of exporting one of OpenTelemetry's signals.
struct Signal {
    /// `spans` or `log lines`.
    items: &'static str,
    response: Arc<ExportResponse>,
    /// The subscriber during an export, which fills `response`.
    listener: Dispatch,
    /// The subscriber of this process.
    log: Dispatch,
    is_failing: AtomicBool,
}

impl Exporter {
    /// To be called within the runtime that exports. Connects before the first export, and again after the connection broke. Failures are
    /// logged to `log`.
    pub fn new(config: &TelemetryConfig, resource: &Resource, log: &Dispatch) -> anyhow::Result<Self> {
        let address = config.address().map_err(anyhow::Error::msg)?;
        let again = RetryPolicy::recommended()
            .with_initial_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_max_retries(MAX_RETRIES);
        let (mut spans, mut lines) = match config.protocol {
            Protocol::Grpc => {
                let channel = Endpoint::from(address)
                    .connect_timeout(config.timeout())
                    .timeout(config.timeout())
                    .http2_keep_alive_interval(PING)
                    .keep_alive_timeout(config.timeout())
                    .tcp_nodelay(true)
                    .connect_lazy();
                let spans = SpanExporter::builder().with_tonic().with_channel(channel.clone());
                let lines = LogExporter::builder().with_tonic().with_channel(channel);
                (
                    spans.with_timeout(RETRY_FOR).with_retry_policy(again.clone()).build(),
                    lines.with_timeout(RETRY_FOR).with_retry_policy(again).build(),
                )
            }
            Protocol::Http => {
                let base = address.to_string();
                let client = crate::http::client_for(&base)
                    .timeout(config.timeout())
                    .pool_idle_timeout(IDLE_CONNECTION)
                    .build()?;
                let at = |signal: &str| format!("{}/v1/{signal}", base.trim_end_matches('/'));
                let spans = SpanExporter::builder().with_http().with_http_client(client.clone());
                let lines = LogExporter::builder().with_http().with_http_client(client);
                let binary = opentelemetry_otlp::Protocol::HttpBinary;
                (
                    spans
                        .with_protocol(binary)
                        .with_endpoint(at("traces"))
                        .with_timeout(RETRY_FOR)
                        .with_retry_policy(again.clone())
                        .build(),
                    lines
                        .with_protocol(binary)
                        .with_endpoint(at("logs"))
                        .with_timeout(RETRY_FOR)
                        .with_retry_policy(again)
                        .build(),
                )
            }
        };
        let context = || format!("telemetry.endpoint: {}", config.endpoint);
        if let Ok(spans) = &mut spans {
            spans.set_resource(resource);
        }
        if let Ok(lines) = &mut lines {
            lines.set_resource(resource);
        }
        Ok(Self {
            spans: spans.with_context(context)?,
            lines: lines.with_context(context)?,
            span_signal: Signal::new("spans", log),
            log_signal: Signal::new("log lines", log),
            scope: resource::scope(),
        })
    }

    pub async fn send_spans(&self, batch: Vec<SpanData>) -> ExportResult {
        self.span_signal.export(self.spans.export(batch)).await
    }

    pub async fn send_lines(&self, batch: Vec<SdkLogRecord>) -> ExportResult {
        let batch: Vec<_> = batch.iter().map(|line| (line, &self.scope)).collect();
        self.log_signal.export(self.lines.export(LogBatch::new(&batch))).await
    }
}

impl Signal {
    fn new(items: &'static str, log: &Dispatch) -> Self {
        let (response, listener) = ExportResponse::listen();
        Self { items, response, listener, log: log.clone(), is_failing: AtomicBool::new(false) }
    }

    async fn export(&self, export: impl Future<Output = OTelSdkResult>) -> ExportResult {
        self.response.reset();
        match export.with_subscriber(self.listener.clone()).await {
            Ok(()) => {
                let refused = self.response.rejected();
                self.log_change(refused > 0, "it rejected some items");
                ExportResult::Accepted { refused }
            }
            Err(error) => {
                self.log_change(true, &error);
                let is_refused = self.response.is_refused() && !is_broken_connection(&error);
                if is_refused { ExportResult::Refused } else { ExportResult::Unreachable }
            }
        }
    }

    /// Logs one line when exports begin to fail, and one when they succeed again. The metrics count the failures.
    fn log_change(&self, is_failing: bool, error: impl Display) {
        if self.is_failing.swap(is_failing, Relaxed) == is_failing {
            return;
        }
        let (items, receiver_message) = (self.items, self.response.message().clone());
        dispatcher::with_default(&self.log, || {
            if is_failing {
                tracing::warn!(items, receiver_message, %error, "the telemetry receiver does not accept exports");
            } else {
                tracing::info!(items, "the telemetry receiver accepts exports again");
            }
        });
    }
}

/// The exporter reports a connection that broke during an export like a refusal by the receiver. Only the broken connection has a cause after
/// its gRPC code.
fn is_broken_connection(error: &OTelSdkError) -> bool {
    let error = error.to_string();
    error.split_once("gRPC code: ").is_some_and(|(_, code)| code.contains(": "))
}
