//! Shared state of the monitors, and the requests to the registry that stores it: etcd in the real stack (crate `monitor`),
//! `InMemoryRegistry` in the simulation. A test of `monitor` shows that both give the same answers.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    Nanos,
    assign::{NodeId, Table},
};

/// One incarnation of a worker, and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub id: NodeId,
    /// Increases with every incarnation: milliseconds of Unix time at the start, raised when an incarnation was failed.
    pub incarnation: u64,
    /// A random number of the process. It tells two processes of one name apart that have the same incarnation, because a clock was set back
    /// or a machine was cloned.
    #[serde(default)]
    pub process: u64,
    /// `host:port` of HTTP: requests, and probes over TCP.
    pub http: String,
    /// `host:port` that answers probes over UDP.
    pub udp: String,
    /// It is stopping: its partitions must be reassigned immediately.
    #[serde(default)]
    pub leaving: bool,
}

/// A monitor's reply to a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum Registered {
    Registered,
    /// A later incarnation, or the same of another process, is registered: this one.
    #[serde(rename = "outlived")]
    Superseded {
        incarnation: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// The registry's version of all of this; increases with each change.
    pub revision: u64,
    pub leader: Option<Leader>,
    /// `None`: no monitor has written it yet.
    pub monitors: Option<Monitors>,
    pub nodes: BTreeMap<NodeId, Registration>,
    /// Version of the table; 0: never written.
    pub table_revision: u64,
    pub table: Arc<Table>,
}

impl Snapshot {
    /// Whether the worker has announced that it stops.
    pub fn is_leaving(&self, id: &str) -> bool {
        self.nodes.get(id).is_some_and(|registration| registration.leaving)
    }

    /// Whether it has announced that it stops and owns no partition any more: its silence is expected.
    pub fn has_left(&self, id: &str) -> bool {
        self.is_leaving(id) && !self.table.is_online(id)
    }
}

/// The monitors whose votes count. The registry has one version of it for all of them, so that no two monitors count votes against different
/// numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Monitors {
    /// The administrator raises it with every change.
    pub version: u64,
    /// Names, and `host:port` of their HTTP ports.
    pub members: BTreeMap<NodeId, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    pub monitor: NodeId,
    /// Different for every term.
    pub term: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Read,
    /// Becomes leader if there is none; renews the lease of the leader.
    Campaign {
        monitor: NodeId,
        ttl: Nanos,
    },
    /// Gives up the leadership, if this monitor has it.
    Resign {
        monitor: NodeId,
    },
    /// Writes the monitors, unless the registry has this version or a later one.
    SetMonitors(Monitors),
    /// Refused if a later incarnation is registered.
    Register(Registration),
    /// Removes the registration, if it is still this one.
    Forget(Registration),
    /// Only by the leader of this term, and only if neither the table nor the monitors have changed.
    Commit {
        term: u64,
        table_revision: u64,
        monitors_version: u64,
        table: Table,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    Snapshot(Arc<Snapshot>),
    Leading {
        term: u64,
    },
    Following(NodeId),
    Resigned,
    /// The registry has these monitors now, or a later version of them.
    MonitorsSet,
    Forgotten,
    /// Also if exactly this process and incarnation was registered already.
    Registered,
    /// A later incarnation, or the same of another process, is registered.
    Superseded {
        /// The registered incarnation.
        incarnation: u64,
    },
    Committed {
        table_revision: u64,
    },
    /// Another leader, another table or other monitors came first.
    Conflict,
}

/// A registry in memory; the caller passes the time.
#[derive(Debug, Clone, Default)]
pub struct InMemoryRegistry {
    state: Arc<Snapshot>,
    leader_until: Nanos,
}

impl InMemoryRegistry {
    pub fn state(&self) -> &Arc<Snapshot> {
        &self.state
    }

    pub fn apply(&mut self, now: Nanos, request: Request) -> Response {
        if self.state.leader.is_some() && now >= self.leader_until {
            self.change().leader = None;
        }
        match request {
            Request::Read => Response::Snapshot(Arc::clone(&self.state)),
            Request::Campaign { monitor, ttl } => self.campaign(now, monitor, ttl),
            Request::Resign { monitor } => {
                if self.state.leader.as_ref().is_some_and(|leader| leader.monitor == monitor) {
                    self.change().leader = None;
                }
                Response::Resigned
            }
            Request::SetMonitors(monitors) => {
                if self.monitors_version() < monitors.version {
                    self.change().monitors = Some(monitors);
                }
                Response::MonitorsSet
            }
            Request::Register(node) => self.register(node),
            Request::Forget(node) => {
                if self.state.nodes.get(&node.id) == Some(&node) {
                    self.change().nodes.remove(&node.id);
                }
                Response::Forgotten
            }
            Request::Commit { term, table_revision, monitors_version, table } => {
                self.commit(term, table_revision, monitors_version, table)
            }
        }
    }

    fn campaign(&mut self, now: Nanos, monitor: NodeId, ttl: Nanos) -> Response {
        let term = match &self.state.leader {
            Some(leader) if leader.monitor != monitor => return Response::Following(leader.monitor.clone()),
            Some(leader) => leader.term,
            None => {
                let state = self.change();
                let term = state.revision;
                state.leader = Some(Leader { monitor, term });
                term
            }
        };
        self.leader_until = now + ttl;
        Response::Leading { term }
    }

    fn register(&mut self, node: Registration) -> Response {
        match self.state.nodes.get(&node.id) {
            Some(known) if is_same(known, &node) => return Response::Registered,
            Some(known) if !supersedes(known, &node) => {
                return Response::Superseded { incarnation: known.incarnation };
            }
            _ => {}
        }
        self.change().nodes.insert(node.id.clone(), node);
        Response::Registered
    }

