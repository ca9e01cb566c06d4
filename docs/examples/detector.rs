//! Example of docs/extending.md: suspects a node after twice the longest silence so far.

use heartbeat::{Nanos, detector::Detector};

/// Bounded: it remembers one arrival and one silence.
#[derive(Debug, Clone)]
pub struct Longest {
    newest: Option<(Nanos, u64)>,
    longest: Nanos,
}

impl Longest {
    pub fn new(interval: Nanos) -> Self {
        Self { newest: None, longest: interval }
    }
}

impl Detector for Longest {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        match self.newest {
            // Out of order, or received before.
            Some((_, newest)) if sequence <= newest => return,
            Some((at, _)) => self.longest = self.longest.max(now.saturating_sub(at)),
            None => {}
        }
        self.newest = Some((now, sequence));
    }

    fn deadline(&self) -> Option<Nanos> {
        self.newest.map(|(at, _)| at.saturating_add(2 * self.longest))
    }
}

#[test]
fn the_longest_silence_counts() {
    const SECOND: Nanos = 1_000_000_000;
    let mut detector = Longest::new(SECOND);
    assert_eq!(detector.deadline(), None);
    detector.heard(SECOND, 1);
    assert_eq!(detector.deadline(), Some(3 * SECOND));
    // Heartbeat 2 was lost.
    detector.heard(3 * SECOND, 3);
    detector.heard(3 * SECOND, 2);
    assert_eq!(detector.deadline(), Some(7 * SECOND));
    assert!(detector.suspects(7 * SECOND) && !detector.suspects(6 * SECOND));
}
