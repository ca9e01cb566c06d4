//! Step 3 of a heartbeat's path: one monitor without its sockets. Inputs are heartbeats, probe answers, ballots and registry versions;
//! outputs are effects. Path: `heard` → `tick`: 3a `sweep` (overdue heartbeats), 3b `cast` (a ballot), 3c `leading` (campaign, decide). Pure:
//! the monitor and the simulation run the same code.

mod evidence;
mod leading;
mod sender_clock;
mod settings;
mod steadiness;
mod watching;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    sync::Arc,
};

pub use self::{
    evidence::Source,
    settings::{Evidence, PARTITIONED_AFTER, Settings},
};
use self::{
    evidence::Times,
    leading::Leading,
    sender_clock::{Freshness, SenderClock},
};
use crate::{
    Nanos,
    assign::{Eligibility, NodeId},
    detector::Detector,
    message::{Alive, WorkerReport},
    node_state::{Cause, NodeState, State, Transition},
    registry::{Monitors, Request, Response, Snapshot},
    vote::{Ballot, Claim, Votes},
};

pub type DetectorFactory = Box<dyn Fn() -> Box<dyn Detector> + Send>;

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Probe the node over every path.
    Probe { node: NodeId, round: u64 },
    /// Send to all other monitors.
    Share(Ballot),
    /// Send to the registry; the answer goes to `response`, a failure to `request_failed`.
    Request(Request),
    /// The monitors whose votes count have changed: share ballots with these from now on.
    MonitorsChanged(Monitors),
    /// For logs, metrics and spans.
    StateChanged { node: NodeId, incarnation: u64, transition: Transition },
    /// The leader takes partitions from a worker that is online but does not serve them. For logs and metrics.
    Unserved { node: NodeId, partitions: Vec<usize>, source: Source },
    /// The registry has lost tables up to this epoch. For logs and metrics.
    TablesLost { epoch: u64 },
    /// The node is not registered any more.
    Forgotten(NodeId),
    /// The observer's process paused for this long.
    Paused(Nanos),
}

/// A heartbeat as a monitor received it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedBeat {
    /// Time of receipt.
    pub at: Nanos,
    pub incarnation: u64,
    pub sequence: u64,
    /// The sender's time stamp: Unix time in ms on its clock; 0: unknown.
    pub sent_ms: u64,
    /// It had a MAC. A heartbeat without one is believed if the configuration accepts it at all.
    pub is_authenticated: bool,
    pub report: Option<WorkerReport>,
}

struct Watched {
    id: NodeId,
    state: NodeState,
    clock: SenderClock,
    detector: Box<dyn Detector>,
    /// Its valid entry in the schedule; other entries are obsolete.
    queued: Nanos,
}

pub struct Observer {
    settings: Settings,
    me: NodeId,
    /// The monitors of this one's configuration: the registry gets them unless it has a later version.
    configured: Monitors,
    new_detector: DetectorFactory,
    nodes: Vec<Watched>,
    index: HashMap<NodeId, usize>,
    /// When to check which node.
    schedule: BinaryHeap<Reverse<(Nanos, usize)>>,
    votes: Votes,
    snapshot: Arc<Snapshot>,
    /// When `snapshot` was learned.
    learned_at: Nanos,
    effects: Vec<Effect>,
    /// Time of the last call: a longer gap is a pause of this process.
    awake_at: Nanos,
    /// Until then heartbeats may come from a buffer that filled during a pause.
    catch_up_until: Nanos,
    /// This monitor's ballot is outdated.
    ballot_outdated: bool,
    next_ballot: Nanos,
    next_read: Nanos,
    leading: Leading,
}

impl Observer {
    /// `configured`: the monitors of the configuration, this one included. `session`: a random number of this process.
    pub fn new(
        me: NodeId,
        configured: Monitors,
        settings: Settings,
        new_detector: DetectorFactory,
        session: u64,
        now: Nanos,
    ) -> Self {
        Self {
            votes: Votes::new(me.clone(), settings.quorum, settings.vote_lifetime, session),
            leading: Leading::new(session, now),
            settings,
            me,
            configured,
            new_detector,
            nodes: Vec::new(),
            index: HashMap::new(),
            schedule: BinaryHeap::new(),
            snapshot: Arc::default(),
            learned_at: now,
            effects: Vec::new(),
            awake_at: now,
            catch_up_until: now,
            ballot_outdated: true,
            next_ballot: now,
            next_read: now,
        }
    }

