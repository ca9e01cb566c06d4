//! What became of the messages of one call, reported by the client's thread.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use rdkafka::{
    ClientContext, Message as _,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{NoCustomPartitioner, ProducerContext},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{context::ErrorLog, metrics::ProducerMetrics};

/// Partition and offset as the client numbers them, or why the message may be lost.
pub(crate) type Delivered = Result<(i32, i64), KafkaError>;

/// Messages that are acknowledged together.
pub(crate) struct Batch {
    pending: Mutex<Pending>,
}

struct Pending {
    delivered: Vec<Option<Delivered>>,
    missing: usize,
    done: Option<oneshot::Sender<Vec<Delivered>>>,
    /// Held until the last message is acknowledged or given up, even if the sender has left.
    room: Option<OwnedSemaphorePermit>,
}

/// One message of a batch; the client returns it with the outcome.
pub(crate) struct Ticket {
    pub(crate) index: usize,
    pub(crate) batch: Arc<Batch>,
}

impl Batch {
    /// The receiver gets one outcome per message, in order.
    pub(crate) fn new(
        messages: usize,
        room: Option<OwnedSemaphorePermit>,
    ) -> (Arc<Self>, oneshot::Receiver<Vec<Delivered>>) {
        let (done, outcome) = oneshot::channel();
        let delivered = std::iter::repeat_with(|| None).take(messages).collect();
        let pending = Mutex::new(Pending { delivered, missing: messages, done: Some(done), room });
        (Arc::new(Self { pending }), outcome)
    }

    fn deliver(&self, index: usize, delivered: Delivered) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot @ None) = pending.delivered.get_mut(index) else { return };
        *slot = Some(delivered);
        pending.missing -= 1;
        if pending.missing == 0
            && let Some(done) = pending.done.take()
        {
            // Before the sender knows: it may send as much again at once.
            pending.room = None;
            // Fails if the sender has left.
            done.send(std::mem::take(&mut pending.delivered).into_iter().flatten().collect()).ok();
        }
    }
}

/// The client's callbacks.
pub(crate) struct Deliveries {
    metrics: ProducerMetrics,
    errors: ErrorLog,
    /// The client accepts nothing more: it needs a successor.
    fatal: AtomicBool,
}

impl Deliveries {
    pub(crate) fn new(metrics: ProducerMetrics) -> Self {
        Self { metrics, errors: ErrorLog::new(), fatal: AtomicBool::new(false) }
    }

    pub(crate) fn is_fatal(&self) -> bool {
        self.fatal.load(Ordering::Relaxed)
    }

    pub(crate) fn note(&self, error: &KafkaError) {
        if needs_new_producer(error) {
            self.fatal.store(true, Ordering::Relaxed);
        }
    }
}

/// True: an idempotent producer has lost its place in the sequence of messages, or its permission. It fails all further messages.
fn needs_new_producer(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::OutOfOrderSequenceNumber
                | RDKafkaErrorCode::UnknownProducerId
                | RDKafkaErrorCode::InvalidProducerEpoch
        )
    )
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        self.note(&error);
        self.errors.report(&error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        self.metrics.pending.dec();
        let delivered = match result {
            Ok(message) => {
                self.metrics.acknowledged.inc();
                Ok((message.partition(), message.offset()))
            }
            Err((error, _message)) => {
                self.metrics.failed.inc();
                self.note(error);
                Err(error.clone())
            }
        };
        ticket.batch.deliver(ticket.index, delivered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_replaced_after_fatal_errors_only() {
        use RDKafkaErrorCode as Code;
        for code in [Code::Fatal, Code::OutOfOrderSequenceNumber, Code::UnknownProducerId, Code::InvalidProducerEpoch] {
            assert!(needs_new_producer(&KafkaError::MessageProduction(code)), "{code:?}");
            assert!(needs_new_producer(&KafkaError::Global(code)), "{code:?}");
        }
        for code in [Code::QueueFull, Code::MessageTimedOut, Code::AllBrokersDown, Code::BrokerTransportFailure] {
            assert!(!needs_new_producer(&KafkaError::MessageProduction(code)), "{code:?}");
        }
        assert!(!needs_new_producer(&KafkaError::Canceled));
    }

    #[test]
    fn a_batch_ends_with_its_last_message_in_the_order_of_the_call() {
        let (batch, mut outcome) = Batch::new(3, None);
        batch.deliver(2, Ok((5, 20)));
        batch.deliver(0, Ok((4, 10)));
        batch.deliver(0, Ok((9, 99)));
        assert!(outcome.try_recv().is_err());
        batch.deliver(1, Err(KafkaError::Canceled));
        assert_eq!(outcome.try_recv().unwrap(), [Ok((4, 10)), Err(KafkaError::Canceled), Ok((5, 20))]);
    }

    /// The client still holds the last ticket when the sender learns the outcome.
    #[tokio::test]
    async fn a_sender_that_knows_the_outcome_has_room_again() {
        let room = Arc::new(tokio::sync::Semaphore::new(2));
        let permits = Arc::clone(&room).acquire_many_owned(2).await.unwrap();
        let (batch, mut outcome) = Batch::new(2, Some(permits));
        batch.deliver(0, Ok((0, 0)));
        assert_eq!(room.available_permits(), 0);
        batch.deliver(1, Ok((0, 1)));
        assert!(outcome.try_recv().is_ok());
        assert_eq!(room.available_permits(), 2);
        drop(batch);
    }
}
