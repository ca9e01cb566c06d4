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
    /// A random number of the sender's process: rounds of two processes do not compare.
    #[serde(default)]
    pub session: u64,
    /// Version of the monitors that the sender counts: see `registry::Monitors`.
    #[serde(default)]
    pub monitors_version: u64,
    /// Increases with every ballot of a session.
    pub round: u64,
    /// The last round received from each other monitor.
    pub seen: BTreeMap<NodeId, u64>,
    /// Online workers that the sender has failed, and their incarnations.
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
    /// Number of votes that decide, for a number of monitors.
    quorum: fn(usize) -> usize,
    /// Older votes do not count.
    lifetime: Nanos,
    session: u64,
    round: u64,
    /// Rounds sent and when, oldest first; no older than `lifetime`.
    sent: VecDeque<(u64, Nanos)>,
    monitors_version: u64,
    is_member: bool,
    own: Option<Ballot>,
    /// The latest ballot of each other monitor.
    others: BTreeMap<NodeId, Option<Ballot>>,
}

impl Votes {
    /// `session`: a random number of this process.
    pub fn new(me: NodeId, quorum: fn(usize) -> usize, lifetime: Nanos, session: u64) -> Self {
        Self {
            me,
            quorum,
            lifetime,
            session,
            // Random too: the echo of a round of an earlier process must not be taken for one of this process.
            round: session >> 1,
            sent: VecDeque::new(),
            monitors_version: 0,
            is_member: false,
            own: None,
            others: BTreeMap::new(),
        }
    }