    /// A heartbeat arrived. False: the node is not registered.
    pub fn heard(&mut self, now: Nanos, id: &str, beat: ReceivedBeat) -> bool {
        self.awake(now);
        let ReceivedBeat { incarnation, sequence, .. } = beat;
        let report = beat.report.filter(|_| beat.is_authenticated);
        if let Some(report) = &report {
            self.leading.evidence.epochs_in_use(now, &self.snapshot.table, report);
        }
        let Some(&at) = self.index.get(id) else { return false };
        let node = &mut self.nodes[at];
        if now < self.catch_up_until
            || incarnation < node.state.incarnation()
            || self.snapshot.table.is_failed(id, incarnation)
            || report.as_ref().is_some_and(|report| is_of_another_process(&self.snapshot, id, incarnation, report))
        {
            return true;
        }
        if beat.is_authenticated && !node.state.is_proven(incarnation) {
            // It may be a recording of an earlier process.
            if let Some(round) = node.state.ask(now, &self.settings.suspicion) {
                self.effects.push(Effect::Probe { node: node.id.clone(), round });
            }
            return true;
        }
        if incarnation > node.state.incarnation() {
            (node.detector, node.clock) = ((self.new_detector)(), SenderClock::default());
        }
        let arrived = beat.at.min(now);
        let freshness = node.clock.received(arrived, sequence, beat.sent_ms, self.settings.oldest_beat);
        if freshness == Freshness::Stale
            && let Some(round) = node.state.ask(now, &self.settings.suspicion)
        {
            // Its clock may have been set back: an answer shows it.
            self.effects.push(Effect::Probe { node: node.id.clone(), round });
        }
        // A heartbeat may also have waited in this process.
        if freshness == Freshness::Stale || now - arrived > self.settings.oldest_beat {
            return true;
        }
        node.detector.heard(arrived, sequence);
        if freshness == Freshness::News {
            let transition = node.state.sign_of_life(arrived, incarnation, Cause::Beat);
            self.changed(at, transition);
            if let Some(report) = report {
                self.leading.evidence.reported(now, &self.nodes[at].id, incarnation, report);
            }
        }
        self.enqueue(at);
        true
    }

    /// A probe of this round was answered.
    pub fn answered(&mut self, now: Nanos, id: &str, alive: Alive, round: u64) {
        let Alive { incarnation, sent_ms } = alive;
        self.awake(now);
        let Some(&at) = self.index.get(id) else { return };
        if self.snapshot.table.is_failed(id, incarnation) {
            return;
        }
        let node = &mut self.nodes[at];
        if incarnation > node.state.incarnation() {
            // The first sign of life of the next incarnation, whose heartbeats start at 1.
            (node.detector, node.clock) = ((self.new_detector)(), SenderClock::default());
        }
        let transition = node.state.answered(now, incarnation, round);
        if node.state.is_proven(incarnation) {
            node.clock.answered(now, sent_ms);
        }
        if transition.is_some() {
            // Heartbeats may stay late: without the grace period the next tick would suspect and probe again, without end.
            node.state.rest(now, &self.settings.suspicion);
        }
        // A candidate, now that it was heard.
        self.ballot_outdated |= !self.snapshot.table.is_online(id);
        self.changed(at, transition);
        self.enqueue(at);
    }

    /// The worker has said that it has the table of this epoch.
    pub fn follows(&mut self, now: Nanos, id: &str, epoch: u64) {
        self.awake(now);
        if let Some((id, _)) = self.index.get_key_value(id) {
            self.leading.evidence.follows(id, epoch);
            self.leading.reconsider |= self.snapshot.table.partitions.iter().any(|a| a.successor.is_some());
        }
    }

    /// How far the copies of the partitions' segments are: see `Conditions::caught_up`. It replaces what was known.
    pub fn copies(&mut self, caught_up: BTreeMap<(usize, NodeId), u64>) {
        self.leading.caught_up = caught_up;
    }

    pub fn ballot(&mut self, now: Nanos, ballot: Ballot) {
        self.awake(now);
        let says_something = !ballot.failed.is_empty() || !ballot.fit.is_empty();
        if self.votes.receive(now, ballot) {
            self.leading.reconsider |= says_something;
        }
    }

