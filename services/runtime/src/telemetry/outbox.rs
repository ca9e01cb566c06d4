//! What waits to be sent: bounded in number and bytes, and everything that does not arrive is counted, once, under its reason.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Sent at once when so many wait, and at most so many at a time.
const BATCH: usize = 512;
/// Of a message at most: receivers of gRPC take 4 MiB unless told otherwise.
pub(super) const BATCH_BYTES: usize = 1 << 20;

pub(super) trait Item {
    /// At least what it takes in memory, and at least what it takes in a message; never more than a few hundred kilobytes.
    fn bytes(&self) -> usize;
}

#[derive(Debug)]
pub(super) struct Outbox<T> {
    waiting: Mutex<Waiting<T>>,
    capacity: usize,
    capacity_bytes: usize,
    /// A batch of so many is full.
    full: usize,
    filled: Notify,
    pub(super) counts: Counts,
}

/// All batches but the last are full.
#[derive(Debug)]
struct Waiting<T> {
    batches: VecDeque<Batch<T>>,
    items: usize,
    bytes: usize,
    /// Nobody sends any more.
    is_closed: bool,
}

#[derive(Debug)]
struct Batch<T> {
    items: Vec<T>,
    bytes: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Counts {
    sent: IntCounter,
    queue_full: IntCounter,
    refused: IntCounter,
    unreachable: IntCounter,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// But for so many of them.
    Taken {
        refused: u64,
    },
    /// Not for as long as it was tried.
    Later,
    Refused,
}

impl Counts {
    /// `what`: `spans` or `log_lines`.
    pub fn new(registry: &Registry, what: &str) -> prometheus::Result<Self> {
        let sent = IntCounter::new(format!("telemetry_{what}_sent_total"), format!("Taken by the receiver: {what}"))?;
        let dropped = IntCounterVec::new(
            Opts::new(
                format!("telemetry_{what}_dropped_total"),
                format!(
                    "Not taken by the receiver, {what}: queue_full (too many waited), refused (it would not have them), \
                     unreachable (it did not answer for half a minute, or until this process stopped, or the connection broke)"
                ),
            ),
            &["reason"],
        )?;
        registry.register(Box::new(sent.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        let [queue_full, refused, unreachable] =
            ["queue_full", "refused", "unreachable"].map(|reason| dropped.get_metric_with_label_values(&[reason]));
        Ok(Self { sent, queue_full: queue_full?, refused: refused?, unreachable: unreachable? })
    }
}

impl<T: Item> Outbox<T> {
    /// Holds at most `capacity` items of at most `capacity_bytes` in all.
    pub fn new(capacity: usize, capacity_bytes: usize, counts: Counts) -> Self {
        let waiting = Waiting { batches: VecDeque::new(), items: 0, bytes: 0, is_closed: false };
        let (waiting, full) = (Mutex::new(waiting), BATCH.min(capacity));
        Self { waiting, capacity, capacity_bytes, full, filled: Notify::new(), counts }
    }

    /// Never waits.
    pub fn put(&self, item: T) {
        let bytes = item.bytes();
        let is_filled = {
            let mut waiting = self.lock();
            if waiting.is_closed {
                self.counts.unreachable.inc();
                return;
            }
            if waiting.items >= self.capacity || waiting.bytes + bytes > self.capacity_bytes {
                self.counts.queue_full.inc();
                return;
            }
            waiting.push(item, bytes, self.full)
        };
        // Not for each one: waking another thread costs more than a span.
        if is_filled {
            self.filled.notify_one();
        }
    }

    /// Sends what comes until `stop`, and then what is left, for at most `patience` per batch. Answers how many were lost in that end.
    pub async fn send(
        &self,
        every: Duration,
        patience: Duration,
        stop: &CancellationToken,
        deliver: impl AsyncFn(Vec<T>) -> Delivery,
    ) -> u64 {
        while !stop.is_cancelled() {
            // Those that do not fill a batch wait for their time: while many come, there are always a few, and a message for each few
            // costs more than the spans in it.
            let mut partly = false;
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.filled.notified() => {}
                () = sleep(every) => partly = true,
            }
            while let Some(batch) = self.take(partly) {
                partly = false;
                let items = batch.items.len();
                let mut delivery = pin!(deliver(batch.items));
                let delivery = tokio::select! {
                    delivery = &mut delivery => delivery,
                    () = stop.cancelled() => timeout(patience, delivery).await.unwrap_or(Delivery::Later),
                };
                let lost = self.count(delivery, items);
                if stop.is_cancelled() && delivery == Delivery::Later {
                    return lost + self.close();
                }
            }
        }
        let mut lost = 0;
        while let Some(batch) = self.take(true) {
            let items = batch.items.len();
            let delivery = timeout(patience, deliver(batch.items)).await.unwrap_or(Delivery::Later);
            lost += self.count(delivery, items);
            if delivery == Delivery::Later {
                // The next would not fare better, and the process is to end.
                break;
            }
        }
        lost + self.close()
    }

    /// Answers how many of them are lost.
    fn count(&self, delivery: Delivery, items: usize) -> u64 {
        let items = items as u64;
        match delivery {
            Delivery::Taken { refused } => {
                let refused = refused.min(items);
                self.counts.refused.inc_by(refused);
                self.counts.sent.inc_by(items - refused);
                refused
            }
            Delivery::Later => {
                self.counts.unreachable.inc_by(items);
                items
            }
            Delivery::Refused => {
                self.counts.refused.inc_by(items);
                items
            }
        }
    }

    /// What waits is lost, and so is what comes later.
    fn close(&self) -> u64 {
        let left = {
            let mut waiting = self.lock();
            waiting.is_closed = true;
            (waiting.items, waiting.bytes) = (0, 0);
            std::mem::take(&mut waiting.batches)
        };
        self.count(Delivery::Later, left.iter().map(|batch| batch.items.len()).sum())
    }

    /// The next batch, if it is full or may be taken partly filled.
    fn take(&self, partly: bool) -> Option<Batch<T>> {
        let mut waiting = self.lock();
        let is_last = waiting.batches.len() == 1;
        let batch = waiting.batches.pop_front_if(|batch| partly || !is_last || batch.items.len() >= self.full)?;
        waiting.items -= batch.items.len();
        waiting.bytes -= batch.bytes;
        Some(batch)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    /// True: a batch is full by that.
    fn push(&mut self, item: T, bytes: usize, full: usize) -> bool {
        self.items += 1;
        self.bytes += bytes;
        let last = self.batches.back_mut().filter(|last| last.items.len() < full);
        let has_last = last.is_some();
        if let Some(last) = last.filter(|last| last.bytes + bytes <= BATCH_BYTES) {
            last.items.push(item);
            last.bytes += bytes;
            return last.items.len() == full;
        }
        let mut items = Vec::with_capacity(full);
        items.push(item);
        self.batches.push_back(Batch { items, bytes });
        has_last || full == 1
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    pub fn counts() -> Counts {
        Counts::new(&Registry::new(), "spans").unwrap()
    }

    impl Item for usize {
        fn bytes(&self) -> usize {
            8
        }
    }

    /// Of so many bytes.
    struct Large(usize);

    impl Item for Large {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    fn outbox(capacity: usize) -> Outbox<usize> {
        Outbox::new(capacity, usize::MAX, counts())
    }

    fn counted<T>(outbox: &Outbox<T>) -> [u64; 4] {
        let Counts { sent, queue_full, refused, unreachable } = &outbox.counts;
        [sent, queue_full, refused, unreachable].map(IntCounter::get)
    }

    const EVERY: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn all_arrive_in_order_and_what_is_left_at_the_end_too() {
        let (outbox, stop, got) = (outbox(10_000), CancellationToken::new(), RefCell::new(Vec::new()));
        let receiver = async |batch: Vec<usize>| {
            got.borrow_mut().extend(batch);
            Delivery::Taken { refused: 0 }
        };
        let sender = outbox.send(EVERY, PATIENCE, &stop, receiver);
        let work = async {
            (0..3).for_each(|n| outbox.put(n));
            sleep(Duration::from_secs(2)).await;
            assert_eq!(got.borrow().len(), 3);
            (3..3 + BATCH).for_each(|n| outbox.put(n));
            sleep(Duration::from_millis(1)).await;
            assert_eq!(got.borrow().len(), 3 + BATCH, "a whole batch does not wait");
            outbox.put(3 + BATCH);
            stop.cancel();
        };
        let (lost, ()) = tokio::join!(sender, work);
        assert_eq!((lost, counted(&outbox)), (0, [4 + BATCH as u64, 0, 0, 0]));
        assert!(got.borrow().iter().copied().eq(0..4 + BATCH));
        outbox.put(0);
        assert_eq!(counted(&outbox)[3], 1, "what comes after the end is counted as well");
    }

    #[tokio::test(start_paused = true)]
    async fn no_batch_is_larger_than_a_receiver_takes_and_none_waits_when_full() {
        const LARGE: usize = BATCH_BYTES / 3 - 1;
        let (outbox, stop) = (Outbox::new(10_000, 100 * BATCH_BYTES, counts()), CancellationToken::new());
        let got = RefCell::new(Vec::new());
        let receiver = async |batch: Vec<Large>| {
            let bytes: usize = batch.iter().map(Item::bytes).sum();
            assert!(bytes <= BATCH_BYTES, "{bytes}");
            got.borrow_mut().push(batch.len());
            Delivery::Taken { refused: 0 }
        };
        let sender = outbox.send(EVERY, PATIENCE, &stop, receiver);
        let work = async {
            (0..10).for_each(|_| outbox.put(Large(LARGE)));
            sleep(Duration::from_millis(1)).await;
            assert_eq!(*got.borrow(), [3, 3, 3]);
            sleep(EVERY * 2).await;
            assert_eq!(*got.borrow(), [3, 3, 3, 1]);
            stop.cancel();
        };
        tokio::join!(sender, work);
        assert_eq!(counted(&outbox), [10, 0, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_bounded_as_numbers_are() {
        let outbox = Outbox::new(10_000, 1_000, counts());
        (0..5).for_each(|_| outbox.put(Large(300)));
        outbox.put(Large(100));
        assert_eq!(counted(&outbox), [0, 2, 0, 0]);
        let stop = CancellationToken::new();
        stop.cancel();
        let lost = outbox.send(EVERY, PATIENCE, &stop, async |_| Delivery::Taken { refused: 0 }).await;
        assert_eq!((lost, counted(&outbox)), (0, [4, 2, 0, 0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_is_away_costs_what_finds_no_place() {
        let (outbox, stop, away) = (outbox(1_000), CancellationToken::new(), Cell::new(true));
        let back = Notify::new();
        let receiver = async |_: Vec<usize>| {
            // As the exporter does, which tries again by itself.
            if away.get() && timeout(EVERY * 30, back.notified()).await.is_err() {
                return Delivery::Later;
            }
            Delivery::Taken { refused: 0 }
        };
        let sender = outbox.send(EVERY, PATIENCE, &stop, receiver);
        let work = async {
            (0..1_000).for_each(|n| outbox.put(n));
            sleep(Duration::from_secs(5)).await;
            // One batch is in the sender's hand.
            (0..BATCH + 7).for_each(|n| outbox.put(n));
            away.set(false);
            back.notify_one();
            sleep(Duration::from_secs(5)).await;
            assert_eq!(counted(&outbox), [1_000 + BATCH as u64, 7, 0, 0]);
            // Away for longer than is waited for.
            away.set(true);
            outbox.put(1);
            sleep(EVERY * 35).await;
            assert_eq!(counted(&outbox)[3], 1);
            (0..10).for_each(|n| outbox.put(n));
            stop.cancel();
        };
        let (lost, ()) = tokio::join!(sender, work);
        assert_eq!((lost, counted(&outbox)), (10, [1_512, 7, 0, 11]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_counted_and_a_silent_receiver_is_left() {
        let (outbox, stop, attempts) = (outbox(1_000), CancellationToken::new(), Cell::new(0));
        let receiver = async |batch: Vec<usize>| {
            attempts.set(attempts.get() + 1);
            match batch.len() {
                1 => Delivery::Refused,
                2 => Delivery::Taken { refused: 1 },
                _ => std::future::pending().await,
            }
        };
        let sender = outbox.send(EVERY, PATIENCE, &stop, receiver);
        let work = async {
            outbox.put(0);
            sleep(EVERY * 2).await;
            (0..2).for_each(|n| outbox.put(n));
            sleep(EVERY * 2).await;
            assert_eq!((counted(&outbox), attempts.get()), ([1, 0, 2, 0], 2));
            (0..3).for_each(|n| outbox.put(n));
            sleep(EVERY * 2).await;
            assert_eq!(attempts.get(), 3, "it is under way");
            outbox.put(3);
            stop.cancel();
        };
        let (lost, ()) = tokio::join!(sender, work);
        assert_eq!((lost, counted(&outbox)), (4, [1, 0, 2, 4]));
    }
}
