//! Limits bytes per second. The pure part says how long to wait.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Bytes that may pass at once after a pause, as time.
const BURST: Duration = Duration::from_millis(250);

/// A rate limit that several tasks share.
#[derive(Debug)]
pub struct Pace {
    bytes_per_s: u64,
    /// When all bytes that were let through have passed at the limit.
    passed: Mutex<Option<Instant>>,
}

impl Pace {
    /// `bytes_per_s`: above 0.
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1), passed: Mutex::new(None) }
    }

    /// Returns when the bytes may pass.
    pub async fn wait(&self, bytes: usize) {
        let until = self.reserve(bytes, Instant::now());
        sleep_until(until).await;
    }

    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let from = passed.map_or(earliest, |passed| passed.max(earliest));
        *passed = Some(from + takes);
        from.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_over_time() {
        let (pace, start) = (Pace::new(1_000), Instant::now());
        // 10 s of bytes, asked for as fast as they are let through.
        let mut now = start;
        for _ in 0..100 {
            now = pace.reserve(100, now).max(now);
        }
        let took = now - start;
        assert!(took >= Duration::from_millis(9_600) && took <= Duration::from_millis(9_900), "{took:?}");
        // A pause gives no more than the burst.
        let later = now + Duration::from_mins(1);
        assert_eq!(pace.reserve(250, later), later);
        assert_eq!(pace.reserve(500, later), later);
        assert_eq!(pace.reserve(1, later), later + Duration::from_millis(500));
    }
}
