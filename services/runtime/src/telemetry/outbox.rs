//! What waits to be sent: bounded, and everything that does not arrive is counted, once, under its reason.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{messages::ITEM, wire};

/// Sent at once when so many wait, and so many at a time: a message of some hundred kilobytes, far below gRPC's 4 MB.
const BATCH: usize = 512;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// For so long a batch is tried again. Meanwhile the others wait in line.
const RETRY_FOR: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    capacity: usize,
    /// The fewest that are sent before their time.
    many_items: usize,
    many: Notify,
    pub(super) counts: Counts,
}

/// All but the last are full.
#[derive(Debug, Default)]
struct Waiting {
    /// Each with the number of its items.
    batches: VecDeque<(Vec<u8>, usize)>,
    items: usize,
    /// Memory of a batch that was sent, for the next one.
    spare: Vec<u8>,
}

/// Spans, or lines, as they stand in a message.
#[derive(Debug)]
pub(super) struct Batch {
    /// Shared with an attempt to send them.
    pub bytes: Arc<Vec<u8>>,
    pub items: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Counts {
    sent: IntCounter,
    queue_full: IntCounter,
    refused: IntCounter,
    unreachable: IntCounter,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// But for so many of them.
    Taken {
        refused: u64,
    },
    /// Not now: may be tried again.
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
                     unreachable (it did not answer for half a minute, or until this process stopped)"
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

impl Outbox {
    pub fn new(capacity: usize, counts: Counts) -> Self {
        let waiting = Mutex::new(Waiting::default());
        Self { waiting, capacity, many_items: BATCH.min(capacity), many: Notify::new(), counts }
    }

    /// Never waits.
    pub fn put(&self, item: &[u8]) {
        let waiting = {
            let mut waiting = self.lock();
            if waiting.items >= self.capacity {
                self.counts.queue_full.inc();
                return;
            }
            waiting.push(item);
            waiting.items
        };
        // Not for each one: waking another thread costs more than a span.
        if waiting == self.many_items {
            self.many.notify_one();
        }
    }

    /// Sends what comes until `stop`, and then what is left, in one attempt per batch. Answers how many were lost in that end.
    pub async fn send(
        &self,
        every: Duration,
        patience: Duration,
        stop: &CancellationToken,
        attempt: impl AsyncFn(&Batch) -> Delivery,
    ) -> u64 {
        let attempt = async |batch: &Batch| timeout(patience, attempt(batch)).await.unwrap_or(Delivery::Later);
        loop {
            // Those that do not fill a batch wait for their time: while many come, there are always a few, and a message for each few
            // costs more than the spans in it.
            let mut least = self.many_items;
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.many.notified() => {}
                () = sleep(every) => least = 1,
            }
            while let Some(batch) = self.take(least) {
                least = self.many_items;
                if let Some(unsent) = self.deliver(batch, stop, &attempt).await {
                    return unsent + self.give_up();
                }
            }
        }
        let mut lost = 0;
        while let Some(batch) = self.take(1) {
            let delivery = attempt(&batch).await;
            lost += self.count(delivery, batch.items);
            if delivery == Delivery::Later {
                // The next would not fare better, and the process is to end.
                return lost + self.give_up();
            }
        }
        lost
    }

    /// Again and again, with pauses. Answers how many were lost if `stop` came in between.
    async fn deliver(
        &self,
        batch: Batch,
        stop: &CancellationToken,
        attempt: &impl AsyncFn(&Batch) -> Delivery,
    ) -> Option<u64> {
        let (started, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let delivery = attempt(&batch).await;
            if delivery != Delivery::Later || started.elapsed() >= RETRY_FOR {
                self.count(delivery, batch.items);
                self.lock().reuse(batch);
                return None;
            }
            tokio::select! {
                () = stop.cancelled() => return Some(self.count(Delivery::Later, batch.items)),
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

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

    fn give_up(&self) -> u64 {
        let left = std::mem::take(&mut *self.lock()).items;
        self.count(Delivery::Later, left)
    }

    /// The next batch, if at least so many items wait.
    fn take(&self, least: usize) -> Option<Batch> {
        let mut waiting = self.lock();
        let (bytes, items) = if waiting.items < least { None } else { waiting.batches.pop_front() }?;
        waiting.items -= items;
        Some(Batch { bytes: Arc::new(bytes), items })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, item: &[u8]) {
        self.items += 1;
        if let Some((bytes, items)) = self.batches.back_mut().filter(|(_, items)| *items < BATCH) {
            wire::bytes(bytes, ITEM, item);
            *items += 1;
            return;
        }
        let mut bytes = std::mem::take(&mut self.spare);
        wire::bytes(&mut bytes, ITEM, item);
        self.batches.push_back((bytes, 1));
    }

    fn reuse(&mut self, batch: Batch) {
        if let Some(mut bytes) = Arc::into_inner(batch.bytes) {
            bytes.clear();
            self.spare = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    fn outbox(capacity: usize) -> Outbox {
        Outbox::new(capacity, Counts::new(&Registry::new(), "spans").unwrap())
    }

    fn counted(outbox: &Outbox) -> [u64; 4] {
        let Counts { sent, queue_full, refused, unreachable } = &outbox.counts;
        [sent, queue_full, refused, unreachable].map(IntCounter::get)
    }

    fn item(n: usize) -> [u8; 8] {
        (n as u64).to_le_bytes()
    }

    /// Of items as `item` makes them, with two bytes before each.
    fn items(batch: &Batch) -> Vec<usize> {
        let number = |item: &[u8]| u64::from_le_bytes(item[2..].try_into().unwrap()) as usize;
        let items: Vec<usize> = batch.bytes.chunks(10).map(number).collect();
        assert_eq!(items.len(), batch.items);
        items
    }

    const EVERY: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn all_arrive_in_order_and_what_is_left_at_the_end_too() {
        let (outbox, stop, got) = (outbox(10_000), CancellationToken::new(), RefCell::new(Vec::new()));
        let receiver = async |batch: &Batch| {
            got.borrow_mut().extend(items(batch));
            Delivery::Taken { refused: 0 }
        };
        let sender = outbox.send(EVERY, PATIENCE, &stop, receiver);
        let work = async {
            (0..3).for_each(|n| outbox.put(&item(n)));
            sleep(Duration::from_secs(2)).await;
            assert_eq!(got.borrow().len(), 3);
            (3..3 + BATCH).for_each(|n| outbox.put(&item(n)));
            sleep(Duration::from_millis(1)).await;
            assert_eq!(got.borrow().len(), 3 + BATCH, "a whole batch does not wait");
            outbox.put(&item(3 + BATCH));
            stop.cancel();
        };
        let (lost, ()) = tokio::join!(sender, work);
        assert_eq!((lost, counted(&outbox)), (0, [4 + BATCH as u64, 0, 0, 0]));
        assert!(got.borrow().iter().copied().eq(0..4 + BATCH));
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_is_away_costs_what_finds_no_place() {
        let (outbox, stop) = (outbox(1_000), CancellationToken::new());
        let (away, got) = (Cell::new(true), Cell::new(0));
        let receiver = async |batch: &Batch| {
            if away.get() {
                return Delivery::Later;
            }
            got.set(got.get() + batch.items as u64);
            Delivery::Taken { refused: 0 }
        };
        let sender = outbox.send(EVERY, PATIENCE, &stop, receiver);
        let work = async {
            (0..1_000).for_each(|n| outbox.put(&item(n)));
            sleep(Duration::from_secs(5)).await;
            // One batch is in the sender's hand.
            (0..BATCH + 7).for_each(|n| outbox.put(&item(n)));
            away.set(false);
            sleep(Duration::from_secs(5)).await;
            assert_eq!(counted(&outbox), [1_000 + BATCH as u64, 7, 0, 0]);
            // Away for longer than is waited for.
            away.set(true);
            outbox.put(&item(1));
            sleep(RETRY_FOR + Duration::from_secs(5)).await;
            assert_eq!(counted(&outbox)[3], 1);
            (0..10).for_each(|n| outbox.put(&item(n)));
            stop.cancel();
        };
        let (lost, ()) = tokio::join!(sender, work);
        assert_eq!((lost, counted(&outbox), got.get()), (10, [1_512, 7, 0, 11], 1_512));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_not_tried_again_and_a_silent_receiver_is_left() {
        let (outbox, stop, attempts) = (outbox(1_000), CancellationToken::new(), Cell::new(0));
        let receiver = async |batch: &Batch| {
            attempts.set(attempts.get() + 1);
            match batch.items {
                1 => Delivery::Refused,
                2 => Delivery::Taken { refused: 1 },
                _ => std::future::pending().await,
            }
        };
        let sender = outbox.send(EVERY, PATIENCE, &stop, receiver);
        let work = async {
            outbox.put(&item(0));
            sleep(EVERY * 2).await;
            (0..2).for_each(|n| outbox.put(&item(n)));
            sleep(EVERY * 2).await;
            assert_eq!((counted(&outbox), attempts.get()), ([1, 0, 2, 0], 2));
            (0..3).for_each(|n| outbox.put(&item(n)));
            stop.cancel();
        };
        let (lost, ()) = tokio::join!(sender, work);
        assert_eq!((lost, counted(&outbox)), (3, [1, 0, 2, 3]));
    }
}
