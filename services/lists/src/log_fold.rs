//! Folds the logs of the store into the model: from their start, up to a version, and what is new in them.

use contract::{SegmentId, ShardId, VersionVector};
use model::Fold;
use stores::{Store, StoreError};

/// Rows of one read. Folding a page takes milliseconds, after which other tasks of the thread go on.
const ROWS_PER_PAGE: usize = 2_000;

/// Folds all 16 logs from their start; with `until` up to this version, if the logs have it: the fold's version says how far it is.
///
/// # Errors
/// As `Store::history`.
pub async fn fold_log(store: &Store, held: &[SegmentId], until: Option<VersionVector>) -> Result<Fold, StoreError> {
    let mut fold = Fold::new(held.iter().copied());
    read(&mut fold, store, until.as_ref()).await?;
    Ok(fold)
}

/// Folds what is new in the logs; returns the number of events.
///
/// # Errors
/// As `Store::history`. What was read before stays folded.
pub async fn advance(fold: &mut Fold, store: &Store) -> Result<u64, StoreError> {
    read(fold, store, None).await
}

async fn read(fold: &mut Fold, store: &Store, until: Option<&VersionVector>) -> Result<u64, StoreError> {
    let mut events = 0;
    for shard in ShardId::all() {
        loop {
            let page = store.log_after(shard, fold.version().position(shard), ROWS_PER_PAGE).await?;
            let is_last = page.len() < ROWS_PER_PAGE;
            let last = until.map_or(u64::MAX, |until| until.position(shard));
            let mut is_beyond = false;
            for row in page {
                is_beyond = row.arrival > last;
                if is_beyond {
                    break;
                }
                events += u64::from(fold.add(&row.event, row.arrival));
            }
            if is_last || is_beyond {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    Ok(events)
}
