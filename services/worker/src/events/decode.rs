//! Step 5: from messages to events. Pure.

use contract::{Event, ShardId, event_message, shard_of};
use eventlog::Message;

/// An event, and the offset of its message.
#[derive(Debug, Clone, PartialEq)]
pub struct Consumed {
    pub offset: u64,
    pub event: Event,
}

/// A message that is no event of this partition.
#[derive(Debug, PartialEq)]
pub struct DeadLetter<'a> {
    pub offset: u64,
    pub reason: String,
    /// `None`: the message was a tombstone.
    pub payload: Option<&'a [u8]>,
}

impl<'a> DeadLetter<'a> {
    pub fn of(message: &'a Message, reason: &str) -> Self {
        Self { offset: message.offset, reason: reason.to_owned(), payload: message.payload.as_deref() }
    }
}

/// What `POST /events` tolerates. An event further ahead would hide the user's later events.
const AHEAD_MS: i64 = 300_000;

/// Both in order of their offsets.
pub fn decode(shard: ShardId, messages: &[Message]) -> (Vec<Consumed>, Vec<DeadLetter<'_>>) {
    let (mut events, mut dead) = (Vec::with_capacity(messages.len()), Vec::new());
    for message in messages {
        let offset = message.offset;
        match check(shard, message) {
            Ok(event) => events.push(Consumed { offset, event }),
            Err(reason) => dead.push(DeadLetter::of(message, &reason)),
        }
    }
    (events, dead)
}

fn check(shard: ShardId, message: &Message) -> Result<Event, String> {
    let payload = message.payload.as_deref().ok_or("the message has no payload (a tombstone)")?;
    let event = event_message::decode(payload).map_err(|error| error.to_string())?;
    let partition = shard_of(event.user_id.as_str());
    if partition != shard {
        return Err(format!("the user belongs to partition {}", partition.index()));
    }
    let latest_ms = message.timestamp_ms.map_or(i64::MAX, |sent_ms| sent_ms.saturating_add(AHEAD_MS));
    if !(0..=latest_ms).contains(&event.at_ms) {
        return Err(format!("its time {} is before 1970 or more than {AHEAD_MS} ms after it was sent", event.at_ms));
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use contract::{EventKind, ItemId, UserId};

    use super::*;

    fn event(at_ms: i64) -> Event {
        let (user_id, item_id) = (UserId::new("u1").unwrap(), ItemId::new("i1").unwrap());
        Event { user_id, item_id, kind: EventKind::View, at_ms, weight: 1.0 }
    }

    fn message(offset: u64, payload: Option<Vec<u8>>) -> Message {
        Message { offset, timestamp_ms: Some(1_000), payload, traceparent: None }
    }

    #[test]
    fn what_is_no_event_of_the_partition_is_a_dead_letter_with_its_reason() {
        let shard = shard_of("u1");
        let good = event_message::encode(&event(1_000));
        let mut unknown_version = good.clone();
        unknown_version[0] = 200;
        let messages = [
            message(7, Some(good.clone())),
            message(8, None),
            message(9, Some(unknown_version)),
            message(10, Some(b"\xff\x00random".to_vec())),
            message(11, Some(vec![1; 1 << 20])),
            message(12, Some(event_message::encode(&event(-1)))),
            message(13, Some(event_message::encode(&event(1_000 + AHEAD_MS + 1)))),
            message(14, Some(event_message::encode(&event(1_000 + AHEAD_MS)))),
        ];
        let (events, dead) = decode(shard, &messages);
        assert_eq!(events.iter().map(|consumed| consumed.offset).collect::<Vec<_>>(), [7, 14]);
        assert_eq!(dead.iter().map(|letter| letter.offset).collect::<Vec<_>>(), [8, 9, 10, 11, 12, 13]);
        assert!(dead.iter().all(|letter| !letter.reason.is_empty()), "{dead:?}");
        assert!(dead[0].payload.is_none() && dead[0].reason.contains("tombstone"), "{dead:?}");
        let elsewhere = ShardId::all().find(|other| *other != shard).unwrap();
        let (none, dead) = decode(elsewhere, &messages[..1]);
        assert!(none.is_empty() && dead[0].reason.contains(&format!("partition {}", shard.index())), "{dead:?}");
    }
}
