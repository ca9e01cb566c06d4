//! The requests in flight and those that wait. The most critical one is admitted first; if the queue is full, the one that would be last is refused.

use contract::http::Criticality;
use stores::WaitingQueue;
use tokio::{sync::oneshot, time::Instant};

use crate::policies::QueueOrder;

/// Bounded by the limit and by `max_waiting`.
#[derive(Debug)]
pub struct Queue {
    limit: usize,
    in_flight: usize,
    waiting: WaitingQueue<oneshot::Sender<Answer>>,
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
        Self { limit, in_flight: 0, waiting: WaitingQueue::new(order, max_waiting) }
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn arrive(&mut self, now: Instant, criticality: Criticality) -> Arrival {
        if self.in_flight < self.limit {
            self.in_flight += 1;
            return Arrival::Admitted;
        }
        let (sender, answer) = oneshot::channel();
        let Some(entered) = self.waiting.enter(now, criticality, sender) else { return Arrival::Refused };
        if let Some(displaced) = entered.displaced {
            // Fails only if the request has left.
            displaced.send(Answer::Displaced).ok();
        }
        Arrival::Waits { ticket: entered.ticket, answer, since: entered.since }
    }

    /// A request in flight has ended; from now on this is the limit.
    pub fn end(&mut self, limit: usize) {
        self.limit = limit;
        self.in_flight -= 1;
        self.admit();
    }

    /// Admits as many of the waiting requests as the limit permits.
    fn admit(&mut self) {
        while self.in_flight < self.limit
            && let Some(next) = self.waiting.take_next()
        {
            self.in_flight += usize::from(next.send(Answer::Admitted).is_ok());
        }
    }

    /// A request stops waiting before it has received its answer.
    pub fn leave(&mut self, criticality: Criticality, ticket: u64, answer: &mut oneshot::Receiver<Answer>) {
        if self.waiting.leave(criticality, ticket).is_none() && answer.try_recv() == Ok(Answer::Admitted) {
            // Admitted in the same moment.
            self.end(self.limit);
        }
    }
}
