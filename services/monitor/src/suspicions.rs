//! What this monitor holds against nodes now: since when each is suspected, and whether that was a mistake.

use std::{collections::HashMap, time::Duration};

use heartbeat::{
    Nanos,
    assign::NodeId,
    soft::{Cause, State, Transition},
};

/// At most one per node.
#[derive(Debug, Default)]
pub struct Suspicions(HashMap<NodeId, Suspicion>);

#[derive(Debug)]
struct Suspicion {
    /// The life that is suspected.
    incarnation: u64,
    since: Nanos,
}

impl Suspicions {
    /// Takes a change of the node's state, `incarnation` being that after it. Answers how long this life of it was suspected, if that
    /// was a mistake: a sign of a later life refutes nothing.
    pub fn note(&mut self, now: Nanos, node: &NodeId, incarnation: u64, transition: &Transition) -> Option<Duration> {
        if transition.to != State::Healthy {
            self.0.entry(node.clone()).or_insert(Suspicion { incarnation, since: now });
            return None;
        }
        let suspicion = self.0.remove(node)?;
        let refuted = transition.cause != Cause::Registered && suspicion.incarnation == incarnation;
        refuted.then(|| Duration::from_nanos(now.saturating_sub(suspicion.since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_the_same_life_shows_a_mistake_and_a_later_life_none() {
        let (mut suspicions, node) = (Suspicions::default(), NodeId::from("w"));
        let change = |from, to, cause| Transition { from, to, cause, silent: 0 };
        let overdue = change(State::Healthy, State::Suspicious, Cause::Overdue);
        let unanswered = change(State::Suspicious, State::Warning, Cause::Unanswered);
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
    }
}
