//! The slowest death of a series, with its trace: it shows which part of the failover was slow.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use contract::spans::attribute;
use heartbeat::transport::assignments::Assignments;
use monitor::status::{Event, Status};
use serde::Serialize;
use tracestore::{Client, Trace, TraceId, waterfall};

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
    pub async fn fetch(self, traces: &Client) -> Slowest {
        tokio::time::sleep_until((self.killed + COMPLETE_AFTER).into()).await;
        let trace = match self.trace {
            Some(id) => traces.trace(id).await.ok().flatten(),
            None => None,
        };
        // A table that was committed right after the failover carries another trace.
        let trace = trace.filter(|trace| trace.spans.iter().any(|span| names(span, &self.worker)));
        let mut rows = trace.map_or_else(Vec::new, |trace| rows(&trace, self.killed_at));
        if !rows.is_empty() {
            rows.extend(self.pauses);
        }
        Slowest { sample: self.sample, confirmed_ms: self.confirmed_ms, rows }
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

fn names(span: &tracestore::Span, worker: &str) -> bool {
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
        offset_ms: (i128::from(row.span.start_ns) - i128::from(unix_ns(killed_at))) as f64 / 1e6,
        duration_ms: row.span.duration_ns as f64 / 1e6,
        details: details(row.span, row.offset_ns),
    };
    waterfall::rows(trace).iter().take(MAX_ROWS).map(row).collect()
}

/// `monitor-0`: the instance is `host/name`.
fn process(span: &tracestore::Span) -> &str {
    span.instance.as_deref().and_then(|instance| instance.rsplit('/').next()).unwrap_or(&span.service)
}

fn unix_ns(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
