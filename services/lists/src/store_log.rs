//! Folds the 16 logs of the store. A fold depends only on the version up to which it has read, not on its reader, nor on when and how often it
//! read: so any worker can make any segment of any version again.

use std::time::Duration;

use contract::{SegmentId, ShardId, VersionVector};
use model::Fold;
use stores::{Store, StoreError};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

/// Events per read of a log: about 75 KiB, and a millisecond of the store's time.
const PAGE: usize = 500;
/// Reads of a log per `advance`, so that it ends also while events arrive faster than it folds them.
const PAGES_PER_ADVANCE: usize = 200;
/// Between two pages of a log, in times of a page.
const PAUSE_PER_PAGE: u32 = 7;
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// Events between two pauses for other tasks. Each adds up to 100 pairs.
const EVENTS_PER_PAUSE: usize = 100;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot read the log of shard {}", shard.index())]
    Store { shard: ShardId, source: StoreError },
    /// The version is of another store, or this store has lost events.
    #[error("the log of shard {} has arrival numbers up to {last}, the version goes up to {wanted}", shard.index())]
    TooShort { shard: ShardId, last: u64, wanted: u64 },
}

/// Folds the logs from their begin: up to exactly this version, or without one to where they end now.
///
/// # Errors
/// A log cannot be read, or ends before the version.
pub async fn fold_log(store: &Store, held: &[SegmentId], until: Option<VersionVector>) -> Result<Fold, LogError> {
    let mut fold = Fold::new(held.iter().copied());
    for shard in ShardId::all() {
        let until = match until {
            None => u64::MAX,
            Some(version) => {
                let wanted = version.position(shard);
                // Before the log: rows whose numbers are taken later would be passed unread.
                let position = store.event_position(shard).await.map_err(|source| LogError::Store { shard, source })?;
                let last = (position.arrival_base + position.next_offset).saturating_sub(1);
                if last < wanted {
                    return Err(LogError::TooShort { shard, last, wanted });
                }
                wanted
            }
        };
        read_on(&mut fold, store, shard, until, usize::MAX).await?;
        if until < u64::MAX {
            fold.pass(shard, until);
        }
    }
    Ok(fold)
}

/// Folds what is new in the logs, at most 100,000 events of each. Returns the number of events. It may be cancelled: the fold goes on with the
/// next event.
///
/// # Errors
/// A log cannot be read. The others were folded nevertheless.
pub async fn advance(fold: &mut Fold, store: &Store) -> Result<u64, LogError> {
    let (mut events, mut failed) = (0, None);
    for shard in ShardId::all() {
        match read_on(fold, store, shard, u64::MAX, PAGES_PER_ADVANCE).await {
            Ok(read) => events += read,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(events), Err)
}

/// Folds the log's events after the fold's position, up to the arrival number `until`.
async fn read_on(
    fold: &mut Fold,
    store: &Store,
    shard: ShardId,
    until: u64,
    max_pages: usize,
) -> Result<u64, LogError> {
    let mut events = 0;
    for _ in 0..max_pages {
        let after = fold.version().position(shard);
        if after >= until {
            break;
        }
        let began = Instant::now();
        let page = store.log_after(shard, after, PAGE).await.map_err(|source| LogError::Store { shard, source })?;
        for (n, arrived) in page.iter().enumerate() {
            if arrived.arrival > until {
                return Ok(events);
            }
            events += u64::from(fold.add(&arrived.event, arrived.arrival));
            if n % EVENTS_PER_PAUSE == EVENTS_PER_PAUSE - 1 {
                yield_now().await;
            }
        }
        if page.len() < PAGE {
            break;
        }
        // A long log takes at most an eighth of a core: what serves requests runs beside.
        sleep((began.elapsed() * PAUSE_PER_PAGE).min(LONGEST_PAUSE)).await;
    }
    Ok(events)
}
