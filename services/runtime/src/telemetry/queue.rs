//! The queue of items that wait for export, bounded in number and bytes. Each item that is lost is counted once, by reason.

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

/// Items of a full batch. A full batch is exported at once.
const BATCH_ITEMS: usize = 512;
/// Largest message, in bytes. By default gRPC receivers accept up to 4 MiB.
pub(super) const BATCH_BYTES: usize = 1 << 20;

pub(super) trait ByteSize {
    /// An upper bound of the item's size in memory and in a message; at most a few hundred kilobytes.
    fn bytes(&self) -> usize;
}

#[derive(Debug)]
pub(super) struct ExportQueue<T> {
    waiting: Mutex<Waiting<T>>,
    capacity: usize,
    capacity_bytes: usize,
    /// Items of a full batch.
    full: usize,
    filled: Notify,
    pub(super) metrics: QueueMetrics,
}

/// All batches except the last are full.
#[derive(Debug)]
struct Waiting<T> {
    batches: VecDeque<Batch<T>>,
    items: usize,
    bytes: usize,
    /// The export has ended.
    is_closed: bool,
}

#[derive(Debug)]
struct Batch<T> {
    items: Vec<T>,
    bytes: usize,
}

#[derive(Debug, Clone)]
pub(super) struct QueueMetrics {
    sent: IntCounter,
    queue_full: IntCounter,
    refused: IntCounter,
    unreachable: IntCounter,
}

/// The result of exporting a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExportResult {
    /// The receiver accepted all items except `refused` of them.
    Accepted {
        refused: u64,
    },
    /// The receiver did not answer, also on retries.
    Unreachable,
    Refused,
}

