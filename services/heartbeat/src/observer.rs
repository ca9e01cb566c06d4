//! One monitor without its sockets: beats, answers, ballots and the registry's versions go in, what is to be done comes
//! out. Path: `heard` → `tick`: sweep (whose beat is overdue) → cast (a ballot) → lead (campaign, decide). Pure: runs in
//! the monitor and in the simulation alike.

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
    registry::{Registration, Request, Response, Snapshot},
    soft::{Cause, Soft, State, Step, Transition},
    vote::{Ballot, Question, Votes},
};

pub type MakeDetector = Box<dyn Fn() -> Box<dyn Detector> + Send>;

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask the node for a sign of life over every path there is.
    Probe { node: NodeId, round: u64 },
    /// To all other monitors.
    Share(Ballot),
    /// To the registry; the answer goes to `answer`, a failure to `no_answer`.
    Ask(Request),
    /// For logs, metrics and spans.
    Changed { node: NodeId, incarnation: u64, transition: Transition },
    /// This observer stood still for so long.
    Paused(Nanos),
}

struct Watched {
    id: NodeId,
    soft: Soft,
    detector: Box<dyn Detector>,
    /// Its valid entry in the agenda; others are left over.
    queued: Nanos,
}

pub struct Observer {
    settings: Settings,
    me: NodeId,
    make_detector: MakeDetector,
    nodes: Vec<Watched>,
    index: HashMap<NodeId, usize>,
    /// When to look at whom.
    agenda: BinaryHeap<Reverse<(Nanos, usize)>>,
    votes: Votes,
    snapshot: Arc<Snapshot>,
    effects: Vec<Effect>,
    /// When anything was last done here: a longer gap is this observer's own pause.
    awake_at: Nanos,
    /// Until then beats may be from a buffer that filled during a pause.
    catch_up_until: Nanos,
    /// The own ballot is out of date.
    mind_changed: bool,
    next_ballot: Nanos,
    next_campaign: Nanos,
    next_read: Nanos,
    /// Term, and until when it is certain.
    leading: Option<(u64, Nanos)>,
    /// Something came in that may change the table.
    reconsider: bool,
    /// The table whose commit is under way.
    committing: Option<Table>,
}

impl Observer {
    /// `monitors` are all of them, this one included. `first_round`: see `Votes::new`.
    pub fn new(
        me: NodeId,
        monitors: &[NodeId],
        settings: Settings,
        make_detector: MakeDetector,
        first_round: u64,
        now: Nanos,
    ) -> Self {
        let quorum = (settings.quorum)(monitors.len());
        Self {
            votes: Votes::new(me.clone(), monitors, quorum, settings.vote_lifetime, first_round),
            settings,
            me,
            make_detector,
            nodes: Vec::new(),
            index: HashMap::new(),
            agenda: BinaryHeap::new(),
            snapshot: Arc::default(),
            effects: Vec::new(),
            awake_at: now,
            catch_up_until: now,
            mind_changed: true,
            next_ballot: now,
            next_campaign: now,
            next_read: now,
            leading: None,
            reconsider: false,
            committing: None,
        }
    }

    /// A beat arrived. False: nobody of this name is registered.
    pub fn heard(&mut self, now: Nanos, id: &str, incarnation: u64, sequence: u64) -> bool {
        self.awake(now);
        let Some(&at) = self.index.get(id) else { return false };
        let node = &mut self.nodes[at];
        if now < self.catch_up_until
            || incarnation < node.soft.incarnation()
            || self.snapshot.table.is_failed(id, incarnation)
        {
            return true;
        }
        if incarnation > node.soft.incarnation() {
            node.detector = (self.make_detector)();
        }
        node.detector.heard(now, sequence);
        let transition = node.soft.alive(now, incarnation, Cause::Beat);
        self.changed(at, transition);
        self.enqueue(at);
        true
    }

    /// A probe of this round came back over one of the paths.
    pub fn answered(&mut self, now: Nanos, id: &str, incarnation: u64, round: u64) {
        self.awake(now);
        let Some(&at) = self.index.get(id) else { return };
        if self.snapshot.table.is_failed(id, incarnation) {
            return;
        }
        let node = &mut self.nodes[at];
        if incarnation > node.soft.incarnation() {
            // The first that is heard of the next life, whose beats are counted from 1 again.
            node.detector = (self.make_detector)();
        }
        let transition = node.soft.answered(now, incarnation, round);
        if transition.is_some() {
            // The beats go on being late: without this the next tick would suspect again, and probe without end.
            self.nodes[at].soft.rest(now, &self.settings.soft);
        }
        self.changed(at, transition);
        self.enqueue(at);
    }

