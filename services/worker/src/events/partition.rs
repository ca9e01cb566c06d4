//! Steps 4 to 9 for one partition, while this worker owns it.

use std::{
    collections::{HashSet, hash_map::Entry},
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use contract::{
    ShardId, UserId,
    spans::{attribute, name, operation, system},
};
use eventlog::{Message, Position, ReadError, SubscribeError};
use runtime::telemetry::{Context, Kind, Span};
use stores::{BatchRefused, EventBatch, EventPosition, FeaturesRow, StoreError};

use super::{
    Shared,
    decode::{Consumed, DeadLetter, decode},
    fold::{Folded, FoldedUser, UserMap, candidates, fold},
    known_users::KnownUsers,
    publish::{CHUNK, Unpublished},
    read::{decoded, read_users},
};
use crate::{metrics::PartitionSeries, ownership::PartitionOwnership};

/// A batch ends with this number of messages, or this time after its first message.
const MAX_BATCH: usize = 500;
const LINGER: Duration = Duration::from_millis(50);
/// Time for the broker to acknowledge a dead letter.
const DEAD_LETTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before lists that Redis did not take are written again.
const PUBLISH_AGAIN: Duration = Duration::from_millis(500);
/// While a backlog drains, the lists wait for this time: the next batch may change them again.
const PUBLISH_EVERY: Duration = Duration::from_secs(10);
/// Messages are a backlog if more of them wait and they were sent before this time.
const BACKLOG: Duration = Duration::from_secs(1);
/// How often a batch is written again because others took its arrival numbers.
const MAX_RENUMBERED: usize = 10;
/// Lists of a partition that wait for Redis.
const MAX_UNPUBLISHED: usize = 10_000;
/// A new owner publishes the lists of the users in the last batches: its predecessor may have ended between steps 8 and 9.
const PUBLISH_SINCE: u64 = 4 * MAX_BATCH as u64;

/// Why a partition is not consumed any more.
#[derive(Debug)]
pub enum Stop {
    /// The store refused this worker's epoch. The ownership knows it.
    Overruled,
    /// The store has another position: a write succeeded although its answer was lost, events written without Kafka took arrival numbers, or
    /// an operator has changed the position. Or features that this task knew were deleted.
    Moved,
    /// The topic does not have the stored position.
    OutOfRange(SubscribeError),
    Failed(Box<dyn Error + Send + Sync>),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<SubscribeError> for Stop {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::OutOfRange { .. } | SubscribeError::PartitionCount { .. } => Self::OutOfRange(error),
            error => Self::Failed(error.into()),
        }
    }
}

impl From<ReadError> for Stop {
    /// An offset that fell out of range is found again, and named, when the partition is subscribed to again.
    fn from(error: ReadError) -> Self {
        Self::Failed(error.into())
    }
}

/// The fold panicked.
struct Poison;

/// Why a batch was not written.
enum Unwritten {
    /// A message that makes the fold panic is in it.
    Poison,
    /// Events written without Kafka took arrival numbers meanwhile: these are the next ones.
    Renumbered(EventPosition),
    Stop(Stop),
}

impl<E: Into<Stop>> From<E> for Unwritten {
    fn from(error: E) -> Self {
        Self::Stop(error.into())
    }
}

/// A partition that this worker owns in this epoch.
pub struct OwnedPartition<'a> {
    path: &'a Shared,
    shard: ShardId,
    epoch: u64,
    ownership: &'a PartitionOwnership,
    shown: &'a PartitionSeries,
    position: EventPosition,
    known: KnownUsers,
    /// Users whose lists are not in Redis yet, and whether they are to be announced (`Unpublished::announce`).
    unpublished: UserMap<bool>,
    /// When the messages that these lists wait for were sent, Unix ms.
    unpublished_ms: Vec<i64>,
    published_at: Instant,
}

impl<'a> OwnedPartition<'a> {
    pub(super) fn new(
        path: &'a Shared,
        shard: ShardId,
        epoch: u64,
        ownership: &'a PartitionOwnership,
        shown: &'a PartitionSeries,
    ) -> Self {
        Self {
            path,
            shard,
            epoch,
            ownership,
            shown,
            position: EventPosition::default(),
            known: KnownUsers::new(),
            unpublished: UserMap::default(),
            unpublished_ms: Vec::new(),
            published_at: Instant::now(),
        }
    }

