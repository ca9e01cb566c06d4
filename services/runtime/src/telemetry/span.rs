//! A handle of a span of OpenTelemetry's SDK. It is empty if the request is not recorded.

use std::{
    cell::Cell,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use opentelemetry::{
    Context as ParentContext, Key, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer},
};
use opentelemetry_sdk::trace::{IdGenerator, SdkTracer, Span as Recorded, SpanLimits};

use super::{
    context::{Context, new_span_id},
    text::truncated,
};

/// Longest name or attribute value, in bytes. Texts from clients may be as long as a request's header.
pub(super) const TEXT_BYTES: usize = 256;
/// More than any span needs. They show attributes that are added in a loop by mistake.
pub(super) const LIMITS: SpanLimits = SpanLimits {
    max_attributes_per_span: 32,
    max_links_per_span: 8,
    max_events_per_span: 16,
    max_attributes_per_event: 0,
    max_attributes_per_link: 0,
};

/// Ends when its last handle is dropped. If the request is not recorded, it is `None` and costs a branch.
#[derive(Debug, Clone, Default)]
pub struct Span(Option<Arc<OpenSpan>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal,
    Server,
    Client,
    /// Sends messages.
    Producer,
    /// Processes messages.
    Consumer,
}

/// The value of a span's attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeValue<'a> {
    Text(&'a str),
    Int(i64),
    Bool(bool),
}

/// The wall clock, read once per trace. Later times follow the monotonic clock, so that the spans of a trace are consistent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    at: Instant,
    time: SystemTime,
}

/// The ids of a span and its parent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parentage {
    pub own: Context,
    /// 0: the span is the root of its trace.
    pub parent_id: u64,
    /// The parent is a span of another process.
    pub is_remote: bool,
}

#[derive(Debug)]
struct OpenSpan {
    tracer: SdkTracer,
    context: Context,
    clock: Clock,
    recorded: Mutex<Recording>,
}

#[derive(Debug)]
struct Recording {
    span: Recorded,
    started: SystemTime,
    /// `None`: the span ends when its last handle is dropped.
    ended: Option<SystemTime>,
}

/// Ids exist before their span, because log lines and other processes have them. The SDK gets them through its id generator.
#[derive(Debug)]
pub(super) struct PresetIds;

thread_local! {
    static PRESET: Cell<(TraceId, SpanId)> = const { Cell::new((TraceId::INVALID, SpanId::INVALID)) };
}

impl IdGenerator for PresetIds {
    fn new_trace_id(&self) -> TraceId {
        PRESET.get().0
    }

    fn new_span_id(&self) -> SpanId {
        PRESET.get().1
    }
}

impl Clock {
    pub fn read() -> Self {
        Self { at: Instant::now(), time: SystemTime::now() }
    }

    fn time(&self, at: Instant) -> SystemTime {
        let time = match at.checked_duration_since(self.at) {
            Some(since) => self.time.checked_add(since),
            None => self.time.checked_sub(self.at - at),
        };
        time.unwrap_or(self.time)
    }
}

impl Span {
    pub const NONE: Self = Self(None);

    pub(super) fn open(
        tracer: &SdkTracer,
        parentage: Parentage,
        kind: Kind,
        name: impl Display,
        (clock, started): (Clock, Instant),
    ) -> Self {
        let Parentage { own: context, parent_id, is_remote } = parentage;
        let trace_id = TraceId::from(context.trace_id);
        PRESET.set((trace_id, SpanId::from(context.span_id)));
        let parent = if parent_id == 0 {
            ParentContext::new()
        } else {
            let (parent_id, state) = (SpanId::from(parent_id), TraceState::NONE);
            let context = SpanContext::new(trace_id, parent_id, TraceFlags::SAMPLED, is_remote, state);
            ParentContext::new().with_remote_span_context(context)
        };
        // The usual number of attributes of this kind.
        let (kind, attributes) = match kind {
            Kind::Internal => (SpanKind::Internal, 2),
            Kind::Server => (SpanKind::Server, 10),
            Kind::Client => (SpanKind::Client, 6),
            Kind::Producer => (SpanKind::Producer, 6),
            Kind::Consumer => (SpanKind::Consumer, 6),
        };
        let mut text = name.to_string();
        text.truncate(truncated(&text, TEXT_BYTES).len());
        let started = clock.time(started);
        let builder = SpanBuilder::from_name(text)
            .with_kind(kind)
            .with_start_time(started)
            .with_attributes(Vec::with_capacity(attributes));
        let span = tracer.build_with_context(builder, &parent);
        let recorded = Mutex::new(Recording { span, started, ended: None });
        Self(Some(Arc::new(OpenSpan { tracer: tracer.clone(), context, clock, recorded })))
    }

    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// `None`: the span is not recorded.
    pub fn context(&self) -> Option<Context> {
        self.0.as_ref().map(|open| open.context)
    }

