//! Step 1: lists in this process's memory, before Redis (`cache.local_ms`). The response body for the default limit is stored ready-made.

use bytes::Bytes;
use contract::{UserId, http::Source};
use lists::RankedList;
use quick_cache::sync::Cache;

use super::response::body;
use crate::limits::DEFAULT_LIMIT;

/// About 2 kB per list. The least used lists are evicted first.
pub struct Local {
    lists: Cache<UserId, LocalEntry>,
    keep_ms: u64,
}

#[derive(Clone)]
struct LocalEntry {
    list: RankedList,
    /// The response body for the default limit.
    body: Bytes,
    /// Unix ms, checked on each read. Expired lists stay until they are evicted: their number is bounded.
    until_ms: u64,
}

impl Local {
    pub fn new(items: usize, keep_ms: u64) -> Self {
        Self { lists: Cache::new(items), keep_ms }
    }

    /// Keeps the list for `keep_ms`, but not after it stops being fresh.
    pub fn keep(&self, user_id: &UserId, list: &RankedList, now_ms: u64) {
        let until_ms = list.fresh_until_ms().min(now_ms.saturating_add(self.keep_ms));
        let body = body(Source::Cache, user_id.as_str(), list, DEFAULT_LIMIT).into();
        self.lists.insert(user_id.clone(), LocalEntry { list: list.clone(), body, until_ms });
    }

    pub fn forget(&self, user_id: &str) {
        self.lists.remove(user_id);
    }

    pub fn list(&self, user_id: &str, limit: usize, now_ms: u64) -> Option<RankedList> {
        self.get(user_id, limit, now_ms).map(|kept| kept.list)
    }

    pub fn response_body(&self, user_id: &str, limit: usize, now_ms: u64) -> Option<Bytes> {
        let kept = self.get(user_id, limit, now_ms)?;
        Some(match limit {
            DEFAULT_LIMIT => kept.body,
            _ => body(Source::Cache, user_id, &kept.list, limit).into(),
        })
    }

    fn get(&self, user_id: &str, limit: usize, now_ms: u64) -> Option<LocalEntry> {
        self.lists.get(user_id).filter(|kept| now_ms < kept.until_ms && kept.list.answers(limit))
    }
}

#[cfg(test)]
mod tests {
    use contract::ItemId;

    use super::*;

    fn list(items: usize, fresh_until_ms: u64) -> RankedList {
        let ids: Vec<ItemId> = (0..items).map(|n| ItemId::new(&format!("i{n}")).unwrap()).collect();
        RankedList::encode(ids.iter().map(|id| (id, 0.5)), false, 3, fresh_until_ms, 0)
    }

    #[test]
    fn a_list_is_kept_for_its_time_and_no_longer_than_it_is_fresh() {
        let (user, local) = (UserId::new("u").unwrap(), Local::new(10, 100));
        local.keep(&user, &list(30, 1_050), 1_000);
        assert!(local.list("u", 30, 1_049).is_some() && local.list("u", 30, 1_050).is_none());
        assert!(local.list("u", 31, 1_000).is_none(), "it does not hold as many");
        local.keep(&user, &list(30, u64::MAX), 1_000);
        assert!(local.list("u", 30, 1_099).is_some() && local.list("u", 30, 1_100).is_none());
        local.forget("u");
        assert!(local.list("u", 1, 1_000).is_none());
    }

    #[test]
    fn the_stored_body_equals_a_new_one() {
        let (user, local) = (UserId::new("u\"1").unwrap(), Local::new(10, 100));
        local.keep(&user, &list(30, u64::MAX), 0);
        for limit in [1, DEFAULT_LIMIT, 30] {
            let expected = body(Source::Cache, "u\"1", &list(30, 0), limit);
            assert_eq!(local.response_body("u\"1", limit, 0).unwrap(), expected, "{limit}");
        }
        assert!(local.response_body("other", 1, 0).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let local = Local::new(100, 1_000);
        for n in 0..5_000 {
            local.keep(&UserId::new(&format!("u{n}")).unwrap(), &list(1, u64::MAX), 0);
        }
        let left = (0..5_000).filter(|n| local.list(&format!("u{n}"), 1, 0).is_some()).count();
        assert!((1..=200).contains(&left), "{left}");
    }
}