    /// The registry's complete state, read by a request that was sent at `asked`. An older state is ignored, unless it was asked for after
    /// the later one was known: then the registry has lost the later one.
    pub fn learn(&mut self, now: Nanos, asked: Nanos, snapshot: Arc<Snapshot>) {
        self.awake(now);
        let is_rolled_back = snapshot.revision < self.snapshot.revision && asked > self.learned_at;
        if snapshot.revision <= self.snapshot.revision && !is_rolled_back {
            return;
        }
        let before = std::mem::replace(&mut self.snapshot, Arc::clone(&snapshot));
        self.learned_at = now;
        self.leading.steadiness.learn(now, &before, &snapshot, self.settings.rebalance_after);
        if is_rolled_back {
            self.leading.evidence.in_use(now, &snapshot.table, before.table.epoch);
        }
        for node in snapshot.nodes.values() {
            let is_earlier = self.incarnation(&node.id).is_some_and(|heard| node.incarnation < heard);
            if is_earlier && before.nodes.get(&node.id) != Some(node) {
                // Heartbeats of a later incarnation were heard, but it never was registered, and its clock was set back since: the registry
                // decides.
                self.unwatch(&node.id);
            }
            self.watch(now, node);
        }
        for id in before.nodes.keys().filter(|id| !snapshot.nodes.contains_key(*id)) {
            self.unwatch(id);
        }
        self.learn_monitors(&before);
        self.leading.learned(now, &snapshot);
        self.ballot_outdated = true;
    }

    /// The registry has one version of the monitors for all. A later one of the configuration goes to the registry first.
    fn learn_monitors(&mut self, before: &Snapshot) {
        let known = self.snapshot.monitors.clone().unwrap_or_default();
        if known.version < self.configured.version {
            self.effects.push(Effect::Request(Request::SetMonitors(self.configured.clone())));
        }
        if known.version > 0 && before.monitors.as_ref() != Some(&known) {
            self.votes.set_monitors(known.version, known.members.keys());
            self.effects.push(Effect::MonitorsChanged(known));
        }
    }

    /// Response of the registry to a request sent at `asked`.
    pub fn response(&mut self, now: Nanos, asked: Nanos, response: Response) {
        self.awake(now);
        match response {
            Response::Snapshot(snapshot) => self.learn(now, asked, snapshot),
            Response::MonitorsSet => self.effects.push(Effect::Request(Request::Read)),
            Response::Leading { term } => self.leads(now, asked, term),
            Response::Following(_) => self.leading.term = None,
            Response::Committed { table_revision } => self.committed(now, table_revision),
            Response::Conflict => {
                self.leading.committing = None;
                self.effects.push(Effect::Request(Request::Read));
            }
            Response::Registered | Response::Superseded { .. } | Response::Resigned | Response::Forgotten => {}
        }
    }

    /// The registry did not answer. No node fails for it, and the request is repeated. `to_commit`: the request was the commit. A failed
    /// other request says nothing about a commit in flight.
    pub fn request_failed(&mut self, now: Nanos, to_commit: bool) {
        self.awake(now);
        if to_commit {
            self.leading.reconsider |= self.leading.committing.take().is_some();
        }
    }

    /// Returns what to do now. Call it several times per interval.
    pub fn tick(&mut self, now: Nanos) -> Vec<Effect> {
        self.awake(now);
        self.sweep(now);
        self.cast(now);
        if now >= self.next_read {
            // The registry notifies of changes. This read finds changes whose notification was lost.
            self.next_read = now + self.settings.refresh;
            self.effects.push(Effect::Request(Request::Read));
        }
        self.lead(now);
        std::mem::take(&mut self.effects)
    }

    /// Sets the trace context of the commit that was requested last.
    pub fn set_traceparent(&mut self, traceparent: Option<String>) {
        if let Some(table) = &mut self.leading.committing {
            table.traceparent = traceparent;
        }
    }

    /// When `tick` has something to do without input. Also bounds the gap between calls, so that a pause can be detected.
    pub fn next_wake(&self) -> Nanos {
        let due = self.schedule.peek().map_or(Nanos::MAX, |Reverse((due, _))| *due);
        let look = self.awake_at + self.settings.pause / 2;
        due.min(self.next_ballot).min(self.leading.next_campaign).min(self.next_read).min(look)
    }

