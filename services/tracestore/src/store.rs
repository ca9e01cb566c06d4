//! Assembles spans to traces. A trace is open until `settle` has passed since its first span; then `retention` decides. Kept traces accept
//! late spans; late spans of dropped traces are counted. Everything is bounded by bytes or numbers, and every drop is counted.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use contract::spans::attribute;

use crate::{
    Kind, Reason, Span, Summary, Trace, TraceId, Traits,
    metrics::Metrics,
    retention::{Quotas, Retention},
    span::root,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Number of traces kept per reason.
    pub quotas: Quotas,
    /// Time from a trace's first span until the store decides whether to keep it: requests end within 5 s, exporters send within 1 s more.
    pub settle: Duration,
    /// Maximum bytes of all open traces. Above it the oldest is decided early.
    pub open_bytes: usize,
    /// Maximum bytes of one trace. Further spans are dropped.
    pub trace_bytes: usize,
    /// Number of ids of dropped traces that are remembered, so that their late spans do not begin a new trace.
    pub remembered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The sample holds all recorded requests of a 100 s step: its means cover all of them.
            quotas: Quotas {
                slow: 100,
                failed: 100,
                exemplars: 500,
                sample: 1_000,
                slow_for: Duration::from_secs(600),
            },
            settle: Duration::from_secs(6),
            open_bytes: 32 << 20,
            trace_bytes: 64 << 10,
            remembered: 50_000,
        }
    }
}

/// Selection and order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    Slowest,
    /// Newest first, as `Newest`.
    Errors,
    Newest,
}

impl Selection {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slowest => "slowest",
            Self::Errors => "errors",
            Self::Newest => "newest",
        }
    }
}

#[derive(Debug)]
pub struct Store {
    limits: Limits,
    metrics: Metrics,
    open: HashMap<TraceId, PartialTrace>,
    /// Open traces by arrival of their first span. Has exactly the keys of `open`.
    arrivals: VecDeque<(Instant, TraceId)>,
    open_bytes: usize,
    kept: HashMap<TraceId, PartialTrace>,
    retention: Retention,
    gone: RecentIds,
}

#[derive(Debug, Default)]
struct PartialTrace {
    spans: Vec<Span>,
    bytes: usize,
    dropped: u64,
}

impl Store {
    pub fn new(limits: Limits, metrics: Metrics) -> Self {
        Self {
            retention: Retention::new(limits.quotas),
            gone: RecentIds::new(limits.remembered),
            limits,
            metrics,
            open: HashMap::new(),
            arrivals: VecDeque::new(),
            open_bytes: 0,
            kept: HashMap::new(),
        }
    }

    pub fn add(&mut self, id: TraceId, span: Span, now: Instant) {
        self.metrics.received.inc();
        if self.kept.contains_key(&id) {
            self.add_late(id, span, now);
        } else if self.gone.contains(id) {
            self.metrics.dropped_late.inc();
        } else {
            let trace = self.open.entry(id).or_insert_with(|| {
                self.arrivals.push_back((now, id));
                PartialTrace::default()
            });
            let before = trace.bytes;
            if !trace.push(span, self.limits.trace_bytes) {
                self.metrics.dropped_full.inc();
            }
            self.open_bytes += trace.bytes - before;
            while self.open_bytes > self.limits.open_bytes && self.decide_oldest(now) {
                self.metrics.judged_early.inc();
            }
        }
        self.show_sizes();
    }

    /// Decides about the open traces that have settled.
    pub fn settle(&mut self, now: Instant) {
        let settle = self.limits.settle;
        let is_due = |(came, _): &(Instant, TraceId)| now.saturating_duration_since(*came) >= settle;
        while self.arrivals.front().is_some_and(is_due) && self.decide_oldest(now) {}
        self.show_sizes();
    }

    /// Removes all traces, so that later queries return later traces only.
    pub fn clear(&mut self) {
        // Late spans of open traces must not begin new traces.
        self.arrivals.drain(..).for_each(|(_, id)| self.gone.insert(id));
        self.open.clear();
        self.open_bytes = 0;
        self.kept.drain().for_each(|(id, _)| self.gone.insert(id));
        self.retention = Retention::new(self.limits.quotas);
        self.show_sizes();
    }

    pub fn get(&self, id: TraceId) -> Option<Trace> {
        let trace = self.kept.get(&id).or_else(|| self.open.get(&id))?;
        Some(Trace { id, reasons: self.reasons(id), spans: trace.spans.clone(), dropped_spans: trace.dropped })
    }

