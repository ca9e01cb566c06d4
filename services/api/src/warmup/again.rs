//! Warms up again when the cache has lost its lists, as after a flush or when Redis has started empty (`guards.warmup_again_pct`). One read of
//! many users fills what hundreds of requests would load one by one, and the requests of a cold cache may overload the store for good.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Fill, within_deadline};
use crate::{AppState, metrics::CacheMetrics};

const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Fewer lookups within an interval say little.
const MIN_LOOKUPS: u64 = 20;

/// Lookups of lists in Redis, of which Redis answered all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lookups {
    found: u64,
    missing: u64,
}

impl Lookups {
    fn so_far(metrics: &CacheMetrics) -> Self {
        Self { found: metrics.hit.get() + metrics.expired.get(), missing: metrics.miss.get() }
    }

    fn since(self, earlier: Self) -> Self {
        Self { found: self.found - earlier.found, missing: self.missing - earlier.missing }
    }

    /// Whether more than this share of them found no list.
    fn miss_more_than(self, share_pct: u8) -> bool {
        let all = self.found + self.missing;
        all >= MIN_LOOKUPS && self.missing * 100 > all * u64::from(share_pct)
    }
}

/// Runs beside the requests until `shutdown`.
pub async fn run(app: AppState, shutdown: CancellationToken) {
    let share_pct = app.config.guards.warmup_again_pct;
    if share_pct > 0 && app.config.guards.warmup {
        shutdown.run_until_cancelled(watch(&app, share_pct)).await;
    }
}

async fn watch(app: &AppState, share_pct: u8) {
    // The replicas that notice it share the units of one fill. One that did not help is not repeated soon: perhaps the requests are for users without
    // lists.
    let fill = Fill { name: "again".into(), marked_ms: app.config.guards.warmup_deadline_ms };
    let mut before = Lookups::so_far(&app.metrics.cache);
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let now = Lookups::so_far(&app.metrics.cache);
        let lookups = now.since(before);
        before = now;
        if lookups.miss_more_than(share_pct) && within_deadline(app, &fill, |_done, _failing| ()).await {
            app.metrics.warmup.again.inc();
            let Lookups { found, missing } = lookups;
            tracing::warn!(found, missing, ?CHECK_INTERVAL, "the cache had lost its lists, and was warmed up again");
            before = Lookups::so_far(&app.metrics.cache);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_lookups_without_a_list_are_a_loss() {
        let lookups = |found, missing| Lookups { found, missing };
        assert!(!lookups(0, 19).miss_more_than(50), "too few");
        assert!(!lookups(10, 10).miss_more_than(50));
        assert!(lookups(9, 11).miss_more_than(50));
        assert!(!lookups(0, 1_000).miss_more_than(100), "never");
        assert!(!lookups(0, 0).miss_more_than(1));
        assert_eq!(lookups(110, 45).since(lookups(100, 5)), lookups(10, 40));
    }
}
