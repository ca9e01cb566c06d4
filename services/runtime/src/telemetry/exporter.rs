//! OpenTelemetry's exporter by gRPC or HTTP, and what became of a batch that it was given.

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
    answer::Answer,
    config::{Protocol, TelemetryConfig},
    outbox::Delivery,
    resource,
};

/// For so long a batch is tried again. Meanwhile the others wait in line.
const RETRY_FOR: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Never reached: time ends first.
const MOST_RETRIES: usize = 1_000;
/// Some receivers close idle connections after a minute.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);
/// How often a receiver that owes an answer is asked for a sign of life: one that vanished without a word would keep its connection.
const PING: Duration = Duration::from_secs(5);

pub(super) struct Exporter {
    spans: SpanExporter,
    lines: LogExporter,
    of_spans: Way,
    of_lines: Way,
    scope: InstrumentationScope,
}

/// What is told of sending one kind of message.
struct Way {
    what: &'static str,
    answer: Arc<Answer>,
    /// What an export runs within.
    within: Dispatch,
    /// Where this process's own words go.
    log: Dispatch,
    is_failing: AtomicBool,
}

impl Exporter {
    /// To be called within the runtime that sends. Connects when there is something to send, and again after it broke. What goes wrong is
    /// told to `log`.
    pub fn new(config: &TelemetryConfig, resource: &Resource, log: &Dispatch) -> anyhow::Result<Self> {
        let address = config.address().map_err(anyhow::Error::msg)?;
        let again = RetryPolicy::recommended()
            .with_initial_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_max_retries(MOST_RETRIES);
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
            of_spans: Way::new("spans", log),
            of_lines: Way::new("log lines", log),
            scope: resource::scope(),
        })
    }

    pub async fn send_spans(&self, batch: Vec<SpanData>) -> Delivery {
        self.of_spans.follow(self.spans.export(batch)).await
    }

    pub async fn send_lines(&self, batch: Vec<SdkLogRecord>) -> Delivery {
        let batch: Vec<_> = batch.iter().map(|line| (line, &self.scope)).collect();
        self.of_lines.follow(self.lines.export(LogBatch::new(&batch))).await
    }
}

impl Way {
    fn new(what: &'static str, log: &Dispatch) -> Self {
        let (answer, within) = Answer::listen();
        Self { what, answer, within, log: log.clone(), is_failing: AtomicBool::new(false) }
    }

    async fn follow(&self, export: impl Future<Output = OTelSdkResult>) -> Delivery {
        self.answer.forget();
        match export.with_subscriber(self.within.clone()).await {
            Ok(()) => {
                let refused = self.answer.rejected();
                self.tell(refused > 0, "it refused some of them");
                Delivery::Taken { refused }
            }
            Err(error) => {
                self.tell(true, &error);
                if self.answer.is_refused() && !is_of_this_side(&error) { Delivery::Refused } else { Delivery::Later }
            }
        }
    }

    /// One line when it begins to fail and one when that is over: the counters say the rest.
    fn tell(&self, is_failing: bool, error: impl Display) {
        if self.is_failing.swap(is_failing, Relaxed) == is_failing {
            return;
        }
        let (what, why) = (self.what, self.answer.why().clone());
        dispatcher::with_default(&self.log, || {
            if is_failing {
                tracing::warn!(what, why, %error, "the receiver of telemetry does not take what it is sent");
            } else {
                tracing::info!(what, "the receiver of telemetry takes what it is sent again");
            }
        });
    }
}

/// A connection that broke under way is no word of the receiver's, although the exporter takes its code for one. Only such an error names a
/// cause behind the code.
fn is_of_this_side(error: &OTelSdkError) -> bool {
    let error = error.to_string();
    error.split_once("gRPC code: ").is_some_and(|(_, code)| code.contains(": "))
}
