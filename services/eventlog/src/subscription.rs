//! One partition, read in order: each message once, from the first offset on.

use std::{sync::Arc, time::Duration};

use contract::ShardId;
use rdkafka::{
    Message as _,
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers as _},
};
use tokio::{
    sync::{Notify, oneshot},
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    consumer_errors::ReadError,
    fetcher::{Assigned, Fetcher},
    message::{Message, TRACEPARENT},
};

/// Between two attempts to find out why the client has stopped fetching.
const RETRY: Duration = Duration::from_millis(500);

pub struct Subscription {
    // First: its release needs the fetcher.
    assigned: Arc<Assigned>,
    /// Ends when the partition has been let go.
    released: oneshot::Receiver<()>,
    fetcher: Arc<Fetcher>,
    ready: Arc<Notify>,
    partition: ShardId,
    /// Offset of the next message.
    next: u64,
    /// The end offset when the subscription began.
    first_end: u64,
    /// Read and not handed over yet: a call that is cancelled loses nothing.
    batch: Vec<Message>,
    /// When the batch is handed over even if it is not full.
    due: Option<Instant>,
    trouble: Option<Trouble>,
    /// Offset at which the partition was fetched anew because messages were missing. A gap that stays is real.
    restarted_at: Option<u64>,
}

/// Why no messages can be expected. It comes after the messages that were read before it, so it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// The client has no valid position any more, and has stopped.
    NoPosition,
    /// Messages are missing before the one that arrived.
    Gap,
    /// For good.
    Failed(KafkaError),
}

impl Subscription {
    pub(crate) fn new(
        fetcher: Arc<Fetcher>,
        (assigned, released): (Assigned, oneshot::Receiver<()>),
        ready: Arc<Notify>,
        partition: ShardId,
        next: u64,
        first_end: u64,
    ) -> Self {
        Self {
            assigned: Arc::new(assigned),
            released,
            fetcher,
            ready,
            partition,
            next,
            first_end,
            batch: Vec::new(),
            due: None,
            trouble: None,
            restarted_at: None,
        }
    }

    /// Waits for a message, then for at most `linger` for more, up to `max`. Never returns an empty batch. Messages of a cancelled call are
    /// in the next batch. While the broker is away this waits: it returns with the broker.
    ///
    /// # Errors
    /// See [`ReadError`]. After one, the subscription is of no use; messages before it were returned.
    pub async fn next_batch(&mut self, max: usize, linger: Duration) -> Result<Vec<Message>, ReadError> {
        let max = max.max(1);
        loop {
            self.poll(max);
            if self.batch.len() >= max {
                return Ok(self.hand_over(max));
            }
            if self.batch.is_empty() {
                match self.trouble.clone() {
                    Some(trouble) => self.settle(trouble).await?,
                    None => self.ready.notified().await,
                }
                continue;
            }
            let due = *self.due.get_or_insert_with(|| Instant::now() + linger);
            if self.trouble.is_some() || timeout_at(due, self.ready.notified()).await.is_err() {
                return Ok(self.hand_over(max));
            }
        }
    }

    /// The newest end offset that is known: of the last second while the broker answers. The lag is this minus the next offset.
    pub fn end(&self) -> Option<u64> {
        let seen = self.fetcher.seen_end(self.partition).unwrap_or(self.first_end);
        Some(seen.max(self.next))
    }

    /// Lets the partition go. When this returns, it can be subscribed again. Dropping does the same without waiting.
    pub async fn close(self) {
        let Self { assigned, released, .. } = self;
        drop(assigned);
        // Nothing is sent: it ends.
        released.await.ok();
    }

    fn hand_over(&mut self, max: usize) -> Vec<Message> {
        self.due = None;
        let rest = self.batch.split_off(max.min(self.batch.len()));
        std::mem::replace(&mut self.batch, rest)
    }

