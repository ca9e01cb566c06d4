//! When to reconnect after a connection is lost, and when to stop. Pure.
//!
//! `Connected` → (consecutive failures reach the limit) → `Waiting` 1, 2, 4, 8, 16 s → `Trying` each → (the last failed) → `Silent` →
//! `Stopped` with an alarm. `resume` (the monitor was in contact, or an operator asks) restarts the attempts from any state, so that an
//! outage of the monitors never silences a healthy sender for good.

use rand::{Rng, RngExt};

use crate::Nanos;

const SECOND: Nanos = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Consecutive failures that end a connection. At least 1.
    pub max_failures: u32,
    /// Delay before the first attempt; doubles for each further one.
    pub base: Nanos,
    /// Maximum delay without jitter.
    pub cap: Nanos,
    /// Added to each delay: uniform between 0 and this share of it.
    pub jitter: f64,
    /// Attempts before the silent period. At least 1.
    pub tries: u32,
    /// Silent period after the last attempt; then the alarm.
    pub silence: Nanos,
}

impl Default for Policy {
    /// The article's: 1, 2, 4, 8 (and 16) seconds, at most 60, at most 10 % jitter, 5 attempts.
    fn default() -> Self {
        Self { max_failures: 3, base: SECOND, cap: 60 * SECOND, jitter: 0.1, tries: 5, silence: 60 * SECOND }
    }
}

impl Policy {
    /// Delay before attempt number `attempt` (from 1), without jitter.
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
    /// Heartbeats are sent; the last `failures` of them failed.
    Connected { failures: u32 },
    /// Waits until this time; then attempt number `attempt`.
    Waiting { attempt: u32, until: Nanos },
    /// Attempt number `attempt` is in progress: `connected` or `failed` ends it. 0: the first connection.
    Trying { attempt: u32 },
    /// All attempts failed.
    Silent { until: Nanos },
    /// The alarm was raised; only `resume` restarts.
    Stopped,
}

impl State {
    pub const LABELS: [&str; 5] = ["connected", "waiting", "trying", "silent", "stopped"];

    /// Whether neither a heartbeat nor an attempt is in progress.
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

/// What the caller must do. The rest is in `Reconnect::state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Open a connection, then call `connected` or `failed`.
    Connect,
    /// Close the connection.
    Disconnect,
    /// Alert an operator: this sender has stopped.
    Alarm,
}

#[derive(Debug, Clone)]
pub struct Reconnect<R> {
    policy: Policy,
    state: State,
    random: R,
}

impl<R: Rng> Reconnect<R> {
    /// Starts in `Trying { attempt: 0 }`: the caller connects immediately.
    pub fn new(policy: Policy, random: R) -> Self {
        Self { policy, state: State::Trying { attempt: 0 }, random }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// When to call `poll`; `None`: no timer is needed.
    pub fn deadline(&self) -> Option<Nanos> {
        match self.state {
            State::Waiting { until, .. } | State::Silent { until } => Some(until),
            State::Connected { .. } | State::Trying { .. } | State::Stopped => None,
        }
    }

    /// An attempt succeeded.
    pub fn connected(&mut self) {
        if matches!(self.state, State::Trying { .. }) {
            self.state = State::Connected { failures: 0 };
        }
    }

    /// A heartbeat was sent, and acknowledged if that was requested.
    pub fn succeeded(&mut self) {
        if let State::Connected { failures } = &mut self.state {
            *failures = 0;
        }
    }

    /// A heartbeat or an attempt failed.
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
            // A late failure of a connection already given up.
            State::Waiting { .. } | State::Silent { .. } | State::Stopped => Action::Nothing,
        }
    }

    /// The connection is lost for certain (end of stream, reset): further heartbeats on it would fail too.
    pub fn lost(&mut self, now: Nanos) -> Action {
        match self.state {
            State::Connected { .. } => {
                self.wait(now, 1);
                Action::Disconnect
            }
            _ => Action::Nothing,
        }
    }

    /// The monitor was in contact, or an operator asks: attempts restart immediately.
    pub fn resume(&mut self) -> Action {
        match self.state {
            State::Waiting { .. } | State::Silent { .. } | State::Stopped => {
                self.state = State::Trying { attempt: 1 };
                Action::Connect
            }
            State::Connected { .. } | State::Trying { .. } => Action::Nothing,
        }
    }

    /// Handles the time that has passed.
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
