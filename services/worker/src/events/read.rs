//! Step 6: the features of users as the store has them.

use std::error::Error;

use contract::{ShardId, UserId};
use model::Features;
use stores::{Store, StoreError, StoredFeatures, Turn};

use super::fold::{FoldedUser, UserMap};

/// Without a row, or if it cannot be decoded, features are folded from the log. Users without events are left out.
///
/// # Errors
/// As `Store::history`.
pub async fn read_users(store: &Store, shard: ShardId, users: &[UserId]) -> Result<UserMap<FoldedUser>, StoreError> {
    let rows = store.features_of(shard, users, Turn::default()).await?;
    let mut read: UserMap<FoldedUser> = rows.iter().filter_map(decoded).collect();
    let missing: Vec<UserId> = users.iter().filter(|user| !read.contains_key(*user)).cloned().collect();
    for (user_id, history) in store.whole_histories(shard, &missing).await? {
        let mut user = FoldedUser { stored: rows.contains_key(&user_id), ..FoldedUser::default() };
        for event in &history {
            user.features.fold(&event.item_id, event.kind, event.at_ms, event.weight);
        }
        read.insert(user_id, user);
    }
    Ok(read)
}

/// `None`: not decodable, which is reported. The features are then folded from the log.
pub fn decoded((user_id, row): (&UserId, &StoredFeatures)) -> Option<(UserId, FoldedUser)> {
    match Features::decode(&row.bytes) {
        Ok(features) => Some((user_id.clone(), FoldedUser { features, arrival: row.arrival, added: 0, stored: true })),
        Err(error) => {
            tracing::error!(error = &error as &dyn Error, %user_id, "the features are not readable: folding the log again");
            None
        }
    }
}
