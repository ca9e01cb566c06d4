//! Etcd: the registry in memory, and what can happen to it. Leases have a clock of their own.

use std::collections::VecDeque;

use heartbeat::{
    Nanos,
    registry::{InMemoryRegistry, Request, Response, Snapshot},
};

use crate::config::SECOND;

/// How far back the registry can be restored.
const KEPT: Nanos = 60 * SECOND;

#[derive(Default)]
pub(super) struct Etcd {
    registry: InMemoryRegistry,
    /// Start of the leader's process: another one with its name does not have its lease.
    leader_life: u64,
    /// Since when leases do not run down, and for how long they did not in all.
    frozen_since: Option<Nanos>,
    lag: Nanos,
    former: VecDeque<(Nanos, InMemoryRegistry)>,
    /// Each time the keys are lost, another one begins.
    pub(super) history: u64,
    /// A mutant.
    accepts_any_commit: bool,
}

impl Etcd {
    pub(super) fn new(accepts_any_commit: bool) -> Self {
        Self { accepts_any_commit, registry: fresh(), ..Self::default() }
    }

    pub(super) fn state(&self) -> &std::sync::Arc<Snapshot> {
        self.registry.state()
    }

    /// `life`: start of the monitor's process.
    pub(super) fn apply(&mut self, now: Nanos, life: u64, request: Request) -> Response {
        let now = self.lease_time(now);
        match request {
            Request::Campaign { monitor, ttl } => {
                self.registry.apply(now, Request::Read);
                let leader = self.state().leader.as_ref().map(|leader| leader.monitor.clone());
                if leader.as_ref() == Some(&monitor) && self.leader_life != life {
                    return Response::Following(monitor);
                }
                let response = self.registry.apply(now, Request::Campaign { monitor, ttl });
                if matches!(response, Response::Leading { .. }) {
                    self.leader_life = life;
                }
                response
            }
            // The lease is its process's.
            Request::Resign { .. } if self.leader_life != life => Response::Resigned,
            Request::Commit { table, .. } if self.accepts_any_commit => {
                // Passes all conditions.
                self.registry.apply(now, Request::Campaign { monitor: "any".into(), ttl: 1 });
                let state = self.state();
                let term = state.leader.as_ref().map_or(0, |leader| leader.term);
                let monitors_version = state.monitors.as_ref().map_or(0, |monitors| monitors.version);
                let table_revision = state.table_revision;
                self.registry.apply(now, Request::Commit { term, table_revision, monitors_version, table })
            }
            request => self.registry.apply(now, request),
        }
    }

    fn lease_time(&self, now: Nanos) -> Nanos {
        self.frozen_since.unwrap_or(now) - self.lag
    }

    pub(super) fn lose_lease(&mut self) {
        self.registry.apply(Nanos::MAX, Request::Read);
    }

    pub(super) fn freeze(&mut self, now: Nanos) {
        self.frozen_since.get_or_insert(now);
    }

    pub(super) fn thaw(&mut self, now: Nanos) {
        if let Some(since) = self.frozen_since.take() {
            self.lag += now - since;
        }
    }

    pub(super) fn keep_copy(&mut self, now: Nanos) {
        self.former.push_back((now, self.registry.clone()));
        while self.former.front().is_some_and(|(at, _)| *at + KEPT < now) {
            self.former.pop_front();
        }
    }

    /// Without copies of that age: to nothing.
    pub(super) fn restore(&mut self, now: Nanos, age: Nanos) {
        let former = self.former.iter().rev().find(|(at, _)| *at + age <= now);
        self.registry = former.map_or_else(fresh, |(_, former)| former.clone());
        self.history += 1;
    }

    pub(super) fn empty(&mut self) {
        self.registry = fresh();
        self.history += 1;
    }
}

/// Without keys. Revisions of etcd begin at 1.
fn fresh() -> InMemoryRegistry {
    let mut registry = InMemoryRegistry::default();
    registry.apply(0, Request::Campaign { monitor: "any".into(), ttl: 0 });
    registry.apply(0, Request::Read);
    registry
}
