//! A semaphore whose permits carry a value, with a bounded queue in oldest-first or newest-first order.
//!
//! sqlx's pool is always oldest-first, has no bound on its queue, reports an exhausted pool and an unreachable server as the same error, and
//! opens connections for waiters that have left (launchbadge/sqlx issue 3132).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Which waiting request is served next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueOrder {
    /// Fair. Under lasting overload every request waits for the whole queue.
    Oldest,
    /// Under lasting overload most requests are served at once, and the others time out.
    Newest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    #[error("no permit came free within {0:?}")]
    Timeout(Duration),
    #[error("the queue is full ({0} wait)")]
    QueueFull(usize),
}

/// Each permit carries a `T`, such as an open connection.
#[derive(Debug)]
pub struct Gate<T> {
    order: QueueOrder,
    max_waiting: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    /// Values of the free permits. The one used last is on top, because its connection is warm.
    free: Vec<T>,
    /// In order of arrival, so tickets ascend.
    queue: VecDeque<Waiter<T>>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiter<T> {
    ticket: u64,
    hand_over: oneshot::Sender<Permit<T>>,
}

/// Returns its `T` to the gate when it is dropped.
#[derive(Debug)]
pub struct Permit<T> {
    gate: Arc<Gate<T>>,
    /// `None` only after `drop` or a failed hand-over.
    value: Option<T>,
}

impl<T> Gate<T> {
    /// One permit for each value.
    pub fn new(values: Vec<T>, order: QueueOrder, max_waiting: usize) -> Arc<Self> {
        let state = State { free: values, queue: VecDeque::new(), next_ticket: 0 };
        Arc::new(Self { order, max_waiting, state: Mutex::new(state) })
    }

    /// Waits for a permit, at most `limit`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// `Timeout` after `limit`. `QueueFull` for the request that would be served last: the new one, or with `Newest` the oldest one in the
    /// queue.
    pub async fn acquire(self: &Arc<Self>, limit: Duration) -> Result<Permit<T>, GateError> {
        let (ticket, handed_over) = {
            let mut state = self.lock();
            if let Some(value) = state.free.pop() {
                return Ok(Permit { gate: Arc::clone(self), value: Some(value) });
            }
            if state.queue.len() >= self.max_waiting {
                // Newest-first serves the oldest request last, so the oldest one is refused.
                if self.order == QueueOrder::Oldest || state.queue.pop_front().is_none() {
                    return Err(GateError::QueueFull(state.queue.len()));
                }
            }
            let (hand_over, handed_over) = oneshot::channel();
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.queue.push_back(Waiter { ticket, hand_over });
            (ticket, handed_over)
        };
        // Leaves the queue on every way out, also on cancellation.
        let _entry = QueueEntry { gate: self, ticket };
        match tokio::time::timeout(limit, handed_over).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_displaced)) => Err(GateError::QueueFull(self.max_waiting)),
            Err(_elapsed) => Err(GateError::Timeout(limit)),
        }
    }

    /// Number of waiting requests.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.lock().queue.len()
    }

    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.lock().free.len()
    }

    fn release(self: &Arc<Self>, mut value: T) {
        loop {
            let waiter = {
                let mut state = self.lock();
                let next = match self.order {
                    QueueOrder::Oldest => state.queue.pop_front(),
                    QueueOrder::Newest => state.queue.pop_back(),
                };
                match next {
                    Some(waiter) => waiter,
                    None => return state.free.push(value),
                }
            };
            // Outside the lock. If the waiter has left, the value comes back and goes to the next one.
            match waiter.hand_over.send(Permit { gate: Arc::clone(self), value: Some(value) }) {
                Ok(()) => return,
                Err(mut permit) => match permit.value.take() {
                    Some(back) => value = back,
                    None => return,
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct QueueEntry<'a, T> {
    gate: &'a Gate<T>,
    ticket: u64,
}

impl<T> Drop for QueueEntry<'_, T> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        if let Ok(at) = state.queue.binary_search_by_key(&self.ticket, |waiter| waiter.ticket) {
            state.queue.remove(at);
        }
    }
}

impl<T> std::ops::Deref for Permit<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("only drop takes the value")
    }
}
impl<T> std::ops::DerefMut for Permit<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("only drop takes the value")
    }
}
impl<T> Drop for Permit<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.gate.release(value);
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

    /// The order in which three waiters are served.
    async fn order_served(order: QueueOrder) -> Vec<u32> {
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
        assert_eq!(order_served(QueueOrder::Oldest).await, [0, 1, 2]);
        assert_eq!(order_served(QueueOrder::Newest).await, [2, 1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_times_out_and_leaves_the_queue() {
        let gate = Gate::new(vec![0], QueueOrder::Newest, 10);
        let _held = gate.acquire(LONG).await.unwrap();
        let started = tokio::time::Instant::now();
        let error = gate.acquire(Duration::from_millis(2900)).await.unwrap_err();
        assert_eq!(error, GateError::Timeout(Duration::from_millis(2900)));
        assert_eq!(started.elapsed().as_millis(), 2900);
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_the_request_that_would_be_last() {
        for order in [QueueOrder::Oldest, QueueOrder::Newest] {
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
            let (refused, served) = if order == QueueOrder::Oldest { (late, early) } else { (early, late) };
            assert_eq!(refused.await.unwrap(), Err(GateError::QueueFull(1)), "{order:?}");
            drop(held);
            assert_eq!(served.await.unwrap(), Ok(()), "{order:?}");
        }
    }

    /// Thousands of waiters are cancelled at various moments. No permit is lost or duplicated.
    #[tokio::test]
    async fn permits_survive_cancellation_storms() {
        for order in [QueueOrder::Oldest, QueueOrder::Newest] {
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
