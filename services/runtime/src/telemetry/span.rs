//! A span: nothing at all where the request is not recorded, else a handle of one of OpenTelemetry's SDK.

use std::{
    cell::Cell,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use opentelemetry::{
    Context as Above, Key, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer},
};
use opentelemetry_sdk::trace::{IdGenerator, SdkTracer, Span as Recorded, SpanLimits};

use super::{
    context::{Context, new_span_id},
    ended::cut,
};

/// Of a name or a value. What a client made up may be as long as a request's head may be.
pub(super) const TEXT_BYTES: usize = 256;
/// Of a span. More than any has: who adds some in a loop learns of it.
pub(super) const LIMITS: SpanLimits = SpanLimits {
    max_attributes_per_span: 32,
    max_links_per_span: 8,
    max_events_per_span: 0,
    max_attributes_per_event: 0,
    max_attributes_per_link: 0,
};

/// Ends when its last handle goes. In a request that is not recorded it is `None` and costs a branch.
#[derive(Debug, Clone, Default)]
pub struct Span(Option<Arc<Open>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal,
    Server,
    Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Text(&'a str),
    Int(i64),
    Bool(bool),
}

/// The wall clock, read once: the times of a process's spans of one trace differ as its monotonic clock does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    at: Instant,
    time: SystemTime,
}

/// Where a span stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub own: Context,
    /// 0: it begins its trace.
    pub parent_id: u64,
    /// The span above is another process's.
    pub is_remote: bool,
}

#[derive(Debug)]
struct Open {
    tracer: SdkTracer,
    context: Context,
    clock: Clock,
    recorded: Mutex<Recording>,
}

#[derive(Debug)]
struct Recording {
    span: Recorded,
    started: SystemTime,
    /// `None`: when the last handle goes.
    ended: Option<SystemTime>,
}

/// Ids are known before a span is built: log lines and other processes have them. The SDK asks its generator.
#[derive(Debug)]
pub(super) struct GivenIds;

thread_local! {
    static GIVEN: Cell<(TraceId, SpanId)> = const { Cell::new((TraceId::INVALID, SpanId::INVALID)) };
}

impl IdGenerator for GivenIds {
    fn new_trace_id(&self) -> TraceId {
        GIVEN.get().0
    }

    fn new_span_id(&self) -> SpanId {
        GIVEN.get().1
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
        place: Place,
        kind: Kind,
        name: impl Display,
        (clock, started): (Clock, Instant),
    ) -> Self {
        let Place { own: context, parent_id, is_remote } = place;
        let trace_id = TraceId::from(context.trace_id);
        GIVEN.set((trace_id, SpanId::from(context.span_id)));
        let above = if parent_id == 0 {
            Above::new()
        } else {
            let (parent_id, state) = (SpanId::from(parent_id), TraceState::NONE);
            let parent = SpanContext::new(trace_id, parent_id, TraceFlags::SAMPLED, is_remote, state);
            Above::new().with_remote_span_context(parent)
        };
        // So many does a span of its kind have in most cases.
        let (kind, attributes) = match kind {
            Kind::Internal => (SpanKind::Internal, 2),
            Kind::Server => (SpanKind::Server, 10),
            Kind::Client => (SpanKind::Client, 6),
        };
        let mut text = name.to_string();
        text.truncate(cut(&text, TEXT_BYTES).len());
        let started = clock.time(started);
        let builder = SpanBuilder::from_name(text)
            .with_kind(kind)
            .with_start_time(started)
            .with_attributes(Vec::with_capacity(attributes));
        let span = tracer.build_with_context(builder, &above);
        let recorded = Mutex::new(Recording { span, started, ended: None });
        Self(Some(Arc::new(Open { tracer: tracer.clone(), context, clock, recorded })))
    }

    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// `None`: it is not recorded.
    pub fn context(&self) -> Option<Context> {
        self.0.as_ref().map(|open| open.context)
    }

    #[must_use]
    pub fn child(&self, kind: Kind, name: &str) -> Self {
        if self.is_recorded() { self.child_since(kind, name, Instant::now()) } else { Self::NONE }
    }

    /// One that began a while ago.
    #[must_use]
    pub fn child_since(&self, kind: Kind, name: &str, since: Instant) -> Self {
        let Some(Open { tracer, context, clock, .. }) = self.0.as_deref() else { return Self::NONE };
        let own = Context { span_id: new_span_id(), ..*context };
        let place = Place { own, parent_id: context.span_id, is_remote: false };
        Self::open(tracer, place, kind, name, (*clock, since))
    }

    /// It ended then, and not when its last handle goes.
    pub fn ended(&self, at: Instant) {
        if let Some((mut recorded, open)) = self.recorded().zip(self.0.as_deref()) {
            recorded.ended = Some(open.clock.time(at));
        }
    }

    pub fn set<'a>(&self, key: &'static str, value: impl Into<Value<'a>>) {
        self.set_all([(key, value.into())]);
    }

    /// Several at a time.
    pub fn set_all<const N: usize>(&self, attributes: [(&'static str, Value<'_>); N]) {
        if let Some(mut recorded) = self.recorded() {
            for (key, value) in attributes {
                recorded.span.set_attribute(KeyValue::new(Key::from_static_str(key), value));
            }
        }
    }

    /// Where the value has to be made.
    pub fn set_with(&self, key: &'static str, value: impl FnOnce() -> String) {
        if self.is_recorded() {
            self.set(key, value().as_str());
        }
    }

    /// Marks it as failed. The kind of failure is a word of few, not a text.
    pub fn fail(&self, kind: &str) {
        if let Some(mut recorded) = self.recorded() {
            recorded.span.set_status(Status::error(""));
            let key = Key::from_static_str(contract::spans::attribute::ERROR_TYPE);
            recorded.span.set_attribute(KeyValue::new(key, Value::Text(kind)));
        }
    }

    /// To a span of another trace, or elsewhere in this one.
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

impl Drop for Open {
    fn drop(&mut self) {
        let recorded = self.recorded.get_mut().unwrap_or_else(PoisonError::into_inner);
        let ended = recorded.ended.unwrap_or_else(|| self.clock.time(Instant::now()));
        recorded.span.end_with_timestamp(ended.max(recorded.started));
    }
}

impl From<Value<'_>> for opentelemetry::Value {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Text(text) => cut(text, TEXT_BYTES).to_owned().into(),
            Value::Int(number) => number.into(),
            Value::Bool(value) => value.into(),
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}
impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}
impl From<usize> for Value<'_> {
    fn from(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}
impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}
impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
