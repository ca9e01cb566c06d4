//! Behaviour data with interned ids, the input of all later steps.

use std::collections::HashMap;

use contract::{EventKind, IdError, ItemId, UserId};

/// An event. `user` and `item` are indices of `Dataset::users` and `Dataset::items`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interaction {
    pub user: u32,
    pub item: u32,
    pub kind: EventKind,
    /// Unix time in milliseconds.
    pub at_ms: i64,
    /// > 0 and finite.
    pub weight: f32,
}

/// 24 bytes per event, because each id is stored once. `DatasetBuilder` keeps users, items and events in order of first appearance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dataset {
    pub users: Vec<UserId>,
    pub items: Vec<ItemId>,
    pub events: Vec<Interaction>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    #[error("the user id {0}")]
    User(IdError),
    #[error("the item id {0}")]
    Item(IdError),
    #[error("the weight is not a finite number above 0")]
    Weight,
    #[error("more than 4,294,967,295 different ids")]
    TooMany,
}

/// Builds a dataset from events in any order, and interns their ids.
#[derive(Debug, Default)]
pub struct DatasetBuilder {
    data: Dataset,
    users: HashMap<UserId, u32>,
    items: HashMap<ItemId, u32>,
}

impl DatasetBuilder {
    /// # Errors
    /// An id or the weight is invalid. Nothing is added then.
    pub fn push(&mut self, user: &str, item: &str, kind: EventKind, at_ms: i64, weight: f32) -> Result<(), PushError> {
        if !(weight.is_finite() && weight > 0.0) {
            return Err(PushError::Weight);
        }
        // Both ids are checked before either is interned: a bad row must not add a user without events.
        let new_user = match self.users.get(user) {
            Some(_) => None,
            None => Some(UserId::new(user).map_err(PushError::User)?),
        };
        let item = match self.items.get(item) {
            Some(&known) => known,
            None => {
                let id = ItemId::new(item).map_err(PushError::Item)?;
                let next = u32::try_from(self.data.items.len()).map_err(|_| PushError::TooMany)?;
                self.data.items.push(id.clone());
                self.items.insert(id, next);
                next
            }
        };
        let user = match new_user {
            None => self.users[user],
            Some(id) => {
                let next = u32::try_from(self.data.users.len()).map_err(|_| PushError::TooMany)?;
                self.data.users.push(id.clone());
                self.users.insert(id, next);
                next
            }
        };
        self.data.events.push(Interaction { user, item, kind, at_ms, weight });
        Ok(())
    }

    /// Keeps the first of several events with equal (user, item, kind, time), the primary key of the behaviour log. Returns the number of
    /// dropped events.
    pub fn finish(self) -> (Dataset, u64) {
        let mut data = self.data;
        let dropped = data.drop_duplicates();
        (data, dropped)
    }
}

impl Dataset {
    fn drop_duplicates(&mut self) -> u64 {
        let events = &self.events;
        let key = |at: usize| {
            let e = &events[at];
            (e.user, e.item, e.kind, e.at_ms)
        };
        // Sorted positions need a third of the memory of a set of keys.
        let mut order: Vec<usize> = (0..events.len()).collect();
        order.sort_unstable_by_key(|&at| (key(at), at));
        let repeats: Vec<usize> =
            order.windows(2).filter(|pair| key(pair[0]) == key(pair[1])).map(|pair| pair[1]).collect();
        if repeats.is_empty() {
            return 0;
        }
        let mut keep = vec![true; events.len()];
        for &at in &repeats {
            keep[at] = false;
        }
        let mut kept = keep.into_iter();
        self.events.retain(|_| kept.next().expect("one flag per event"));
        repeats.len() as u64
    }

    /// Positions of the events, user by user, each user's in order of time, item and kind. The model is folded in this order, which does not
    /// depend on the order of the dataset.
    pub fn in_order_of_time(&self) -> Vec<usize> {
        // Each id is compared once per event otherwise.
        let mut by_id: Vec<u32> = (0..).take(self.items.len()).collect();
        by_id.sort_unstable_by_key(|&item| &self.items[item as usize]);
        let mut rank = vec![0_u32; by_id.len()];
        for (place, item) in (0..).zip(by_id) {
            rank[item as usize] = place;
        }
        let mut lines = self.by_user();
        for range in lines.starts.windows(2) {
            lines.order[range[0]..range[1]].sort_unstable_by_key(|&at| {
                let e = &self.events[at];
                (e.at_ms, rank[e.item as usize], e.kind)
            });
        }
        lines.order
    }

