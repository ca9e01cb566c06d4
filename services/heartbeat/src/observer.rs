//! Step 3 of a heartbeat's path: one monitor without its sockets. Inputs are heartbeats, probe answers, ballots and registry versions;
//! outputs are effects. Path: `heard` → `tick`: 3a `sweep` (overdue heartbeats), 3b `cast` (a ballot), 3c `lead` (campaign, decide). Pure:
//! the monitor and the simulation run the same code.

mod settings;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    sync::Arc,
};

pub use settings::{PARTITIONED_AFTER, Settings};

use crate::{
    Nanos,
    assign::{NodeId, Table},
    decide,
    detector::Detector,
    node_state::{Cause, NodeState, State, Step, Transition},
    registry::{Registration, Request, Response, Snapshot},
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
    /// For logs, metrics and spans.
    StateChanged { node: NodeId, incarnation: u64, transition: Transition },
    /// The observer's process paused for this long.
    Paused(Nanos),
}

struct Watched {
    id: NodeId,
    state: NodeState,
    detector: Box<dyn Detector>,
    /// Its valid entry in the schedule; other entries are obsolete.
    queued: Nanos,
}

pub struct Observer {
    settings: Settings,
    me: NodeId,
    new_detector: DetectorFactory,
    nodes: Vec<Watched>,
    index: HashMap<NodeId, usize>,
    /// When to check which node.
    schedule: BinaryHeap<Reverse<(Nanos, usize)>>,
    votes: Votes,
    snapshot: Arc<Snapshot>,
    effects: Vec<Effect>,
    /// Time of the last call: a longer gap is a pause of this process.
    awake_at: Nanos,
    /// Until then heartbeats may come from a buffer that filled during a pause.
    catch_up_until: Nanos,
    /// This monitor's ballot is outdated.
    ballot_outdated: bool,
    next_ballot: Nanos,
    next_campaign: Nanos,
    next_read: Nanos,
    /// Term of this leader, and until when it certainly lasts.
    leading: Option<(u64, Nanos)>,
    /// An input may change the table.
    reconsider: bool,
    /// The table whose commit is in flight.
    committing: Option<Table>,
}

impl Observer {
    /// `monitors`: all of them, this one included. `first_round`: see `Votes::new`.
    pub fn new(
        me: NodeId,
        monitors: &[NodeId],
        settings: Settings,
        new_detector: DetectorFactory,
        first_round: u64,
        now: Nanos,
    ) -> Self {
        let quorum = (settings.quorum)(monitors.len());
        Self {
            votes: Votes::new(me.clone(), monitors, quorum, settings.vote_lifetime, first_round),
            settings,
            me,
            new_detector,
            nodes: Vec::new(),
            index: HashMap::new(),
            schedule: BinaryHeap::new(),
            snapshot: Arc::default(),
            effects: Vec::new(),
            awake_at: now,
            catch_up_until: now,
            ballot_outdated: true,
            next_ballot: now,
            next_campaign: now,
            next_read: now,
            leading: None,
            reconsider: false,
            committing: None,
        }
    }

    /// A heartbeat arrived. False: the node is not registered.
    pub fn heard(&mut self, now: Nanos, id: &str, incarnation: u64, sequence: u64) -> bool {
        self.awake(now);
        let Some(&at) = self.index.get(id) else { return false };
        let node = &mut self.nodes[at];
        if now < self.catch_up_until
            || incarnation < node.state.incarnation()
            || self.snapshot.table.is_failed(id, incarnation)
        {
            return true;
        }
        if incarnation > node.state.incarnation() {
            node.detector = (self.new_detector)();
        }
        node.detector.heard(now, sequence);
        let transition = node.state.sign_of_life(now, incarnation, Cause::Beat);
        self.changed(at, transition);
        self.enqueue(at);
        true
    }