    /// From now on the votes of these monitors count.
    pub fn set_monitors<'a>(&mut self, version: u64, members: impl Iterator<Item = &'a NodeId> + Clone) {
        self.monitors_version = version;
        self.is_member = members.clone().any(|member| *member == self.me);
        let mut known = std::mem::take(&mut self.others);
        let others = members.filter(|member| **member != self.me);
        self.others = others.map(|member| (member.clone(), known.remove(member).flatten())).collect();
        self.own = None;
    }

    /// This monitor's next ballot, for all others.
    pub fn cast(&mut self, now: Nanos, failed: BTreeMap<NodeId, u64>, fit: BTreeMap<NodeId, u64>) -> Ballot {
        self.round += 1;
        while self.sent.front().is_some_and(|(_, at)| now.saturating_sub(*at) > self.lifetime) {
            self.sent.pop_front();
        }
        self.sent.push_back((self.round, now));
        let seen = self.others.values().flatten().map(|b| (b.from.clone(), b.round)).collect();
        let (from, session, monitors_version) = (self.me.clone(), self.session, self.monitors_version);
        let ballot = Ballot { from, session, monitors_version, round: self.round, seen, failed, fit };
        self.own = Some(ballot.clone());
        ballot
    }

    /// Stores another monitor's ballot. False: it is not from a monitor, or not newer. A ballot of another session replaces one that counts
    /// only if it counts itself: a recorded one does not.
    pub fn receive(&mut self, now: Nanos, ballot: Ballot) -> bool {
        let Some(last) = self.others.get(&ballot.from) else { return false };
        let is_newer = match last {
            None => true,
            Some(last) if last.session == ballot.session => ballot.round > last.round,
            Some(last) => !self.is_fresh(now, last) || self.is_fresh(now, &ballot),
        };
        if is_newer {
            self.others.insert(ballot.from.clone(), Some(ballot));
        }
        is_newer
    }

    /// Whether the quorum votes so for this incarnation of the worker, or a later one.
    pub fn has_quorum(&self, now: Nanos, claim: Claim, node: &str, incarnation: u64) -> bool {
        self.count(now, claim, node, incarnation) >= self.quorum()
    }

    /// Whether enough monitors hear this one, and this one hears them, to decide anything.
    pub fn has_quorum_present(&self, now: Nanos) -> bool {
        self.is_member && self.present(now) >= self.quorum()
    }

    fn quorum(&self) -> usize {
        (self.quorum)(self.others.len() + usize::from(self.is_member))
    }

    pub fn count(&self, now: Nanos, claim: Claim, node: &str, incarnation: u64) -> usize {
        let says = |ballot: &Ballot| {
            let side = match claim {
                Claim::Failed => &ballot.failed,
                Claim::Fit => &ballot.fit,
            };
            side.get(node).is_some_and(|claimed| *claimed >= incarnation)
        };
        let own = self.is_member && self.own.as_ref().is_some_and(says);
        let others = self.others.values().flatten().filter(|ballot| says(ballot) && self.is_fresh(now, ballot));
        usize::from(own) + others.count()
    }

    /// Monitors whose ballots count now, this one included.
    pub fn present(&self, now: Nanos) -> usize {
        let others = self.others.values().flatten().filter(|ballot| self.is_fresh(now, ballot));
        usize::from(self.is_member) + others.count()
    }

    fn is_fresh(&self, now: Nanos, ballot: &Ballot) -> bool {
        if ballot.monitors_version != self.monitors_version {
            return false;
        }
        let Some(round) = ballot.seen.get(&self.me) else { return false };
        let sent = self.sent.binary_search_by_key(round, |(sent, _)| *sent);
        sent.is_ok_and(|at| now.saturating_sub(self.sent[at].1) <= self.lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes_of(me: &str, session: u64) -> Votes {
        let mut votes = Votes::new(me.into(), majority, 100, session);
        votes.set_monitors(1, ["a", "b", "c"].map(Into::into).iter());
        votes
    }

    fn votes(me: &str) -> Votes {
        votes_of(me, 7_000)
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
        b.receive(0, a.cast(0, none(), none()));
        a.receive(5, b.cast(5, failed(1), none()));
        assert!(!a.has_quorum(10, Claim::Failed, "w", 1), "one vote");
        a.cast(10, failed(1), none());
        assert!(a.has_quorum(10, Claim::Failed, "w", 1) && a.has_quorum_present(10));
        assert!(!a.has_quorum(10, Claim::Failed, "w", 2), "a later incarnation is not meant");
        assert!(!a.has_quorum(10, Claim::Fit, "w", 1));
        assert!(!a.has_quorum(101, Claim::Failed, "w", 1), "b spoke of what it knew at 0");
        assert!(!a.has_quorum_present(101));
    }

    #[test]
    fn a_monitor_that_hears_the_others_but_is_not_heard_has_no_quorum() {
        let (mut a, mut b) = (votes("a"), votes("b"));
        for now in 0..10 {
            a.cast(now, none(), none());
            a.receive(now, b.cast(now, none(), none()));
        }
        assert_eq!((a.present(10), a.has_quorum_present(10)), (1, false));
    }

    #[test]
    fn a_ballot_that_lay_in_a_buffer_does_not_count_however_late_it_is_read() {
        let (mut a, mut b) = (votes("a"), votes("b"));
        b.receive(0, a.cast(0, failed(1), none()));
        let late = b.cast(5, failed(1), none());
        a.cast(5_000, failed(1), none());
        assert!(a.receive(5_000, late));
        assert!(!a.has_quorum(5_000, Claim::Failed, "w", 1));
        assert_eq!(a.present(5_000), 1);
    }

    #[test]
    fn strangers_and_old_ballots_are_refused() {
        let (mut a, mut b, mut stranger) = (votes("a"), votes("b"), votes("x"));
        let (first, second) = (b.cast(0, none(), none()), b.cast(1, none(), none()));
        assert!(a.receive(1, second));
        assert!(!a.receive(1, first));
        assert!(!a.receive(1, stranger.cast(0, none(), none())));
    }

    #[test]
    fn a_monitor_that_was_restarted_is_heard_with_any_clock_and_its_former_ballots_do_not_come_back() {
        let (mut a, mut before) = (votes("a"), votes_of("b", 9_000));
        before.receive(0, a.cast(0, none(), none()));
        let recorded = before.cast(1, none(), none());
        assert!(a.receive(1, recorded.clone()));
        // Its rounds are lower than those of its former process.
        let mut b = votes_of("b", 10);
        assert!(!a.receive(2, b.cast(2, none(), none())), "it has not heard a yet, and the former ballot counts still");
        b.receive(3, a.cast(3, none(), none()));
        assert!(a.receive(4, b.cast(4, none(), none())));
        assert_eq!(a.present(4), 2);
        assert!(!a.receive(101, recorded), "it does not count any more");
    }

    #[test]
    fn votes_of_other_monitors_versions_do_not_count() {
        let (mut a, mut b) = (votes("a"), votes("b"));
        b.receive(0, a.cast(0, none(), none()));
        a.receive(1, b.cast(1, none(), none()));
        assert_eq!(a.present(1), 2);
        let five: [NodeId; 5] = ["a", "b", "c", "d", "e"].map(Into::into);
        a.set_monitors(2, five.iter());
        assert_eq!(a.present(2), 1, "b counts three monitors still");
        b.set_monitors(2, five.iter());
        b.receive(3, a.cast(3, none(), none()));
        a.receive(4, b.cast(4, none(), none()));
        assert_eq!((a.present(4), a.has_quorum_present(4)), (2, false), "two of five");
        a.set_monitors(3, five[1..].iter());
        assert_eq!((a.present(5), a.has_quorum_present(5)), (0, false), "it is no member any more");
    }

    #[test]
    fn a_monitor_alone_is_its_own_majority() {
        let me: NodeId = "a".into();
        let mut alone = Votes::new(me.clone(), majority, 100, 1);
        assert!(!alone.has_quorum_present(0), "it does not know the monitors yet");
        alone.set_monitors(1, [me].iter());
        alone.cast(0, failed(1), none());
        assert!(alone.has_quorum(0, Claim::Failed, "w", 1));
    }
}
