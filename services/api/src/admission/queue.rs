//! The requests in flight and those that wait. The most critical one is admitted first; if the queue is full, the one that would be last is refused.

use std::collections::VecDeque;

use contract::http::Criticality;
use tokio::{sync::oneshot, time::Instant};

use crate::policies::QueueOrder;

/// Bounded by the limit and by `max_waiting`.
#[derive(Debug)]
pub struct Queue {
    limit: usize,
    in_flight: usize,
    order: QueueOrder,
    max_waiting: usize,
    /// By criticality, the most critical first; each in order of arrival, so tickets ascend.
    waiting: [VecDeque<Waiter>; Criticality::ALL.len()],
    /// Since when a request has been waiting all the time; `None`: none waits.
    standing_since: Option<Instant>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    answer: oneshot::Sender<Answer>,
}

/// The end of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Admitted,
    /// A request that comes before it has taken its place.
    Displaced,
}

/// What an arriving request does.
#[derive(Debug)]
pub enum Arrival {
    Admitted,
    /// The queue is full.
    Refused,
    Waits {
        ticket: u64,
        answer: oneshot::Receiver<Answer>,
        /// Since when the queue has had a request in it all the time.
        since: Instant,
    },
}

impl Queue {
    pub fn new(limit: usize, order: QueueOrder, max_waiting: usize) -> Self {
        let waiting = [const { VecDeque::new() }; Criticality::ALL.len()];
        Self { limit, in_flight: 0, order, max_waiting, waiting, standing_since: None, next_ticket: 0 }
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn arrive(&mut self, now: Instant, criticality: Criticality) -> Arrival {
        if self.in_flight < self.limit {
            self.in_flight += 1;
            return Arrival::Admitted;
        }
        let waiting: usize = self.waiting.iter().map(VecDeque::len).sum();
        if waiting >= self.max_waiting && !self.displaces(criticality) {
            return Arrival::Refused;
        }
        let (sender, answer) = oneshot::channel();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting[criticality as usize].push_back(Waiter { ticket, answer: sender });
        let since = *self.standing_since.get_or_insert(now);
        Arrival::Waits { ticket, answer, since }
    }

    /// Makes room for a request: refuses the one that would be admitted last. `false`: the new one would be.
    fn displaces(&mut self, criticality: Criticality) -> bool {
        let Some(least) = self.waiting.iter().rposition(|class| !class.is_empty()) else { return false };
        let last = match (self.order, least.cmp(&(criticality as usize))) {
            (_, std::cmp::Ordering::Less) | (QueueOrder::Oldest, std::cmp::Ordering::Equal) => return false,
            (QueueOrder::Oldest, std::cmp::Ordering::Greater) => self.waiting[least].pop_back(),
            (QueueOrder::Newest, _) => self.waiting[least].pop_front(),
        };
        if let Some(waiter) = last {
            // Fails only if nobody waits for the answer.
            waiter.answer.send(Answer::Displaced).ok();
        }
        true
    }

    /// A request in flight has ended; from now on this is the limit.
    pub fn end(&mut self, limit: usize) {
        self.limit = limit;
        self.in_flight -= 1;
        self.admit();
    }

    /// Admits as many of the waiting requests as the limit permits.
    fn admit(&mut self) {
        while self.in_flight < self.limit {
            let Some(class) = self.waiting.iter_mut().find(|class| !class.is_empty()) else { break };
            let next = match self.order {
                QueueOrder::Oldest => class.pop_front(),
                QueueOrder::Newest => class.pop_back(),
            };
            let admitted = next.is_some_and(|waiter| waiter.answer.send(Answer::Admitted).is_ok());
            self.in_flight += usize::from(admitted);
        }
        self.note_if_empty();
    }

    /// A request stops waiting before it has received its answer.
    pub fn leave(&mut self, criticality: Criticality, ticket: u64, answer: &mut oneshot::Receiver<Answer>) {
        let class = &mut self.waiting[criticality as usize];
        if let Ok(at) = class.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            class.remove(at);
            self.note_if_empty();
        } else if answer.try_recv() == Ok(Answer::Admitted) {
            // Admitted in the same moment.
            self.end(self.limit);
        }
    }

    fn note_if_empty(&mut self) {
        if self.waiting.iter().all(VecDeque::is_empty) {
            self.standing_since = None;
        }
    }
}
