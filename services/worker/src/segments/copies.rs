//! What this worker has of each segment, as it was last read from the disk, for the reports to all monitors.

use std::collections::VecDeque;

use contract::{SEGMENTS, SegmentId};
use segments::{
    CopyReport,
    rpc::{Finished, OrderId},
};
use tokio::sync::watch;

/// Orders that have ended. A monitor that misses one forgets the order after a while.
const MAX_FINISHED: usize = 64;

/// Every change gets a number, so that each monitor is told what it does not know yet.
#[derive(Debug)]
pub struct Copies(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    change: u64,
    copies: [(u64, Option<CopyReport>); SEGMENTS as usize],
    finished: VecDeque<(u64, Finished)>,
}

/// What has changed.
#[derive(Debug, Default)]
pub struct News {
    /// Number of the last change.
    pub change: u64,
    pub copies: Vec<(SegmentId, Option<CopyReport>)>,
    pub finished: Vec<Finished>,
}

impl Default for Copies {
    fn default() -> Self {
        Self(watch::Sender::new(State::default()))
    }
}

impl Copies {
    pub fn set(&self, segment: SegmentId, copy: Option<CopyReport>) {
        self.0.send_if_modified(|state| {
            let is_new = state.copies[segment.index()].1 != copy;
            if is_new {
                state.change += 1;
                state.copies[segment.index()] = (state.change, copy);
            }
            is_new
        });
    }

    pub fn get(&self, segment: SegmentId) -> Option<CopyReport> {
        self.0.borrow().copies[segment.index()].1.clone()
    }

    pub fn finish(&self, finished: Finished) {
        self.0.send_modify(|state| {
            state.change += 1;
            let change = state.change;
            state.finished.push_back((change, finished));
            if state.finished.len() > MAX_FINISHED {
                state.finished.pop_front();
            }
        });
    }

    /// Whether this order ended a short time ago.
    pub fn is_finished(&self, order: OrderId) -> bool {
        self.0.borrow().finished.iter().any(|(_, finished)| finished.order == order)
    }

    /// What has changed after this change; after 0: all copies that are there.
    pub fn since(&self, change: u64) -> News {
        let state = self.0.borrow();
        let is_new = |at: u64| at > change;
        let copies = SegmentId::all().zip(&state.copies).filter(|(_, (at, _))| is_new(*at));
        let finished = state.finished.iter().filter(|(at, _)| is_new(*at));
        News {
            change: state.change,
            copies: copies.map(|(segment, (_, copy))| (segment, copy.clone())).collect(),
            finished: finished.map(|(_, finished)| finished.clone()).collect(),
        }
    }

    /// Returns when there is a change after this one.
    pub async fn changed(&self, change: u64) {
        // The sender lives as long as `self`.
        self.0.subscribe().wait_for(|state| state.change > change).await.map(drop).ok();
    }
}

#[cfg(test)]
mod tests {
    use segments::CopyState;

    use super::*;

    #[test]
    fn each_monitor_is_told_what_it_does_not_know() {
        let copies = Copies::default();
        let [one, two] = [1, 2].map(|number| SegmentId::new(number).unwrap());
        let bad = CopyState { manifest: None, blocks: vec![None] };
        let damaged = || Some(CopyReport { current: Some(bad.clone()), staged: None });
        copies.set(one, damaged());
        let first = copies.since(0);
        assert_eq!((first.change, first.copies.len()), (1, 1));
        copies.set(one, damaged());
        assert_eq!(copies.since(0).change, 1, "nothing has changed");
        copies.set(two, damaged());
        copies.set(one, None);
        copies.finish(Finished { order: 7, ..Finished::default() });
        let second = copies.since(first.change);
        assert_eq!(second.copies, [(one, None), (two, damaged())]);
        assert_eq!((second.finished[0].order, copies.since(second.change).copies.len()), (7, 0));
        for order in 0..100 {
            copies.finish(Finished { order, ..Finished::default() });
        }
        assert_eq!(copies.since(0).finished.len(), MAX_FINISHED);
    }
}