impl QueueMetrics {
    /// `what`: `spans` or `log_lines`.
    pub fn new(registry: &Registry, what: &str) -> prometheus::Result<Self> {
        let sent = IntCounter::new(
            format!("telemetry_{what}_sent_total"),
            format!("Exported {what} that the receiver accepted"),
        )?;
        let dropped = IntCounterVec::new(
            Opts::new(
                format!("telemetry_{what}_dropped_total"),
                format!(
                    "Lost {what}, by reason: queue_full (the export queue was full), refused (by the receiver), unreachable \
                     (the receiver did not answer for 30 s or until this process stopped, or the connection broke)"
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

impl<T: ByteSize> ExportQueue<T> {
    /// Holds at most `capacity` items of at most `capacity_bytes` in all.
    pub fn new(capacity: usize, capacity_bytes: usize, metrics: QueueMetrics) -> Self {
        let waiting = Waiting { batches: VecDeque::new(), items: 0, bytes: 0, is_closed: false };
        let (waiting, full) = (Mutex::new(waiting), BATCH_ITEMS.min(capacity));
        Self { waiting, capacity, capacity_bytes, full, filled: Notify::new(), metrics }
    }

    /// Never blocks. Drops and counts the item if the queue is full.
    pub fn push(&self, item: T) {
        let bytes = item.bytes();
        let is_filled = {
            let mut waiting = self.lock();
            if waiting.is_closed {
                self.metrics.unreachable.inc();
                return;
            }
            if waiting.items >= self.capacity || waiting.bytes + bytes > self.capacity_bytes {
                self.metrics.queue_full.inc();
                return;
            }
            waiting.push(item, bytes, self.full)
        };
        // Only for full batches: waking another thread costs more than a span.
        if is_filled {
            self.filled.notify_one();
        }
    }

    /// Exports batches until `stop`, and then the rest, for at most `limit` per batch. Partial batches wait for `interval`. Returns the
    /// number of items that were lost at the end.
    pub async fn export(
        &self,
        interval: Duration,
        limit: Duration,
        stop: &CancellationToken,
        export: impl AsyncFn(Vec<T>) -> ExportResult,
    ) -> u64 {
        while !stop.is_cancelled() {
            // Partial batches wait for the timer: under load, a message for every few spans would cost more than the spans.
            let mut accepts_partial = false;
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.filled.notified() => {}
                () = sleep(interval) => accepts_partial = true,
            }
            while let Some(batch) = self.take(accepts_partial) {
                accepts_partial = false;
                let items = batch.items.len();
                let mut export = pin!(export(batch.items));
                let result = tokio::select! {
                    result = &mut export => result,
                    () = stop.cancelled() => timeout(limit, export).await.unwrap_or(ExportResult::Unreachable),
                };
                let lost = self.count(result, items);
                if stop.is_cancelled() && result == ExportResult::Unreachable {
                    return lost + self.close();
                }
            }
        }
        let mut lost = 0;
        while let Some(batch) = self.take(true) {
            let items = batch.items.len();
            let result = timeout(limit, export(batch.items)).await.unwrap_or(ExportResult::Unreachable);
            lost += self.count(result, items);
            if result == ExportResult::Unreachable {
                // The next batch would fail as well, and the process is stopping.
                break;
            }
        }
        lost + self.close()
    }

    /// Returns the number of lost items.
    fn count(&self, result: ExportResult, items: usize) -> u64 {
        let items = items as u64;
        match result {
            ExportResult::Accepted { refused } => {
                let refused = refused.min(items);
                self.metrics.refused.inc_by(refused);
                self.metrics.sent.inc_by(items - refused);
                refused
            }
            ExportResult::Unreachable => {
                self.metrics.unreachable.inc_by(items);
                items
            }
            ExportResult::Refused => {
                self.metrics.refused.inc_by(items);
                items
            }
        }
    }

    /// Waiting items and all later ones are lost.
    fn close(&self) -> u64 {
        let left = {
            let mut waiting = self.lock();
            waiting.is_closed = true;
            (waiting.items, waiting.bytes) = (0, 0);
            std::mem::take(&mut waiting.batches)
        };
        self.count(ExportResult::Unreachable, left.iter().map(|batch| batch.items.len()).sum())
    }

    /// The next batch, if it is full or a partial batch is accepted.
    fn take(&self, accepts_partial: bool) -> Option<Batch<T>> {
        let mut waiting = self.lock();
        let is_last = waiting.batches.len() == 1;
        let batch =
            waiting.batches.pop_front_if(|batch| accepts_partial || !is_last || batch.items.len() >= self.full)?;
        waiting.items -= batch.items.len();
        waiting.bytes -= batch.bytes;
        Some(batch)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    /// True: a batch has become full.
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

    pub fn metrics() -> QueueMetrics {
        QueueMetrics::new(&Registry::new(), "spans").unwrap()
    }

    impl ByteSize for usize {
        fn bytes(&self) -> usize {
            8
        }
    }

    /// An item of this number of bytes.
    struct Large(usize);

    impl ByteSize for Large {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    fn queue(capacity: usize) -> ExportQueue<usize> {
        ExportQueue::new(capacity, usize::MAX, metrics())
    }

    fn counted<T>(queue: &ExportQueue<T>) -> [u64; 4] {
        let QueueMetrics { sent, queue_full, refused, unreachable } = &queue.metrics;
        [sent, queue_full, refused, unreachable].map(IntCounter::get)
    }

    const INTERVAL: Duration = Duration::from_secs(1);
    const LIMIT: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn all_items_arrive_in_order_and_the_rest_at_the_end() {
        let (queue, stop, got) = (queue(10_000), CancellationToken::new(), RefCell::new(Vec::new()));
        let receiver = async |batch: Vec<usize>| {
            got.borrow_mut().extend(batch);
            ExportResult::Accepted { refused: 0 }
        };
        let sender = queue.export(INTERVAL, LIMIT, &stop, receiver);
        let work = async {
            (0..3).for_each(|n| queue.push(n));
            sleep(Duration::from_secs(2)).await;
            assert_eq!(got.borrow().len(), 3);
            (3..3 + BATCH_ITEMS).for_each(|n| queue.push(n));
            sleep(Duration::from_millis(1)).await;
            assert_eq!(got.borrow().len(), 3 + BATCH_ITEMS, "a full batch does not wait");
            queue.push(3 + BATCH_ITEMS);
            stop.cancel();
        };
        let (lost, ()) = tokio::join!(sender, work);
        assert_eq!((lost, counted(&queue)), (0, [4 + BATCH_ITEMS as u64, 0, 0, 0]));
        assert!(got.borrow().iter().copied().eq(0..4 + BATCH_ITEMS));
        queue.push(0);
        assert_eq!(counted(&queue)[3], 1, "items after the end are counted");
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_bounded_in_bytes_and_full_ones_do_not_wait() {
        const LARGE: usize = BATCH_BYTES / 3 - 1;
        let (queue, stop) = (ExportQueue::new(10_000, 100 * BATCH_BYTES, metrics()), CancellationToken::new());
        let got = RefCell::new(Vec::new());
        let receiver = async |batch: Vec<Large>| {
            let bytes: usize = batch.iter().map(ByteSize::bytes).sum();
            assert!(bytes <= BATCH_BYTES, "{bytes}");
            got.borrow_mut().push(batch.len());
            ExportResult::Accepted { refused: 0 }
        };
        let sender = queue.export(INTERVAL, LIMIT, &stop, receiver);
        let work = async {
            (0..10).for_each(|_| queue.push(Large(LARGE)));
            sleep(Duration::from_millis(1)).await;
            assert_eq!(*got.borrow(), [3, 3, 3]);
            sleep(INTERVAL * 2).await;
            assert_eq!(*got.borrow(), [3, 3, 3, 1]);
            stop.cancel();
        };
        tokio::join!(sender, work);
        assert_eq!(counted(&queue), [10, 0, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_in_bytes() {
        let queue = ExportQueue::new(10_000, 1_000, metrics());
        (0..5).for_each(|_| queue.push(Large(300)));
        queue.push(Large(100));
        assert_eq!(counted(&queue), [0, 2, 0, 0]);
        let stop = CancellationToken::new();
        stop.cancel();
        let lost = queue.export(INTERVAL, LIMIT, &stop, async |_| ExportResult::Accepted { refused: 0 }).await;
        assert_eq!((lost, counted(&queue)), (0, [4, 2, 0, 0]));
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_receiver_is_away_only_items_beyond_the_queue_are_lost() {
        let (queue, stop, away) = (queue(1_000), CancellationToken::new(), Cell::new(true));
        let back = Notify::new();
        let receiver = async |_: Vec<usize>| {
            // As the exporter, which retries.
            if away.get() && timeout(INTERVAL * 30, back.notified()).await.is_err() {
                return ExportResult::Unreachable;
            }
            ExportResult::Accepted { refused: 0 }
        };
        let sender = queue.export(INTERVAL, LIMIT, &stop, receiver);
        let work = async {
            (0..1_000).for_each(|n| queue.push(n));
            sleep(Duration::from_secs(5)).await;
            // One batch is in flight.
            (0..BATCH_ITEMS + 7).for_each(|n| queue.push(n));
            away.set(false);
            back.notify_one();
            sleep(Duration::from_secs(5)).await;
            assert_eq!(counted(&queue), [1_000 + BATCH_ITEMS as u64, 7, 0, 0]);
            // Longer than the retries last.
            away.set(true);
            queue.push(1);
            sleep(INTERVAL * 35).await;
            assert_eq!(counted(&queue)[3], 1);
            (0..10).for_each(|n| queue.push(n));
            stop.cancel();
        };
        let (lost, ()) = tokio::join!(sender, work);
        assert_eq!((lost, counted(&queue)), (10, [1_512, 7, 0, 11]));
    }

    #[tokio::test(start_paused = true)]
    async fn refused_items_are_counted_and_a_silent_receiver_is_given_up() {
        let (queue, stop, attempts) = (queue(1_000), CancellationToken::new(), Cell::new(0));
        let receiver = async |batch: Vec<usize>| {
            attempts.set(attempts.get() + 1);
            match batch.len() {
                1 => ExportResult::Refused,
                2 => ExportResult::Accepted { refused: 1 },
                _ => std::future::pending().await,
            }
        };
        let sender = queue.export(INTERVAL, LIMIT, &stop, receiver);
        let work = async {
            queue.push(0);
            sleep(INTERVAL * 2).await;
            (0..2).for_each(|n| queue.push(n));
            sleep(INTERVAL * 2).await;
            assert_eq!((counted(&queue), attempts.get()), ([1, 0, 2, 0], 2));
            (0..3).for_each(|n| queue.push(n));
            sleep(INTERVAL * 2).await;
            assert_eq!(attempts.get(), 3, "it is in flight");
            queue.push(3);
            stop.cancel();
        };
        let (lost, ()) = tokio::join!(sender, work);
        assert_eq!((lost, counted(&queue)), (4, [1, 0, 2, 4]));
    }
}
