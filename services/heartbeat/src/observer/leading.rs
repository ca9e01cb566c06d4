use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Effect, Evidence as Believed, Observer, Source, evidence::Evidence, steadiness::Steadiness};
use crate::{
    Nanos,
    assign::{Conditions, Eligibility, NodeId, Table},
    decide,
    node_state::State,
    registry::{Request, Snapshot},
    vote::Claim,
};

/// What a monitor needs to lead.
pub(super) struct Leading {
    /// Term of this leader, and until when it certainly lasts.
    pub(super) term: Option<(u64, Nanos)>,
    pub(super) next_campaign: Nanos,
    /// An input may change the table.
    pub(super) reconsider: bool,
    /// The table whose commit is in flight.
    pub(super) committing: Option<Table>,
    pub(super) evidence: Evidence,
    pub(super) steadiness: Steadiness,
    /// See `Conditions::caught_up`.
    pub(super) caught_up: BTreeMap<(usize, NodeId), u64>,
    /// The conditions of the last decision: others are a reason to decide again.
    conditions: Conditions,
    /// Partitions that the last decision found unserved.
    unserved: BTreeMap<usize, Source>,
    next_judgement: Nanos,
    next_forgetting: Nanos,
    session: u64,
}

impl Leading {
    pub(super) fn new(session: u64, now: Nanos) -> Self {
        Self {
            term: None,
            next_campaign: now,
            reconsider: false,
            committing: None,
            evidence: Evidence::default(),
            steadiness: Steadiness::default(),
            caught_up: BTreeMap::new(),
            conditions: Conditions::default(),
            unserved: BTreeMap::new(),
            next_judgement: now,
            next_forgetting: now,
            session,
        }
    }

    pub(super) fn learned(&mut self, now: Nanos, snapshot: &Snapshot) {
        self.reconsider = true;
        if snapshot.leader.is_none() {
            self.next_campaign = self.next_campaign.min(now);
        }
    }
}

impl Observer {
    /// The registry says that this monitor leads; it was asked at `asked`.
    pub(super) fn leads(&mut self, now: Nanos, asked: Nanos, term: u64) {
        if !self.votes.has_quorum_present(now) {
            // The others went while the request was in flight.
            return self.resign();
        }
        self.leading.reconsider |= self.leading.term.is_none();
        // Counted from the request: the registry cannot have begun the term earlier.
        self.leading.term = Some((term, asked + self.settings.term));
    }

    pub(super) fn committed(&mut self, now: Nanos, table_revision: u64) {
        if let Some(table) = self.leading.committing.take()
            && table_revision > self.snapshot.revision
        {
            let before = Arc::clone(&self.snapshot);
            let known = Arc::make_mut(&mut self.snapshot);
            known.table = table.into();
            // The state is complete only up to the revision before: the next read must find nodes that were added in between.
            (known.table_revision, known.revision) = (table_revision, table_revision - 1);
            self.learned_at = now;
            self.leading.steadiness.learn(now, &before, &self.snapshot, self.settings.rebalance_after);
        }
        (self.ballot_outdated, self.leading.reconsider) = (true, true);
    }

    fn resign(&mut self) {
        self.leading.term = None;
        self.effects.push(Effect::Request(Request::Resign { monitor: self.me.clone() }));
    }

    /// Without a majority of monitors this one can decide nothing: it makes room for one that can.
    pub(super) fn lead(&mut self, now: Nanos) {
        if !self.votes.has_quorum_present(now) {
            if self.leading.term.is_some() {
                self.resign();
            }
            self.leading.next_campaign = now + self.settings.interval / 2;
            return;
        }
        if now >= self.leading.next_campaign {
            self.leading.next_campaign = now + self.settings.term / 4;
            let (monitor, ttl) = (self.me.clone(), self.settings.term);
            self.effects.push(Effect::Request(Request::Campaign { monitor, ttl }));
        }
        let Some((term, until)) = self.leading.term else { return };
        if now >= until {
            self.leading.term = None;
            return;
        }
        self.decide(now, term);
        self.forget_names(now);
    }

    fn decide(&mut self, now: Nanos, term: u64) {
        let is_due = self.leading.reconsider || now >= self.leading.next_judgement;
        if !is_due || self.leading.committing.is_some() {
            return;
        }
        self.leading.next_judgement = now + self.settings.interval / 4;
        let table = Arc::clone(&self.snapshot.table);
        // Different for every history: the epoch grows, and the session is random.
        let history = (self.leading.session ^ table.epoch).max(1);
        let lost = self.leading.evidence.lost_tables(now, &table, 2 * self.settings.interval, history);
        if lost.is_none() && self.leading.evidence.is_behind(&table) {
            // An epoch of another table must not be used again: wait until it is certain whether the registry has lost it.
            self.leading.reconsider = true;
            return;
        }
        let conditions = self.conditions(now, &table);
        self.leading.reconsider |= lost.is_some() || conditions != self.leading.conditions;
        if !std::mem::take(&mut self.leading.reconsider) {
            return;
        }
        self.leading.conditions = conditions;
        let view = MajorityView { observer: self, now };
        let Some(mut table) = decide::next(&self.snapshot, &view, &self.leading.conditions, lost) else { return };
        if table.history == 0 {
            table.history = history;
        }
        if let Some(lost) = lost {
            self.effects.push(Effect::TablesLost { epoch: lost.epoch });
        }
        self.report_unserved(&table);
        let table_revision = self.snapshot.table_revision;
        let monitors_version = self.snapshot.monitors.as_ref().map_or(0, |monitors| monitors.version);
        self.leading.committing = Some(table.clone());
        self.effects.push(Effect::Request(Request::Commit { term, table_revision, monitors_version, table }));
    }