    fn commit(&mut self, term: u64, table_revision: u64, monitors_version: u64, table: Table) -> Response {
        let leads = self.state.leader.as_ref().is_some_and(|leader| leader.term == term);
        let is_current = table_revision == self.state.table_revision && monitors_version == self.monitors_version();
        if !leads || !is_current {
            return Response::Conflict;
        }
        let state = self.change();
        state.table_revision = state.revision;
        state.table = Arc::new(table);
        Response::Committed { table_revision: state.table_revision }
    }

    fn monitors_version(&self) -> u64 {
        self.state.monitors.as_ref().map_or(0, |monitors| monitors.version)
    }

    fn change(&mut self) -> &mut Snapshot {
        let state = Arc::make_mut(&mut self.state);
        state.revision += 1;
        state
    }
}

/// Whether the registration replaces the known one: a later incarnation does, and the same process that leaves.
pub fn supersedes(known: &Registration, node: &Registration) -> bool {
    let leaves = node.process == known.process && node.leaving && !known.leaving;
    node.incarnation > known.incarnation || node.incarnation == known.incarnation && leaves
}

/// Whether the registration says nothing new: the known one is of this process and incarnation, and may be leaving.
pub fn is_same(known: &Registration, node: &Registration) -> bool {
    (known.incarnation, known.process) == (node.incarnation, node.process) && known.leaving >= node.leaving
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(monitor: &str) -> Request {
        Request::Campaign { monitor: monitor.into(), ttl: 10 }
    }

    #[test]
    fn one_leader_a_term_and_a_new_one_only_after_it() {
        let mut registry = InMemoryRegistry::default();
        let Response::Leading { term } = registry.apply(0, campaign("a")) else { panic!("nobody leads") };
        assert_eq!(registry.apply(5, campaign("b")), Response::Following("a".into()));
        assert_eq!(registry.apply(9, campaign("a")), Response::Leading { term });
        assert_eq!(registry.apply(18, campaign("b")), Response::Following("a".into()));
        let Response::Leading { term: next } = registry.apply(19, campaign("b")) else { panic!("the term was over") };
        assert_ne!(term, next);
        let stale = Request::Commit { term, table_revision: 0, monitors_version: 0, table: Table::default() };
        assert_eq!(registry.apply(20, stale), Response::Conflict);
    }

    #[test]
    fn a_commit_builds_on_what_its_maker_saw_or_is_refused() {
        let mut registry = InMemoryRegistry::default();
        let Response::Leading { term } = registry.apply(0, campaign("a")) else { panic!("nobody leads") };
        let commit = |table_revision, monitors_version| {
            let table = Table::default();
            Request::Commit { term, table_revision, monitors_version, table }
        };
        let Response::Committed { table_revision } = registry.apply(1, commit(0, 0)) else { panic!("refused") };
        assert_eq!(registry.apply(2, commit(0, 0)), Response::Conflict);
        let Response::Committed { table_revision } = registry.apply(3, commit(table_revision, 0)) else {
            panic!("refused")
        };
        let monitors = |version| Request::SetMonitors(Monitors { version, members: BTreeMap::new() });
        assert_eq!(registry.apply(4, monitors(2)), Response::MonitorsSet);
        assert_eq!(registry.apply(4, monitors(1)), Response::MonitorsSet);
        assert_eq!(registry.state().monitors.as_ref().map(|monitors| monitors.version), Some(2));
        assert_eq!(registry.apply(5, commit(table_revision, 0)), Response::Conflict, "its quorum may be another");
        assert!(matches!(registry.apply(5, commit(table_revision, 2)), Response::Committed { .. }));
    }

    #[test]
    fn a_leader_that_resigns_makes_room_at_once() {
        let mut registry = InMemoryRegistry::default();
        registry.apply(0, campaign("a"));
        assert_eq!(registry.apply(1, Request::Resign { monitor: "b".into() }), Response::Resigned);
        assert_eq!(registry.apply(1, campaign("b")), Response::Following("a".into()), "only its own");
        assert_eq!(registry.apply(2, Request::Resign { monitor: "a".into() }), Response::Resigned);
        assert!(matches!(registry.apply(2, campaign("b")), Response::Leading { .. }));
    }

    #[test]
    fn only_the_registration_that_was_seen_is_forgotten() {
        let mut registry = InMemoryRegistry::default();
        let node = |incarnation| {
            let (http, udp) = (String::new(), String::new());
            Registration { id: "w".into(), incarnation, process: 1, http, udp, leaving: false }
        };
        registry.apply(0, Request::Register(node(5)));
        registry.apply(0, Request::Forget(node(4)));
        assert!(registry.state().nodes.contains_key("w"));
        registry.apply(0, Request::Forget(node(5)));
        assert!(registry.state().nodes.is_empty());
    }

    #[test]
    fn an_earlier_life_does_not_come_back() {
        let mut registry = InMemoryRegistry::default();
        let node = |incarnation, process, leaving| {
            let (http, udp) = (String::new(), String::new());
            Request::Register(Registration { id: "w".into(), incarnation, process, http, udp, leaving })
        };
        let superseded = Response::Superseded { incarnation: 5 };
        assert_eq!(registry.apply(0, node(5, 1, false)), Response::Registered);
        assert_eq!(registry.apply(0, node(5, 1, false)), Response::Registered, "nothing new");
        assert_eq!(registry.apply(0, node(5, 2, false)), superseded, "another process with the same incarnation");
        assert_eq!(registry.apply(0, node(5, 2, true)), superseded, "only the process itself leaves");
        assert_eq!(registry.apply(0, node(5, 1, true)), Response::Registered);
        assert_eq!(registry.apply(0, node(4, 1, false)), superseded);
        assert_eq!(registry.apply(0, node(6, 2, false)), Response::Registered);
    }
}
