//! A span: nothing at all where the request is not recorded.

use std::{
    fmt::Display,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    context::{Context, new_span_id},
    messages,
    outbox::Outbox,
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

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Text(&'a str),
    Int(i64),
    Float(f64),
    Bool(bool),
}

/// The wall clock, read once: the times of a process's spans of one trace differ as its monotonic clock does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    at: Instant,
    unix_ns: u64,
}

#[derive(Debug)]
struct Open {
    outbox: Arc<Outbox>,
    context: Context,
    clock: Clock,
    started_ns: u64,
    /// 0: when the last handle goes.
    ended_ns: AtomicU64,
    /// The message, as far as it is known.
    message: Mutex<Vec<u8>>,
}

impl Clock {
    pub fn read() -> Self {
        Self { at: Instant::now(), unix_ns: unix_ns() }
    }

    /// Nanoseconds since 1970.
    fn unix_ns(&self, at: Instant) -> u64 {
        match at.checked_duration_since(self.at) {
            Some(since) => self.unix_ns.saturating_add(nanoseconds(since)),
            None => self.unix_ns.saturating_sub(nanoseconds(self.at - at)),
        }
    }
}

impl Span {
    pub const NONE: Self = Self(None);

    pub(super) fn open(
        outbox: &Arc<Outbox>,
        context: Context,
        parent_id: u64,
        kind: Kind,
        name: impl Display,
        (clock, started): (Clock, Instant),
    ) -> Self {
        let started_ns = clock.unix_ns(started);
        let message = Mutex::new(messages::begin_span(context, parent_id, kind, name, started_ns));
        let (outbox, ended_ns) = (Arc::clone(outbox), AtomicU64::new(0));
        Self(Some(Arc::new(Open { outbox, context, clock, started_ns, ended_ns, message })))
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
        let Some(Open { outbox, context, clock, .. }) = self.0.as_deref() else { return Self::NONE };
        let own = Context { span_id: new_span_id(), ..*context };
        Self::open(outbox, own, context.span_id, kind, name, (*clock, since))
    }

    /// It ended then, and not when its last handle goes.
    pub fn ended(&self, at: Instant) {
        if let Some(open) = &self.0 {
            open.ended_ns.store(open.clock.unix_ns(at), Relaxed);
        }
    }

    pub fn set<'a>(&self, key: &'static str, value: impl Into<Value<'a>>) {
        self.set_all([(key, value.into())]);
    }

    /// Several at a time.
    pub fn set_all<const N: usize>(&self, attributes: [(&'static str, Value<'_>); N]) {
        if let Some(mut message) = self.message() {
            for (key, value) in attributes {
                messages::span_attribute(&mut message, key, value);
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
        if let Some(mut message) = self.message() {
            messages::span_failed(&mut message);
            messages::span_attribute(&mut message, contract::spans::attribute::ERROR_TYPE, kind.into());
        }
    }

    /// To a span of another trace, or elsewhere in this one.
    pub fn link(&self, to: Option<Context>) {
        if let (Some(mut message), Some(to)) = (self.message(), to) {
            messages::span_link(&mut message, to);
        }
    }

    fn message(&self) -> Option<MutexGuard<'_, Vec<u8>>> {
        self.0.as_ref().map(|open| open.message.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let ended_ns = match self.ended_ns.load(Relaxed) {
            0 => self.clock.unix_ns(Instant::now()),
            told => told,
        };
        let message = self.message.get_mut().unwrap_or_else(PoisonError::into_inner);
        messages::end_span(message, ended_ns.max(self.started_ns));
        self.outbox.put(message);
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

/// Since 1970; good until 2554.
pub(super) fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanoseconds)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
