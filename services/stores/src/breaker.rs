//! Keeps callers away from a server that is down: while it is, they fail at once instead of each waiting for it.
//!
//! ```text
//! closed  ── a failure, or several time-outs in a row ──→ open
//! open    ── back-off over, somebody asks ──→ probing (that one may try, everybody else still fails at once)
//! probing ── success ──→ closed     ── failure ──→ open     ── given up without a result ──→ due (the next one probes)
//! ```
//! A call that was under way when it opened may still succeed, which closes it while a probe is out. Probes therefore have numbers:
//! what an outdated probe comes to is what any other call comes to.
//!
//! A decision that takes `now`; the I/O is the caller's.

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
    /// Time-outs in a row that open it: a single one may be an overloaded moment, and skipping the server makes that worse.
    max_timeouts: u32,
    /// False means closed; the only thing that a call to a healthy server looks at.
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
    /// Until the pass of this number reports or is dropped.
    Probing {
        number: u64,
    },
}

/// What the lock guards. `tripped` is false exactly while the phase is `Closed`: both change under the lock.
#[derive(Debug)]
struct State {
    phase: Phase,
    /// Probes so far.
    probes: u64,
}

/// Leave to try; to be told how it went. Dropped without, it says nothing about the server.
#[derive(Debug)]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    /// Its number, if it is a probe; `None` also once it has reported.
    probe: Option<u64>,
}

impl Breaker {
    /// `name` is for the log.
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
    pub fn admit(&self, now: Instant) -> Option<Pass<'_>> {
        if !self.tripped.load(Ordering::Acquire) {
            return Some(Pass { breaker: self, probe: None });
        }
        let mut state = self.lock();
        match state.phase {
            Phase::Closed => return Some(Pass { breaker: self, probe: None }),
            Phase::Open { until } if now < until => return None,
            Phase::Probing { .. } => return None,
            Phase::Open { .. } | Phase::Due => {}
        }
        state.probes += 1;
        let number = state.probes;
        state.phase = Phase::Probing { number };
        Some(Pass { breaker: self, probe: Some(number) })
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
            tracing::info!(server = self.name, "answers again");
        }
        state.phase = Phase::Closed;
        self.timeouts.store(0, Ordering::Relaxed);
        self.tripped.store(false, Ordering::Release);
    }

    /// A call failed. Opens for the probe that is awaited; while closed, for any call if that is `enough`. Other calls were under way
    /// when it opened and say nothing new. True: it opened.
    fn open(&self, probe: Option<u64>, enough: bool, now: Instant) -> bool {
        let mut state = self.lock();
        let trips = state.phase == Phase::Closed && enough;
        if !trips && !state.awaits(probe) {
            return false;
        }
        if trips {
            tracing::warn!(server = self.name, back_off = ?self.back_off, "does not answer, trying again at intervals");
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

impl Pass<'_> {
    pub fn ok(mut self) {
        self.probe = None;
        let breaker = self.breaker;
        if breaker.tripped.load(Ordering::Acquire) {
            breaker.close();
        } else if breaker.timeouts.load(Ordering::Relaxed) > 0 {
            breaker.timeouts.store(0, Ordering::Relaxed);
        }
    }

    /// The server refused or broke the connection. True: it opened the breaker, for the first time or again.
    pub fn failed(mut self, now: Instant) -> bool {
        let probe = self.probe.take();
        self.breaker.open(probe, true, now)
    }

    /// The server did not answer within its own time (not: the caller's deadline ran out). True: as in `failed`.
    pub fn timed_out(mut self, now: Instant) -> bool {
        let probe = self.probe.take();
        let in_a_row = self.breaker.timeouts.fetch_add(1, Ordering::Relaxed) + 1;
        // While closed, time-outs that are too few are not worth the lock.
        let enough = in_a_row >= self.breaker.max_timeouts;
        (enough || probe.is_some()) && self.breaker.open(probe, enough, now)
    }
}

impl Drop for Pass<'_> {
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