    #[must_use]
    pub fn child(&self, kind: Kind, name: &str) -> Self {
        if self.is_recorded() { self.child_since(kind, name, Instant::now()) } else { Self::NONE }
    }

    /// A child that began at `since`.
    #[must_use]
    pub fn child_since(&self, kind: Kind, name: &str, since: Instant) -> Self {
        let Some(OpenSpan { tracer, context, clock, .. }) = self.0.as_deref() else { return Self::NONE };
        let own = Context { span_id: new_span_id(), ..*context };
        let parentage = Parentage { own, parent_id: context.span_id, is_remote: false };
        Self::open(tracer, parentage, kind, name, (*clock, since))
    }

    /// Sets the end, in place of the time when the last handle is dropped.
    pub fn end_at(&self, at: Instant) {
        if let Some((mut recorded, open)) = self.recorded().zip(self.0.as_deref()) {
            recorded.ended = Some(open.clock.time(at));
        }
    }

    pub fn set<'a>(&self, key: &'static str, value: impl Into<AttributeValue<'a>>) {
        self.set_all([(key, value.into())]);
    }

    pub fn set_all<const N: usize>(&self, attributes: [(&'static str, AttributeValue<'_>); N]) {
        if let Some(mut recorded) = self.recorded() {
            for (key, value) in attributes {
                recorded.span.set_attribute(KeyValue::new(Key::from_static_str(key), value));
            }
        }
    }

    /// For values that must be computed: `value` is called only if the span is recorded.
    pub fn set_with(&self, key: &'static str, value: impl FnOnce() -> String) {
        if self.is_recorded() {
            self.set(key, value().as_str());
        }
    }

    /// Adds an event, now: a sentence of what was decided or seen. For spans that a person reads, not for those of requests.
    pub fn event(&self, text: &str) {
        if let Some((mut recorded, open)) = self.recorded().zip(self.0.as_deref()) {
            let text = truncated(text, TEXT_BYTES).to_owned();
            recorded.span.add_event_with_timestamp(text, open.clock.time(Instant::now()), Vec::new());
        }
    }

    /// Marks the span as failed. `kind` is one of a bounded set of words, not a message.
    pub fn fail(&self, kind: &str) {
        if let Some(mut recorded) = self.recorded() {
            recorded.span.set_status(Status::error(""));
            let key = Key::from_static_str(contract::spans::attribute::ERROR_TYPE);
            recorded.span.set_attribute(KeyValue::new(key, AttributeValue::Text(kind)));
        }
    }

    /// Links to a span of another trace, or to one of this trace that is not its parent.
    pub fn link(&self, to: Option<Context>) {
        if let (Some(mut recorded), Some(to)) = (self.recorded(), to) {
            let flags = if to.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
            let (trace_id, span_id) = (TraceId::from(to.trace_id), SpanId::from(to.span_id));
            let to = SpanContext::new(trace_id, span_id, flags, false, TraceState::NONE);
            recorded.span.add_link(to, Vec::new());
        }
    }

    fn recorded(&self) -> Option<MutexGuard<'_, Recording>> {
        self.0.as_ref().map(|open| open.recorded.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let recorded = self.recorded.get_mut().unwrap_or_else(PoisonError::into_inner);
        let ended = recorded.ended.unwrap_or_else(|| self.clock.time(Instant::now()));
        recorded.span.end_with_timestamp(ended.max(recorded.started));
    }
}

impl From<AttributeValue<'_>> for opentelemetry::Value {
    fn from(value: AttributeValue<'_>) -> Self {
        match value {
            AttributeValue::Text(text) => truncated(text, TEXT_BYTES).to_owned().into(),
            AttributeValue::Int(number) => number.into(),
            AttributeValue::Bool(value) => value.into(),
        }
    }
}

impl<'a> From<&'a str> for AttributeValue<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}
impl From<u16> for AttributeValue<'_> {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}
impl From<usize> for AttributeValue<'_> {
    fn from(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}
impl From<u64> for AttributeValue<'_> {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}
impl From<bool> for AttributeValue<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
