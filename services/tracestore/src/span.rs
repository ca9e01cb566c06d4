//! Spans and traces as stored and returned.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{SpanId, TraceId};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub id: SpanId,
    /// `None`: the trace begins here.
    pub parent: Option<SpanId>,
    pub name: String,
    pub kind: Kind,
    /// `service.name` of the process, or "unknown".
    pub service: Arc<str>,
    /// `service.instance.id`, if the process has one.
    pub instance: Option<Arc<str>>,
    /// Unix time in nanoseconds.
    pub start_ns: u64,
    pub duration_ns: u64,
    /// Its status is an error.
    pub failed: bool,
    /// Message of the status; usually empty.
    pub message: String,
    /// Values as text.
    pub attributes: BTreeMap<String, String>,
    pub events: Vec<Event>,
}

/// A timestamped event of a span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub name: String,
    /// Unix time in nanoseconds.
    pub at_ns: u64,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

/// Reasons why a trace is kept. A trace can have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// Spans may still arrive; not decided yet.
    Open,
    /// One of the slowest.
    Slow,
    /// One of its spans failed.
    Failed,
    /// A histogram names it as an exemplar.
    Exemplar,
    /// Part of the random sample: a typical request.
    Sample,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    pub id: TraceId,
    pub reasons: Vec<Reason>,
    /// In order of arrival.
    pub spans: Vec<Span>,
    /// Spans dropped because the trace was full.
    pub dropped_spans: u64,
}

/// A trace in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub id: TraceId,
    pub reasons: Vec<Reason>,
    /// Name of the root span; the fields below are the root span's too.
    pub name: String,
    pub service: Arc<str>,
    /// Unix time in nanoseconds.
    pub start_ns: u64,
    pub duration_ns: u64,
    pub failed: bool,
    pub spans: usize,
}

impl Span {
    pub fn end_ns(&self) -> u64 {
        self.start_ns.saturating_add(self.duration_ns)
    }

    /// Approximate bytes in memory.
    pub(crate) fn size(&self) -> usize {
        // A map's entry has two strings and its share of a node.
        let map = |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| k.len() + v.len() + 64).sum::<usize>();
        let events = self.events.iter().map(|event| size_of::<Event>() + event.name.len() + map(&event.attributes));
        size_of::<Self>() + self.name.len() + self.message.len() + map(&self.attributes) + events.sum::<usize>()
    }
}

impl Trace {
    /// The root span: the one without a parent, or, while it has not arrived, the longest span with a missing parent. Work after the answer
    /// (a cache fill) ends later and is not counted.
    pub fn root(&self) -> Option<&Span> {
        root(&self.spans)
    }
}

pub(crate) fn root(spans: &[Span]) -> Option<&Span> {
    let orphan = |span: &&Span| span.parent.is_none_or(|parent| !spans.iter().any(|other| other.id == parent));
    spans.iter().filter(orphan).max_by_key(|span| (span.parent.is_none(), span.duration_ns))
}
