//! Suspicion states of one node, as one observer sees it. A missed heartbeat only starts probes.
//!
//! ```text
//! healthy ──heartbeat overdue──▶ suspicious ──probes unanswered──▶ warning ──probes unanswered──▶ failed ──▶ partitioned
//!    ▲          (miss 1)             │           (miss 2)              │          (miss 3)            │  (miss N)  │
//!    └───── a heartbeat, or an answer to a probe on any path, of this incarnation or a later one ──────┴────────────┘
//! ```
//!
//! `warning` lowers the node's weight. `failed` is this observer's vote; `vote` and `decide` use it. Probing of a failed node continues at
//! growing intervals. `partitioned` follows after more failures than a restart takes: the vote stays, and the alert says that the network
//! path is cut.

use serde::{Deserialize, Serialize};

use crate::Nanos;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Healthy,
    Suspicious,
    Warning,
    Failed,
    Partitioned,
}

impl State {
    pub const ALL: [State; 5] = [Self::Healthy, Self::Suspicious, Self::Warning, Self::Failed, Self::Partitioned];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Suspicious => "suspicious",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Partitioned => "partitioned",
        }
    }

    /// Whether this observer votes that the node has failed.
    pub fn is_failed(self) -> bool {
        matches!(self, Self::Failed | Self::Partitioned)
    }

    /// Share of new work for a node in this state.
    pub fn weight(self) -> f64 {
        match self {
            Self::Healthy | Self::Suspicious => 1.0,
            Self::Warning => 0.5,
            Self::Failed | Self::Partitioned => 0.0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The detector's deadline passed.
    Overdue,
    /// A probe round got no answer on any path.
    Unanswered,
    Beat,
    Answer,
    /// The observer's process paused: its evidence from before counts less.
    Pause,
    /// The registry has a later incarnation of the node.
    Registered,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overdue => "overdue",
            Self::Unanswered => "unanswered",
            Self::Beat => "beat",
            Self::Answer => "answer",
            Self::Pause => "pause",
            Self::Registered => "registered",
        }
    }
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    pub from: State,
    pub to: State,
    pub cause: Cause,
    /// Time since the last sign of life.
    pub silent: Nanos,
}

impl Transition {
    /// All possible transitions.
    pub fn all() -> impl Iterator<Item = (State, State, Cause)> {
        use {Cause as C, State as S};
        let worse = [
            (S::Healthy, S::Suspicious, C::Overdue),
            (S::Suspicious, S::Warning, C::Unanswered),
            (S::Warning, S::Failed, C::Unanswered),
            (S::Failed, S::Partitioned, C::Unanswered),
            (S::Failed, S::Warning, C::Pause),
            (S::Partitioned, S::Warning, C::Pause),
        ];
        let from = |from| [C::Beat, C::Answer, C::Registered].map(|cause| (from, S::Healthy, cause));
        worse.into_iter().chain([S::Suspicious, S::Warning, S::Failed, S::Partitioned].into_iter().flat_map(from))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Duration of a probe round.
    pub round: Nanos,
    /// Rounds of a failed node double up to this duration.
    pub longest_round: Nanos,
    /// Time without suspicion after a start or pause of the observer, so that a heartbeat can arrive.
    pub grace: Nanos,
    /// Consecutive failures, the overdue heartbeat included, after which a node is partitioned. It is failed after 3.
    pub partitioned_after: u32,
}

/// Consecutive failures after which a node is failed.
const FAILED_AFTER: u32 = 3;

/// State of one node at one observer, without its detector.
#[derive(Debug, Clone)]
pub struct NodeState {
    state: State,
    /// Consecutive failures: the overdue heartbeat, and unanswered probe rounds.
    failures: u32,
    incarnation: u64,
    heard_at: Nanos,
    /// Whether `heard_at` is a sign of life, and not the start of the observation.
    heard: bool,
    /// Whether this incarnation has answered a probe of this observer. Before that its heartbeats prove nothing: they may be recorded ones.
    proven: bool,
    /// No suspicion before this time.
    grace_until: Nanos,
    /// Number of the current probe round; numbers increase.
    round: u64,
    round_ends: Nanos,
    round_length: Nanos,
    /// Answers to earlier rounds do not count: they may have been buffered during a pause of the observer.
    first_valid_round: u64,
}

/// Result of `tick` and `excuse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    pub transition: Option<Transition>,
    /// Send probes over all paths; answers carry this number.
    pub probe: Option<u64>,
}

