//! What this process tells of single requests, spans and log lines, sent by OTLP to a collector.
//!
//! Sampling is decided at the door: a request that is not recorded builds nothing, as building a span costs most of what it costs, sent or
//! not. If it then fails or is slow, it is told of afterwards by one span. Nobody ever waits for the receiver: what it does
//! not take is counted (`outbox.rs`).
//!
//! Spans, lines and what is sent are OpenTelemetry's own (`opentelemetry_sdk`, `opentelemetry-otlp`). Ours are the decision, the queues and
//! their counts, and that a span may begin and end in the past.

mod answer;
pub(crate) mod config;
mod context;
mod ended;
mod exporter;
pub(crate) mod lines;
mod outbox;
mod resource;
mod span;
#[cfg(test)]
mod tests;

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
    lines::Bridge,
    outbox::{Counts, Outbox},
    span::{Clock, GivenIds, Place},
};

pub use self::{
    config::{OFF, Protocol, TelemetryConfig},
    context::{Context, TRACEPARENT},
    lines::{SPAN_ID, TRACE_ID},
    resource::Service,
    span::{Kind, Span, Value},
};

/// Cheap to clone. `default()` is off: every span is [`Span::NONE`].
#[derive(Debug, Clone, Default)]
pub struct Telemetry(Option<Arc<Recorder>>);

struct Recorder {
    tracer: SdkTracer,
    /// Lines are forwarded for as long as it is kept.
    _lines: Option<Arc<Bridge>>,
    sampled: Share,
    trusts: bool,
    logged: Share,
    slow: Duration,
    retrospective: bool,
    stop: CancellationToken,
    /// Cancelled when the sender has ended.
    ended: CancellationToken,
    /// A recorder that nobody stopped ends its sender too.
    _stop: DropGuard,
}

/// A part of all 64-bit numbers.
#[derive(Debug, Clone, Copy)]
struct Share(Option<u64>);

impl Share {
    fn new(ratio: f64) -> Self {
        Self((ratio > 0.0).then_some((ratio * u64::MAX as f64) as u64))
    }

    fn holds(self, number: u64) -> bool {
        self.0.is_some_and(|last| number <= last)
    }

    fn draw(self) -> bool {
        self.0.is_some_and(|last| rand::random::<u64>() <= last)
    }
}

/// What a request brought along, and whether it is recorded.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    caller: Option<Context>,
    pub is_sampled: bool,
}

impl Arrival {
    /// The place of the request's own span, and the id of the one above it (0: none); another one with each call.
    pub fn place(&self) -> (Context, u64) {
        match self.caller {
            Some(caller) => (Context { sampled: self.is_sampled, ..caller.sibling() }, caller.span_id),
            None => (Context::root(self.is_sampled), 0),
        }
    }
}

