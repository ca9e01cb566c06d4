//! Folds the 16 logs of the store. A fold depends only on the version up to which it has read, not on its reader, nor on when and how often it
//! read: so any worker can make any segment of any version again.

use std::time::Duration;

use contract::{SegmentId, ShardId, VersionVector};
use model::Fold;
use runtime::background::{self, Panicked};
use stores::{ArrivedEvent, Store, StoreError};
use tokio::time::{Instant, sleep};

/// Events per read of a log: about 75 KiB, and a millisecond of the store's time.
const PAGE: usize = 500;
/// Reads of a log per `advance`, so that it ends also while events arrive faster than it folds them.
const PAGES_PER_ADVANCE: usize = 200;
/// Between two pages of a log, in times of a page.
const PAUSE_PER_PAGE: u32 = 7;
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// A page of more events is folded by a thread of lower priority. Each event adds up to 100 pairs: a page takes milliseconds.
const FOLDED_AT_ONCE: usize = 50;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot read the log of shard {}", shard.index())]
    Store { shard: ShardId, source: StoreError },
    /// The version is of another store, or this store has lost events.
    #[error("the log of shard {} has arrival numbers up to {last}, the version goes up to {wanted}", shard.index())]
    TooShort { shard: ShardId, last: u64, wanted: u64 },
    #[error("the fold is lost")]
    Lost(#[from] Panicked),
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
        let read;
        (fold, read) = read_on(fold, store, shard, until, usize::MAX).await?;
        read?;
        if until < u64::MAX {
            fold.pass(shard, until);
        }
    }
    Ok(fold)
}

/// Folds what is new in the logs, at most 100,000 events of each. An error beside the fold is the first of the store's: the other logs were
/// folded nevertheless.
///
/// # Errors
/// The fold is lost: folding panicked. It is lost too if the future is dropped.
pub async fn advance(mut fold: Fold, store: &Store) -> Result<(Fold, Result<(), LogError>), Panicked> {
    let mut all = Ok(());
    for shard in ShardId::all() {
        let read;
        (fold, read) = read_on(fold, store, shard, u64::MAX, PAGES_PER_ADVANCE).await?;
        all = all.and(read);
    }
    Ok((fold, all))
}

/// Folds the log's events after the fold's position, up to the arrival number `until`. An error beside the fold is the store's.
async fn read_on(
    mut fold: Fold,
    store: &Store,
    shard: ShardId,
    until: u64,
    max_pages: usize,
) -> Result<(Fold, Result<(), LogError>), Panicked> {
    for _ in 0..max_pages {
        let after = fold.version().position(shard);
        if after >= until {
            break;
        }
        let began = Instant::now();
        let mut page = match store.log_after(shard, after, PAGE).await {
            Ok(page) => page,
            Err(source) => return Ok((fold, Err(LogError::Store { shard, source }))),
        };
        page.retain(|arrived| arrived.arrival <= until);
        let is_last = page.len() < PAGE;
        fold = add(fold, page).await?;
        if is_last {
            break;
        }
        // A long log takes at most an eighth of a core: what serves requests runs beside.
        sleep((began.elapsed() * PAUSE_PER_PAGE).min(LONGEST_PAUSE)).await;
    }
    Ok((fold, Ok(())))
}

async fn add(mut fold: Fold, page: Vec<ArrivedEvent>) -> Result<Fold, Panicked> {
    let is_short = page.len() <= FOLDED_AT_ONCE;
    let add = move || {
        for ArrivedEvent { event, arrival } in &page {
            fold.add(event, *arrival);
        }
        fold
    };
    if is_short { Ok(add()) } else { background::run(add).await }
}