    /// A probe of this round was answered.
    pub fn answered(&mut self, now: Nanos, id: &str, incarnation: u64, round: u64) {
        self.awake(now);
        let Some(&at) = self.index.get(id) else { return };
        if self.snapshot.table.is_failed(id, incarnation) {
            return;
        }
        let node = &mut self.nodes[at];
        if incarnation > node.state.incarnation() {
            // The first sign of life of the next incarnation, whose heartbeats start at 1.
            node.detector = (self.new_detector)();
        }
        let transition = node.state.answered(now, incarnation, round);
        if transition.is_some() {
            // Heartbeats may stay late: without the grace period the next tick would suspect and probe again, without end.
            self.nodes[at].state.rest(now, &self.settings.suspicion);
        }
        self.changed(at, transition);
        self.enqueue(at);
    }

    pub fn ballot(&mut self, now: Nanos, ballot: Ballot) {
        self.awake(now);
        let says_something = !ballot.failed.is_empty() || !ballot.fit.is_empty();
        self.reconsider |= self.votes.receive(ballot) && says_something;
    }

    /// The registry's complete state. An older one is ignored.
    pub fn learn(&mut self, now: Nanos, snapshot: Arc<Snapshot>) {
        self.awake(now);
        if snapshot.revision <= self.snapshot.revision {
            return;
        }
        for node in snapshot.nodes.values() {
            self.watch(now, node);
        }
        self.snapshot = snapshot;
        (self.ballot_outdated, self.reconsider) = (true, true);
    }

    /// Response of the registry to a request sent at `asked`.
    pub fn response(&mut self, now: Nanos, asked: Nanos, response: Response) {
        self.awake(now);
        match response {
            Response::Snapshot(snapshot) => self.learn(now, snapshot),
            Response::Leading { term } => {
                self.reconsider |= self.leading.is_none();
                // Counted from the request: the registry cannot have begun the term earlier.
                self.leading = Some((term, asked + self.settings.term));
            }
            Response::Following(_) => self.leading = None,
            Response::Committed { table_revision } => {
                if let Some(table) = self.committing.take()
                    && table_revision > self.snapshot.revision
                {
                    let known = Arc::make_mut(&mut self.snapshot);
                    known.table = table.into();
                    // The state is complete only up to the revision before: the next read must find nodes that were added in between.
                    (known.table_revision, known.revision) = (table_revision, table_revision - 1);
                }
                (self.ballot_outdated, self.reconsider) = (true, true);
            }
            Response::Conflict => {
                self.committing = None;
                self.effects.push(Effect::Request(Request::Read));
            }
            Response::Registered | Response::Superseded { .. } => {}
        }
    }

    /// The registry did not answer. No node fails for it, and the request is repeated. `to_commit`: the request was the commit. A failed
    /// other request says nothing about a commit in flight.
    pub fn request_failed(&mut self, now: Nanos, to_commit: bool) {
        self.awake(now);
        if to_commit {
            self.reconsider |= self.committing.take().is_some();
        }
    }

    /// Returns what to do now. Call it several times per interval.
    pub fn tick(&mut self, now: Nanos) -> Vec<Effect> {
        self.awake(now);
        self.sweep(now);
        self.cast(now);
        self.lead(now);
        std::mem::take(&mut self.effects)
    }

    /// Sets the trace context of the commit that was requested last.
    pub fn set_traceparent(&mut self, traceparent: Option<String>) {
        if let Some(table) = &mut self.committing {
            table.traceparent = traceparent;
        }
    }

    /// When `tick` has something to do without input. Also bounds the gap between calls, so that a pause can be detected.
    pub fn next_wake(&self) -> Nanos {
        let due = self.schedule.peek().map_or(Nanos::MAX, |Reverse((due, _))| *due);
        let look = self.awake_at + self.settings.pause / 2;
        due.min(self.next_ballot).min(self.next_campaign).min(self.next_read).min(look)
    }

    pub fn state(&self, id: &str) -> Option<State> {
        self.index.get(id).map(|&at| self.nodes[at].state.state())
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
        self.leading.is_some_and(|(_, until)| now < until)
    }

    /// Monitors whose votes count now, this one included.
    pub fn present(&self, now: Nanos) -> usize {
        self.votes.present(now)
    }

    /// Number of monitors that vote that this incarnation has failed.
    pub fn votes_against(&self, now: Nanos, id: &str, incarnation: u64) -> usize {
        self.votes.count(now, Claim::Failed, id, incarnation)
    }

