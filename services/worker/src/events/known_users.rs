//! The features of a partition's users in memory, so that a task does not read and decode them for each batch.
//!
//! They equal the rows of the store: only the owner of the partition folds events into rows, and a batch is refused if a row has been
//! deleted meanwhile (`stores::BatchRefused::Features`). The task then begins anew, with nothing in memory.

use contract::UserId;
use foldhash::quality::RandomState;
use quick_cache::{
    Weighter,
    unsync::{Cache, DefaultLifecycle},
};

use super::fold::FoldedUser;

/// Of a partition. A worker has at most 16 of them, so at most 32 MiB.
const MAX_BYTES: u64 = 2 << 20;
/// Of a user, without the features.
const USER_BYTES: u64 = 192;

#[derive(Clone)]
struct ByBytes;

impl Weighter<UserId, FoldedUser> for ByBytes {
    fn weight(&self, _id: &UserId, user: &FoldedUser) -> u64 {
        USER_BYTES + user.features.encode().len() as u64
    }
}

pub struct KnownUsers(Cache<UserId, FoldedUser, ByBytes, RandomState>);

impl KnownUsers {
    pub fn new() -> Self {
        let users = (MAX_BYTES / USER_BYTES / 2) as usize;
        Self(Cache::with(users, MAX_BYTES, ByBytes, RandomState::default(), DefaultLifecycle::default()))
    }

    /// Takes the user out: a batch that is not written must not leave its features here.
    pub fn take(&mut self, user_id: &UserId) -> Option<FoldedUser> {
        self.0.remove(user_id).map(|(_id, user)| user)
    }

    pub fn get(&self, user_id: &UserId) -> Option<&FoldedUser> {
        self.0.get(user_id)
    }

    /// `user`: as the store has it. Others are dropped if there is no room.
    pub fn put(&mut self, user_id: UserId, user: FoldedUser) {
        self.0.insert(user_id, user);
    }
}

#[cfg(test)]
mod tests {
    use contract::{EventKind, ItemId};

    use super::*;

    #[test]
    fn the_memory_is_bounded_and_a_user_that_was_taken_is_gone() {
        let mut known = KnownUsers::new();
        let mut user = FoldedUser::default();
        for n in 0..100 {
            user.features.fold(&ItemId::new(&format!("i{n}")).unwrap(), EventKind::View, n, 1.0);
        }
        let id = |n: u64| UserId::new(&format!("u{n}")).unwrap();
        let bytes = USER_BYTES as usize + user.features.encode().len();
        for n in 0..5_000 {
            known.put(id(n), FoldedUser { arrival: n, ..user.clone() });
        }
        let kept = (0..5_000).filter(|n| known.get(&id(*n)).is_some_and(|user| user.arrival == *n));
        let kept: Vec<u64> = kept.collect();
        let room = MAX_BYTES as usize / bytes;
        assert!((room / 2..=room).contains(&kept.len()), "{} of {room}", kept.len());
        let one = id(kept[0]);
        assert_eq!(known.take(&one).map(|user| user.arrival), Some(kept[0]));
        assert_eq!((known.take(&one), known.get(&one)), (None, None));
    }
}
