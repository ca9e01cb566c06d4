//! What this process tells of single requests, spans and log lines, sent by OTLP to a collector.
//!
//! Sampling is decided at the door: a request that is not recorded builds nothing, as building a span costs most of what it costs, sent or
//! not. If it then fails or is slow, it is told of afterwards by one span. Nobody ever waits for the receiver: what it does
//! not take is counted (`outbox.rs`).
//!
//! Not the SDK's exporter: it counts neither what it drops nor what the receiver refuses, and copies every batch. A span is written as
//! OpenTelemetry's message from its beginning (`messages.rs`), and lies in a batch's bytes as soon as it has ended.

mod config;
mod context;
pub(crate) mod lines;
mod messages;
mod otlp;
mod outbox;
mod span;
mod wire;

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use prometheus::Registry;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    outbox::{Counts, Outbox},
    span::Clock,
};

pub use self::{
    config::{OFF, Protocol, TelemetryConfig},
    context::{Context, TRACEPARENT},
    lines::{SPAN_ID, TRACE_ID},
    messages::Service,
    span::{Kind, Span, Value},
};

/// Cheap to clone. `default()` is off: every span is [`Span::NONE`].
#[derive(Debug, Clone, Default)]
pub struct Telemetry(Option<Arc<Recorder>>);

#[derive(Debug)]
struct Recorder {
    spans: Arc<Outbox>,
    sampled: Share,
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
            Some(caller) => (caller.sibling(), caller.span_id),
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = {
            let _within = runtime.enter();
            otlp::Client::new(config, &service)?
        };
        let spans = Arc::new(Outbox::new(config.queue, counts));
        let lines = Arc::new(Outbox::new(config.queue, line_counts));
        if config.logs {
            lines::forward_to(&lines);
        }
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let recorder = Recorder {
            spans: Arc::clone(&spans),
            sampled: Share::new(config.sample_ratio),
            logged: Share::new(config.log_ratio),
            slow: Duration::from_millis(config.slow_ms),
            retrospective: config.retrospective,
            stop: stop.clone(),
            ended: ended.clone(),
            _stop: stop.clone().drop_guard(),
        };
        let (every, patience) = (Duration::from_millis(config.flush_ms), config.timeout());
        let sender = move || {
            let _ended = ended.drop_guard();
            let (lost_spans, lost_lines) = runtime.block_on(async {
                tokio::join!(
                    spans.send(every, patience, &stop, async |batch| client.send_spans(batch).await),
                    lines.send(every, patience, &stop, async |batch| client.send_lines(batch).await),
                )
            });
            if lost_spans + lost_lines > 0 {
                tracing::warn!(
                    lost_spans,
                    lost_lines,
                    "the receiver of telemetry did not take what was left at the end"
                );
            }
        };
        std::thread::Builder::new().name("telemetry".into()).spawn(sender).context("cannot start a thread")?;
        Ok(Self(Some(Arc::new(recorder))))
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The decision at the door. Who brings one along keeps it, for a trace is whole or it is nothing.
    pub fn arrival(&self, traceparent: Option<&[u8]>) -> Arrival {
        let caller = traceparent.and_then(Context::parse);
        let is_sampled = self.0.as_ref().is_some_and(|recorder| match caller {
            Some(caller) => caller.sampled,
            None => recorder.sampled.draw(),
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
        Span::open(&recorder.spans, Context { sampled: true, ..place.0 }, place.1, kind, name, (Clock::read(), since))
    }

    /// A span below one of another process that sent its `traceparent` along; not recorded if that one is not.
    pub fn follow(&self, traceparent: &str, kind: Kind, name: &'static str) -> Span {
        let (Some(recorder), Some(above)) = (&self.0, Context::parse(traceparent.as_bytes())) else {
            return Span::NONE;
        };
        if !above.sampled {
            return Span::NONE;
        }
        Span::open(&recorder.spans, above.sibling(), above.span_id, kind, name, (Clock::read(), Instant::now()))
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

#[cfg(test)]
mod tests {
    use axum::{Router, body::Bytes, http::StatusCode, routing::post};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message;
    use tokio::sync::mpsc;

    use super::*;

    fn counted(registry: &Registry, name: &str) -> f64 {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum()
    }

    #[tokio::test]
    async fn by_http_as_well() {
        let (received, mut requests) = mpsc::unbounded_channel();
        let take = move |body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let name = request.resource_spans[0].scope_spans[0].spans[0].name.clone();
            received.send(request).unwrap();
            async move { if name == "bad" { StatusCode::BAD_REQUEST } else { StatusCode::OK } }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = TelemetryConfig {
            protocol: Protocol::Http,
            sample_ratio: 1.0,
            flush_ms: 10,
            logs: false,
            ..TelemetryConfig::to(&format!("http://{}/otlp/", listener.local_addr().unwrap()))
        };
        let server =
            tokio::spawn(
                async move { axum::serve(listener, Router::new().route("/otlp/v1/traces", post(take))).await },
            );
        let registry = Registry::new();
        let service = Service { name: "test", listen: "here".into() };
        let telemetry = Telemetry::start(&config, service, &registry).unwrap();

        let arrival = telemetry.arrival(None);
        assert!(arrival.is_sampled);
        let (place, parent_id) = arrival.place();
        let began = Instant::now();
        telemetry.record((place, parent_id), Kind::Server, "good", began).set("k", 7_usize);
        let request = requests.recv().await.unwrap();
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!((span.name.as_str(), &span.trace_id[..]), ("good", &place.trace_id.to_be_bytes()[..]));
        assert!(span.parent_span_id.is_empty() && span.attributes[0].key == "k");
        let of = request.resource_spans[0].resource.as_ref().unwrap();
        assert_eq!(of.attributes[0].key, contract::spans::resource::SERVICE_NAME);

        drop(telemetry.record(arrival.place(), Kind::Server, "bad", began));
        requests.recv().await.unwrap();
        drop(telemetry.record(arrival.place(), Kind::Server, "last", began));
        telemetry.stop(Duration::from_secs(30)).await;
        assert_eq!(requests.recv().await.unwrap().resource_spans[0].scope_spans[0].spans[0].name, "last");
        assert_eq!(counted(&registry, "telemetry_spans_sent_total"), 2.0);
        assert_eq!(counted(&registry, "telemetry_spans_dropped_total"), 1.0);
        server.abort();
    }

    #[test]
    fn shares() {
        assert!((0..100).all(|_| Share::new(1.0).draw() && !Share::new(0.0).draw()));
        let tenth = Share::new(0.1);
        let held = (0..10_000_u64).filter(|n| tenth.holds(n * (u64::MAX / 10_000))).count();
        assert!((1_000..=1_001).contains(&held), "{held}");
    }

    #[test]
    fn off_records_nothing_and_still_knows_the_trace() {
        let off = Telemetry::default();
        let caller = Context::root(true);
        let arrival = off.arrival(Some(caller.to_string().as_bytes()));
        let (place, parent_id) = arrival.place();
        assert!(!arrival.is_sampled && off.departure().is_none());
        assert_eq!((place.trace_id, parent_id), (caller.trace_id, caller.span_id));
        let span = off.record((place, parent_id), Kind::Server, "x", Instant::now());
        assert!(!span.is_recorded() && !span.child(Kind::Internal, "y").is_recorded());
    }
}