    /// Consumes until it cannot go on.
    pub async fn run(mut self) -> Stop {
        match self.consume().await {
            Ok(never) => match never {},
            Err(stop) => stop,
        }
    }

    async fn consume(&mut self) -> Result<std::convert::Infallible, Stop> {
        // Step 4
        let path = self.path;
        self.position = path.store.event_position(self.shard).await?;
        let mut subscription = path.consumer.subscribe(self.shard, self.position.next_offset).await?;
        self.shown.consuming();
        self.remember_last_batches().await?;
        self.publish().await;
        loop {
            self.shown.lag(subscription.end().map(|end| end.saturating_sub(self.position.next_offset)));
            let messages = if self.unpublished.is_empty() {
                subscription.next_batch(MAX_BATCH, LINGER).await?
            } else {
                match tokio::time::timeout(PUBLISH_AGAIN, subscription.next_batch(MAX_BATCH, LINGER)).await {
                    Ok(messages) => messages?,
                    Err(_elapsed) => Vec::new(),
                }
            };
            self.shown.lag(subscription.end().map(|end| end.saturating_sub(self.position.next_offset)));
            let span = self.span(&messages);
            if !messages.is_empty() {
                self.process(&messages, &span).await?;
                self.note_sent(&messages);
            }
            // Step 9
            let more = subscription.end().is_some_and(|end| end > self.position.next_offset);
            let waits = more && are_old(&messages) && self.unpublished.len() < MAX_UNPUBLISHED / 2;
            if waits && self.published_at.elapsed() < PUBLISH_EVERY {
                continue;
            }
            if !self.publish().await {
                span.fail("redis");
            }
        }
    }

    fn note_sent(&mut self, messages: &[Message]) {
        let room = MAX_UNPUBLISHED.saturating_sub(self.unpublished_ms.len());
        self.unpublished_ms.extend(messages.iter().filter_map(|message| message.timestamp_ms).take(room));
    }

    /// Writes the messages' events. If the fold panics, one message at a time, and the one at fault becomes a dead letter: it does not
    /// travel from worker to worker.
    async fn process(&mut self, messages: &[Message], span: &Span) -> Result<(), Stop> {
        if self.write_numbered(messages, None, span).await?.is_ok() {
            return Ok(());
        }
        for message in messages {
            let one = slice::from_ref(message);
            if self.write_numbered(one, None, span).await?.is_err() {
                let reason = "the fold panicked on it";
                self.write_numbered(one, Some(reason), span).await?.ok();
            }
        }
        Ok(())
    }

    /// Writes again with the next numbers as often as others took these, up to a limit. The inner error: the fold panics.
    async fn write_numbered(
        &mut self,
        messages: &[Message],
        poison: Option<&str>,
        span: &Span,
    ) -> Result<Result<(), Poison>, Stop> {
        for _ in 0..MAX_RENUMBERED {
            match self.write(messages, poison, span).await {
                Ok(()) => return Ok(Ok(())),
                Err(Unwritten::Poison) => return Ok(Err(Poison)),
                Err(Unwritten::Renumbered(position)) => self.position = position,
                Err(Unwritten::Stop(stop)) => return Err(stop),
            }
        }
        Err(Stop::Moved)
    }