    pub fn state(&self, id: &str) -> Option<State> {
        self.index.get(id).map(|&at| self.nodes[at].state.state())
    }

    /// Share of new work for the worker: 0 while it gets none.
    pub fn weight(&self, now: Nanos, id: &str) -> f64 {
        let weight = self.state(id).map_or(0.0, State::weight);
        match self.eligibility(now, id) {
            Eligibility::Full | Eligibility::Keeps => weight,
            Eligibility::Loses => 0.0,
        }
    }

    /// The latest known incarnation of the node, heard or registered.
    pub fn incarnation(&self, id: &str) -> Option<u64> {
        self.index.get(id).map(|&at| self.nodes[at].state.incarnation())
    }

    /// Time since the last sign of life.
    pub fn silence(&self, now: Nanos, id: &str) -> Option<Nanos> {
        self.index.get(id).map(|&at| now.saturating_sub(self.nodes[at].state.heard_at()))
    }

    /// All nodes and their states.
    pub fn states(&self) -> impl Iterator<Item = (&NodeId, &NodeState)> {
        self.nodes.iter().map(|node| (&node.id, &node.state))
    }

    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    pub fn is_leading(&self, now: Nanos) -> bool {
        self.leading.term.is_some_and(|(_, until)| now < until)
    }

    /// Monitors whose votes count now, this one included.
    pub fn present(&self, now: Nanos) -> usize {
        self.votes.present(now)
    }

    /// Number of all monitors, as the registry has them; before it answered, as the configuration has them.
    pub fn monitors(&self) -> usize {
        self.snapshot.monitors.as_ref().unwrap_or(&self.configured).members.len()
    }

    /// Number of monitors that vote that this incarnation has failed.
    pub fn votes_against(&self, now: Nanos, id: &str, incarnation: u64) -> usize {
        self.votes.count(now, Claim::Failed, id, incarnation)
    }

    fn times(&self) -> Times {
        Times::for_interval(self.settings.interval)
    }

    /// Detects a pause of this process, and excuses the silence of all nodes during it.
    fn awake(&mut self, now: Nanos) {
        let gap = now.saturating_sub(self.awake_at);
        self.awake_at = self.awake_at.max(now);
        if gap <= self.settings.pause {
            return;
        }
        self.effects.push(Effect::Paused(gap));
        self.catch_up_until = now + self.settings.catch_up;
        for at in 0..self.nodes.len() {
            let step = self.nodes[at].state.excuse(now, &self.settings.suspicion);
            self.apply(at, step);
            self.enqueue(at);
        }
    }

    fn cast(&mut self, now: Nanos) {
        if !self.ballot_outdated && now < self.next_ballot {
            return;
        }
        self.ballot_outdated = false;
        self.next_ballot = now + self.settings.interval;
        let incarnation = |node: &Watched| (node.id.clone(), node.state.incarnation());
        // The table takes only online workers off-line. Without this rule the ballots would grow with every name that was ever used.
        let is_failed = |node: &&Watched| node.state.state().is_failed() && self.snapshot.table.is_online(&node.id);
        let failed: BTreeMap<_, _> = self.nodes.iter().filter(is_failed).map(incarnation).collect();
        let fit: BTreeMap<_, _> = self.nodes.iter().filter(|node| self.is_candidate(node)).map(incarnation).collect();
        self.leading.reconsider |= !failed.is_empty() || !fit.is_empty();
        let ballot = self.votes.cast(now, failed, fit);
        self.effects.push(Effect::Share(ballot));
    }

    /// Heard, and of an incarnation that the table does not list as online.
    fn is_candidate(&self, node: &Watched) -> bool {
        let membership = self.snapshot.table.nodes.get(&node.id);
        let is_settled = membership.is_some_and(|s| s.online && s.incarnation >= node.state.incarnation());
        node.state.state() == State::Healthy
            && node.state.is_heard()
            && !is_settled
            && !self.snapshot.table.is_failed(&node.id, node.state.incarnation())
    }
}

/// Whether the report is of a process with this name and incarnation that is not the registered one: a clone.
fn is_of_another_process(snapshot: &Snapshot, id: &str, incarnation: u64, report: &WorkerReport) -> bool {
    snapshot.nodes.get(id).is_some_and(|registered| {
        registered.incarnation == incarnation && registered.process != 0 && report.process != registered.process
    })
}

#[cfg(test)]
mod tests;
