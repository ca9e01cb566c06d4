//! Requests that wait for one of a few places: the most critical one is served first; if the queue is full, the one that would be last leaves.

use std::{cmp::Ordering, collections::VecDeque};

use contract::http::Criticality;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Which of the waiting requests of one criticality is served next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueOrder {
    /// Fair. Under lasting overload every request waits for the whole queue.
    Oldest,
    /// Under lasting overload most requests are served at once, and the others time out.
    Newest,
}

/// A bounded queue of `W`, in the order in which they are served.
#[derive(Debug)]
pub struct WaitingQueue<W> {
    order: QueueOrder,
    max: usize,
    /// By criticality, the most critical first; each in order of arrival, so tickets ascend.
    classes: [VecDeque<(u64, W)>; Criticality::ALL.len()],
    len: usize,
    /// Since when there has been a request in it all the time; `None`: it is empty.
    standing_since: Option<Instant>,
    next_ticket: u64,
}

/// A request has a place in the queue.
#[derive(Debug)]
pub struct Entered<W> {
    pub ticket: u64,
    /// Since when the queue has had a request in it all the time.
    pub since: Instant,
    /// The request that gave way to this one.
    pub displaced: Option<W>,
}

impl<W> WaitingQueue<W> {
    pub fn new(order: QueueOrder, max: usize) -> Self {
        let classes = [const { VecDeque::new() }; Criticality::ALL.len()];
        Self { order, max, classes, len: 0, standing_since: None, next_ticket: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `None`: the queue is full, and this request would be served last.
    pub fn enter(&mut self, now: Instant, criticality: Criticality, waiter: W) -> Option<Entered<W>> {
        let displaced = if self.len < self.max { None } else { Some(self.take_last(criticality)?) };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.classes[criticality as usize].push_back((ticket, waiter));
        self.len += 1;
        Some(Entered { ticket, since: *self.standing_since.get_or_insert(now), displaced })
    }

    /// The request that would be served last; `None`: a new one of this criticality would be.
    fn take_last(&mut self, criticality: Criticality) -> Option<W> {
        let least = self.classes.iter().rposition(|class| !class.is_empty())?;
        let (_, last) = match (self.order, least.cmp(&(criticality as usize))) {
            (_, Ordering::Less) | (QueueOrder::Oldest, Ordering::Equal) => None,
            (QueueOrder::Oldest, Ordering::Greater) => self.classes[least].pop_back(),
            (QueueOrder::Newest, _) => self.classes[least].pop_front(),
        }?;
        self.len -= 1;
        Some(last)
    }

    /// The request that is served next.
    pub fn take_next(&mut self) -> Option<W> {
        let class = self.classes.iter_mut().find(|class| !class.is_empty())?;
        let (_, next) = match self.order {
            QueueOrder::Oldest => class.pop_front(),
            QueueOrder::Newest => class.pop_back(),
        }?;
        self.left();
        Some(next)
    }

    /// The request of this ticket stops waiting. `None`: it has left the queue before.
    pub fn leave(&mut self, criticality: Criticality, ticket: u64) -> Option<W> {
        let class = &mut self.classes[criticality as usize];
        let at = class.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
        let (_, waiter) = class.remove(at)?;
        self.left();
        Some(waiter)
    }

    fn left(&mut self) {
        self.len -= 1;
        if self.len == 0 {
            self.standing_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::http::Criticality::{Critical, Default, Sheddable};
    use proptest::prelude::*;

    use super::*;

    /// What leaves the queue: those that give way or are refused at once, then the others as they are served.
    fn served(order: QueueOrder, max: usize, arrivals: &[Criticality]) -> (Vec<usize>, Vec<usize>) {
        let (mut queue, now) = (WaitingQueue::new(order, max), Instant::now());
        let mut refused = Vec::new();
        for (n, criticality) in arrivals.iter().enumerate() {
            match queue.enter(now, *criticality, n) {
                Some(entered) => refused.extend(entered.displaced),
                None => refused.push(n),
            }
        }
        (refused, std::iter::from_fn(|| queue.take_next()).collect())
    }

    #[test]
    fn the_most_critical_is_served_first_and_the_last_one_gives_way() {
        let arrivals = [Sheddable, Default, Critical, Sheddable, Critical];
        assert_eq!(served(QueueOrder::Oldest, 9, &arrivals), (vec![], vec![2, 4, 1, 0, 3]));
        assert_eq!(served(QueueOrder::Newest, 9, &arrivals), (vec![], vec![4, 2, 1, 3, 0]));
        assert_eq!(served(QueueOrder::Oldest, 2, &arrivals), (vec![0, 3, 1], vec![2, 4]));
        assert_eq!(served(QueueOrder::Newest, 2, &arrivals), (vec![0, 3, 1], vec![4, 2]));
        assert_eq!(served(QueueOrder::Oldest, 1, &[Default, Default]), (vec![1], vec![0]));
        assert_eq!(served(QueueOrder::Newest, 1, &[Default, Default]), (vec![0], vec![1]));
        assert_eq!(served(QueueOrder::Newest, 0, &[Critical]), (vec![0], vec![]));
    }

    #[test]
    fn it_stands_from_the_first_request_until_it_is_empty() {
        let (mut queue, start) = (WaitingQueue::new(QueueOrder::Newest, 9), Instant::now());
        let at = |ms| start + std::time::Duration::from_millis(ms);
        let first = queue.enter(at(1), Default, 1).unwrap();
        assert_eq!(first.since, at(1));
        assert_eq!(queue.enter(at(5), Critical, 2).unwrap().since, at(1));
        assert_eq!(queue.take_next(), Some(2));
        assert_eq!(queue.leave(Default, first.ticket), Some(1));
        assert_eq!(queue.leave(Default, first.ticket), None);
        assert_eq!(queue.enter(at(9), Default, 3).unwrap().since, at(9));
    }

    proptest! {
        /// Every request leaves exactly once after any sequence of actions, and the length is right at all times.
        #[test]
        fn no_request_is_lost_or_served_twice(
            newest in any::<bool>(), max in 0..5_usize, actions in prop::collection::vec((0..4_u8, 0..3_usize, 0..20_u64), 0..60)
        ) {
            let order = if newest { QueueOrder::Newest } else { QueueOrder::Oldest };
            let (mut queue, now, mut entered, mut left) = (WaitingQueue::new(order, max), Instant::now(), 0, Vec::new());
            for (action, class, ticket) in actions {
                let criticality = Criticality::ALL[class];
                match action {
                    0 | 1 => match queue.enter(now, criticality, entered) {
                        Some(place) => {
                            entered += 1;
                            left.extend(place.displaced);
                        }
                        None => prop_assert_eq!(queue.len(), max),
                    },
                    2 => left.extend(queue.take_next()),
                    _ => left.extend(queue.leave(criticality, ticket)),
                }
                prop_assert_eq!(queue.len() + left.len(), entered);
                prop_assert!(queue.len() <= max);
            }
            left.extend(std::iter::from_fn(|| queue.take_next()));
            left.sort_unstable();
            prop_assert_eq!(left, (0..entered).collect::<Vec<_>>());
            prop_assert!(queue.is_empty() && queue.standing_since.is_none());
        }
    }
}
