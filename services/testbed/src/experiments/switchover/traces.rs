//! The traces of the deaths: they show which part of a failover was slow.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use contract::spans::{attribute, name};
use heartbeat::transport::assignments::Assignments;
use monitor::status::{Event, Status};
use serde::Serialize;
use tracestore::{Client, Span, Trace, TraceId, waterfall};

use crate::{instruments::waterfall::details, stack::control_plane::ControlPlane};

/// Timeout of a request for a monitor's status.
const STATUS: Duration = Duration::from_secs(2);

/// Of the rows in a report.
const MAX_ROWS: usize = 60;

/// A span, or an event that is not in the trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Spans above it.
    pub depth: usize,
    pub process: String,
    pub name: String,
    /// From the signal; negative before it.
    pub offset_ms: f64,
    pub duration_ms: f64,
    pub details: String,
}

/// The slowest death by its confirmation.
#[derive(Debug, Clone, Serialize)]
pub struct Slowest {
    /// Its number among the samples.
    pub sample: usize,
    pub confirmed_ms: f64,
    /// Spans and pauses of monitors, in the order of a waterfall. Empty: the receiver of traces has no trace of it.
    pub rows: Vec<Row>,
}

/// Parts of the time until the confirmation, in the order of the failover.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Parts {
    /// From the signal until the leader failed the worker: silence and probes.
    pub failed_ms: f64,
    /// Until the majority agreed.
    pub majority_ms: f64,
    /// The transaction in etcd.
    pub commit_ms: f64,
    /// Until a client had the new table.
    pub published_ms: f64,
}

impl Parts {
    /// `None`: spans are missing.
    fn of(trace: &Trace, killed_at: SystemTime, confirmed_ms: f64) -> Option<Self> {
        let span = |name| trace.spans.iter().find(|span| span.name == name);
        let (majority, commit) = (span(name::MAJORITY)?, span(name::SWITCH)?);
        let [majority_ms, commit_ms] = [majority, commit].map(|span| span.duration_ns as f64 / 1e6);
        let published_ms = confirmed_ms - from_signal_ms(commit.end_ns(), killed_at);
        Some(Self { failed_ms: from_signal_ms(majority.start_ns, killed_at), majority_ms, commit_ms, published_ms })
    }
}

/// After this time all processes have sent their spans: they do so once per second.
const COMPLETE_AFTER: Duration = Duration::from_secs(4);

/// A death whose trace was not read yet.
pub struct Death {
    pub sample: usize,
    pub worker: String,
    pub killed: Instant,
    pub killed_at: SystemTime,
    pub confirmed_ms: f64,
    pub trace: Option<TraceId>,
    /// From `pauses`.
    pub pauses: Vec<Row>,
}

impl Death {
    /// Whether the receiver has the whole trace.
    pub fn is_complete(&self) -> bool {
        self.killed.elapsed() >= COMPLETE_AFTER
    }

    /// Waits for the rest of the trace, and reads it.
    pub async fn read(self, traces: &Client) -> (Option<Parts>, Slowest) {
        tokio::time::sleep_until((self.killed + COMPLETE_AFTER).into()).await;
        let trace = match self.trace {
            Some(id) => traces.trace(id).await.ok().flatten(),
            None => None,
        };
        // A table that was committed right after the failover carries another trace.
        let trace = trace.filter(|trace| trace.spans.iter().any(|span| names(span, &self.worker)));
        let parts = trace.as_ref().and_then(|trace| Parts::of(trace, self.killed_at, self.confirmed_ms));
        let mut rows = trace.map_or_else(Vec::new, |trace| rows(&trace, self.killed_at));
        if !rows.is_empty() {
            rows.extend(self.pauses);
        }
        (parts, Slowest { sample: self.sample, confirmed_ms: self.confirmed_ms, rows })
    }
}