    fn watch(&mut self, now: Nanos, node: &Registration) {
        if let Some(&at) = self.index.get(&node.id) {
            let known = &mut self.nodes[at];
            if node.incarnation > known.state.incarnation() {
                // Also for a node whose end was not noticed: the heartbeats of the next incarnation start at 1.
                known.detector = (self.new_detector)();
            }
            let transition = known.state.restarted(now, node.incarnation, &self.settings.suspicion);
            self.changed(at, transition);
            return self.enqueue(at);
        }
        let at = self.nodes.len();
        let state = NodeState::new(now, node.incarnation, &self.settings.suspicion);
        self.index.insert(node.id.clone(), at);
        self.nodes.push(Watched { id: node.id.clone(), state, detector: (self.new_detector)(), queued: Nanos::MAX });
        self.enqueue(at);
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

    fn sweep(&mut self, now: Nanos) {
        while let Some(&Reverse((due, at))) = self.schedule.peek() {
            if due > now {
                return;
            }
            self.schedule.pop();
            let node = &mut self.nodes[at];
            if node.queued != due {
                continue;
            }
            node.queued = Nanos::MAX;
            if self.snapshot.has_left(&node.id) {
                // The registration of a later incarnation puts the node on the schedule again.
                continue;
            }
            let deadline = node.detector.deadline();
            let step = node.state.tick(now, deadline, &self.settings.suspicion);
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
        let failed: BTreeMap<_, _> =
            self.nodes.iter().filter(|node| node.state.state().is_failed()).map(incarnation).collect();
        let fit: BTreeMap<_, _> = self.nodes.iter().filter(|node| self.is_candidate(node)).map(incarnation).collect();
        self.reconsider |= !failed.is_empty() || !fit.is_empty();
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

    fn lead(&mut self, now: Nanos) {
        if now >= self.next_campaign {
            self.next_campaign = now + self.settings.term / 4;
            let (monitor, ttl) = (self.me.clone(), self.settings.term);
            self.effects.push(Effect::Request(Request::Campaign { monitor, ttl }));
        }
        if now >= self.next_read {
            // The registry notifies of changes. This read finds changes whose notification was lost.
            self.next_read = now + self.settings.refresh;
            self.effects.push(Effect::Request(Request::Read));
        }
        let Some((term, until)) = self.leading else { return };
        if now >= until {
            self.leading = None;
            return;
        }
        if !self.reconsider || self.committing.is_some() {
            return;
        }
        self.reconsider = false;
        let Some(table) = decide::next(&self.snapshot, &CountedVotes { observer: self, now }) else { return };
        let table_revision = self.snapshot.table_revision;
        self.committing = Some(table.clone());
        self.effects.push(Effect::Request(Request::Commit { term, table_revision, table }));
    }

    fn apply(&mut self, at: usize, step: Step) {
        self.changed(at, step.transition);
        if let Some(round) = step.probe {
            self.effects.push(Effect::Probe { node: self.nodes[at].id.clone(), round });
        }
    }

    fn changed(&mut self, at: usize, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        let node = &self.nodes[at];
        self.ballot_outdated |= transition.from.is_failed() != transition.to.is_failed();
        let (node, incarnation) = (node.id.clone(), node.state.incarnation());
        self.effects.push(Effect::StateChanged { node, incarnation, transition });
    }

    fn enqueue(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let due = node.state.due(node.detector.deadline());
        if due < node.queued {
            node.queued = due;
            self.schedule.push(Reverse((due, at)));
        }
    }
}

/// The votes as the leader counts them.
struct CountedVotes<'a> {
    observer: &'a Observer,
    now: Nanos,
}

impl decide::MajorityView for CountedVotes<'_> {
    fn failed(&self, node: &str, incarnation: u64) -> bool {
        self.observer.votes.has_quorum(self.now, Claim::Failed, node, incarnation)
    }

    fn fit(&self, node: &str, incarnation: u64) -> bool {
        self.observer.votes.has_quorum(self.now, Claim::Fit, node, incarnation)
    }

    fn in_warning(&self, node: &str) -> bool {
        self.observer.state(node) == Some(State::Warning)
    }
}

#[cfg(test)]
mod tests;
