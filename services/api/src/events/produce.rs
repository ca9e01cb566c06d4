//! Sends checked events to Kafka. Workers write them to the store and publish the lists that follow from them.

use contract::{
    Event,
    http::EventPosition,
    spans::{attribute, operation, system},
};
use eventlog::{BEHAVIOUR, Producer, SendError};
use runtime::telemetry::{Kind, Span};
use tokio::time::Instant;

use super::users_of;
use crate::{AppState, error::ApiError};

/// Announces the users, sends the events, and waits until all are acknowledged.
///
/// Lists stay as they are: a list that is deleted now would be computed again without the new events.
///
/// # Errors
/// `Redis`: nothing was sent. `EventLog`, by the deadline at the latest: perhaps some events are written.
pub async fn write(
    app: &AppState,
    log: &Producer,
    events: &[Event],
    deadline: Instant,
    span: &Span,
) -> Result<Vec<EventPosition>, ApiError> {
    // A worker writes new users later. Until then only Redis knows that they are not absent.
    stores::announce(&users_of(events), &mut app.redis.traced(span)).await.map_err(ApiError::Redis)?;
    let span = send_span(span, events.len());
    let context = span.context().map(|context| context.to_string());
    let metrics = &app.metrics.produce;
    let started = Instant::now();
    let sent = log.send(events, context.as_deref(), deadline).await;
    metrics.seconds.observe(started.elapsed().as_secs_f64());
    let positions = sent.inspect_err(|error| {
        let (reason, failures) = match error {
            SendError::QueueFull => ("queue_full", &metrics.queue_full),
            SendError::Unavailable(_) | SendError::TooLarge => ("unavailable", &metrics.unavailable),
            SendError::Topics(_) => ("topics", &metrics.topics),
        };
        failures.inc();
        span.fail(reason);
    });
    let positions = positions.map_err(ApiError::EventLog)?;
    app.metrics.events.inc_by(events.len() as u64);
    // Partitions are shards: below 16.
    let place = |at: eventlog::Position| EventPosition { partition: at.partition.index() as u8, offset: at.offset };
    Ok(positions.into_iter().map(place).collect())
}

fn send_span(parent: &Span, messages: usize) -> Span {
    if !parent.is_recorded() {
        return Span::NONE;
    }
    let span = parent.child(Kind::Producer, &format!("{} {BEHAVIOUR}", operation::SEND));
    span.set_all([
        (attribute::MESSAGING_SYSTEM, system::KAFKA.into()),
        (attribute::MESSAGING_DESTINATION_NAME, BEHAVIOUR.into()),
        (attribute::MESSAGING_OPERATION_NAME, operation::SEND.into()),
        (attribute::MESSAGING_OPERATION_TYPE, operation::SEND.into()),
        (attribute::MESSAGING_BATCH_MESSAGE_COUNT, messages.into()),
    ]);
    span
}
