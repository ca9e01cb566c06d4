//! What this monitor holds against nodes now, told of as spans once it is settled: then it is known which trace they belong to.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use contract::spans::{attribute, name};
use heartbeat::{
    Nanos,
    assign::NodeId,
    clock::Clock,
    soft::{Cause, State, Transition},
};
use runtime::telemetry::{Context, Kind, Telemetry};

use crate::trace::root_span_id;

/// Changes of state in one suspicion that are told of: this monitor's own pauses make more than four.
const MAX_STEPS: usize = 32;

/// At most one per node.
pub struct Suspicions {
    open: HashMap<NodeId, Suspicion>,
    telemetry: Telemetry,
    clock: Clock,
}

#[derive(Debug)]
struct Suspicion {
    /// The life that is suspected.
    incarnation: u64,
    heard_at: Nanos,
    /// States and when each began, from the first on.
    steps: Vec<(State, Nanos)>,
    /// The table has taken the node off-line, and that was told: what follows is its absence.
    is_confirmed: bool,
}

impl Suspicions {
    pub fn new(telemetry: Telemetry, clock: Clock) -> Self {
        Self { open: HashMap::new(), telemetry, clock }
    }

    /// Takes a change of the node's state, `incarnation` being that after it. Answers how long this life of it was suspected, if that
    /// was a mistake: a sign of a later life refutes nothing.
    pub fn note(&mut self, now: Nanos, node: &NodeId, incarnation: u64, transition: &Transition) -> Option<Duration> {
        let Transition { from, to, cause, silent } = *transition;
        if to == State::Healthy {
            let suspicion = self.open.remove(node)?;
            self.tell(now, node, &suspicion, cause.as_str(), None);
            if suspicion.is_confirmed {
                return None;
            }
            let refuted = cause != Cause::Registered && suspicion.incarnation == incarnation;
            let since = suspicion.steps.first().map_or(now, |(_, since)| *since);
            return refuted.then(|| Duration::from_nanos(now.saturating_sub(since)));
        }
        if from == State::Healthy {
            let heard_at = now.saturating_sub(silent);
            let steps = vec![(to, now)];
            self.open.insert(node.clone(), Suspicion { incarnation, heard_at, steps, is_confirmed: false });
        } else if let Some(suspicion) = self.open.get_mut(node)
            && suspicion.steps.len() < MAX_STEPS
        {
            suspicion.steps.push((to, now));
        }
        None
    }

    /// The table has the node off-line; `traceparent` is the table's.
    pub fn confirmed(&mut self, now: Nanos, node: &NodeId, traceparent: Option<&str>) {
        let Some(suspicion) = self.open.remove(node) else { return };
        let switch = traceparent.and_then(|traceparent| Context::parse(traceparent.as_bytes()));
        self.tell(now, node, &suspicion, "confirmed", switch);
        if let Some((state, _)) = suspicion.steps.last() {
            let absence = Suspicion { steps: vec![(*state, now)], is_confirmed: true, ..suspicion };
            self.open.insert(node.clone(), absence);
        }
    }

    /// Since when this monitor has failed the node.
    pub fn failed_at(&self, node: &NodeId) -> Option<Nanos> {
        let suspicion = self.open.get(node).filter(|suspicion| !suspicion.is_confirmed)?;
        suspicion.steps.iter().find(|(state, _)| state.is_failed()).map(|(_, at)| *at)
    }

    fn tell(&self, now: Nanos, node: &NodeId, suspicion: &Suspicion, outcome: &'static str, switch: Option<Context>) {
        let at = |nanos| -> Instant { self.clock.instant(nanos) };
        let Suspicion { incarnation, heard_at, steps, is_confirmed } = suspicion;
        // An absence, of minutes perhaps, is a trace of its own: the failover's shows milliseconds.
        let (name, steps, mut since) = match steps.split_first() {
            Some(((state, from), rest)) if *is_confirmed => (name::ABSENCE, rest, (state.as_str(), *from)),
            _ => (name::SUSPICION, &steps[..], (name::SILENCE, *heard_at)),
        };
        let place = match switch {
            Some(switch) => (switch.sibling(), root_span_id(switch.trace_id)),
            None => (Context::root(true), 0),
        };
        let whole = self.telemetry.record(place, Kind::Internal, name, at(since.1));
        whole.ended(at(now));
        whole.set_with(attribute::NODE, || node.to_string());
        whole.set(attribute::INCARNATION, *incarnation);
        whole.set(attribute::OUTCOME, outcome);
        for (next, from) in steps.iter().map(|(state, from)| (state.as_str(), *from)).chain([("", now)]) {
            let (state, began) = std::mem::replace(&mut since, (next, from));
            whole.child_since(Kind::Internal, state, at(began)).ended(at(from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_the_same_life_shows_a_mistake_and_a_later_life_none() {
        let (mut suspicions, node) = (Suspicions::new(Telemetry::default(), Clock::start()), NodeId::from("w"));
        let change = |from, to, cause| Transition { from, to, cause, silent: 5 };
        let overdue = change(State::Healthy, State::Suspicious, Cause::Overdue);
        let unanswered = change(State::Suspicious, State::Warning, Cause::Unanswered);
        let failed = change(State::Warning, State::Failed, Cause::Unanswered);
        let heard = change(State::Warning, State::Healthy, Cause::Beat);
        assert_eq!(suspicions.note(10, &node, 1, &overdue), None);
        assert_eq!(suspicions.note(20, &node, 1, &unanswered), None);
        assert_eq!(suspicions.note(25, &node, 1, &heard), Some(Duration::from_nanos(15)));
        assert_eq!(suspicions.note(30, &node, 1, &heard), None);
        suspicions.note(40, &node, 1, &overdue);
        assert_eq!(suspicions.note(45, &node, 2, &heard), None);
        suspicions.note(50, &node, 2, &overdue);
        let registered = change(State::Suspicious, State::Healthy, Cause::Registered);
        assert_eq!(suspicions.note(55, &node, 3, &registered), None);

        suspicions.note(60, &node, 3, &overdue);
        suspicions.note(61, &node, 3, &unanswered);
        assert_eq!(suspicions.failed_at(&node), None);
        suspicions.note(62, &node, 3, &failed);
        assert_eq!(suspicions.failed_at(&node), Some(62));
        suspicions.confirmed(63, &node, None);
        // Its further states are those of a node that is off-line.
        suspicions.note(64, &node, 3, &change(State::Failed, State::Partitioned, Cause::Unanswered));
        assert_eq!(suspicions.failed_at(&node), None);
        let steps = &suspicions.open[&node].steps;
        assert_eq!(steps[..], [(State::Failed, 63), (State::Partitioned, 64)], "told of as its absence");
        let back = change(State::Partitioned, State::Healthy, Cause::Registered);
        assert_eq!(suspicions.note(90, &node, 4, &back), None, "its end is no mistake");
        assert!(suspicions.open.is_empty());
    }
}