/// Pauses of the monitors' processes between the signal and the confirmation.
pub async fn pauses(control_plane: &ControlPlane, killed_at: SystemTime, confirmed_ms: f64) -> Vec<Row> {
    let killed_ms = unix_ns(killed_at) as f64 / 1e6;
    let mut rows = Vec::new();
    for monitor in &control_plane.monitors {
        let Some(status) = status(&monitor.http).await else { continue };
        for event in status.changes {
            let Event::Paused { ms } = event.event else { continue };
            let offset_ms = event.at_ms as f64 - ms - killed_ms;
            if offset_ms + ms > 0.0 && offset_ms < confirmed_ms {
                let (process, name) = (monitor.name.clone(), "pause of the process".to_owned());
                rows.push(Row { depth: 0, process, name, offset_ms, duration_ms: ms, details: String::new() });
            }
        }
    }
    rows
}

async fn status(address: &str) -> Option<Status> {
    let http = runtime::http::plain().timeout(STATUS).build().ok()?;
    http.get(format!("http://{address}/status")).send().await.ok()?.json().await.ok()
}

fn names(span: &Span, worker: &str) -> bool {
    span.attributes.get(attribute::NODE).is_some_and(|nodes| nodes.split(' ').any(|node| node == worker))
}

/// The trace in the table.
pub fn trace_id(seen: &Assignments) -> Option<TraceId> {
    seen.table.traceparent.as_deref()?.split('-').nth(1)?.parse().ok()
}

fn rows(trace: &Trace, killed_at: SystemTime) -> Vec<Row> {
    let row = |row: &waterfall::Row<'_>| Row {
        depth: row.depth,
        process: process(row.span).to_owned(),
        name: row.span.name.clone(),
        offset_ms: from_signal_ms(row.span.start_ns, killed_at),
        duration_ms: row.span.duration_ns as f64 / 1e6,
        details: details(row.span, row.offset_ns),
    };
    waterfall::rows(trace).iter().take(MAX_ROWS).map(row).collect()
}

/// `monitor-0`: the instance is `host/name`.
fn process(span: &Span) -> &str {
    span.instance.as_deref().and_then(|instance| instance.rsplit('/').next()).unwrap_or(&span.service)
}

fn from_signal_ms(at_ns: u64, killed_at: SystemTime) -> f64 {
    (i128::from(at_ns) - i128::from(unix_ns(killed_at))) as f64 / 1e6
}

fn unix_ns(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracestore::{Kind, SpanId};

    use super::*;

    const MS: u64 = 1_000_000;

    fn span(name: &str, start_ms: u64, duration_ms: u64) -> Span {
        Span {
            id: SpanId::from_bytes(&(start_ms + 1).to_be_bytes()).unwrap(),
            parent: None,
            name: name.into(),
            kind: Kind::Internal,
            service: "monitor".into(),
            instance: Some("host/monitor-1".into()),
            start_ns: start_ms * MS,
            duration_ns: duration_ms * MS,
            failed: false,
            message: String::new(),
            attributes: BTreeMap::from([(attribute::NODE.into(), "worker-0 worker-2".into())]),
            events: Vec::new(),
        }
    }

    #[test]
    fn the_parts_add_up_to_the_confirmation() {
        let spans =
            vec![span(name::FAILOVER, 990, 300), span(name::MAJORITY, 1_187, 10), span(name::SWITCH, 1_197, 167)];
        let id = TraceId::from_bytes(&[7; 16]).unwrap();
        let mut trace = Trace { id, reasons: Vec::new(), spans, dropped_spans: 0 };
        let killed_at = UNIX_EPOCH + Duration::from_secs(1);
        let parts = Parts::of(&trace, killed_at, 391.0).unwrap();
        let expected = Parts { failed_ms: 187.0, majority_ms: 10.0, commit_ms: 167.0, published_ms: 27.0 };
        assert_eq!(parts, expected);
        let rows = rows(&trace, killed_at);
        assert_eq!((rows[0].offset_ms, rows[0].process.as_str()), (-10.0, "monitor-1"));
        assert!(names(&trace.spans[0], "worker-2") && !names(&trace.spans[0], "worker-1"));
        trace.spans.pop();
        assert_eq!(Parts::of(&trace, killed_at, 391.0), None);
    }
}
