//! One piece of work per key at a time: whoever asks for a key whose work is under way shares its result.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

pub struct Flights<K, V>(Arc<Mutex<Board<K, V>>>);

struct Board<K, V> {
    under_way: HashMap<K, Flight<V>>,
    next_number: u64,
}

struct Flight<V> {
    number: u64,
    /// What its result is good for: who comes with a later one must not share it.
    epoch: u32,
    landed: watch::Receiver<Option<V>>,
}

/// Hands the result to everybody who waits for it. The flight stays on the board until its work ends, which may be later.
pub struct Landing<V>(watch::Sender<Option<V>>);

impl<V> Landing<V> {
    pub fn land(&self, value: V) {
        self.0.send_replace(Some(value));
    }
}

/// The work ended without a result: it panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crashed;

impl<K, V> Flights<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Board { under_way: HashMap::new(), next_number: 0 })))
    }

    /// The result of the work on `key` that is under way since `epoch`, or else of this. The work runs in a task of its own: a
    /// caller that is cancelled, the first one included, cancels nobody's work. True: it was this caller's.
    pub async fn share<F>(&self, key: &K, epoch: u32, work: impl FnOnce(Landing<V>) -> F) -> (bool, Result<V, Crashed>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (ours, mut landed) = self.board(key, epoch, work);
        let value = landed.wait_for(Option::is_some).await.map(|value| value.clone());
        (ours, value.ok().flatten().ok_or(Crashed))
    }

    fn board<F>(&self, key: &K, epoch: u32, work: impl FnOnce(Landing<V>) -> F) -> (bool, watch::Receiver<Option<V>>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut board = lock(&self.0);
        if let Some(flight) = board.under_way.get(key)
            && flight.epoch == epoch
        {
            return (false, flight.landed.clone());
        }
        let (land, landed) = watch::channel(None);
        let number = board.next_number;
        board.next_number += 1;
        board.under_way.insert(key.clone(), Flight { number, epoch, landed: landed.clone() });
        drop(board);
        let place = Place { board: Arc::clone(&self.0), key: key.clone(), number };
        let work = work(Landing(land));
        tokio::spawn(async move {
            let _place = place;
            work.await;
        });
        (true, landed)
    }
}

/// Leaves the board on every way out, a panic included.
struct Place<K: Eq + Hash, V> {
    board: Arc<Mutex<Board<K, V>>>,
    key: K,
    number: u64,
}

impl<K: Eq + Hash, V> Drop for Place<K, V> {
    fn drop(&mut self) {
        let mut board = lock(&self.board);
        // Not a successor of a later epoch.
        if board.under_way.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            board.under_way.remove(&self.key);
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
    async fn many_ask_and_one_works() {
        let flights = Arc::new(Flights::<&str, usize>::new());
        let (worked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let ask = |epoch| {
            let (flights, worked, go) = (Arc::clone(&flights), Arc::clone(&worked), Arc::clone(&go));
            async move {
                let work = |landing: Landing<usize>| async move {
                    go.notified().await;
                    landing.land(worked.fetch_add(1, Ordering::SeqCst));
                };
                flights.share(&"key", epoch, work).await
            }
        };
        // The first caller gives up: its work goes on for the others.
        assert!(ask(0).now_or_never().is_none());
        let waiters: Vec<_> = (0..100).map(|_| tokio::spawn(ask(0))).collect();
        tokio::task::yield_now().await;
        // What was asked for after a change is not answered with what was begun before it.
        let later = tokio::spawn(ask(1));
        // Each turn of the one thread lets every task run once: the caller, then its work.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        go.notify_waiters();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), (false, Ok(0)));
        }
        assert_eq!(later.await.unwrap(), (true, Ok(1)));
        go.notify_one();
        assert_eq!(ask(1).await, (true, Ok(2)), "what has landed is not shared");
        assert!(lock(&flights.0).under_way.is_empty());
    }

    #[tokio::test]
    async fn work_that_panics_leaves_nobody_waiting() {
        let flights = Flights::<&str, usize>::new();
        let result = flights.share(&"key", 0, |landing| async move {
            let _landing = landing;
            assert!(std::hint::black_box(false), "on purpose");
        });
        assert_eq!(result.await, (true, Err(Crashed)));
        assert!(lock(&flights.0).under_way.is_empty());
    }
}
