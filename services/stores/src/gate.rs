//! Who may use a connection next: `slots` permits, and a bounded line of those who wait for one.
//!
//! sqlx's own pool knows only oldest-first, has no bound on its line, answers an exhausted pool and an unreachable
//! server with the same error, and opens connections for waiters that are gone (launchbadge/sqlx issue 3132).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Who of the waiting is served next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Fair; under lasting overload everybody waits as long as the line is.
    Oldest,
    /// Under lasting overload most are served at once and the rest time out.
    Newest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    #[error("no permit came free within {0:?}")]
    Timeout(Duration),
    #[error("{0} are waiting already")]
    LineFull(usize),
}

/// `T` travels with the permit: whoever holds the permit holds the `T` (an open connection, say).
#[derive(Debug)]
pub struct Gate<T> {
    order: Order,
    max_waiting: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    /// Free permits; the one used last is on top, its connection is the warmest.
    free: Vec<T>,
    /// In order of arrival, so tickets ascend.
    line: VecDeque<Waiter<T>>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiter<T> {
    ticket: u64,
    hand_over: oneshot::Sender<Permit<T>>,
}

/// Gives its `T` back to the gate when dropped.
#[derive(Debug)]
pub struct Permit<T> {
    gate: Arc<Gate<T>>,
    /// `None` only after `drop` or a failed hand-over has taken it.
    held: Option<T>,
}

impl<T> Gate<T> {
    /// One permit for each of `slots`.
    pub fn new(slots: Vec<T>, order: Order, max_waiting: usize) -> Arc<Self> {
        let state = State { free: slots, line: VecDeque::new(), next_ticket: 0 };
        Arc::new(Self { order, max_waiting, state: Mutex::new(state) })
    }

