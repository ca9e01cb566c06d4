//! Keeps callers away from a server that is down: while it is, they fail at once instead of each waiting for it.
//!
//! ```text
//! closed  ── a failure, or several time-outs in a row ──→ open
//! open    ── back-off over, somebody asks ──→ probing (that one may try, everybody else still fails at once)
//! probing ── success ──→ closed     ── failure ──→ open     ── given up without a result ──→ due (the next one probes)
//! ```
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
    phase: Mutex<Phase>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { until: Instant },
    Due,
    Probing,
}

/// Leave to try; to be told how it went. Dropped without, it says nothing about the server.
#[derive(Debug)]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    probe: bool,
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
            phase: Mutex::new(Phase::Closed),
        }
    }

    /// `None`: the server failed a moment ago; do not try.
    pub fn admit(&self, now: Instant) -> Option<Pass<'_>> {
        if !self.tripped.load(Ordering::Acquire) {
            return Some(Pass { breaker: self, probe: false });
        }
        let mut phase = self.lock();
        let probe = match *phase {
            Phase::Closed => false,
            Phase::Due => true,
            Phase::Open { until } if now >= until => true,
            Phase::Open { .. } | Phase::Probing => return None,
        };
        if probe {
            *phase = Phase::Probing;
        }
        Some(Pass { breaker: self, probe })
    }

    pub fn is_closed(&self) -> bool {
        !self.tripped.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut phase = self.lock();
        if *phase != Phase::Closed {
            tracing::info!(server = self.name, "answers again");
        }
        *phase = Phase::Closed;
        self.timeouts.store(0, Ordering::Relaxed);
        self.tripped.store(false, Ordering::Release);
    }

    /// What was under way when it opened says nothing new: only a closed one and the probe's are opened.
    fn open(&self, probe: bool, now: Instant) {
        let mut phase = self.lock();
        if *phase == Phase::Closed {
            tracing::warn!(server = self.name, back_off = ?self.back_off, "does not answer, trying again at intervals");
        }
        if probe || *phase == Phase::Closed {
            *phase = Phase::Open { until: now + self.back_off };
            self.tripped.store(true, Ordering::Release);
        }
    }
}

impl Pass<'_> {
    pub fn ok(mut self) {
        self.probe = false;
        let breaker = self.breaker;
        if breaker.tripped.load(Ordering::Acquire) {
            breaker.close();
        } else if breaker.timeouts.load(Ordering::Relaxed) > 0 {
            breaker.timeouts.store(0, Ordering::Relaxed);
        }
    }

    /// The server refused or broke the connection.
    pub fn failed(mut self, now: Instant) {
        let probe = std::mem::take(&mut self.probe);
        self.breaker.open(probe, now);
    }

    /// The server did not answer within its own time (not: the caller's deadline ran out).
    pub fn timed_out(mut self, now: Instant) {
        let probe = std::mem::take(&mut self.probe);
        let in_a_row = self.breaker.timeouts.fetch_add(1, Ordering::Relaxed) + 1;
        if probe || in_a_row >= self.breaker.max_timeouts {
            self.breaker.open(probe, now);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe {
            *self.breaker.lock() = Phase::Due;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACK_OFF: Duration = Duration::from_millis(250);

    fn admitted(breaker: &Breaker, now: Instant, callers: usize) -> usize {
        let passes: Vec<_> = (0..callers).filter_map(|_| breaker.admit(now)).collect();
        passes.len()
    }

    #[test]
    fn one_probe_a_back_off_while_the_server_is_down() {
        let breaker = Breaker::new("test", BACK_OFF, 3);
        let start = Instant::now();
        breaker.admit(start).unwrap().failed(start);
        let mut tries = 0;
        // 100 callers every 10 ms, for 5 s.
        for ms in (0..5_000).step_by(10) {
            let now = start + Duration::from_millis(ms);
            for _ in 0..100 {
                if let Some(pass) = breaker.admit(now) {
                    tries += 1;
                    pass.failed(now);
                }
            }
        }
        assert_eq!(tries, 19, "5 s / 250 ms, less the first");
        let now = start + Duration::from_secs(6);
        breaker.admit(now).unwrap().ok();
        assert!(breaker.is_closed());
        assert_eq!(admitted(&breaker, now, 10), 10);
    }

    #[test]
    fn while_one_probes_the_others_fail_and_a_probe_that_gives_up_is_followed_by_another() {
        let breaker = Breaker::new("test", BACK_OFF, 3);
        let start = Instant::now();
        breaker.admit(start).unwrap().failed(start);
        let later = start + BACK_OFF;
        let probe = breaker.admit(later).unwrap();
        assert_eq!(admitted(&breaker, later + BACK_OFF, 5), 0);
        drop(probe);
        let probe = breaker.admit(later).unwrap();
        probe.failed(later);
        assert_eq!(admitted(&breaker, later, 5), 0);
    }

    #[test]
    fn late_failures_of_earlier_calls_do_not_prolong_it() {
        let breaker = Breaker::new("test", BACK_OFF, 3);
        let start = Instant::now();
        let (early, late) = (breaker.admit(start).unwrap(), breaker.admit(start).unwrap());
        early.failed(start);
        late.failed(start + BACK_OFF / 2);
        breaker.admit(start + BACK_OFF).unwrap().ok();
        assert!(breaker.is_closed());
    }

    #[test]
    fn only_time_outs_in_a_row_open_it() {
        let breaker = Breaker::new("test", BACK_OFF, 3);
        let now = Instant::now();
        for _ in 0..10 {
            breaker.admit(now).unwrap().timed_out(now);
            breaker.admit(now).unwrap().timed_out(now);
            breaker.admit(now).unwrap().ok();
        }
        assert!(breaker.is_closed());
        for _ in 0..3 {
            breaker.admit(now).unwrap().timed_out(now);
        }
        assert!(breaker.admit(now).is_none());
    }
}
