//! The longest time in which no event of a partition was written, although events waited.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use contract::SHARDS;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{clients::Ledger, observed::Tables};

const PAUSE: Duration = Duration::from_millis(100);

/// Of one partition.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    next: u64,
    /// Since then events wait and none was written.
    waiting: Option<Instant>,
    longest: Duration,
}

impl Progress {
    /// `next`: `None` if the store did not answer. `end`: of the acknowledged events.
    fn seen(&mut self, now: Instant, next: Option<u64>, end: u64) {
        let moved = next.is_some_and(|next| next > self.next);
        self.next = next.unwrap_or(self.next);
        let since = self.waiting.filter(|_| !moved).unwrap_or(now);
        self.waiting = (self.next < end).then_some(since);
        self.longest = self.longest.max(now - since);
    }
}

/// Watches until it is cancelled.
pub async fn watch(mysql: String, ledger: Arc<Ledger>, stop: CancellationToken) -> Duration {
    let mut partitions = [Progress::default(); SHARDS as usize];
    let mut tables: Option<Tables> = None;
    while !stop.is_cancelled() {
        if tables.is_none() {
            tables = Tables::open(&mysql).await.ok();
        }
        let positions = match &mut tables {
            Some(open) => open.positions().await.ok(),
            None => None,
        };
        if positions.is_none() {
            tables = None;
        }
        let now = Instant::now();
        for (n, partition) in partitions.iter_mut().enumerate() {
            let next = positions.as_ref().and_then(|positions| positions.get(n)).map(|(next, _)| *next);
            partition.seen(now, next, ledger.end(n));
        }
        sleep(PAUSE).await;
    }
    partitions.iter().map(|partition| partition.longest).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_without_waiting_events_does_not_stall() {
        let begin = Instant::now();
        let at = |s| begin + Duration::from_secs(s);
        let mut progress = Progress::default();
        progress.seen(at(0), Some(0), 0);
        progress.seen(at(10), Some(0), 5);
        assert_eq!(progress.longest, Duration::ZERO);
        progress.seen(at(12), None, 5);
        progress.seen(at(13), Some(3), 5);
        assert_eq!(progress.longest, Duration::from_secs(2));
        progress.seen(at(14), Some(5), 5);
        progress.seen(at(99), Some(5), 5);
        assert_eq!(progress.longest, Duration::from_secs(2));
    }
}
