//! When to try again after a connection is lost, and when to stop. Pure: `now` comes in, transitions go out.
//!
//! `Connected` → (failures in a row reach the limit) → `Waiting` 1, 2, 4, 8, 16 s → `Trying` each → (the last failed) → `Silent` →
//! `Stopped` with an alarm. A contact of the monitor or an operator's word starts the tries again from any of them, so that an
//! outage of the monitors never mutes a healthy sender for good.

use rand::{Rng, RngExt};

use crate::Nanos;

const SECOND: Nanos = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Failures in a row that a connection survives, less one. At least 1.
    pub max_failures: u32,
    /// Delay before the first try; each further one waits twice as long.
    pub base: Nanos,
    /// No delay is longer, jitter aside.
    pub cap: Nanos,
    /// Added to each delay: uniform between nothing and this part of it.
    pub jitter: f64,
    /// Tries before the silent period. At least 1.
    pub tries: u32,
    /// After the last try nothing is sent for so long; then the alarm.
    pub silence: Nanos,
}

impl Default for Policy {
    /// The article's: 1, 2, 4, 8 (and 16) seconds, at most 60, at most 10 % jitter, 5 tries.
    fn default() -> Self {
        Self { max_failures: 3, base: SECOND, cap: 60 * SECOND, jitter: 0.1, tries: 5, silence: 60 * SECOND }
    }
}

impl Policy {
    /// Before try number `attempt` (from 1), without jitter.
    pub fn delay(&self, attempt: u32) -> Nanos {
        let doublings = attempt.saturating_sub(1);
        let delay = self.base.saturating_mul(1_u64.checked_shl(doublings).unwrap_or(u64::MAX));
        delay.min(self.cap)
    }

    fn jittered(&self, attempt: u32, random: &mut impl Rng) -> Nanos {
        let delay = self.delay(attempt);
        let most = (delay as f64 * self.jitter) as Nanos;
        delay.saturating_add(if most == 0 { 0 } else { random.random_range(0..=most) })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Beats flow; so many of the last failed.
    Connected { failures: u32 },
    /// Until that instant nothing is done; then try number `attempt`.
    Waiting { attempt: u32, until: Nanos },
    /// Try number `attempt` is under way: `connected` or `failed` ends it. 0: the very first connection.
    Trying { attempt: u32 },
    /// All tries failed.
    Silent { until: Nanos },
    /// The alarm was raised; only a contact or an operator starts again.
    Stopped,
}

impl State {
    pub const LABELS: [&str; 5] = ["connected", "waiting", "trying", "silent", "stopped"];

    /// Whether nothing is sent now, nor about to be.
    pub fn is_idle(self) -> bool {
        matches!(self, Self::Waiting { .. } | Self::Silent { .. } | Self::Stopped)
    }

    /// Value of a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Waiting { .. } => "waiting",
            Self::Trying { .. } => "trying",
            Self::Silent { .. } => "silent",
            Self::Stopped => "stopped",
        }
    }
}

/// What the caller does now. Everything else of a transition is in `Reconnect::state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Open a connection and say how it went.
    Connect,
    /// Close what is left of the connection.
    Disconnect,
    /// Tell people: this sender has stopped.
    Alarm,
}

#[derive(Debug, Clone)]
pub struct Reconnect<R> {
    policy: Policy,
    state: State,
    random: R,
}

impl<R: Rng> Reconnect<R> {
    /// Not connected yet: `Trying { attempt: 0 }`, the caller connects at once.
    pub fn new(policy: Policy, random: R) -> Self {
        Self { policy, state: State::Trying { attempt: 0 }, random }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// When `poll` has something to do; `None`: nothing happens by itself.
    pub fn deadline(&self) -> Option<Nanos> {
        match self.state {
            State::Waiting { until, .. } | State::Silent { until } => Some(until),
            State::Connected { .. } | State::Trying { .. } | State::Stopped => None,
        }
    }

    /// A try has succeeded.
    pub fn connected(&mut self) {
        if matches!(self.state, State::Trying { .. }) {
            self.state = State::Connected { failures: 0 };
        }
    }

    /// A beat was sent, and acknowledged where that is asked for.
    pub fn succeeded(&mut self) {
        if let State::Connected { failures } = &mut self.state {
            *failures = 0;
        }
    }

    /// A beat on the connection failed, or a try did.
    pub fn failed(&mut self, now: Nanos) -> Action {
        match self.state {
            State::Connected { failures } if failures + 1 < self.policy.max_failures => {
                self.state = State::Connected { failures: failures + 1 };
                Action::Nothing
            }
            State::Connected { .. } => {
                self.wait(now, 1);
                Action::Disconnect
            }
            State::Trying { attempt } if attempt >= self.policy.tries => {
                self.state = State::Silent { until: now.saturating_add(self.policy.silence) };
                Action::Nothing
            }
            State::Trying { attempt } => {
                self.wait(now, attempt + 1);
                Action::Nothing
            }
            // Late news of a connection already given up.
            State::Waiting { .. } | State::Silent { .. } | State::Stopped => Action::Nothing,
        }
    }

    /// The connection is gone for certain (end of stream, reset): further beats on it would only fail as well.
    pub fn lost(&mut self, now: Nanos) -> Action {
        match self.state {
            State::Connected { .. } => {
                self.wait(now, 1);
                Action::Disconnect
            }
            _ => Action::Nothing,
        }
    }

    /// The monitor has been in touch, or an operator wants another round: tries begin again, the first at once.
    pub fn resume(&mut self) -> Action {
        match self.state {
            State::Waiting { .. } | State::Silent { .. } | State::Stopped => {
                self.state = State::Trying { attempt: 1 };
                Action::Connect
            }
            State::Connected { .. } | State::Trying { .. } => Action::Nothing,
        }
    }

    /// What the time asks for.
    pub fn poll(&mut self, now: Nanos) -> Action {
        match self.state {
            State::Waiting { attempt, until } if now >= until => {
                self.state = State::Trying { attempt };
                Action::Connect
            }
            State::Silent { until } if now >= until => {
                self.state = State::Stopped;
                Action::Alarm
            }
            _ => Action::Nothing,
        }
    }

    fn wait(&mut self, now: Nanos, attempt: u32) {
        let delay = self.policy.jittered(attempt, &mut self.random);
        self.state = State::Waiting { attempt, until: now.saturating_add(delay) };
    }
}

#[cfg(test)]
mod tests;
