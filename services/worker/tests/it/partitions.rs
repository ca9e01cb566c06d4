//! What a worker does with its partitions while stores hang, and what its heartbeats report.

use contract::http::problem;
use faultproxy::Fault;
use heartbeat::{assign::Table, message::Complaint};

use crate::{
    monitor::Monitor,
    relay::{BLACK_HOLES, bounded, until},
    support::{Stores, Worker},
};

/// No timeout of the store ends a command during a test.
const FOR_EVER_MS: u64 = 600_000;

async fn registered(monitor: &Monitor, worker: &str) {
    until("registered", async || monitor.registered(worker).is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_server_blocks_only_its_own_partitions() {
    let Some(mut stores) = Stores::start(2).await else { return };
    (stores.config.connect_timeout_ms, stores.config.statement_timeout_ms) = (FOR_EVER_MS, FOR_EVER_MS);
    let monitor = Monitor::start().await;
    let worker = Worker::start("w", &monitor, &stores.config);
    registered(&monitor, "w").await;
    stores.relays[0].vanish(BLACK_HOLES[0]).await;
    monitor.assign("w", &[0]);
    let is_taking_over = async || worker.problem(0).await.as_deref() == Some(problem::TAKING_OVER);
    until("the worker follows the table", &is_taking_over).await;
    monitor.assign("w", &[1]);
    until("a partition of the other server is served", async || worker.serves(1).await).await;
    assert!(is_taking_over().await);
    stores.relays[0].come_back().await;
    until("served after the server is back", async || worker.serves(0).await).await;
    stores.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_report_partitions_whose_store_is_silent_and_the_worker_stops_serving_them() {
    let Some(stores) = Stores::start(2).await else { return };
    let monitor = Monitor::start().await;
    let worker = Worker::start("w", &monitor, &stores.config);
    registered(&monitor, "w").await;
    monitor.assign("w", &[0, 1, 3]);
    let masks = || monitor.report("w").map(|report| (report.serving, report.failing));
    until("all are served", async || masks() == Some((0b1011, 0))).await;
    let report = monitor.report("w").unwrap();
    let registration = monitor.registered("w").unwrap();
    assert_eq!((report.process, report.history, report.epoch), (registration.process, 7, 1));
    assert_eq!((report.overruled_by, &*report.complaints), (0, &[] as &[Complaint]));
    for fault in [Fault::Stall, BLACK_HOLES[0]] {
        // Without any request.
        stores.relays[1].vanish(fault).await;
        until("the silent store's partitions are not served", async || masks() == Some((0b0001, 0b1010))).await;
        assert!(monitor.report("w").unwrap().store_age_ms >= 1_000);
        let refused = bounded("a refusal", worker.count(1, None)).await;
        assert_eq!((refused, worker.count(0, None).await), (Some(503), Some(200)));
        stores.relays[1].come_back().await;
        until("served again", async || masks() == Some((0b1011, 0)) && worker.serves(3).await).await;
    }
    stores.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_the_store_refuses_is_reported_with_its_epoch() {
    let Some(stores) = Stores::start(1).await else { return };
    let monitor = Monitor::start().await;
    let worker = Worker::start("w", &monitor, &stores.config);
    registered(&monitor, "w").await;
    monitor.assign("w", &[0, 1]);
    until("served", async || worker.serves(0).await && worker.serves(1).await).await;
    // A restored registry gave the partition to another worker in a later epoch.
    let series = stores::StoreMetrics::new(&prometheus::Registry::new()).unwrap();
    let store = stores::Store::new(stores.config.clone(), &series).unwrap();
    let shard = contract::ShardId::all().next().unwrap();
    store.fence(shard, 9, 77, std::time::Duration::from_secs(60)).await.unwrap().unwrap();
    until("reported", async || monitor.report("w").is_some_and(|report| report.overruled_by == 9)).await;
    until("not served", async || monitor.report("w").is_some_and(|report| report.serving == 0b10)).await;
    assert!(!worker.serves(0).await && worker.serves(1).await);
    // A table above the epoch that overruled it.
    let mut table = Table::clone(&monitor.table());
    (table.epoch, table.partitions[0].epoch) = (10, 10);
    monitor.publish(table);
    until("served in a later epoch", async || worker.serves(0).await).await;
    stores.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_complaints_are_reported_with_heartbeats() {
    let Some(stores) = Stores::start(1).await else { return };
    let monitor = Monitor::start().await;
    let (worker, _other) = (Worker::start("w", &monitor, &stores.config), Worker::start("v", &monitor, &stores.config));
    registered(&monitor, "w").await;
    registered(&monitor, "v").await;
    monitor.assign("v", &[2, 5]);
    monitor.assign("w", &[0]);
    until("served", async || worker.serves(0).await).await;
    let complaints = || monitor.report("w").unwrap().complaints;
    // Unknown names and the worker's own are ignored.
    until("reported", async || {
        for partition in [2, 5] {
            worker.count(partition, Some("v, w, unknown")).await;
        }
        complaints() == [Complaint { node_id: "v".into(), partitions: 0b10_0100 }]
    })
    .await;
    until("forgotten", async || complaints().is_empty()).await;
    stores.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_an_impossible_epoch_is_not_followed() {
    let Some(stores) = Stores::start(1).await else { return };
    let monitor = Monitor::start().await;
    let worker = Worker::start("w", &monitor, &stores.config);
    registered(&monitor, "w").await;
    monitor.assign("w", &[0]);
    until("served", async || worker.serves(0).await).await;
    let genuine = monitor.table();
    let mut forged = Table::clone(&genuine);
    (forged.epoch, forged.partitions[0].epoch) = (u64::MAX, u64::MAX);
    monitor.publish(forged);
    let polls = monitor.heard().len();
    until("heartbeats go on", async || monitor.heard().len() > polls + 5).await;
    assert!(worker.serves(0).await);
    monitor.publish(Table::clone(&genuine));
    monitor.assign("w", &[1]);
    until("the genuine table is followed", async || worker.serves(1).await).await;
    assert!(worker.serves(0).await);
    stores.stop().await;
}
