//! One computation per key at a time: concurrent callers share its result.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use contract::http::Criticality;
use tokio::sync::watch;

/// Clones the result `V` to all callers that wait for one key. `N` is a note that the caller which starts the work leaves for the others.
pub struct SingleFlight<K, V, N>(Arc<Mutex<InFlight<K, V, N>>>);

struct InFlight<K, V, N> {
    computations: HashMap<K, Computation<V, N>>,
    next_number: u64,
}

struct Computation<V, N> {
    number: u64,
    note: N,
    /// Of the data that the computation reads. A caller with another version must not share the result.
    version: u32,
    /// As critical as the caller that started it.
    criticality: Criticality,
    /// A sender, so that its receivers are the callers that wait.
    result: watch::Sender<Option<V>>,
}

/// A caller that waits for the result.
pub struct Waiter<V, N> {
    /// This caller started the computation.
    pub is_leader: bool,
    pub note: N,
    result: watch::Receiver<Option<V>>,
}

impl<V: Clone, N> Waiter<V, N> {
    pub async fn result(mut self) -> Result<V, Panicked> {
        let value = self.result.wait_for(Option::is_some).await.map(|value| value.clone());
        value.ok().flatten().ok_or(Panicked)
    }
}

/// Hands the result to all waiters. The computation stays joinable until its future ends, which may be later.
pub struct Completion<V>(watch::Sender<Option<V>>);

impl<V> Completion<V> {
    /// Returns whether a caller still waits.
    pub fn complete(&self, value: V) -> bool {
        self.0.send_replace(Some(value));
        self.0.receiver_count() > 0
    }
}

/// The computation panicked before it had a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

impl<K, V, N> SingleFlight<K, V, N>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
    N: Copy + Send + 'static,
{
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(InFlight { computations: HashMap::new(), next_number: 0 })))
    }

    /// Joins the computation for `key` and `version`, or starts it. A less critical one is not joined but replaced: it may have to wait longer. It runs in a separate task, so that a caller that is cancelled, the
    /// leader included, does not cancel it.
    pub fn join_or_start<F>(
        &self,
        key: &K,
        (version, criticality): (u32, Criticality),
        start: impl FnOnce(Completion<V>) -> (N, F),
    ) -> Waiter<V, N>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut in_flight = lock(&self.0);
        if let Some(joined) = in_flight.computations.get(key)
            && joined.version == version
            && joined.criticality <= criticality
        {
            return Waiter { is_leader: false, note: joined.note, result: joined.result.subscribe() };
        }
        let (sender, result) = watch::channel(None);
        let (note, future) = start(Completion(sender.clone()));
        let number = in_flight.next_number;
        in_flight.next_number += 1;
        in_flight.computations.insert(key.clone(), Computation { number, note, version, criticality, result: sender });
        drop(in_flight);
        let registration = Registration { in_flight: Arc::clone(&self.0), key: key.clone(), number };
        tokio::spawn(async move {
            let _registration = registration;
            future.await;
        });
        Waiter { is_leader: true, note, result }
    }
}

/// Removes the computation when it ends, also by a panic.
struct Registration<K: Eq + Hash, V, N> {
    in_flight: Arc<Mutex<InFlight<K, V, N>>>,
    key: K,
    number: u64,
}

impl<K: Eq + Hash, V, N> Drop for Registration<K, V, N> {
    fn drop(&mut self) {
        let mut in_flight = lock(&self.in_flight);
        // A later one may have replaced this one.
        if in_flight.computations.get(&self.key).is_some_and(|present| present.number == self.number) {
            in_flight.computations.remove(&self.key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn many_callers_share_one_computation() {
        let flights = Arc::new(SingleFlight::<&str, usize, ()>::new());
        let (worked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let ask = |version| {
            let (flights, worked, go) = (Arc::clone(&flights), Arc::clone(&worked), Arc::clone(&go));
            async move {
                let work = |completion: Completion<usize>| async move {
                    go.notified().await;
                    completion.complete(worked.fetch_add(1, Ordering::SeqCst));
                };
                let waiter =
                    flights.join_or_start(&"key", (version, Criticality::Default), |completion| ((), work(completion)));
                (waiter.is_leader, waiter.result().await)
            }
        };
        // The leader is cancelled. The computation goes on for the others.
        assert!(ask(0).now_or_never().is_none());
        let waiters: Vec<_> = (0..100).map(|_| tokio::spawn(ask(0))).collect();
        tokio::task::yield_now().await;
        // A caller with a later version does not share the result.
        let later = tokio::spawn(ask(1));
        // Each yield lets every task of the single thread run once: the caller, then its computation.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        go.notify_waiters();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), (false, Ok(0)));
        }
        assert_eq!(later.await.unwrap(), (true, Ok(1)));
        go.notify_one();
        assert_eq!(ask(1).await, (true, Ok(2)), "a finished computation is not shared");
        assert!(lock(&flights.0).computations.is_empty());
    }

    #[tokio::test]
    async fn a_less_critical_computation_is_not_joined() {
        let flights = SingleFlight::<&str, u8, ()>::new();
        let leads = |criticality| {
            let work = |_completion: Completion<u8>| ((), std::future::pending());
            flights.join_or_start(&"key", (0, criticality), work).is_leader
        };
        assert!(leads(Criticality::Sheddable));
        assert!(!leads(Criticality::Sheddable));
        assert!(leads(Criticality::Critical));
        assert!(!leads(Criticality::Default), "it joins the critical one");
        assert_eq!(lock(&flights.0).computations.len(), 1);
    }

    #[tokio::test]
    async fn a_panic_ends_all_waits() {
        let flights = SingleFlight::<&str, usize, ()>::new();
        let work = |completion: Completion<usize>| async move {
            let _completion = completion;
            assert!(std::hint::black_box(false), "on purpose");
        };
        let waiter = flights.join_or_start(&"key", (0, Criticality::Default), |completion| ((), work(completion)));
        assert!(waiter.is_leader);
        assert_eq!(waiter.result().await, Err(Panicked));
        assert!(lock(&flights.0).computations.is_empty());
    }
}
