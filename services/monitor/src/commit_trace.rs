//! Spans of the leading monitor for a change of the partition table: root (from the failed worker's last sign of life), majority, and etcd
//! transaction.

use contract::spans::{attribute, name, system};
use heartbeat::{
    Nanos,
    assign::{NodeId, Table},
    clock::Clock,
    observer::Observer,
};
use runtime::telemetry::{Context, Kind, Span, Telemetry};

use crate::{status::Event, suspicions::Suspicions, trace::root_span_id};

/// Spans of a commit in flight. They end when it is dropped.
pub struct CommitTrace {
    whole: Span,
    commit: Span,
}

impl CommitTrace {
    /// Begins the spans for `table`, which is about to be committed.
    pub fn begin(
        telemetry: &Telemetry,
        clock: Clock,
        now: Nanos,
        (observer, suspicions): (&Observer, &Suspicions),
        table: &Table,
    ) -> Self {
        let changes = Event::between(&observer.snapshot().table, table);
        let lost: Vec<&NodeId> = changes.iter().filter_map(|event| lost(event, observer)).collect();
        let silence = lost.iter().filter_map(|node| observer.silence(now, node)).max();
        let root = Context::root(true);
        let root = Context { span_id: root_span_id(root.trace_id), ..root };
        let name = if lost.is_empty() { name::ASSIGNMENT } else { name::FAILOVER };
        let began = clock.instant(now.saturating_sub(silence.unwrap_or(0)));
        let whole = telemetry.record((root, 0), Kind::Internal, name, began);
        whole.set(attribute::EPOCH, table.epoch);
        if let Some(first) = lost.first() {
            whole.set_with(attribute::NODE, || lost.iter().map(|node| &***node).collect::<Vec<_>>().join(" "));
            whole.fail("node_failed");
            if let Some(voted) = suspicions.failed_at(first) {
                let majority = whole.child_since(Kind::Internal, name::MAJORITY, clock.instant(voted));
                let incarnation = observer.incarnation(first).unwrap_or(0);
                majority.set(attribute::VOTES, observer.votes_against(now, first, incarnation));
            }
        }
        let commit = whole.child(Kind::Client, name::SWITCH);
        commit.set(attribute::DB_SYSTEM_NAME, system::ETCD);
        commit.set(attribute::EPOCH, table.epoch);
        let moved = changes.iter().find_map(|event| match event {
            Event::Primaries { moved, .. } => Some(*moved),
            _ => None,
        });
        commit.set(attribute::PARTITIONS, moved.unwrap_or(0));
        Self { whole, commit }
    }

    /// Trace context for the workers that act on the table. `None`: nothing is recorded.
    pub fn traceparent(&self) -> Option<String> {
        self.commit.context().map(|context| context.to_string())
    }

    /// The registry refused the commit.
    pub fn fail(self, kind: &'static str) {
        self.commit.fail(kind);
        self.whole.fail(kind);
    }
}

/// A worker that the table takes offline because it failed. A worker that left has not failed.
fn lost<'a>(event: &'a Event, observer: &Observer) -> Option<&'a NodeId> {
    match event {
        Event::Offline { node, .. } if !observer.snapshot().is_leaving(node) => Some(node),
        _ => None,
    }
}
