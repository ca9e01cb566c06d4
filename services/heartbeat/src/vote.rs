//! Votes of the monitors. Each tells the others which workers it has failed, and which it hears that are not online. Only a majority of all
//! monitors counts.
//!
//! A vote's age is measured by the observer's clock alone: each ballot lists the rounds that its sender has received, and the vote is as
//! old as the latest of our ballots in that list. So a ballot that was buffered does not count, and clocks need not agree.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{Nanos, assign::NodeId};

/// One monitor's votes. Sent to all others on each change and once per interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    pub from: NodeId,
    /// Increases with every ballot, also over restarts.
    pub round: u64,
    /// The last round received from each other monitor.
    pub seen: BTreeMap<NodeId, u64>,
    /// Workers that the sender has failed, and their incarnations.
    pub failed: BTreeMap<NodeId, u64>,
    /// Workers that are not online but that the sender hears, and their incarnations.
    pub fit: BTreeMap<NodeId, u64>,
}

/// More than half.
pub fn majority(monitors: usize) -> usize {
    monitors / 2 + 1
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    Failed,
    Fit,
}

/// The ballots of all monitors, as one of them has received them.
#[derive(Debug)]
pub struct Votes {
    me: NodeId,
    /// Number of votes that decide.
    quorum: usize,
    /// Older votes do not count.
    lifetime: Nanos,
    round: u64,
    /// Rounds sent and when, oldest first; no older than `lifetime`.
    sent: VecDeque<(u64, Nanos)>,
    own: Option<Ballot>,
    others: BTreeMap<NodeId, Ballot>,
}

impl Votes {
    /// `first_round` must be greater than any round of this monitor's earlier incarnation: milliseconds of Unix time are.
    pub fn new(me: NodeId, monitors: &[NodeId], quorum: usize, lifetime: Nanos, first_round: u64) -> Self {
        let others = monitors.iter().filter(|id| **id != me);
        let silent = |id: &NodeId| Ballot {
            from: id.clone(),
            round: 0,
            seen: BTreeMap::new(),
            failed: BTreeMap::new(),
            fit: BTreeMap::new(),
        };
        Self {
            others: others.map(|id| (id.clone(), silent(id))).collect(),
            me,
            quorum,
            lifetime,
            round: first_round,
            sent: VecDeque::new(),
            own: None,
        }
    }

    /// This monitor's next ballot, for all others.
    pub fn cast(&mut self, now: Nanos, failed: BTreeMap<NodeId, u64>, fit: BTreeMap<NodeId, u64>) -> Ballot {
        self.round += 1;
        while self.sent.front().is_some_and(|(_, at)| now.saturating_sub(*at) > self.lifetime) {
            self.sent.pop_front();
        }
        self.sent.push_back((self.round, now));
        let seen = self.others.values().filter(|b| b.round > 0).map(|b| (b.from.clone(), b.round)).collect();
        let ballot = Ballot { from: self.me.clone(), round: self.round, seen, failed, fit };
        self.own = Some(ballot.clone());
        ballot
    }

    /// Stores another monitor's ballot. False: it is not from a monitor, or not newer.
    pub fn receive(&mut self, ballot: Ballot) -> bool {
        match self.others.get_mut(&ballot.from) {
            Some(last) if ballot.round > last.round => {
                *last = ballot;
                true
            }
            _ => false,
        }
    }

    /// Whether the quorum votes so for this incarnation of the worker, or a later one.
    pub fn has_quorum(&self, now: Nanos, claim: Claim, node: &str, incarnation: u64) -> bool {
        self.count(now, claim, node, incarnation) >= self.quorum
    }

    pub fn count(&self, now: Nanos, claim: Claim, node: &str, incarnation: u64) -> usize {
        let says = |ballot: &Ballot| {
            let side = match claim {
                Claim::Failed => &ballot.failed,
                Claim::Fit => &ballot.fit,
            };
            side.get(node).is_some_and(|claimed| *claimed >= incarnation)
        };
        let own = self.own.as_ref().is_some_and(says);
        let others = self.others.values().filter(|ballot| says(ballot) && self.is_fresh(now, ballot));
        usize::from(own) + others.count()
    }

    /// Monitors whose ballots count now, this one included.
    pub fn present(&self, now: Nanos) -> usize {
        1 + self.others.values().filter(|ballot| self.is_fresh(now, ballot)).count()
    }

    fn is_fresh(&self, now: Nanos, ballot: &Ballot) -> bool {
        let Some(round) = ballot.seen.get(&self.me) else { return false };
        let sent = self.sent.binary_search_by_key(round, |(sent, _)| *sent);
        sent.is_ok_and(|at| now.saturating_sub(self.sent[at].1) <= self.lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(me: &str) -> Votes {
        let monitors: Vec<NodeId> = ["a", "b", "c"].map(Into::into).to_vec();
        Votes::new(me.into(), &monitors, majority(3), 100, 1_000)
    }

    fn failed(incarnation: u64) -> BTreeMap<NodeId, u64> {
        BTreeMap::from([("w".into(), incarnation)])
    }

    fn none() -> BTreeMap<NodeId, u64> {
        BTreeMap::new()
    }

    #[test]
    fn more_than_half() {
        assert_eq!([1, 2, 3, 4, 5].map(majority), [1, 2, 2, 3, 3]);
    }

    #[test]
    fn one_of_three_decides_nothing_two_do() {
        let (mut a, mut b) = (votes("a"), votes("b"));
        b.receive(a.cast(0, none(), none()));
        a.receive(b.cast(5, failed(1), none()));
        assert!(!a.has_quorum(10, Claim::Failed, "w", 1), "one vote");
        a.cast(10, failed(1), none());
        assert!(a.has_quorum(10, Claim::Failed, "w", 1));
        assert!(!a.has_quorum(10, Claim::Failed, "w", 2), "a later incarnation is not meant");
        assert!(!a.has_quorum(10, Claim::Fit, "w", 1));
        assert!(!a.has_quorum(101, Claim::Failed, "w", 1), "b spoke of what it knew at 0");
    }

    #[test]
    fn a_ballot_that_lay_in_a_buffer_does_not_count_however_late_it_is_read() {
        let (mut a, mut b) = (votes("a"), votes("b"));
        b.receive(a.cast(0, failed(1), none()));
        let late = b.cast(5, failed(1), none());
        a.cast(5_000, failed(1), none());
        assert!(a.receive(late));
        assert!(!a.has_quorum(5_000, Claim::Failed, "w", 1));
        assert_eq!(a.present(5_000), 1);
    }

    #[test]
    fn strangers_and_old_ballots_are_refused() {
        let (mut a, mut b, mut stranger) = (votes("a"), votes("b"), votes("x"));
        let (first, second) = (b.cast(0, none(), none()), b.cast(1, none(), none()));
        assert!(a.receive(second));
        assert!(!a.receive(first));
        assert!(!a.receive(stranger.cast(0, none(), none())));
    }

    #[test]
    fn a_monitor_alone_is_its_own_majority() {
        let me: NodeId = "a".into();
        let mut alone = Votes::new(me.clone(), &[me], majority(1), 100, 1);
        alone.cast(0, failed(1), none());
        assert!(alone.has_quorum(0, Claim::Failed, "w", 1));
    }
}