impl Telemetry {
    /// Starts the sender, a thread with a runtime of its own: it neither takes turns with requests nor ends with them. Off
    /// without an endpoint; the counts are there in any case.
    ///
    /// # Errors
    /// The endpoint is no URL, the registry has these names already, or there is no thread to be had.
    pub fn start(config: &TelemetryConfig, service: Service, registry: &Registry) -> anyhow::Result<Self> {
        let (counts, line_counts) = (Counts::new(registry, "spans")?, Counts::new(registry, "log_lines")?);
        if !config.is_on() {
            return Ok(Self(None));
        }
        let spans = Arc::new(Outbox::new(config.queue, config.queue_bytes, counts));
        let lines = Arc::new(Outbox::new(config.queue, config.queue_bytes, line_counts));
        let resource = resource::resource(&service, config);
        let traces = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            // What is not sampled does not come so far.
            .with_sampler(Sampler::AlwaysOn)
            .with_id_generator(GivenIds)
            .with_span_limits(span::LIMITS)
            .with_span_processor(ended::Spans(Arc::clone(&spans)))
            .build();
        let bridge = config.logs.then(|| {
            let processor = ended::Lines::new(Arc::clone(&lines));
            let logs =
                SdkLoggerProvider::builder().with_resource(resource.clone()).with_log_processor(processor).build();
            Arc::new(Bridge::new(&logs))
        });
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let recorder = Recorder {
            tracer: traces.tracer_with_scope(resource::scope()),
            _lines: bridge.clone(),
            sampled: Share::new(config.sample_ratio),
            trusts: config.trust_caller,
            logged: Share::new(config.log_ratio),
            slow: Duration::from_millis(config.slow_ms),
            retrospective: config.retrospective,
            stop: stop.clone(),
            ended: ended.clone(),
            _stop: stop.clone().drop_guard(),
        };
        let (every, patience) = (Duration::from_millis(config.flush_ms), config.timeout());
        let config = config.clone();
        let log = dispatcher::get_default(Dispatch::clone);
        let (started, has_started) = mpsc::sync_channel(1);
        let sender = move || {
            let _ended = ended.drop_guard();
            // The runtime lives and dies on this thread: it must not be dropped by a task of another.
            let (runtime, exporter) = match begin(&config, &resource, &log) {
                Err(error) => return drop(started.send(Err(error))),
                Ok(both) => both,
            };
            drop(started.send(Ok(())));
            // What the exporter and the clients below it log is not recorded: lines about sending lines would never end.
            let (lost_spans, lost_lines) = dispatcher::with_default(&Dispatch::none(), || {
                runtime.block_on(async {
                    tokio::join!(
                        spans.send(every, patience, &stop, async |batch| exporter.send_spans(batch).await),
                        lines.send(every, patience, &stop, async |batch| exporter.send_lines(batch).await),
                    )
                })
            });
            // A name that is still looked up is not waited for.
            runtime.shutdown_background();
            if lost_spans + lost_lines > 0 {
                dispatcher::with_default(&log, || {
                    tracing::warn!(
                        lost_spans,
                        lost_lines,
                        "the receiver of telemetry did not take what was left at the end"
                    );
                });
            }
        };
        std::thread::Builder::new().name("telemetry".into()).spawn(sender).context("cannot start a thread")?;
        has_started.recv().context("the thread of telemetry ended")??;
        if let Some(bridge) = &bridge {
            lines::forward_to(bridge);
        }
        Ok(Self(Some(Arc::new(recorder))))
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The decision at the door. A caller that is trusted and brings one along keeps it, for a trace is whole or it is nothing.
    pub fn arrival(&self, traceparent: Option<&[u8]>) -> Arrival {
        let caller = traceparent.and_then(Context::parse);
        let is_sampled = self.0.as_ref().is_some_and(|recorder| match caller {
            Some(caller) if recorder.trusts => caller.sampled,
            _ => recorder.sampled.draw(),
        });
        Arrival { caller, is_sampled }
    }

    /// The place of a request that begins here, to be sent along; `None`: off.
    pub fn departure(&self) -> Option<Context> {
        self.0.as_ref().map(|recorder| Context::root(recorder.sampled.draw()))
    }

    /// A span that began a while ago, recorded whatever was decided, unless nothing is to be told of afterwards; `place` as of
    /// [`Arrival::place`].
    pub fn record(&self, place: (Context, u64), kind: Kind, name: impl Display, since: Instant) -> Span {
        let Some(recorder) = &self.0 else { return Span::NONE };
        if !place.0.sampled && !recorder.retrospective {
            return Span::NONE;
        }
        let (own, parent_id) = (Context { sampled: true, ..place.0 }, place.1);
        let place = Place { own, parent_id, is_remote: parent_id != 0 };
        Span::open(&recorder.tracer, place, kind, name, (Clock::read(), since))
    }

    /// A span below one of another process that sent its `traceparent` along; not recorded if that one is not.
    pub fn follow(&self, traceparent: &str, kind: Kind, name: &'static str) -> Span {
        let (Some(recorder), Some(above)) = (&self.0, Context::parse(traceparent.as_bytes())) else {
            return Span::NONE;
        };
        if !above.sampled {
            return Span::NONE;
        }
        let place = Place { own: above.sibling(), parent_id: above.span_id, is_remote: true };
        Span::open(&recorder.tracer, place, kind, name, (Clock::read(), Instant::now()))
    }

    /// So slow that it is told of although it was not sampled.
    pub fn is_slow(&self, took: Duration) -> bool {
        self.0.as_ref().is_some_and(|recorder| took >= recorder.slow)
    }

    /// Whether a recorded request also gets a log line: the same answer in every process that the trace runs through.
    pub fn is_logged(&self, context: Context) -> bool {
        self.0.as_ref().is_some_and(|recorder| recorder.logged.holds(context.trace_id as u64))
    }

    /// Sends what is left, for at most this long.
    pub async fn stop(&self, patience: Duration) {
        let Some(recorder) = &self.0 else { return };
        recorder.stop.cancel();
        if tokio::time::timeout(patience, recorder.ended.cancelled()).await.is_err() {
            tracing::warn!(
                patience_ms = patience.as_millis() as u64,
                "the receiver of telemetry takes too long for what is left"
            );
        }
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("sampled", &self.sampled).finish_non_exhaustive()
    }
}

/// A runtime of its own: it neither takes turns with requests nor ends with them.
fn begin(
    config: &TelemetryConfig,
    resource: &opentelemetry_sdk::Resource,
    log: &Dispatch,
) -> anyhow::Result<(Runtime, Exporter)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exporter = {
        let _within = runtime.enter();
        Exporter::new(config, resource, log)?
    };
    Ok((runtime, exporter))
}
