//! Two processes with one name, and clocks that were set back.

use heartbeat::{clock::wall_ms, registry::Registration};

use crate::{
    monitor::Monitor,
    relay::until,
    support::{Stores, Worker},
};

const HOUR_MS: u64 = 3_600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_clock_was_set_back_registers_above_its_former_process() {
    let Some(stores) = Stores::start(1).await else { return };
    let monitor = Monitor::start().await;
    let former = wall_ms() + HOUR_MS;
    let (http, udp) = ("h:1".to_owned(), "h:2".to_owned());
    monitor.register(Registration { id: "w".into(), incarnation: former, process: 1, http, udp, leaving: false });
    let worker = Worker::start("w", &monitor, &stores.config);
    until("registered above", async || monitor.registered("w").is_some_and(|node| node.process != 1)).await;
    assert!(monitor.registered("w").unwrap().incarnation > former);
    until("admitted", async || monitor.admit("w", &[0])).await;
    until("served", async || worker.serves(0).await).await;
    stores.stop().await;
}

/// As after a machine was cloned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admitted_process_gives_way_to_a_later_one_of_its_name() {
    let Some(stores) = Stores::start(1).await else { return };
    let monitor = Monitor::start().await;
    let first = Worker::start("w", &monitor, &stores.config);
    until("admitted", async || monitor.admit("w", &[0])).await;
    until("served", async || first.serves(0).await).await;
    let of_first = monitor.registered("w").unwrap();
    let second = Worker::start("w", &monitor, &stores.config);
    until("the later process is admitted", async || monitor.admit("w", &[0])).await;
    until("served by the later process", async || second.serves(0).await && !first.serves(0).await).await;
    let of_second = monitor.registered("w").unwrap();
    assert!(of_second.process != of_first.process && of_second.incarnation > of_first.incarnation);
    let received = monitor.heard().len();
    until("both send heartbeats", async || monitor.heard().len() > received + 40).await;
    assert_eq!(monitor.registered("w"), Some(of_second), "the former process does not take the name back");
    assert!(second.serves(0).await && !first.serves(0).await);
    stores.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_with_one_name_exactly_one_serves() {
    let Some(stores) = Stores::start(1).await else { return };
    let monitor = Monitor::start().await;
    let workers = [(); 2].map(|()| Worker::start("w", &monitor, &stores.config));
    let serving = async || {
        let mut serving = Vec::new();
        for (n, worker) in workers.iter().enumerate() {
            if worker.serves(0).await {
                serving.push(n);
            }
        }
        serving
    };
    // The registration and the table are the same for 40 heartbeats of both: neither process takes the name from the other.
    let (mut stable, mut heard, mut seen) = (monitor.registered("w"), 0, 0);
    until("the registration stays", async || {
        monitor.admit("w", &[0]);
        let registered = monitor.registered("w");
        let received: u64 = monitor.heard().iter().map(|beat| beat.sequence).sum();
        if registered != stable {
            (stable, heard) = (registered, 0);
        } else if received != seen {
            heard += 1;
        }
        seen = received;
        heard >= 40 && monitor.table().is_online("w")
    })
    .await;
    let mut winner = Vec::new();
    until("one serves", async || {
        winner = serving().await;
        winner.len() == 1
    })
    .await;
    // It ends; the other comes back above it once the table has failed it.
    let [first, second] = workers;
    let (ended, remaining) = if winner == [0] { (first, second) } else { (second, first) };
    drop(ended);
    let mut table = heartbeat::assign::Table::clone(&monitor.table());
    let failed = table.nodes["w"].incarnation;
    table.epoch += 1;
    table.nodes.get_mut("w").unwrap().online = false;
    monitor.publish(table);
    until("registered above", async || monitor.registered("w").is_some_and(|node| node.incarnation > failed)).await;
    until("admitted", async || monitor.admit("w", &[0])).await;
    until("the other serves", async || remaining.serves(0).await).await;
    stores.stop().await;
}
