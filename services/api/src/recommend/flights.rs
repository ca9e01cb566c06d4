//! One piece of work per key at a time: whoever asks for a key whose work is under way shares its result.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

pub struct Flights<K, V, N>(Arc<Mutex<Board<K, V, N>>>);

struct Board<K, V, N> {
    under_way: HashMap<K, Flight<V, N>>,
    next_number: u64,
}

struct Flight<V, N> {
    number: u64,
    /// What those who join it are told of it at once.
    note: N,
    /// What its result is good for: who comes with a later one must not share it.
    epoch: u32,
    landed: watch::Receiver<Option<V>>,
}

/// One of those who wait for a flight.
pub struct Passenger<V, N> {
    /// It was begun for this one.
    pub ours: bool,
    pub note: N,
    landed: watch::Receiver<Option<V>>,
}

impl<V: Clone, N> Passenger<V, N> {
    pub async fn result(mut self) -> Result<V, Crashed> {
        let value = self.landed.wait_for(Option::is_some).await.map(|value| value.clone());
        value.ok().flatten().ok_or(Crashed)
    }
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

impl<K, V, N> Flights<K, V, N>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
    N: Copy + Send + 'static,
{
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Board { under_way: HashMap::new(), next_number: 0 })))
    }

    /// Joins the work on `key` that is under way since `epoch`, or else begins this. The work runs in a task of its own: a
    /// caller that is cancelled, the first one included, cancels nobody's work.
    pub fn board<F>(&self, key: &K, epoch: u32, work: impl FnOnce(Landing<V>) -> (N, F)) -> Passenger<V, N>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut board = lock(&self.0);
        if let Some(flight) = board.under_way.get(key)
            && flight.epoch == epoch
        {
            return Passenger { ours: false, note: flight.note, landed: flight.landed.clone() };
        }
        let (land, landed) = watch::channel(None);
        let (note, work) = work(Landing(land));
        let number = board.next_number;
        board.next_number += 1;
        board.under_way.insert(key.clone(), Flight { number, note, epoch, landed: landed.clone() });
        drop(board);
        let place = Place { board: Arc::clone(&self.0), key: key.clone(), number };
        tokio::spawn(async move {
            let _place = place;
            work.await;
        });
        Passenger { ours: true, note, landed }
    }
}

/// Leaves the board on every way out, a panic included.
struct Place<K: Eq + Hash, V, N> {
    board: Arc<Mutex<Board<K, V, N>>>,
    key: K,
    number: u64,
}

impl<K: Eq + Hash, V, N> Drop for Place<K, V, N> {
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
        let flights = Arc::new(Flights::<&str, usize, ()>::new());
        let (worked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let ask = |epoch| {
            let (flights, worked, go) = (Arc::clone(&flights), Arc::clone(&worked), Arc::clone(&go));
            async move {
                let work = |landing: Landing<usize>| async move {
                    go.notified().await;
                    landing.land(worked.fetch_add(1, Ordering::SeqCst));
                };
                let passenger = flights.board(&"key", epoch, |landing| ((), work(landing)));
                (passenger.ours, passenger.result().await)
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
        let flights = Flights::<&str, usize, ()>::new();
        let work = |landing: Landing<usize>| async move {
            let _landing = landing;
            assert!(std::hint::black_box(false), "on purpose");
        };
        let passenger = flights.board(&"key", 0, |landing| ((), work(landing)));
        assert!(passenger.ours);
        assert_eq!(passenger.result().await, Err(Crashed));
        assert!(lock(&flights.0).under_way.is_empty());
    }
}