    fn conditions(&mut self, now: Nanos, table: &Table) -> Conditions {
        let times = self.times();
        let overdue = self.overdue(now, table);
        let leading = &mut self.leading;
        let mut conditions = Conditions {
            acknowledged: leading.evidence.acknowledged(now, table, &times),
            may_rebalance: now >= leading.steadiness.rebalance_at(self.settings.rebalance_after),
            caught_up: leading.caught_up.clone(),
            ..Conditions::default()
        };
        let findings = leading.evidence.judge(now, table, &times, |node| overdue.contains(node));
        conditions.overruled = findings.overruled;
        if self.settings.evidence == Believed::All {
            for node in &findings.not_serving {
                leading.steadiness.not_serving(now, node, self.settings.rebalance_after);
            }
            if !findings.unserved.is_empty() {
                conditions.may_rebalance = false;
            }
            for at in findings.unserved.keys() {
                if let Some(primary) = &table.partitions[*at].primary {
                    leading.steadiness.did_not_serve(now, primary, self.settings.rebalance_after);
                }
            }
            conditions.unserved = findings.unserved.keys().copied().collect();
            conditions.unable = leading.evidence.unable();
            leading.unserved = findings.unserved;
        }
        let online = table.nodes.iter().filter(|(_, membership)| membership.online).map(|(id, _)| id);
        let limited = |id: &NodeId| {
            let eligibility = self.eligibility(now, id);
            (eligibility != Eligibility::Full).then(|| (id.clone(), eligibility))
        };
        conditions.limited = online.filter_map(limited).collect();
        conditions
    }

    /// Primaries whose next heartbeat is overdue.
    fn overdue(&self, now: Nanos, table: &Table) -> BTreeSet<NodeId> {
        let is_overdue = |id: &NodeId| {
            let silence = self.silence(now, id).unwrap_or_default();
            self.state(id) != Some(State::Healthy) || silence > self.settings.interval
        };
        let primaries = table.partitions.iter().filter_map(|assignment| assignment.primary.as_ref());
        primaries.filter(|id| is_overdue(id)).cloned().collect()
    }

    pub(super) fn eligibility(&self, now: Nanos, id: &str) -> Eligibility {
        let is_well = self.state(id).is_some_and(|state| state.weight() >= 1.0);
        let by_state = if is_well { Eligibility::Full } else { Eligibility::Keeps };
        let by_report = match self.settings.evidence {
            Believed::All => self.leading.evidence.eligibility(now, &self.snapshot.table, id, &self.times()),
            Believed::Heartbeats => Eligibility::Full,
        };
        by_state.max(by_report).max(self.leading.steadiness.eligibility(now, id))
    }

    /// Reports the partitions that the next table takes from workers that do not serve them.
    fn report_unserved(&mut self, next: &Table) {
        let mut by_node: BTreeMap<(NodeId, Source), Vec<usize>> = BTreeMap::new();
        for (&at, &source) in &self.leading.unserved {
            let former = self.snapshot.table.partitions[at].primary.clone();
            if let Some(former) = former.filter(|former| next.partitions[at].primary.as_ref() != Some(former)) {
                by_node.entry((former, source)).or_default().push(at);
            }
        }
        let effect = |((node, source), partitions)| Effect::Unserved { node, partitions, source };
        self.effects.extend(by_node.into_iter().map(effect));
    }

    /// Removes registrations of names that are gone: off-line, without partitions, and silent for long. Not while a partition's fence may be
    /// missing: then a worker that owned it once could still write.
    fn forget_names(&mut self, now: Nanos) {
        if now < self.leading.next_forgetting {
            return;
        }
        self.leading.next_forgetting = now + self.settings.forget_after / 16;
        let table = &self.snapshot.table;
        if !self.leading.evidence.are_all_served(now, table, &self.times()) {
            return;
        }
        let is_gone = |id: &NodeId| {
            let holds = |a: &crate::assign::Assignment| a.primary.as_ref() == Some(id) || a.replicas.contains(id);
            let is_silent = self.silence(now, id).is_some_and(|silence| silence >= self.settings.forget_after);
            is_silent && !table.is_online(id) && !table.partitions.iter().any(holds)
        };
        let gone = self.snapshot.nodes.values().filter(|node| is_gone(&node.id)).cloned();
        let requests: Vec<Effect> = gone.map(|node| Effect::Request(Request::Forget(node))).collect();
        self.effects.extend(requests);
    }
}

/// The votes as the leader counts them.
struct MajorityView<'a> {
    observer: &'a Observer,
    now: Nanos,
}

impl decide::MajorityView for MajorityView<'_> {
    fn failed(&self, node: &str, incarnation: u64) -> bool {
        self.observer.votes.has_quorum(self.now, Claim::Failed, node, incarnation)
    }

    fn fit(&self, node: &str, incarnation: u64) -> bool {
        self.observer.votes.has_quorum(self.now, Claim::Fit, node, incarnation)
    }
}