    pub fn ballot(&mut self, now: Nanos, ballot: Ballot) {
        self.awake(now);
        let says_something = !ballot.failed.is_empty() || !ballot.fit.is_empty();
        self.reconsider |= self.votes.receive(ballot) && says_something;
    }

    /// The registry's state, whole; older than what is known it changes nothing.
    pub fn learn(&mut self, now: Nanos, snapshot: Arc<Snapshot>) {
        self.awake(now);
        if snapshot.revision <= self.snapshot.revision {
            return;
        }
        for node in snapshot.nodes.values() {
            self.watch(now, node);
        }
        self.snapshot = snapshot;
        (self.mind_changed, self.reconsider) = (true, true);
    }

    /// What the registry answered to a request sent at `asked`.
    pub fn answer(&mut self, now: Nanos, asked: Nanos, response: Response) {
        self.awake(now);
        match response {
            Response::Snapshot(snapshot) => self.learn(now, snapshot),
            Response::Leading { term } => {
                self.reconsider |= self.leading.is_none();
                // Counted from before the registry heard of it: it never ends the term earlier.
                self.leading = Some((term, asked + self.settings.term));
            }
            Response::Following(_) => self.leading = None,
            Response::Committed { table_revision } => {
                if let Some(table) = self.committing.take()
                    && table_revision > self.snapshot.revision
                {
                    let known = Arc::make_mut(&mut self.snapshot);
                    known.table = table.into();
                    // All of the registry is known up to the revision before only: a node that came in between is found by
                    // the next look, which must not seem old.
                    (known.table_revision, known.revision) = (table_revision, table_revision - 1);
                }
                (self.mind_changed, self.reconsider) = (true, true);
            }
            Response::Conflict => {
                self.committing = None;
                self.effects.push(Effect::Ask(Request::Read));
            }
            Response::Registered | Response::Outlived => {}
        }
    }

    /// The registry did not answer: nobody fails for it, and it is asked again. `to_commit`: the commit under way is what it left
    /// unanswered. Another request's silence says nothing of that one: its answer is still to come, and must find the table it is of.
    pub fn no_answer(&mut self, now: Nanos, to_commit: bool) {
        self.awake(now);
        if to_commit {
            self.reconsider |= self.committing.take().is_some();
        }
    }

    /// What is to be done now. To be called often: several times per interval.
    pub fn tick(&mut self, now: Nanos) -> Vec<Effect> {
        self.awake(now);
        self.sweep(now);
        self.cast(now);
        self.lead(now);
        std::mem::take(&mut self.effects)
    }

    /// The commit that was asked for last is told of under this trace.
    pub fn trace(&mut self, traceparent: Option<String>) {
        if let Some(table) = &mut self.committing {
            table.traceparent = traceparent;
        }
    }

    /// When `tick` has something to do if nothing comes in before; often enough to tell a pause from having nothing to do.
    pub fn next_wake(&self) -> Nanos {
        let due = self.agenda.peek().map_or(Nanos::MAX, |Reverse((due, _))| *due);
        let look = self.awake_at + self.settings.pause / 2;
        due.min(self.next_ballot).min(self.next_campaign).min(self.next_read).min(look)
    }

    pub fn state(&self, id: &str) -> Option<State> {
        self.index.get(id).map(|&at| self.nodes[at].soft.state())
    }

    /// The life of the node that is known, heard or registered.
    pub fn incarnation(&self, id: &str) -> Option<u64> {
        self.index.get(id).map(|&at| self.nodes[at].soft.incarnation())
    }

    /// Since the node was last heard.
    pub fn silence(&self, now: Nanos, id: &str) -> Option<Nanos> {
        self.index.get(id).map(|&at| now.saturating_sub(self.nodes[at].soft.heard_at()))
    }

