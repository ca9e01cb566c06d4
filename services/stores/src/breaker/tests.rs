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
            if let Some(attempt) = breaker.admit(now) {
                tries += 1;
                attempt.failed(now);
            }
        }
    }
    assert_eq!(tries, 19, "5 s / 250 ms, less the first");
    let now = start + Duration::from_secs(6);
    breaker.admit(now).unwrap().succeeded();
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
    breaker.admit(start + BACK_OFF).unwrap().succeeded();
    assert!(breaker.is_closed());
}

#[test]
fn only_time_outs_in_a_row_open_it() {
    let breaker = Breaker::new("test", BACK_OFF, 3);
    let now = Instant::now();
    for _ in 0..10 {
        breaker.admit(now).unwrap().timed_out(now);
        breaker.admit(now).unwrap().timed_out(now);
        breaker.admit(now).unwrap().succeeded();
    }
    assert!(breaker.is_closed());
    for _ in 0..3 {
        breaker.admit(now).unwrap().timed_out(now);
    }
    assert!(breaker.admit(now).is_none());
}

/// Every interleaving of calls that are admitted, succeed, fail, time out or are cancelled.
mod interleavings {
    use std::collections::{HashSet, VecDeque};

    use super::*;

    const MAX_TIMEOUTS: u32 = 2;
    /// Calls in flight.
    const CALLS: usize = 4;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Action {
        Admit,
        /// A back-off passes.
        Wait,
        Report(usize, Outcome),
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Outcome {
        Ok,
        Failed,
        TimedOut,
        Dropped,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    enum Call {
        Plain,
        Outdated,
        Awaited,
    }

    /// The state that decides what happens next. Equal states behave equally, so that a search that visits each once covers every
    /// interleaving of any length.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct Key {
        closed: bool,
        phase: &'static str,
        timeouts: u32,
        calls: Vec<Call>,
    }

    struct World<'a> {
        breaker: &'a Breaker,
        now: Instant,
        calls: Vec<Attempt<'a>>,
    }

    fn breaker() -> Breaker {
        Breaker::new("test", BACK_OFF, MAX_TIMEOUTS)
    }

    impl<'a> World<'a> {
        fn after(breaker: &'a Breaker, start: Instant, actions: &[Action]) -> Self {
            let mut world = Self { breaker, now: start, calls: Vec::new() };
            actions.iter().for_each(|&action| world.act(action));
            world
        }

        fn act(&mut self, action: Action) {
            match action {
                Action::Wait => self.now += BACK_OFF,
                Action::Admit => {
                    let (closed, probes) = (self.breaker.is_closed(), self.awaited());
                    let Some(attempt) = self.breaker.admit(self.now) else {
                        return assert!(!closed, "a closed breaker admits every call");
                    };
                    assert!(
                        closed || (probes == 0 && self.breaker.lock().awaits(attempt.probe)),
                        "only a probe, and one"
                    );
                    self.calls.push(attempt);
                }
                Action::Report(n, outcome) => {
                    let attempt = self.calls.remove(n);
                    match outcome {
                        Outcome::Ok => attempt.succeeded(),
                        Outcome::Failed => _ = attempt.failed(self.now),
                        Outcome::TimedOut => _ = attempt.timed_out(self.now),
                        Outcome::Dropped => drop(attempt),
                    }
                    assert!(outcome != Outcome::Ok || self.breaker.is_closed(), "an answer closes it");
                }
            }
            let phase = self.breaker.lock().phase;
            assert_eq!(self.breaker.is_closed(), phase == Phase::Closed, "{phase:?}");
            let probing = matches!(phase, Phase::Probing { .. });
            assert_eq!(self.awaited(), usize::from(probing), "{phase:?} ends when its probe does");
        }

        fn awaited(&self) -> usize {
            self.calls.iter().filter(|attempt| self.breaker.lock().awaits(attempt.probe)).count()
        }

        fn key(&self) -> Key {
            let phase = match self.breaker.lock().phase {
                Phase::Closed => "closed",
                Phase::Open { until } if self.now < until => "open",
                Phase::Open { .. } => "open, its back-off over",
                Phase::Due => "due",
                Phase::Probing { .. } => "probing",
            };
            let mut calls: Vec<Call> = self
                .calls
                .iter()
                .map(|attempt| match attempt.probe {
                    None => Call::Plain,
                    probe if self.breaker.lock().awaits(probe) => Call::Awaited,
                    Some(_) => Call::Outdated,
                })
                .collect();
            calls.sort_unstable();
            let timeouts = self.breaker.timeouts.load(Ordering::Relaxed).min(MAX_TIMEOUTS);
            Key { closed: self.breaker.is_closed(), phase, timeouts, calls }
        }

        /// The breaker is never stuck: after all calls in flight have ended, one success closes it and enough failures
        /// open it.
        fn check_future(mut self) {
            while !self.calls.is_empty() {
                self.act(Action::Report(0, Outcome::Dropped));
            }
            self.act(Action::Wait);
            let attempt = self.breaker.admit(self.now).expect("admits after its back-off");
            attempt.succeeded();
            assert!(self.breaker.is_closed());
            for _ in 0..MAX_TIMEOUTS {
                self.breaker.admit(self.now).expect("closed").timed_out(self.now);
            }
            assert!(!self.breaker.is_closed() && self.breaker.admit(self.now).is_none(), "enough failures open it");
        }
    }

    #[test]
    fn no_interleaving_leaves_it_off_or_on_for_ever() {
        let start = Instant::now();
        let (mut seen, mut to_visit) = (HashSet::new(), VecDeque::from([Vec::new()]));
        while let Some(path) = to_visit.pop_front() {
            let breaker = breaker();
            let world = World::after(&breaker, start, &path);
            if !seen.insert(world.key()) {
                continue;
            }
            let mut actions = vec![Action::Wait];
            actions.extend((world.calls.len() < CALLS).then_some(Action::Admit));
            for n in 0..world.calls.len() {
                let outcomes = [Outcome::Ok, Outcome::Failed, Outcome::TimedOut, Outcome::Dropped];
                actions.extend(outcomes.map(|outcome| Action::Report(n, outcome)));
            }
            world.check_future();
            to_visit.extend(actions.into_iter().map(|action| [path.as_slice(), &[action]].concat()));
        }
        // A search that covers too few states would find nothing.
        assert!(seen.len() > 100, "only {} states", seen.len());
    }
}