    /// At most `limit` traces, open ones included.
    pub fn list(&self, choice: Selection, limit: usize) -> Vec<Summary> {
        let all = self.kept.iter().chain(&self.open).filter_map(|(id, trace)| Some((*id, trace, root(&trace.spans)?)));
        let mut chosen: Vec<_> = all.filter(|(_, trace, _)| choice != Selection::Errors || trace.failed()).collect();
        // Ids make the order deterministic.
        match choice {
            Selection::Slowest => chosen.sort_by_key(|(id, _, root)| (std::cmp::Reverse(waited_ns(root)), *id)),
            Selection::Errors | Selection::Newest => {
                chosen.sort_by_key(|(id, _, root)| (std::cmp::Reverse(root.start_ns), *id))
            }
        }
        chosen.truncate(limit);
        let summaries = chosen.into_iter().map(|(id, trace, root)| Summary {
            id,
            reasons: self.reasons(id),
            name: root.name.clone(),
            service: root.service.clone(),
            start_ns: root.start_ns,
            duration_ns: root.duration_ns,
            failed: trace.failed(),
            spans: trace.spans.len(),
        });
        summaries.collect()
    }

    fn reasons(&self, id: TraceId) -> Vec<Reason> {
        if self.open.contains_key(&id) { vec![Reason::Open] } else { self.retention.reasons(id) }
    }

    fn add_late(&mut self, id: TraceId, span: Span, now: Instant) {
        let Some(trace) = self.kept.get_mut(&id) else { return };
        if !trace.push(span, self.limits.trace_bytes) {
            self.metrics.dropped_full.inc();
            return;
        }
        let traits = trace.traits();
        self.decide(id, traits, now);
    }

    /// False: no trace is open.
    fn decide_oldest(&mut self, now: Instant) -> bool {
        let Some((_, id)) = self.arrivals.pop_front() else { return false };
        if let Some(trace) = self.open.remove(&id) {
            self.open_bytes -= trace.bytes;
            let traits = trace.traits();
            self.kept.insert(id, trace);
            self.metrics.judged.inc();
            self.decide(id, traits, now);
        }
        true
    }

    fn decide(&mut self, id: TraceId, traits: Traits, now: Instant) {
        for gone in self.retention.offer(id, traits, now) {
            self.kept.remove(&gone);
            self.gone.insert(gone);
            // A trace that was never kept is not an eviction.
            if gone != id {
                self.metrics.evicted.inc();
            }
        }
    }

    fn show_sizes(&self) {
        self.metrics.open.set(i64::try_from(self.open.len()).unwrap_or(i64::MAX));
        self.metrics.open_bytes.set(i64::try_from(self.open_bytes).unwrap_or(i64::MAX));
        self.metrics.kept.set(i64::try_from(self.kept.len()).unwrap_or(i64::MAX));
    }
}

impl PartialTrace {
    /// False: no room. A duplicate span is stored once.
    fn push(&mut self, span: Span, limit: usize) -> bool {
        if self.spans.iter().any(|present| present.id == span.id) {
            return true;
        }
        let size = span.size();
        if self.bytes + size > limit {
            self.dropped += 1;
            return false;
        }
        self.bytes += size;
        self.spans.push(span);
        true
    }

    fn failed(&self) -> bool {
        self.spans.iter().any(|span| span.failed)
    }

    fn traits(&self) -> Traits {
        let any = |key| self.spans.iter().any(|span| span.attributes.contains_key(key));
        Traits {
            duration_ns: root(&self.spans).map_or(0, waited_ns),
            failed: self.failed(),
            exemplar: any(attribute::EXEMPLAR),
            afterwards: any(attribute::RETROSPECTIVE),
        }
    }
}

/// Time that a user waited. Failovers and absences of workers are internal spans and not slow requests.
fn waited_ns(root: &Span) -> u64 {
    if root.kind == Kind::Internal { 0 } else { root.duration_ns }
}

/// The most recent ids, up to `limit`.
#[derive(Debug)]
struct RecentIds {
    limit: usize,
    ids: HashSet<TraceId>,
    order: VecDeque<TraceId>,
}

impl RecentIds {
    fn new(limit: usize) -> Self {
        Self { limit, ids: HashSet::new(), order: VecDeque::new() }
    }

    fn insert(&mut self, id: TraceId) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        while self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    fn contains(&self, id: TraceId) -> bool {
        self.ids.contains(&id)
    }
}

#[cfg(test)]
mod tests;
