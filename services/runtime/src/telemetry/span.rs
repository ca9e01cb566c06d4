//! A span: nothing at all where the request is not recorded.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    context::{Context, new_span_id},
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

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Word(&'static str),
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

/// A span that has ended, on its way out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ended {
    pub context: Context,
    /// 0: it begins the trace.
    pub parent_id: u64,
    pub kind: Kind,
    pub started_ns: u64,
    pub ended_ns: u64,
    pub details: Details,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Details {
    pub name: Cow<'static, str>,
    pub attributes: Vec<(&'static str, Value)>,
    pub link: Option<Context>,
    pub failed: bool,
}

#[derive(Debug)]
struct Open {
    outbox: Arc<Outbox<Ended>>,
    context: Context,
    parent_id: u64,
    kind: Kind,
    started_ns: u64,
    /// 0: when the last handle goes.
    ended_ns: AtomicU64,
    details: Mutex<Details>,
}

impl Span {
    pub const NONE: Self = Self(None);

    pub(super) fn open(
        outbox: &Arc<Outbox<Ended>>,
        context: Context,
        parent_id: u64,
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        started_ns: u64,
    ) -> Self {
        // Most have about as many as a command to a store.
        let details = Details { name: name.into(), attributes: Vec::with_capacity(8), ..Details::default() };
        let (outbox, details) = (Arc::clone(outbox), Mutex::new(details));
        let ended_ns = AtomicU64::new(0);
        Self(Some(Arc::new(Open { outbox, context, parent_id, kind, started_ns, ended_ns, details })))
    }

    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// `None`: it is not recorded.
    pub fn context(&self) -> Option<Context> {
        self.0.as_ref().map(|open| open.context)
    }

    #[must_use]
    pub fn child(&self, kind: Kind, name: &'static str) -> Self {
        self.child_named(kind, || name)
    }

    /// One that began a while ago.
    #[must_use]
    pub fn child_since(&self, kind: Kind, name: &'static str, since: Instant) -> Self {
        let Some(parent) = &self.0 else { return Self::NONE };
        let context = Context { span_id: new_span_id(), ..parent.context };
        Self::open(&parent.outbox, context, parent.context.span_id, kind, name, unix_ns_of(since))
    }

    /// It ended then, and not when its last handle goes.
    pub fn ended(&self, at: Instant) {
        if let Some(open) = &self.0 {
            open.ended_ns.store(unix_ns_of(at), Relaxed);
        }
    }

    /// The same where the name has to be made.
    #[must_use]
    pub fn child_named<N: Into<Cow<'static, str>>>(&self, kind: Kind, name: impl FnOnce() -> N) -> Self {
        let Some(parent) = &self.0 else { return Self::NONE };
        let context = Context { span_id: new_span_id(), ..parent.context };
        Self::open(&parent.outbox, context, parent.context.span_id, kind, name(), unix_ns())
    }

    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(mut details) = self.details() {
            details.attributes.push((key, value.into()));
        }
    }

    /// The same where the value has to be made.
    pub fn set_with<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(mut details) = self.details() {
            details.attributes.push((key, value().into()));
        }
    }

    /// Marks it as failed. The kind of failure is a word of few, not a text.
    pub fn fail(&self, kind: impl Into<Value>) {
        if let Some(mut details) = self.details() {
            details.failed = true;
            details.attributes.push((contract::spans::attribute::ERROR_TYPE, kind.into()));
        }
    }

    /// To a span of another trace, or elsewhere in this one.
    pub fn link(&self, to: Option<Context>) {
        if let Some(mut details) = self.details() {
            details.link = to;
        }
    }

    fn details(&self) -> Option<MutexGuard<'_, Details>> {
        self.0.as_ref().map(|open| open.details.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let details = std::mem::take(self.details.get_mut().unwrap_or_else(PoisonError::into_inner));
        // The clock may have been set back in between.
        let ended_ns = match self.ended_ns.load(Relaxed) {
            0 => unix_ns(),
            told => told,
        };
        let ended_ns = ended_ns.max(self.started_ns);
        let Self { context, parent_id, kind, started_ns, .. } = *self;
        self.outbox.put(Ended { context, parent_id, kind, started_ns, ended_ns, details });
    }
}

impl From<&'static str> for Value {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}
impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// Since 1970; good until 2554.
pub(super) fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanoseconds)
}

/// Of an instant that is over.
pub(super) fn unix_ns_of(at: Instant) -> u64 {
    unix_ns().saturating_sub(nanoseconds(at.elapsed()))
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
