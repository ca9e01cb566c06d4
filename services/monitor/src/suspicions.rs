//! Suspicions in progress. Each is recorded as a span when its outcome is known, since only then its trace is known.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use contract::spans::{attribute, name};
use heartbeat::{
    Nanos,
    assign::NodeId,
    clock::Clock,
    node_state::{Cause, State, Transition},
};
use runtime::telemetry::{Context, Kind, Telemetry};

use crate::trace::root_span_id;

/// Maximum number of recorded states per suspicion: pauses of this monitor can add many.
const MAX_STEPS: usize = 32;

/// At most one suspicion per worker.
pub struct Suspicions {
    open: HashMap<NodeId, Suspicion>,
    telemetry: Telemetry,
    clock: Clock,
}

#[derive(Debug)]
struct Suspicion {
    /// The suspected incarnation.
    incarnation: u64,
    heard_at: Nanos,
    /// States and when each began, in order.
    steps: Vec<(State, Nanos)>,
    /// The table took the worker offline, and the suspicion was recorded. What follows is its absence.
    is_confirmed: bool,
}

impl Suspicions {
    pub fn new(telemetry: Telemetry, clock: Clock) -> Self {
        Self { open: HashMap::new(), telemetry, clock }
    }

    /// Records a transition; `incarnation` is the one after it. Returns the duration of the suspicion if it was a mistake. A sign of life
    /// of a later incarnation refutes nothing.
    pub fn record_transition(
        &mut self,
        now: Nanos,
        node: &NodeId,
        incarnation: u64,
        transition: &Transition,
    ) -> Option<Duration> {
        let Transition { from, to, cause, silent } = *transition;
        if to == State::Healthy {
            let suspicion = self.open.remove(node)?;
            self.record(now, node, &suspicion, cause.as_str(), None);
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

    /// The table took the worker offline; `traceparent` is the table's.
    pub fn confirmed(&mut self, now: Nanos, node: &NodeId, traceparent: Option<&str>) {
        let Some(suspicion) = self.open.remove(node) else { return };
        let switch = traceparent.and_then(|traceparent| Context::parse(traceparent.as_bytes()));
        self.record(now, node, &suspicion, "confirmed", switch);
        if let Some((state, _)) = suspicion.steps.last() {
            let absence = Suspicion { steps: vec![(*state, now)], is_confirmed: true, ..suspicion };
            self.open.insert(node.clone(), absence);
        }
    }

    /// Time at which this monitor failed the worker.
    pub fn failed_at(&self, node: &NodeId) -> Option<Nanos> {
        let suspicion = self.open.get(node).filter(|suspicion| !suspicion.is_confirmed)?;
        suspicion.steps.iter().find(|(state, _)| state.is_failed()).map(|(_, at)| *at)
    }

    fn record(&self, now: Nanos, node: &NodeId, suspicion: &Suspicion, outcome: &'static str, switch: Option<Context>) {
        let at = |nanos| -> Instant { self.clock.instant(nanos) };
        let Suspicion { incarnation, heard_at, steps, is_confirmed } = suspicion;
        // An absence may last minutes and has a trace of its own: the failover's trace shows milliseconds.
        let (name, steps, mut since) = match steps.split_first() {
            Some(((state, from), rest)) if *is_confirmed => (name::ABSENCE, rest, (state.as_str(), *from)),
            _ => (name::SUSPICION, &steps[..], (name::SILENCE, *heard_at)),
        };
        let place = match switch {
            Some(switch) => (switch.sibling(), root_span_id(switch.trace_id)),
            None => (Context::root(true), 0),
        };
        let whole = self.telemetry.record(place, Kind::Internal, name, at(since.1));
        whole.end_at(at(now));
        whole.set_with(attribute::NODE, || node.to_string());
        whole.set(attribute::INCARNATION, *incarnation);
        whole.set(attribute::OUTCOME, outcome);
        for (next, from) in steps.iter().map(|(state, from)| (state.as_str(), *from)).chain([("", now)]) {
            let (state, began) = std::mem::replace(&mut since, (next, from));
            whole.child_since(Kind::Internal, state, at(began)).end_at(at(from));
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
        assert_eq!(suspicions.record_transition(10, &node, 1, &overdue), None);
        assert_eq!(suspicions.record_transition(20, &node, 1, &unanswered), None);
        assert_eq!(suspicions.record_transition(25, &node, 1, &heard), Some(Duration::from_nanos(15)));
        assert_eq!(suspicions.record_transition(30, &node, 1, &heard), None);
        suspicions.record_transition(40, &node, 1, &overdue);
        assert_eq!(suspicions.record_transition(45, &node, 2, &heard), None);
        suspicions.record_transition(50, &node, 2, &overdue);
        let registered = change(State::Suspicious, State::Healthy, Cause::Registered);
        assert_eq!(suspicions.record_transition(55, &node, 3, &registered), None);

        suspicions.record_transition(60, &node, 3, &overdue);
        suspicions.record_transition(61, &node, 3, &unanswered);
        assert_eq!(suspicions.failed_at(&node), None);
        suspicions.record_transition(62, &node, 3, &failed);
        assert_eq!(suspicions.failed_at(&node), Some(62));
        suspicions.confirmed(63, &node, None);
        // Further states belong to an offline worker.
        suspicions.record_transition(64, &node, 3, &change(State::Failed, State::Partitioned, Cause::Unanswered));
        assert_eq!(suspicions.failed_at(&node), None);
        let steps = &suspicions.open[&node].steps;
        assert_eq!(steps[..], [(State::Failed, 63), (State::Partitioned, 64)], "recorded as its absence");
        let back = change(State::Partitioned, State::Healthy, Cause::Registered);
        assert_eq!(suspicions.record_transition(90, &node, 4, &back), None, "its end is no mistake");
        assert!(suspicions.open.is_empty());
    }
}
