//! Traces and logs of this process, exported by OTLP.
//!
//! The sampling decision is made when a request arrives. A request that is not sampled builds no spans, because building a span is most of
//! its cost. If such a request fails or is slow, one span is recorded afterwards. No request waits for the receiver. Spans and log lines that
//! the receiver does not accept are counted (`queue.rs`).
//!
//! Spans, log records and export are those of `opentelemetry_sdk` and `opentelemetry-otlp`. This module adds the sampling decision, the
//! bounded queues with their counters, and spans that begin and end in the past.

pub(crate) mod config;
mod context;
mod exporter;
pub(crate) mod log_bridge;
mod processors;
mod queue;
mod resource;
mod response;
mod span;
#[cfg(test)]
mod tests;
mod text;

use std::{
    fmt::Display,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::{
    logs::SdkLoggerProvider,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use prometheus::Registry;
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Dispatch, dispatcher};

use self::{
    exporter::Exporter,
    log_bridge::LogBridge,
    queue::{ExportQueue, QueueMetrics},
    span::{Clock, Parentage, PresetIds},
};

pub use self::{
    config::{OFF, Protocol, TelemetryConfig},
    context::{Context, TRACEPARENT},
    resource::Service,
    span::{AttributeValue, Kind, Span},
};

/// A handle to the telemetry of a process, cheap to clone. `default()` is off: every span is [`Span::NONE`].
#[derive(Debug, Clone, Default)]
pub struct Telemetry(Option<Arc<Recorder>>);

struct Recorder {
    tracer: SdkTracer,
    /// Log lines are exported until it is dropped.
    _log_bridge: Option<Arc<LogBridge>>,
    sampled: Ratio,
    trusts_caller: bool,
    logged: Ratio,
    slow: Duration,
    retrospective: bool,
    stop: CancellationToken,
    /// Cancelled when the export thread has ended.
    ended: CancellationToken,
    /// Also stops the export thread if the recorder is dropped.
    _stop: DropGuard,
}

/// A probability, as the largest 64-bit number that it includes.
#[derive(Debug, Clone, Copy)]
struct Ratio(Option<u64>);

impl Ratio {
    fn new(ratio: f64) -> Self {
        Self((ratio > 0.0).then_some((ratio * u64::MAX as f64) as u64))
    }

    fn includes(self, number: u64) -> bool {
        self.0.is_some_and(|last| number <= last)
    }

    fn sample(self) -> bool {
        self.0.is_some_and(|last| rand::random::<u64>() <= last)
    }
}

/// The trace context that came with a request, and the sampling decision.
#[derive(Debug, Clone, Copy)]
pub struct IncomingContext {
    caller: Option<Context>,
    pub is_sampled: bool,
}

impl IncomingContext {
    /// The context of a new span for the request, and the id of its parent span (0: none). Each call returns a new span id.
    pub fn new_span(&self) -> (Context, u64) {
        match self.caller {
            Some(caller) => (Context { sampled: self.is_sampled, ..caller.sibling() }, caller.span_id),
            None => (Context::root(self.is_sampled), 0),
        }
    }
}

impl Telemetry {
    /// Starts the export thread. It has a separate runtime, so that it neither competes nor ends with the requests. Without an endpoint
    /// telemetry is off; its metrics are registered in any case.
    ///
    /// # Errors
    /// The endpoint is not a URL, the registry has these metrics already, or the thread cannot be started.
    pub fn start(config: &TelemetryConfig, service: Service, registry: &Registry) -> anyhow::Result<Self> {
        let (span_metrics, line_metrics) =
            (QueueMetrics::new(registry, "spans")?, QueueMetrics::new(registry, "log_lines")?);
        if !config.is_on() {
            return Ok(Self(None));
        }
        let spans = Arc::new(ExportQueue::new(config.queue, config.queue_bytes, span_metrics));
        let lines = Arc::new(ExportQueue::new(config.queue, config.queue_bytes, line_metrics));
        let resource = resource::resource(&service, config);
        let traces = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            // Spans are only built for sampled requests.
            .with_sampler(Sampler::AlwaysOn)
            .with_id_generator(PresetIds)
            .with_span_limits(span::LIMITS)
            .with_span_processor(processors::SpanQueueProcessor(Arc::clone(&spans)))
            .build();
        let bridge = config.logs.then(|| {
            let processor = processors::LogQueueProcessor::new(Arc::clone(&lines));
            let logs =
                SdkLoggerProvider::builder().with_resource(resource.clone()).with_log_processor(processor).build();
            Arc::new(LogBridge::new(&logs))
        });
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let recorder = Recorder {
            tracer: traces.tracer_with_scope(resource::scope()),
            _log_bridge: bridge.clone(),
            sampled: Ratio::new(config.sample_ratio),
            trusts_caller: config.trust_caller,
            logged: Ratio::new(config.log_ratio),
            slow: Duration::from_millis(config.slow_ms),
            retrospective: config.retrospective,
            stop: stop.clone(),
            ended: ended.clone(),
            _stop: stop.clone().drop_guard(),
        };
        let (interval, timeout) = (Duration::from_millis(config.flush_ms), config.timeout());
        let config = config.clone();
        let log = dispatcher::get_default(Dispatch::clone);
        let (started, has_started) = mpsc::sync_channel(1);
        let export = move || {
            let _ended = ended.drop_guard();
            // The runtime must be dropped on this thread: dropping it within another runtime panics.
            let (runtime, exporter) = match start_exporter(&config, &resource, &log) {
                Err(error) => return drop(started.send(Err(error))),
                Ok(both) => both,
            };
            drop(started.send(Ok(())));
            // The exporter's own log lines are dropped: exporting them would create further lines for ever.
            let (lost_spans, lost_lines) = dispatcher::with_default(&Dispatch::none(), || {
                runtime.block_on(async {
                    tokio::join!(
                        spans.export(interval, timeout, &stop, async |batch| exporter.send_spans(batch).await),
                        lines.export(interval, timeout, &stop, async |batch| exporter.send_lines(batch).await),
                    )
                })
            });
            // Does not wait for a pending DNS lookup.
            runtime.shutdown_background();
            if lost_spans + lost_lines > 0 {
                dispatcher::with_default(&log, || {
                    tracing::warn!(
                        lost_spans,
                        lost_lines,
                        "spans or log lines were lost: the telemetry receiver did not accept them before the process stopped"
                    );
                });
            }
        };
        std::thread::Builder::new()
            .name("telemetry".into())
            .spawn(export)
            .context("cannot start the telemetry thread")?;
        has_started.recv().context("the telemetry thread ended")??;
        if let Some(bridge) = &bridge {
            log_bridge::forward_to(bridge);
        }
        Ok(Self(Some(Arc::new(recorder))))
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The sampling decision for a request. The decision of a trusted caller is followed, so that traces are complete.
    pub fn incoming(&self, traceparent: Option<&[u8]>) -> IncomingContext {
        let caller = traceparent.and_then(Context::parse);
        let is_sampled = self.0.as_ref().is_some_and(|recorder| match caller {
            Some(caller) if recorder.trusts_caller => caller.sampled,
            _ => recorder.sampled.sample(),
        });
        IncomingContext { caller, is_sampled }
    }

    /// The context of a trace that begins here, to be sent in `traceparent`. `None`: telemetry is off.
    pub fn start_trace(&self) -> Option<Context> {
        self.0.as_ref().map(|recorder| Context::root(recorder.sampled.sample()))
    }

    /// A span that began at `since`. If `context`, from [`IncomingContext::new_span`], is not sampled, the span is recorded only with the
    /// setting `retrospective`.
    pub fn record(&self, context: (Context, u64), kind: Kind, name: impl Display, since: Instant) -> Span {
        let Some(recorder) = &self.0 else { return Span::NONE };
        if !context.0.sampled && !recorder.retrospective {
            return Span::NONE;
        }
        let (own, parent_id) = (Context { sampled: true, ..context.0 }, context.1);
        let parentage = Parentage { own, parent_id, is_remote: parent_id != 0 };
        Span::open(&recorder.tracer, parentage, kind, name, (Clock::read(), since))
    }

    /// A child of the span in another process's `traceparent`. Not recorded if the parent is not.
    pub fn follow(&self, traceparent: &str, kind: Kind, name: &'static str) -> Span {
        let (Some(recorder), Some(parent)) = (&self.0, Context::parse(traceparent.as_bytes())) else {
            return Span::NONE;
        };
        if !parent.sampled {
            return Span::NONE;
        }
        let parentage = Parentage { own: parent.sibling(), parent_id: parent.span_id, is_remote: true };
        Span::open(&recorder.tracer, parentage, kind, name, (Clock::read(), Instant::now()))
    }

    /// Whether a request of this duration is recorded even if it was not sampled.
    pub fn is_slow(&self, duration: Duration) -> bool {
        self.0.as_ref().is_some_and(|recorder| duration >= recorder.slow)
    }

    /// Whether a recorded request also gets a log line. The result is the same in every process of the trace.
    pub fn is_logged(&self, context: Context) -> bool {
        self.0.as_ref().is_some_and(|recorder| recorder.logged.includes(context.trace_id as u64))
    }

    /// Exports the waiting spans and log lines, for at most `limit`.
    pub async fn stop(&self, limit: Duration) {
        let Some(recorder) = &self.0 else { return };
        recorder.stop.cancel();
        if tokio::time::timeout(limit, recorder.ended.cancelled()).await.is_err() {
            tracing::warn!(
                limit_ms = limit.as_millis() as u64,
                "the telemetry receiver is too slow: stopping before all spans and log lines are exported"
            );
        }
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("sampled", &self.sampled).finish_non_exhaustive()
    }
}

fn start_exporter(
    config: &TelemetryConfig,
    resource: &opentelemetry_sdk::Resource,
    log: &Dispatch,
) -> anyhow::Result<(Runtime, Exporter)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exporter = {
        let _entered = runtime.enter();
        Exporter::new(config, resource, log)?
    };
    Ok((runtime, exporter))
}
