use std::{pin::pin, task::Poll};

use heartbeat::assign::{Membership, Table};
use prometheus::Registry;

use super::*;

#[tokio::test]
async fn a_process_that_gave_way_does_not_end_the_polls_of_its_successor() {
    let metrics = SegmentMetrics::new(&Registry::new()).unwrap();
    let segments = Segments::new(1, Clock::start(), Telemetry::default(), metrics);
    let worker = NodeId::from("a");
    let membership = Membership { incarnation: 2, process: 0, online: true };
    let table = Table { nodes: [(worker.clone(), membership)].into(), ..Table::default() };
    segments.step(Arc::new(Assignments { table: Arc::new(table), addresses: BTreeMap::new() }), false);

    let mut waiting = pin!(segments.orders(&worker, 2, Duration::from_secs(3600)));
    let mut is_waiting =
        async || std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await;
    assert!(is_waiting().await);
    let refused = segments.orders(&worker, 1, Duration::ZERO).await;
    assert!(matches!(refused, Err(Refused::NotOnline { incarnation: 1, .. })), "{refused:?}");
    assert!(is_waiting().await);
    // A newer poll of the same process.
    assert_eq!(segments.orders(&worker, 2, Duration::ZERO).await, Ok(Some(Vec::new())));
    assert_eq!(waiting.await, Ok(None));
}