    /// Takes a permit, waiting at most `patience`. Dropping the future leaves the line and costs nothing.
    ///
    /// # Errors
    /// `Timeout` when patience ran out; `LineFull` at once, for whoever would have been served last.
    pub async fn acquire(self: &Arc<Self>, patience: Duration) -> Result<Permit<T>, GateError> {
        let (ticket, handed_over) = {
            let mut state = self.lock();
            if let Some(held) = state.free.pop() {
                return Ok(Permit { gate: Arc::clone(self), held: Some(held) });
            }
            if state.line.len() >= self.max_waiting {
                // Newest-first serves the longest waiting last: that one gives up its place.
                if self.order == Order::Oldest || state.line.pop_front().is_none() {
                    return Err(GateError::LineFull(state.line.len()));
                }
            }
            let (hand_over, handed_over) = oneshot::channel();
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.line.push_back(Waiter { ticket, hand_over });
            (ticket, handed_over)
        };
        // Leaves the line on every way out, cancellation included.
        let _place = Place { gate: self, ticket };
        match tokio::time::timeout(patience, handed_over).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_displaced)) => Err(GateError::LineFull(self.max_waiting)),
            Err(_elapsed) => Err(GateError::Timeout(patience)),
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lock().line.len()
    }

    pub fn free(&self) -> usize {
        self.lock().free.len()
    }

    fn release(self: &Arc<Self>, mut held: T) {
        loop {
            let waiter = {
                let mut state = self.lock();
                let next = match self.order {
                    Order::Oldest => state.line.pop_front(),
                    Order::Newest => state.line.pop_back(),
                };
                match next {
                    Some(waiter) => waiter,
                    None => return state.free.push(held),
                }
            };
            // Outside the lock: a waiter that is gone gives the permit back, and the next one gets it.
            match waiter.hand_over.send(Permit { gate: Arc::clone(self), held: Some(held) }) {
                Ok(()) => return,
                Err(mut permit) => match permit.held.take() {
                    Some(back) => held = back,
                    None => return,
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Place<'a, T> {
    gate: &'a Gate<T>,
    ticket: u64,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        if let Ok(at) = state.line.binary_search_by_key(&self.ticket, |waiter| waiter.ticket) {
            state.line.remove(at);
        }
    }
}

impl<T> std::ops::Deref for Permit<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.held.as_ref().expect("only drop takes it")
    }
}
impl<T> std::ops::DerefMut for Permit<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("only drop takes it")
    }
}
impl<T> Drop for Permit<T> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.gate.release(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn waiting(gate: &Gate<u32>, n: usize) {
        while gate.waiting() != n {
            tokio::task::yield_now().await;
        }
    }

    /// Three wait behind one permit; in which order are they served?
    async fn order_served(order: Order) -> Vec<u32> {
        let gate = Gate::new(vec![0], order, 10);
        let first = gate.acquire(LONG).await.unwrap();
        let (done, mut served) = tokio::sync::mpsc::channel(3);
        for n in 0..3 {
            let (task_gate, done) = (Arc::clone(&gate), done.clone());
            tokio::spawn(async move {
                let _permit = task_gate.acquire(LONG).await.unwrap();
                done.send(n).await.unwrap();
            });
            waiting(&gate, n as usize + 1).await;
        }
        drop(first);
        let mut got = Vec::new();
        for _ in 0..3 {
            got.push(served.recv().await.unwrap());
        }
        got
    }

    #[tokio::test]
    async fn serves_oldest_or_newest_first() {
        assert_eq!(order_served(Order::Oldest).await, [0, 1, 2]);
        assert_eq!(order_served(Order::Newest).await, [2, 1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_when_patience_runs_out_and_leaves_the_line() {
        let gate = Gate::new(vec![0], Order::Newest, 10);
        let _held = gate.acquire(LONG).await.unwrap();
        let started = tokio::time::Instant::now();
        let error = gate.acquire(Duration::from_millis(2900)).await.unwrap_err();
        assert_eq!(error, GateError::Timeout(Duration::from_millis(2900)));
        assert_eq!(started.elapsed().as_millis(), 2900);
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test]
    async fn a_full_line_refuses_whoever_would_be_last() {
        for order in [Order::Oldest, Order::Newest] {
            let gate = Gate::new(vec![0], order, 1);
            let held = gate.acquire(LONG).await.unwrap();
            let early = tokio::spawn({
                let gate = Arc::clone(&gate);
                async move { gate.acquire(LONG).await.map(drop) }
            });
            waiting(&gate, 1).await;
            let late = tokio::spawn({
                let gate = Arc::clone(&gate);
                async move { gate.acquire(LONG).await.map(drop) }
            });
            let (refused, served) = if order == Order::Oldest { (late, early) } else { (early, late) };
            assert_eq!(refused.await.unwrap(), Err(GateError::LineFull(1)), "{order:?}");
            drop(held);
            assert_eq!(served.await.unwrap(), Ok(()), "{order:?}");
        }
    }

    /// Thousands of waiters give up at random moments while permits change hands: none is lost, none is doubled.
    #[tokio::test]
    async fn permits_survive_cancellation_storms() {
        for order in [Order::Oldest, Order::Newest] {
            let gate = Gate::new(vec![1, 2, 3], order, 100_000);
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..5_000_u64 {
                let gate = Arc::clone(&gate);
                tasks.spawn(async move {
                    let attempt = gate.acquire(Duration::from_micros(n % 700));
                    if let Ok(Ok(permit)) = tokio::time::timeout(Duration::from_micros(n % 500), attempt).await {
                        tokio::task::yield_now().await;
                        drop(permit);
                    }
                });
            }
            tasks.join_all().await;
            assert_eq!((gate.waiting(), gate.free()), (0, 3), "{order:?}");
            let mut all: Vec<u32> = Vec::new();
            let mut held = Vec::new();
            for _ in 0..3 {
                let permit = gate.acquire(LONG).await.unwrap();
                all.push(*permit);
                held.push(permit);
            }
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3]);
        }
    }
}
