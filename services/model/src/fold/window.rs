//! A user's newest distinct items, as `Features` has them, but with numbers in place of ids.

use contract::ItemId;

use crate::{features::Features, neighbours::strength};

/// An item of the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Visit {
    pub(super) item: u32,
    /// Weight^¼, of the highest weight since the item entered the window.
    pub(super) strength: f32,
    /// Of the item's newest event, Unix ms.
    pub(super) at_ms: i64,
}

/// At most `Features::MAX_ITEMS`, newest first; of the same time, the highest id first.
#[derive(Debug, Clone, Default)]
pub(super) struct Window(Vec<Visit>);

impl Window {
    pub(super) fn visits(&self) -> &[Visit] {
        &self.0
    }

    /// Returns the place of the item if it is new to the window. If it is in the window, it becomes newer and stronger, if the event is.
    /// An event that is older than all items of a full window changes nothing.
    pub(super) fn enter<'a>(
        &mut self,
        item: u32,
        at_ms: i64,
        weight: f32,
        id: impl Fn(u32) -> &'a ItemId,
    ) -> Option<usize> {
        let mut new = Visit { item, strength: strength(weight), at_ms };
        let known = self.0.iter().position(|visit| visit.item == item);
        if let Some(at) = known {
            let known = &mut self.0[at];
            known.strength = known.strength.max(new.strength);
            if at_ms <= known.at_ms {
                return None;
            }
            new.strength = known.strength;
            self.0.remove(at);
        }
        let is_newer = |visit: &Visit| (visit.at_ms, id(visit.item)) > (at_ms, id(item));
        let place = self.0.iter().position(|visit| !is_newer(visit)).unwrap_or(self.0.len());
        if place == Features::MAX_ITEMS {
            return None;
        }
        self.0.truncate(Features::MAX_ITEMS - 1);
        self.0.insert(place, new);
        known.is_none().then_some(place)
    }

    /// For another user.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn renumber(&mut self, number: impl Fn(u32) -> u32) {
        for visit in &mut self.0 {
            visit.item = number(visit.item);
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::EventKind;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_window_of_the_features(events in prop::collection::vec((0_u32..150, 0_i64..200, 1_u16..50), 0..400)) {
            let ids: Vec<ItemId> = (0..150).map(|n| ItemId::new(&n.to_string()).unwrap()).collect();
            let (mut window, mut features) = (Window::default(), Features::default());
            for (item, at_ms, weight) in events {
                let id = &ids[item as usize];
                let before = features.window().any(|(known, _)| known == id.as_str());
                let entered = window.enter(item, at_ms, f32::from(weight), |item| &ids[item as usize]);
                features.fold(id, EventKind::View, at_ms, f32::from(weight));
                let found = features.window().position(|(known, _)| known == id.as_str());
                prop_assert_eq!(entered, if before { None } else { found });
                let ours: Vec<_> = window.visits().iter().map(|v| (ids[v.item as usize].as_str(), v.strength)).collect();
                let theirs: Vec<_> = features.window().map(|(id, weight)| (id, strength(weight))).collect();
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