    /// Takes what the client has fetched, without waiting.
    fn poll(&mut self, max: usize) {
        let Some(queue) = self.assigned.queue() else { return };
        while self.batch.len() < max && self.trouble.is_none() {
            let message = match queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => message,
                Some(Err(error)) => match judge(&error) {
                    Verdict::Passes => continue,
                    Verdict::NoPosition => {
                        self.trouble = Some(Trouble::NoPosition);
                        break;
                    }
                    Verdict::Fails => {
                        self.trouble = Some(Trouble::Failed(error));
                        break;
                    }
                },
            };
            let offset = u64::try_from(message.offset()).unwrap_or(0);
            if offset < self.next {
                // The client begins with the first message of a compressed set.
                continue;
            }
            if offset > self.next && self.restarted_at != Some(self.next) {
                self.trouble = Some(Trouble::Gap);
                break;
            }
            self.next = offset + 1;
            let message = owned(offset, &message);
            if let Some(metrics) = self.fetcher.metrics() {
                metrics.messages.inc();
                metrics.bytes.inc_by(message.payload.as_ref().map_or(0, Vec::len) as u64);
            }
            self.batch.push(message);
        }
    }

    /// Ends the partition if the broker does not have the next offset; otherwise fetches it anew from there.
    async fn settle(&mut self, trouble: Trouble) -> Result<(), ReadError> {
        if let Trouble::Failed(error) = trouble {
            return Err(ReadError::Failed(error));
        }
        let (fetcher, partition, offset) = (Arc::clone(&self.fetcher), self.partition, self.next);
        let assigned = Arc::clone(&self.assigned);
        let settled = spawn_blocking(move || {
            let (low, high) = fetcher.watermarks(partition)?;
            if (low..=high).contains(&offset) {
                assigned.restart(offset)?;
            }
            Ok::<_, KafkaError>((low, high))
        });
        match settled.await.unwrap_or(Err(KafkaError::Canceled)) {
            Ok((low, high)) if !(low..=high).contains(&offset) => Err(ReadError::OutOfRange { offset, low, high }),
            Ok(_) => {
                if let Some(metrics) = self.fetcher.metrics() {
                    metrics.restarts.inc();
                }
                self.restarted_at = Some(offset);
                self.trouble = None;
                tracing::warn!(partition = partition.index(), offset, ?trouble, "a partition is fetched anew");
                Ok(())
            }
            // The broker is away. The caller's loop tries again.
            Err(_error) => {
                sleep(RETRY).await;
                Ok(())
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The client tries again by itself.
    Passes,
    NoPosition,
    Fails,
}

fn judge(error: &KafkaError) -> Verdict {
    use RDKafkaErrorCode as Code;
    match error {
        KafkaError::MessageConsumptionFatal(_) => Verdict::Fails,
        _ => match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Verdict::NoPosition,
            Some(
                Code::UnknownTopic
                | Code::UnknownPartition
                | Code::UnknownTopicOrPartition
                | Code::TopicAuthorizationFailed
                | Code::BadMessage
                | Code::InvalidMessage
                | Code::BadCompression
                | Code::NotImplemented
                | Code::MessageSizeTooLarge,
            ) => Verdict::Fails,
            _ => Verdict::Passes,
        },
    }
}

fn owned(offset: u64, message: &BorrowedMessage<'_>) -> Message {
    let header = message.headers().and_then(|headers| headers.iter().find(|header| header.key == TRACEPARENT));
    let traceparent = header.and_then(|header| header.value).and_then(|value| std::str::from_utf8(value).ok());
    Message {
        offset,
        timestamp_ms: message.timestamp().to_millis(),
        payload: message.payload().map(<[u8]>::to_vec),
        traceparent: traceparent.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_connections_pass_and_damaged_data_does_not() {
        use RDKafkaErrorCode as Code;
        for (code, verdict) in [
            (Code::AllBrokersDown, Verdict::Passes),
            (Code::BrokerTransportFailure, Verdict::Passes),
            (Code::NotLeaderForPartition, Verdict::Passes),
            (Code::AutoOffsetReset, Verdict::NoPosition),
            (Code::OffsetOutOfRange, Verdict::NoPosition),
            (Code::BadMessage, Verdict::Fails),
            (Code::UnknownTopicOrPartition, Verdict::Fails),
        ] {
            assert_eq!(judge(&KafkaError::MessageConsumption(code)), verdict, "{code:?}");
        }
        assert_eq!(judge(&KafkaError::MessageConsumptionFatal(Code::AllBrokersDown)), Verdict::Fails);
    }
}