    /// Id, state and when it was last heard, of every node.
    pub fn states(&self) -> impl Iterator<Item = (&NodeId, &Soft)> {
        self.nodes.iter().map(|node| (&node.id, &node.soft))
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

    /// How many monitors say now that this life of the node has failed.
    pub fn votes_against(&self, now: Nanos, id: &str, incarnation: u64) -> usize {
        self.votes.count(now, Question::Failed, id, incarnation)
    }

    fn watch(&mut self, now: Nanos, node: &Registration) {
        if let Some(&at) = self.index.get(&node.id) {
            let known = &mut self.nodes[at];
            if node.incarnation > known.soft.incarnation() {
                // Also of a node whose end nobody noticed: the next life's beats are counted from 1 again.
                known.detector = (self.make_detector)();
            }
            let transition = known.soft.reborn(now, node.incarnation, &self.settings.soft);
            self.changed(at, transition);
            return self.enqueue(at);
        }
        let at = self.nodes.len();
        let soft = Soft::new(now, node.incarnation, &self.settings.soft);
        self.index.insert(node.id.clone(), at);
        self.nodes.push(Watched { id: node.id.clone(), soft, detector: (self.make_detector)(), queued: Nanos::MAX });
        self.enqueue(at);
    }

    /// Notices that this observer stood still, and excuses everybody else for it.
    fn awake(&mut self, now: Nanos) {
        let gap = now.saturating_sub(self.awake_at);
        self.awake_at = self.awake_at.max(now);
        if gap <= self.settings.pause {
            return;
        }
        self.effects.push(Effect::Paused(gap));
        self.catch_up_until = now + self.settings.catch_up;
        for at in 0..self.nodes.len() {
            let step = self.nodes[at].soft.excuse(now, &self.settings.soft);
            self.take(at, step);
            self.enqueue(at);
        }
    }

    fn sweep(&mut self, now: Nanos) {
        while let Some(&Reverse((due, at))) = self.agenda.peek() {
            if due > now {
                return;
            }
            self.agenda.pop();
            let node = &mut self.nodes[at];
            if node.queued != due {
                continue;
            }
            node.queued = Nanos::MAX;
            if self.snapshot.has_left(&node.id) {
                // A later life of it is put on the agenda again by its registration.
                continue;
            }
            let deadline = node.detector.deadline();
            let step = node.soft.tick(now, deadline, &self.settings.soft);
            self.take(at, step);
            self.enqueue(at);
        }
    }

    fn cast(&mut self, now: Nanos) {
        if !self.mind_changed && now < self.next_ballot {
            return;
        }
        self.mind_changed = false;
        self.next_ballot = now + self.settings.interval;
        let life = |node: &Watched| (node.id.clone(), node.soft.incarnation());
        let failed: BTreeMap<_, _> = self.nodes.iter().filter(|node| node.soft.state().is_failed()).map(life).collect();
        let fit: BTreeMap<_, _> = self.nodes.iter().filter(|node| self.is_candidate(node)).map(life).collect();
        self.reconsider |= !failed.is_empty() || !fit.is_empty();
        let ballot = self.votes.cast(now, failed, fit);
        self.effects.push(Effect::Share(ballot));
    }

    /// Heard, and in a life that the table does not have as online.
    fn is_candidate(&self, node: &Watched) -> bool {
        let standing = self.snapshot.table.nodes.get(&node.id);
        let is_settled = standing.is_some_and(|s| s.online && s.incarnation >= node.soft.incarnation());
        node.soft.state() == State::Healthy
            && node.soft.is_heard()
            && !is_settled
            && !self.snapshot.table.is_failed(&node.id, node.soft.incarnation())
    }

    fn lead(&mut self, now: Nanos) {
        if now >= self.next_campaign {
            self.next_campaign = now + self.settings.term / 4;
            let (monitor, ttl) = (self.me.clone(), self.settings.term);
            self.effects.push(Effect::Ask(Request::Campaign { monitor, ttl }));
        }
        if now >= self.next_read {
            // Whoever keeps the registry tells of changes; a change that was not told is found here.
            self.next_read = now + self.settings.refresh;
            self.effects.push(Effect::Ask(Request::Read));
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
        let Some(table) = decide::next(&self.snapshot, &Poll { observer: self, now }) else { return };
        let table_revision = self.snapshot.table_revision;
        self.committing = Some(table.clone());
        self.effects.push(Effect::Ask(Request::Commit { term, table_revision, table }));
    }

    fn take(&mut self, at: usize, step: Step) {
        self.changed(at, step.transition);
        if let Some(round) = step.probe {
            self.effects.push(Effect::Probe { node: self.nodes[at].id.clone(), round });
        }
    }

    fn changed(&mut self, at: usize, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        let node = &self.nodes[at];
        self.mind_changed |= transition.from.is_failed() != transition.to.is_failed();
        let (node, incarnation) = (node.id.clone(), node.soft.incarnation());
        self.effects.push(Effect::Changed { node, incarnation, transition });
    }

    fn enqueue(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let due = node.soft.due(node.detector.deadline());
        if due < node.queued {
            node.queued = due;
            self.agenda.push(Reverse((due, at)));
        }
    }
}

/// The votes as the leader counts them.
struct Poll<'a> {
    observer: &'a Observer,
    now: Nanos,
}

impl decide::Opinion for Poll<'_> {
    fn failed(&self, node: &str, incarnation: u64) -> bool {
        self.observer.votes.carried(self.now, Question::Failed, node, incarnation)
    }

    fn fit(&self, node: &str, incarnation: u64) -> bool {
        self.observer.votes.carried(self.now, Question::Fit, node, incarnation)
    }

    fn wary(&self, node: &str) -> bool {
        self.observer.state(node) == Some(State::Warning)
    }
}

#[cfg(test)]
mod tests;
