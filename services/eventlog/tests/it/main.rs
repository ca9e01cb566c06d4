//! Producer and consumer on a real broker. A start takes seconds, so each test uses one broker for several cases; a case has partitions of
//! its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod broker;
mod outage;
mod reading;
mod sending;
mod topics;

use broker::Broker;

/// Cases that leave the broker alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_to_kafka_and_come_back() {
    let Some(broker) = Broker::start("test-eventlog").await else { return };
    topics::are_created_once(&broker).await;
    sending::positions_and_context_come_back(&broker).await;
    sending::foreign_messages_are_handed_over_as_they_are(&broker).await;
    sending::dead_letters_keep_their_source(&broker).await;
    reading::a_partition_has_one_reader_at_a_time(&broker).await;
    reading::a_cancelled_call_loses_nothing(&broker).await;
    reading::offsets_that_the_broker_does_not_have_are_refused(&broker).await;
    reading::a_slow_reader_stops_no_other_and_holds_little(&broker).await;
    broker.stop().await;
}

/// Cases that stop the broker or spoil its topics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_fails_and_returns() {
    let Some(mut broker) = Broker::start("test-eventlog-outage").await else { return };
    topics::another_number_of_partitions_is_refused(&broker).await;
    outage::reading_goes_on_after_a_kill(&mut broker).await;
    outage::a_silent_broker_is_no_acknowledgement(&mut broker).await;
    broker.stop().await;
}