    /// Steps 5 to 8. `poison`: all messages are dead letters for this reason.
    async fn write(&mut self, messages: &[Message], poison: Option<&str>, span: &Span) -> Result<(), Unwritten> {
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else { return Ok(()) };
        let metrics = &self.path.metrics;
        // Step 5
        let (consumed, dead) = match poison {
            None => decode(self.shard, messages),
            Some(reason) => (Vec::new(), messages.iter().map(|message| DeadLetter::of(message, reason)).collect()),
        };
        self.send_dead_letters(&dead).await?;
        // Step 6
        let reading = Instant::now();
        let known = self.features(&consumed).await?;
        let candidates = candidates(&consumed, &known);
        let logged = if candidates.is_empty() {
            HashSet::new()
        } else {
            self.path.store.logged(self.shard, &candidates).await?
        };
        metrics.stage("read", reading.elapsed());
        // Step 7
        let folding = Instant::now();
        let EventPosition { next_offset: from_offset, arrival_base } = self.position;
        let folded = catch_unwind(AssertUnwindSafe(|| fold(consumed, known, &logged, arrival_base)));
        let Folded { events, users, late, duplicates } = folded.map_err(|_panic| Unwritten::Poison)?;
        let next_offset = last.offset + 1;
        let batch = EventBatch { from_offset, next_offset, arrival_base, events, users: rows(&users) };
        metrics.stage("fold", folding.elapsed());
        // Step 8
        let writing = Instant::now();
        self.commit(&batch).await?;
        metrics.stage("write", writing.elapsed());
        let (new, dead) = (batch.events.len() as u64, dead.len() as u64);
        metrics.written(messages.len(), new, late, duplicates, dead);
        span.set(attribute::MESSAGING_BATCH_MESSAGE_COUNT, messages.len());
        tracing::trace!(partition = self.shard.index(), from = first.offset, to = last.offset, "batch written");
        self.position.next_offset = next_offset;
        self.remember(users);
        Ok(())
    }

