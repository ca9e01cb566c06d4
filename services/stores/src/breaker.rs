//! A circuit breaker: while a server is down, calls fail at once instead of waiting for it.
//!
//! ```text
//! closed  ── a failure, or several consecutive timeouts ──→ open
//! open    ── first call after the back-off ──→ probing (this call is tried, all others still fail at once)
//! probing ── success ──→ closed     ── failure ──→ open     ── cancelled without a result ──→ due (the next call probes)
//! ```
//! A call that was in flight when the breaker opened may still succeed. That closes the breaker while a probe is in flight. Therefore probes
//! have numbers, and the result of an outdated probe counts as that of any other call.
//!
//! Pure: takes `now`. The caller does the I/O.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

#[derive(Debug)]
pub struct Breaker {
    name: &'static str,
    back_off: Duration,
    /// Consecutive timeouts that open the breaker. More than one, if a short overload of the server must not open it.
    max_timeouts: u32,
    /// False: closed. A call to a healthy server reads nothing else.
    tripped: AtomicBool,
    timeouts: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Open {
        until: Instant,
    },
    Due,
    /// Until the attempt of this number reports or is dropped.
    Probing {
        number: u64,
    },
}

/// `tripped` is false exactly while the phase is `Closed`: both change under the lock.
#[derive(Debug)]
struct State {
    phase: Phase,
    /// Number of probes so far.
    probes: u64,
}

/// A call that is allowed. Its result must be reported; an attempt that is dropped without a result says nothing about the server.
#[derive(Debug)]
pub struct Attempt<'a> {
    breaker: &'a Breaker,
    /// Its number if it is a probe. `None` after it has reported.
    probe: Option<u64>,
}

impl Breaker {
    /// `name` of the server appears in the log.
    pub fn new(name: &'static str, back_off: Duration, max_timeouts: u32) -> Self {
        Self {
            name,
            back_off,
            max_timeouts,
            tripped: AtomicBool::new(false),
            timeouts: AtomicU32::new(0),
            state: Mutex::new(State { phase: Phase::Closed, probes: 0 }),
        }
    }

    /// `None`: the server failed a moment ago; do not try.
    pub fn admit(&self, now: Instant) -> Option<Attempt<'_>> {
        if !self.tripped.load(Ordering::Acquire) {
            return Some(Attempt { breaker: self, probe: None });
        }
        let mut state = self.lock();
        match state.phase {
            Phase::Closed => return Some(Attempt { breaker: self, probe: None }),
            Phase::Open { until } if now < until => return None,
            Phase::Probing { .. } => return None,
            Phase::Open { .. } | Phase::Due => {}
        }
        state.probes += 1;
        let number = state.probes;
        state.phase = Phase::Probing { number };
        Some(Attempt { breaker: self, probe: Some(number) })
    }

    pub fn is_closed(&self) -> bool {
        !self.tripped.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut state = self.lock();
        if state.phase != Phase::Closed {
            tracing::info!(server = self.name, "server answers again");
        }
        state.phase = Phase::Closed;
        self.timeouts.store(0, Ordering::Relaxed);
        self.tripped.store(false, Ordering::Release);
    }

    /// A call failed. Opens if the call was the current probe, or if the breaker is closed and `is_enough`. Other calls were in flight when it
    /// opened, and tell nothing new. True: it opened.
    fn open(&self, probe: Option<u64>, is_enough: bool, now: Instant) -> bool {
        let mut state = self.lock();
        let trips = state.phase == Phase::Closed && is_enough;
        if !trips && !state.awaits(probe) {
            return false;
        }
        if trips {
            tracing::warn!(server = self.name, back_off = ?self.back_off, "server does not answer, retrying at intervals");
        }
        state.phase = Phase::Open { until: now + self.back_off };
        self.tripped.store(true, Ordering::Release);
        true
    }
}

impl State {
    fn awaits(&self, probe: Option<u64>) -> bool {
        probe.is_some_and(|number| self.phase == Phase::Probing { number })
    }
}

impl Attempt<'_> {
    pub fn succeeded(mut self) {
        self.probe = None;
        let breaker = self.breaker;
        if breaker.tripped.load(Ordering::Acquire) {
            breaker.close();
        } else if breaker.timeouts.load(Ordering::Relaxed) > 0 {
            breaker.timeouts.store(0, Ordering::Relaxed);
        }
    }

    /// The server refused or broke the connection. True: the breaker opened, for the first time or again.
    pub fn failed(mut self, now: Instant) -> bool {
        let probe = self.probe.take();
        self.breaker.open(probe, true, now)
    }

    /// The server did not answer within its timeout; a caller's deadline does not count. True: as in `failed`.
    pub fn timed_out(mut self, now: Instant) -> bool {
        let probe = self.probe.take();
        let consecutive = self.breaker.timeouts.fetch_add(1, Ordering::Relaxed) + 1;
        // Avoids the lock for the first timeouts of a closed breaker.
        let is_enough = consecutive >= self.breaker.max_timeouts;
        (is_enough || probe.is_some()) && self.breaker.open(probe, is_enough, now)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.probe.is_some() {
            let mut state = self.breaker.lock();
            if state.awaits(self.probe) {
                state.phase = Phase::Due;
            }
        }
    }
}

#[cfg(test)]
mod tests;