    /// Each user's events, in the order of the dataset.
    pub(crate) fn by_user(&self) -> Timelines {
        let mut starts = vec![0_usize; self.users.len() + 1];
        for e in &self.events {
            starts[e.user as usize + 1] += 1;
        }
        for user in 0..self.users.len() {
            starts[user + 1] += starts[user];
        }
        let mut next = starts.clone();
        let mut order = vec![0_usize; self.events.len()];
        for (at, e) in self.events.iter().enumerate() {
            let slot = &mut next[e.user as usize];
            order[*slot] = at;
            *slot += 1;
        }
        Timelines { starts, order }
    }

    /// Each user's events, oldest first; events of the same millisecond stay in input order.
    pub fn timelines(&self) -> Timelines {
        let mut lines = self.by_user();
        for range in lines.starts.windows(2) {
            lines.order[range[0]..range[1]].sort_by_key(|&at| self.events[at].at_ms);
        }
        lines
    }
}

/// Positions in `Dataset::events`, grouped by user.
#[derive(Debug)]
pub struct Timelines {
    starts: Vec<usize>,
    order: Vec<usize>,
}

impl Timelines {
    /// Positions in `Dataset::events` of one user's events.
    pub fn of(&self, user: u32) -> &[usize] {
        let user = user as usize;
        &self.order[self.starts[user]..self.starts[user + 1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_event_leaves_no_ids_behind() {
        let mut b = DatasetBuilder::default();
        assert_eq!(b.push("u", "", EventKind::View, 0, 1.0), Err(PushError::Item(IdError::Empty)));
        assert_eq!(b.push("", "i", EventKind::View, 0, 1.0), Err(PushError::User(IdError::Empty)));
        assert_eq!(b.push("u", "i", EventKind::View, 0, f32::NAN), Err(PushError::Weight));
        assert_eq!(b.push("u", "i", EventKind::View, 0, 0.0), Err(PushError::Weight));
        assert_eq!(b.finish(), (Dataset::default(), 0));
    }

    #[test]
    fn the_first_of_equal_events_stays() {
        let mut b = DatasetBuilder::default();
        for (item, kind, at, weight) in [
            ("a", EventKind::View, 5, 1.0),
            ("b", EventKind::View, 5, 1.0),
            ("a", EventKind::View, 5, 9.0),
            ("a", EventKind::Cart, 5, 2.0),
            ("a", EventKind::View, 6, 1.0),
        ] {
            b.push("u", item, kind, at, weight).unwrap();
        }
        let (data, dropped) = b.finish();
        assert_eq!(dropped, 1);
        let left: Vec<_> = data.events.iter().map(|e| (e.item, e.kind, e.at_ms, e.weight)).collect();
        assert_eq!(
            left,
            [
                (0, EventKind::View, 5, 1.0),
                (1, EventKind::View, 5, 1.0),
                (0, EventKind::Cart, 5, 2.0),
                (0, EventKind::View, 6, 1.0)
            ]
        );
    }

    #[test]
    fn the_order_of_time_does_not_depend_on_the_input() {
        let mut rows = [
            ("u", "b", EventKind::View, 3),
            ("v", "x", EventKind::View, 1),
            ("u", "a", EventKind::Cart, 3),
            ("u", "z", EventKind::View, 2),
            ("u", "a", EventKind::View, 3),
        ];
        for _ in 0..2 {
            let mut b = DatasetBuilder::default();
            b.push("u", "first", EventKind::View, 0, 1.0).unwrap();
            rows.iter().for_each(|&(user, item, kind, at)| b.push(user, item, kind, at, 1.0).unwrap());
            let (data, _) = b.finish();
            let order = data.in_order_of_time().into_iter().map(|at| {
                let e = &data.events[at];
                (data.items[e.item as usize].as_str(), e.kind)
            });
            let (view, cart) = (EventKind::View, EventKind::Cart);
            let expected = [("first", view), ("z", view), ("a", view), ("a", cart), ("b", view), ("x", view)];
            assert_eq!(order.collect::<Vec<_>>(), expected);
            rows.reverse();
        }
    }

    #[test]
    fn timelines_are_by_time_then_by_input() {
        let mut b = DatasetBuilder::default();
        for (user, item, at) in [("u", "late", 9), ("v", "x", 1), ("u", "first", 3), ("u", "second", 3)] {
            b.push(user, item, EventKind::View, at, 1.0).unwrap();
        }
        let (data, _) = b.finish();
        let lines = data.timelines();
        assert_eq!(lines.of(0), [2, 3, 0]);
        assert_eq!(lines.of(1), [1]);
    }
}
