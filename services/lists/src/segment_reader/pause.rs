//! Pauses between attempts that fail: each is twice as long as the one before.

use std::time::Duration;

use tokio::time::Instant;

/// Short, so that a repaired copy is found soon.
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub struct Pause {
    failures: u32,
    until: Option<Instant>,
}

impl Pause {
    /// `first`: the pause after the first failure.
    pub fn failed(&mut self, now: Instant, first: Duration) {
        let pause = first.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + pause);
    }

    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_a_success() {
        let (start, first) = (Instant::now(), Duration::from_millis(1_000));
        let mut pause = Pause::default();
        for expected in [1, 2, 4, 5, 5] {
            assert!(pause.is_over(start));
            pause.failed(start, first);
            let end = start + Duration::from_secs(expected);
            assert!(!pause.is_over(end - Duration::from_millis(1)) && pause.is_over(end), "{expected}");
            pause.until = None;
        }
        (0..100).for_each(|_| pause.failed(start, first));
        pause.succeeded();
        pause.failed(start, first);
        assert!(pause.is_over(start + first));
    }
}