    async fn send_dead_letters(&self, dead: &[DeadLetter<'_>]) -> Result<(), Stop> {
        for letter in dead {
            let (source, reason) = (Position { partition: self.shard, offset: letter.offset }, &letter.reason);
            tracing::warn!(
                partition = self.shard.index(),
                offset = letter.offset,
                reason,
                "a message is no event: sent to the dead letters"
            );
            let deadline = tokio::time::Instant::now() + DEAD_LETTER_TIMEOUT;
            let producer = self.path.dead_letters().await.map_err(|error| Stop::Failed(error.into()))?;
            let sent = producer.send_dead_letter(source, reason, letter.payload, deadline).await;
            sent.map_err(|error| Stop::Failed(error.into()))?;
        }
        Ok(())
    }

    /// The features of the events' users.
    async fn features(&mut self, consumed: &[Consumed]) -> Result<UserMap<FoldedUser>, StoreError> {
        let mut known = UserMap::default();
        let mut unknown = Vec::new();
        for Consumed { event, .. } in consumed {
            if let Entry::Vacant(entry) = known.entry(event.user_id.clone()) {
                let user = self.known.take(&event.user_id);
                if user.is_none() {
                    unknown.push(event.user_id.clone());
                }
                entry.insert(user.unwrap_or_default());
            }
        }
        known.extend(read_users(&self.path.store, self.shard, &unknown).await?);
        Ok(known)
    }

    /// Step 8
    async fn commit(&self, batch: &EventBatch) -> Result<(), Unwritten> {
        let store = &self.path.store;
        let write = async {
            let now_ms = unix_ms();
            Ok(match store.write_batch(self.shard, batch, now_ms, self.epoch, self.ownership.process()).await? {
                Ok(()) => Ok(Ok(())),
                Err(BatchRefused::Position { stored }) if stored.next_offset == batch.from_offset => {
                    Ok(Err(Unwritten::Renumbered(stored)))
                }
                Err(BatchRefused::Position { .. } | BatchRefused::Features) => Ok(Err(Stop::Moved.into())),
                Err(BatchRefused::Fence(refused)) => Err(refused),
            })
        };
        let (outcome, result) = match self.ownership.write(self.shard, self.epoch, write).await {
            Ok(Ok(Ok(()))) => ("written", Ok(())),
            Ok(Ok(Err(unwritten))) => ("refused", Err(unwritten)),
            Ok(Err(_overruled)) => ("refused", Err(Stop::Overruled.into())),
            Err(error) => ("failed", Err(error.into())),
        };
        self.path.metrics.batch(outcome);
        result
    }

    /// The store has these features now. Their users' lists are to be published.
    fn remember(&mut self, users: UserMap<FoldedUser>) {
        for (user_id, user) in users {
            let is_new = user.features.events() == u64::from(user.added);
            self.remember_unpublished(&user_id, is_new);
            self.known.put(user_id, FoldedUser { stored: true, added: 0, ..user });
        }
    }

    fn remember_unpublished(&mut self, user_id: &UserId, announce: bool) {
        if self.path.publisher.is_none() {
            return;
        }
        if let Some(waits) = self.unpublished.get_mut(user_id) {
            *waits |= announce;
        } else if self.unpublished.len() < MAX_UNPUBLISHED {
            self.unpublished.insert(user_id.clone(), announce);
        } else {
            self.path.metrics.unpublished.inc();
        }
    }

    async fn remember_last_batches(&mut self) -> Result<(), StoreError> {
        if self.path.publisher.is_none() {
            return Ok(());
        }
        let next = self.position.arrival_base + self.position.next_offset;
        let since = next.saturating_sub(PUBLISH_SINCE).max(1);
        let rows = self.path.store.recent_features(self.shard, since).await?;
        for (user_id, user) in rows.iter().filter_map(decoded) {
            self.remember_unpublished(&user_id, true);
            self.known.put(user_id, user);
        }
        Ok(())
    }

    /// Step 9. False: Redis did not take the lists. They are written again with the next batch.
    async fn publish(&mut self) -> bool {
        let metrics = &self.path.metrics;
        let publishing = Instant::now();
        if let Err(error) = self.publish_lists().await {
            tracing::debug!(error = &*error as &dyn Error, "cannot publish lists, trying again");
            return false;
        }
        self.unpublished.clear();
        self.published_at = Instant::now();
        let sent = std::mem::take(&mut self.unpublished_ms);
        if !sent.is_empty() {
            metrics.stage("publish", publishing.elapsed());
        }
        let now_ms = unix_ms();
        for sent_ms in sent {
            metrics.fresh(Duration::from_millis(now_ms.saturating_sub(sent_ms).max(0).cast_unsigned()));
        }
        true
    }

    async fn publish_lists(&mut self) -> anyhow::Result<()> {
        let Some(publisher) = &self.path.publisher else { return Ok(()) };
        let waiting: Vec<(&UserId, bool)> = self.unpublished.iter().map(|(id, announce)| (id, *announce)).collect();
        for chunk in waiting.chunks(CHUNK) {
            let unknown = chunk.iter().filter(|(id, _)| self.known.get(id).is_none());
            let unknown: Vec<UserId> = unknown.map(|(id, _)| (*id).clone()).collect();
            let stored = read_users(&self.path.store, self.shard, &unknown).await?;
            let lists = chunk.iter().filter_map(|&(user_id, announce)| {
                let user = self.known.get(user_id).or_else(|| stored.get(user_id))?;
                Some(Unpublished { user_id, features: &user.features, arrival: user.arrival, announce })
            });
            publisher.publish(&lists.collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// Follows the first message that is recorded; linked to the others.
    fn span(&self, messages: &[Message]) -> Span {
        let mut recorded = messages.iter().filter_map(|message| message.traceparent.as_deref());
        let Some(first) = recorded.next() else { return Span::NONE };
        let span = self.path.telemetry.follow(first, Kind::Consumer, name::PROCESS_BEHAVIOUR);
        span.set(attribute::MESSAGING_SYSTEM, system::KAFKA);
        span.set(attribute::MESSAGING_OPERATION_NAME, operation::PROCESS);
        span.set(attribute::MESSAGING_OPERATION_TYPE, operation::PROCESS);
        span.set(attribute::MESSAGING_DESTINATION_NAME, eventlog::BEHAVIOUR);
        span.set_with(attribute::MESSAGING_DESTINATION_PARTITION_ID, || self.shard.index().to_string());
        recorded.for_each(|traceparent| span.link(Context::parse(traceparent.as_bytes())));
        span
    }
}

fn are_old(messages: &[Message]) -> bool {
    let sent_ms = messages.last().and_then(|message| message.timestamp_ms);
    sent_ms.is_some_and(|sent_ms| unix_ms().saturating_sub(sent_ms) > BACKLOG.as_millis() as i64)
}

fn rows(users: &UserMap<FoldedUser>) -> Vec<FeaturesRow> {
    let row = |(user_id, user): (&UserId, &FoldedUser)| FeaturesRow {
        user_id: user_id.clone(),
        arrival: user.arrival,
        bytes: user.features.encode().to_vec(),
        added: user.added,
        continues: user.stored,
    };
    users.iter().map(row).collect()
}

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64)
}
