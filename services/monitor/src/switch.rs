//! The leading monitor's spans of a change of the table: the whole of it, which began with a failed worker's last sign of life, the
//! majority, and the transaction.

use contract::spans::{attribute, name, system};
use heartbeat::{
    Nanos,
    assign::{NodeId, Table},
    clock::Clock,
    observer::Observer,
};
use runtime::telemetry::{Context, Kind, Span, Telemetry};

use crate::{status::What, suspicions::Suspicions, trace::root_span_id};

/// A commit under way. Its spans end with it.
pub struct Switch {
    whole: Span,
    commit: Span,
}

impl Switch {
    /// Of `table`, which is about to be committed.
    pub fn begin(
        telemetry: &Telemetry,
        clock: Clock,
        now: Nanos,
        (observer, suspicions): (&Observer, &Suspicions),
        table: &Table,
    ) -> Self {
        let changes = What::between(&observer.snapshot().table, table);
        let lost: Vec<&NodeId> = changes.iter().filter_map(|what| lost(what, observer)).collect();
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
                let life = observer.incarnation(first).unwrap_or(0);
                majority.set(attribute::VOTES, observer.votes_against(now, first, life));
            }
        }
        let commit = whole.child(Kind::Client, name::SWITCH);
        commit.set(attribute::DB_SYSTEM_NAME, system::ETCD);
        commit.set(attribute::EPOCH, table.epoch);
        let moved = changes.iter().find_map(|what| match what {
            What::Primaries { moved, .. } => Some(*moved),
            _ => None,
        });
        commit.set(attribute::PARTITIONS, moved.unwrap_or(0));
        Self { whole, commit }
    }

    /// For those who act on the table. `None`: nobody records.
    pub fn traceparent(&self) -> Option<String> {
        self.commit.context().map(|context| context.to_string())
    }

    /// The registry did not take it.
    pub fn fail(self, kind: &'static str) {
        self.commit.fail(kind);
        self.whole.fail(kind);
    }
}

/// A node that the table takes off-line because it failed; one that left by itself has not.
fn lost<'a>(what: &'a What, observer: &Observer) -> Option<&'a NodeId> {
    match what {
        What::Offline { node, .. } if !observer.snapshot().is_leaving(node) => Some(node),
        _ => None,
    }
}