impl NodeState {
    /// Healthy until the grace period is over.
    pub fn new(now: Nanos, incarnation: u64, settings: &Settings) -> Self {
        Self {
            state: State::Healthy,
            failures: 0,
            incarnation,
            heard_at: now,
            heard: false,
            proven: false,
            grace_until: now + settings.grace,
            round: 0,
            round_ends: 0,
            round_length: settings.round,
            first_valid_round: 1,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub fn heard_at(&self) -> Nanos {
        self.heard_at
    }

    /// Whether this incarnation was ever heard.
    pub fn is_heard(&self) -> bool {
        self.heard
    }

    /// The node answered a probe of this round.
    pub fn answered(&mut self, now: Nanos, incarnation: u64, round: u64) -> Option<Transition> {
        if round < self.first_valid_round || incarnation < self.incarnation {
            return None;
        }
        let transition = self.sign_of_life(now, incarnation, Cause::Answer);
        self.proven = true;
        transition
    }

    /// Whether heartbeats of this incarnation are signs of life.
    pub fn is_proven(&self, incarnation: u64) -> bool {
        self.proven && incarnation == self.incarnation
    }

    /// A heartbeat arrived that is no sign of life yet: send probes, once a round. A node that is suspected is probed anyway.
    pub fn ask(&mut self, now: Nanos, settings: &Settings) -> Option<u64> {
        (self.state == State::Healthy && now >= self.round_ends).then(|| self.begin_round(now, settings.round))
    }

    /// The node gave a sign of life. One of an earlier incarnation does not count.
    pub fn sign_of_life(&mut self, now: Nanos, incarnation: u64, cause: Cause) -> Option<Transition> {
        if incarnation < self.incarnation {
            return None;
        }
        self.proven &= incarnation == self.incarnation;
        self.incarnation = incarnation;
        let transition = self.change(now, State::Healthy, cause);
        self.heard = true;
        self.heard_at = self.heard_at.max(now);
        transition
    }

    /// A later incarnation was registered: it starts again, with grace.
    pub fn restarted(&mut self, now: Nanos, incarnation: u64, settings: &Settings) -> Option<Transition> {
        if incarnation <= self.incarnation {
            return None;
        }
        self.incarnation = incarnation;
        (self.heard, self.proven) = (false, false);
        self.grace_until = now + settings.grace;
        self.change(now, State::Healthy, Cause::Registered)
    }

    /// When `tick` has something to do, if nothing is heard before.
    pub fn due(&self, deadline: Option<Nanos>) -> Nanos {
        match self.state {
            State::Healthy => deadline.unwrap_or(0).max(self.grace_until),
            _ => self.round_ends,
        }
    }

    /// At most one step: an observer that is late counts one miss, not three.
    pub fn tick(&mut self, now: Nanos, deadline: Option<Nanos>, settings: &Settings) -> Step {
        if now < self.due(deadline) {
            return Step::default();
        }
        self.failures = self.failures.saturating_add(1);
        let (to, cause) = match self.state {
            State::Healthy => (State::Suspicious, Cause::Overdue),
            State::Suspicious => (State::Warning, Cause::Unanswered),
            State::Warning => (State::Failed, Cause::Unanswered),
            State::Failed if self.failures >= settings.partitioned_after => (State::Partitioned, Cause::Unanswered),
            State::Failed => (State::Failed, Cause::Unanswered),
            State::Partitioned => (State::Partitioned, Cause::Unanswered),
        };
        let doubled = if self.state.is_failed() { self.round_length * 2 } else { settings.round };
        let transition = self.change(now, to, cause);
        Step { transition, probe: Some(self.begin_round(now, doubled.min(settings.longest_round))) }
    }

    /// A probe was answered although heartbeats are missing: silence counts again after the grace period.
    pub fn rest(&mut self, now: Nanos, settings: &Settings) {
        self.grace_until = now + settings.grace;
    }

    /// The observer's process paused until `now`. Silence during the pause does not count. A round in progress is repeated, and a vote
    /// needs one more round.
    pub fn excuse(&mut self, now: Nanos, settings: &Settings) -> Step {
        self.first_valid_round = self.round + 1;
        match self.state {
            State::Healthy => {
                self.grace_until = now + settings.grace;
                Step::default()
            }
            State::Suspicious | State::Warning => {
                Step { transition: None, probe: Some(self.begin_round(now, settings.round)) }
            }
            State::Failed | State::Partitioned => {
                self.failures = FAILED_AFTER - 1;
                let transition = self.change(now, State::Warning, Cause::Pause);
                Step { transition, probe: Some(self.begin_round(now, settings.round)) }
            }
        }
    }

    fn begin_round(&mut self, now: Nanos, length: Nanos) -> u64 {
        self.round += 1;
        self.round_length = length;
        self.round_ends = now + length;
        self.round
    }

    fn change(&mut self, now: Nanos, to: State, cause: Cause) -> Option<Transition> {
        let from = std::mem::replace(&mut self.state, to);
        let silent = now.saturating_sub(self.heard_at);
        if to == State::Healthy {
            self.failures = 0;
        }
        debug_assert!(
            from == to || Transition::all().any(|known| known == (from, to, cause)),
            "{from:?} {to:?} {cause:?}"
        );
        (from != to).then_some(Transition { from, to, cause, silent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings { round: 10, longest_round: 40, grace: 30, partitioned_after: 6 };

    fn states(node: &mut NodeState, times: &[Nanos]) -> Vec<State> {
        let step = |now: &Nanos| {
            node.tick(*now, Some(100), &SETTINGS);
            node.state()
        };
        times.iter().map(step).collect()
    }

    #[test]
    fn three_misses_fail_and_each_has_its_time() {
        let mut node = NodeState::new(0, 1, &SETTINGS);
        assert_eq!(node.tick(99, Some(100), &SETTINGS), Step::default());
        let step = node.tick(100, Some(100), &SETTINGS);
        let overdue = Transition { from: State::Healthy, to: State::Suspicious, cause: Cause::Overdue, silent: 100 };
        assert_eq!(step, Step { transition: Some(overdue), probe: Some(1) });
        assert_eq!(states(&mut node, &[109, 110]), [State::Suspicious, State::Warning]);
        assert_eq!(states(&mut node, &[119, 120]), [State::Warning, State::Failed]);
    }

    #[test]
    fn a_late_observer_finds_one_miss_at_a_time() {
        let mut node = NodeState::new(0, 1, &SETTINGS);
        assert_eq!(states(&mut node, &[9_000, 9_001, 9_010]), [State::Suspicious, State::Suspicious, State::Warning]);
    }

    #[test]
    fn a_failed_node_is_probed_on_at_growing_intervals() {
        let mut node = NodeState::new(0, 1, &SETTINGS);
        states(&mut node, &[100, 110, 120]);
        let mut probes = Vec::new();
        for now in 121..400 {
            if node.tick(now, Some(100), &SETTINGS).probe.is_some() {
                probes.push(now);
            }
        }
        assert_eq!(probes, [130, 150, 190, 230, 270, 310, 350, 390]);
    }

    #[test]
    fn six_failures_in_a_row_are_a_partition_and_one_sign_of_life_ends_the_row() {
        let mut node = NodeState::new(0, 1, &SETTINGS);
        // Failed at 120; further rounds end at 130, 150 and 190.
        assert_eq!(states(&mut node, &[100, 110, 120, 130, 150]).last(), Some(&State::Failed));
        assert_eq!(states(&mut node, &[189, 190, 230]), [State::Failed, State::Partitioned, State::Partitioned]);
        let step = node.excuse(240, &SETTINGS);
        assert_eq!(step.transition.map(|t| (t.from, t.to)), Some((State::Partitioned, State::Warning)));
        assert_eq!(states(&mut node, &[250, 260]), [State::Failed, State::Failed], "a pause of ours begins a new row");
        assert!(node.sign_of_life(270, 1, Cause::Beat).is_some());
        assert_eq!(states(&mut node, &[271, 281, 291])[2], State::Failed);
    }

    #[test]
    fn a_sign_of_life_refutes_unless_it_is_of_an_earlier_life() {
        let mut node = NodeState::new(0, 5, &SETTINGS);
        states(&mut node, &[100, 110, 120]);
        assert_eq!(node.sign_of_life(125, 4, Cause::Beat), None);
        assert_eq!(node.state(), State::Failed);
        let refuted = node.sign_of_life(126, 5, Cause::Answer).unwrap();
        assert_eq!((refuted.from, refuted.to, refuted.silent), (State::Failed, State::Healthy, 126));
        assert_eq!(node.sign_of_life(127, 6, Cause::Beat), None);
        assert_eq!(node.incarnation(), 6);
    }

    #[test]
    fn a_pause_gives_grace_asks_again_and_takes_a_vote_back() {
        let mut node = NodeState::new(0, 1, &SETTINGS);
        assert_eq!(node.excuse(1_000, &SETTINGS), Step::default());
        assert_eq!(node.tick(1_029, Some(100), &SETTINGS), Step::default());
        assert_eq!(states(&mut node, &[1_030]), [State::Suspicious]);
        assert_eq!(node.excuse(2_000, &SETTINGS), Step { transition: None, probe: Some(2) });
        assert_eq!(node.answered(2_001, 1, 1), None);
        assert_eq!(node.state(), State::Suspicious, "an answer from before the pause proves nothing");
        assert_eq!(states(&mut node, &[2_009, 2_010, 2_020]), [State::Suspicious, State::Warning, State::Failed]);
        let step = node.excuse(3_000, &SETTINGS);
        assert_eq!(step.transition.map(|t| (t.to, t.cause)), Some((State::Warning, Cause::Pause)));
        assert_eq!(states(&mut node, &[3_009, 3_010]), [State::Warning, State::Failed]);
    }

    #[test]
    fn a_later_life_that_is_registered_starts_anew() {
        let mut node = NodeState::new(0, 1, &SETTINGS);
        states(&mut node, &[100, 110, 120]);
        assert_eq!(node.restarted(130, 1, &SETTINGS), None);
        assert!(node.restarted(130, 2, &SETTINGS).is_some());
        assert_eq!(node.due(Some(100)), 160);
    }
}
