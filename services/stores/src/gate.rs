//! A semaphore whose permits carry a value, with a bounded queue: the most critical request first, those of one criticality in oldest-first or
//! newest-first order.
//!
//! sqlx's pool is always oldest-first, has no bound on its queue, reports an exhausted pool and an unreachable server as the same error, and
//! opens connections for waiters that have left (launchbadge/sqlx issue 3132).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::http::Criticality;
use tokio::{sync::oneshot, time::Instant};

use crate::waiting::{QueueOrder, WaitingQueue};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    #[error("no permit came free within {0:?}")]
    Timeout(Duration),
    #[error("the queue is full ({0} wait)")]
    QueueFull(usize),
}

/// How a request waits for a permit.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    pub criticality: Criticality,
    /// Longest wait.
    pub limit: Duration,
    /// Longest wait in a queue that has had a request in it for longer than this: it is no burst, and a request that waits longer only delays
    /// the others (after CoDel, Nichols and Jacobson, ACM Queue 10(5), 2012). `None`: as `limit`.
    pub standing: Option<Duration>,
}

/// Each permit carries a `T`, such as an open connection.
#[derive(Debug)]
pub struct Gate<T> {
    max_waiting: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    /// Values of the free permits. The one used last is on top, because its connection is warm.
    free: Vec<T>,
    waiting: WaitingQueue<oneshot::Sender<Permit<T>>>,
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
        let state = State { free: values, waiting: WaitingQueue::new(order, max_waiting) };
        Arc::new(Self { max_waiting, state: Mutex::new(state) })
    }

    /// Waits for a permit. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// `Timeout` after the longest wait. `QueueFull` for the request that would be served last, which may be one that waits already.
    pub async fn acquire(self: &Arc<Self>, wait: Wait) -> Result<Permit<T>, GateError> {
        let Wait { criticality, limit, standing } = wait;
        let (ticket, handed_over, limit) = {
            let mut state = self.lock();
            if let Some(value) = state.free.pop() {
                return Ok(Permit { gate: Arc::clone(self), value: Some(value) });
            }
            let now = Instant::now();
            let (hand_over, handed_over) = oneshot::channel();
            let Some(entered) = state.waiting.enter(now, criticality, hand_over) else {
                return Err(GateError::QueueFull(state.waiting.len()));
            };
            let limit = match standing {
                Some(standing) if now - entered.since > standing => limit.min(standing),
                _ => limit,
            };
            // The request that gave way sees that its sender is gone.
            drop(entered.displaced);
            (entered.ticket, handed_over, limit)
        };
        // Leaves the queue on every way out, also on cancellation.
        let _entry = QueueEntry { gate: self, criticality, ticket };
        match tokio::time::timeout(limit, handed_over).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_displaced)) => Err(GateError::QueueFull(self.max_waiting)),
            Err(_elapsed) => Err(GateError::Timeout(limit)),
        }
    }

    /// Number of waiting requests.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.lock().free.len()
    }

    fn release(self: &Arc<Self>, mut value: T) {
        loop {
            let hand_over = {
                let mut state = self.lock();
                match state.waiting.take_next() {
                    Some(hand_over) => hand_over,
                    None => return state.free.push(value),
                }
            };
            // Outside the lock. If the waiter has left, the value comes back and goes to the next one.
            match hand_over.send(Permit { gate: Arc::clone(self), value: Some(value) }) {
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
    criticality: Criticality,
    ticket: u64,
}

impl<T> Drop for QueueEntry<'_, T> {
    fn drop(&mut self) {
        let sender = self.gate.lock().waiting.leave(self.criticality, self.ticket);
        drop(sender);
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

    const LONG: Wait = Wait { criticality: Criticality::Default, limit: Duration::from_secs(60), standing: None };

    fn at_most(limit: Duration) -> Wait {
        Wait { limit, ..LONG }
    }

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
        let error = gate.acquire(at_most(Duration::from_millis(2900))).await.unwrap_err();
        assert_eq!(error, GateError::Timeout(Duration::from_millis(2900)));
        assert_eq!(started.elapsed().as_millis(), 2900);
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test]
    async fn the_most_critical_is_served_first() {
        let gate = Gate::new(vec![0], QueueOrder::Newest, 10);
        let held = gate.acquire(LONG).await.unwrap();
        let mut served = Vec::new();
        let waits = [Criticality::Sheddable, Criticality::Critical, Criticality::Default];
        let waits = waits.map(|criticality| {
            let gate = Arc::clone(&gate);
            async move { gate.acquire(Wait { criticality, ..LONG }).await.map(|_permit| criticality).unwrap() }
        });
        let mut waits: futures::stream::FuturesUnordered<_> = waits.into_iter().collect();
        assert!(futures::poll!(futures::StreamExt::next(&mut waits)).is_pending());
        drop(held);
        while let Some(criticality) = futures::StreamExt::next(&mut waits).await {
            served.push(criticality);
        }
        assert_eq!(served, [Criticality::Critical, Criticality::Default, Criticality::Sheddable]);
    }

    /// A burst may wait in full. In a queue that stands longer a request waits briefly, unless it may not be refused so soon.
    #[tokio::test(start_paused = true)]
    async fn a_standing_queue_has_short_waits() {
        let gate = Gate::new(vec![0], QueueOrder::Newest, 10);
        let _held = gate.acquire(LONG).await.unwrap();
        let standing = Some(Duration::from_millis(200));
        let burst = Wait { limit: Duration::from_secs(3), standing, ..LONG };
        let first = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.acquire(burst).await.map(drop) }
        });
        waiting(&gate, 1).await;
        tokio::time::advance(Duration::from_millis(150)).await;
        let early = gate.acquire(Wait { limit: Duration::from_millis(60), ..burst }).await.unwrap_err();
        assert_eq!(early, GateError::Timeout(Duration::from_millis(60)));
        // 210 ms after the first one.
        assert_eq!(gate.acquire(burst).await.unwrap_err(), GateError::Timeout(Duration::from_millis(200)));
        let patient = gate.acquire(Wait { standing: None, limit: Duration::from_secs(1), ..LONG }).await.unwrap_err();
        assert_eq!(patient, GateError::Timeout(Duration::from_secs(1)));
        assert_eq!(first.await.unwrap(), Err(GateError::Timeout(Duration::from_secs(3))));
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
                    let attempt = gate.acquire(Wait {
                        criticality: Criticality::ALL[n as usize % 3],
                        ..at_most(Duration::from_micros(n % 700))
                    });
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
