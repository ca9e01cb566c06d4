//! Which nodes are watched, and when each is checked.

use std::cmp::Reverse;

use super::{Effect, Observer, Watched, sender_clock::SenderClock};
use crate::{
    Nanos,
    assign::NodeId,
    node_state::{NodeState, State, Step, Transition},
    registry::Registration,
};

impl Observer {
    pub(super) fn watch(&mut self, now: Nanos, node: &Registration) {
        if let Some(&at) = self.index.get(&node.id) {
            let known = &mut self.nodes[at];
            if node.incarnation > known.state.incarnation() {
                // Also for a node whose end was not noticed: the heartbeats of the next incarnation start at 1.
                (known.detector, known.clock) = ((self.new_detector)(), SenderClock::default());
            }
            let transition = known.state.restarted(now, node.incarnation, &self.settings.suspicion);
            self.changed(at, transition);
            self.ask(now, at);
            return self.enqueue(at);
        }
        let at = self.nodes.len();
        let state = NodeState::new(now, node.incarnation, &self.settings.suspicion);
        self.index.insert(node.id.clone(), at);
        self.nodes.push(Watched {
            id: node.id.clone(),
            state,
            clock: SenderClock::default(),
            detector: (self.new_detector)(),
            queued: Nanos::MAX,
        });
        self.ask(now, at);
        self.enqueue(at);
    }

    /// Probes a node whose incarnation has proven nothing yet.
    fn ask(&mut self, now: Nanos, at: usize) {
        let node = &mut self.nodes[at];
        if node.state.is_proven(node.state.incarnation()) || self.snapshot.has_left(&node.id) {
            return;
        }
        if let Some(round) = node.state.ask(now, &self.settings.suspicion) {
            self.effects.push(Effect::Probe { node: node.id.clone(), round });
        }
    }

    /// The name was forgotten. The last node takes its place.
    pub(super) fn unwatch(&mut self, id: &NodeId) {
        let Some(at) = self.index.remove(id) else { return };
        self.nodes.swap_remove(at);
        self.leading.evidence.forget(id);
        self.effects.push(Effect::Forgotten(id.clone()));
        if let Some(moved) = self.nodes.get_mut(at) {
            // Its entry in the schedule has its former place.
            moved.queued = Nanos::MAX;
            self.index.insert(moved.id.clone(), at);
            self.enqueue(at);
        }
    }

    pub(super) fn sweep(&mut self, now: Nanos) {
        while let Some(&Reverse((due, at))) = self.schedule.peek() {
            if due > now {
                return;
            }
            self.schedule.pop();
            let Some(node) = self.nodes.get_mut(at).filter(|node| node.queued == due) else { continue };
            node.queued = Nanos::MAX;
            let is_over = node.state.state() == State::Partitioned
                && self.snapshot.table.is_failed(&node.id, node.state.incarnation());
            if is_over || self.snapshot.has_left(&node.id) {
                // Only a later incarnation can come back. Its registration puts the node on the schedule again.
                continue;
            }
            let deadline = node.detector.deadline();
            let step = node.state.tick(now, deadline, &self.settings.suspicion);
            self.apply(at, step);
            self.enqueue(at);
        }
    }

    pub(super) fn apply(&mut self, at: usize, step: Step) {
        self.changed(at, step.transition);
        if let Some(round) = step.probe {
            self.effects.push(Effect::Probe { node: self.nodes[at].id.clone(), round });
        }
    }

    pub(super) fn changed(&mut self, at: usize, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        let node = &self.nodes[at];
        self.ballot_outdated |= transition.from.is_failed() != transition.to.is_failed();
        let (node, incarnation) = (node.id.clone(), node.state.incarnation());
        self.effects.push(Effect::StateChanged { node, incarnation, transition });
    }

    pub(super) fn enqueue(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let due = node.state.due(node.detector.deadline());
        if due < node.queued {
            node.queued = due;
            self.schedule.push(Reverse((due, at)));
        }
    }
}
