use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use heartbeat::{
    clock::Clock,
    message::Beat,
    sender::{BatchSender, BatchWriter, DATAGRAM_BYTES, DatagramSender, Fleet, SingleSender, Tick},
    transport::udp::Receiver,
};
use tokio_util::sync::CancellationToken;

use crate::support::{DEADLINE, Monitor, beat, keys};

const NODES: usize = 2_000;
const INTERVAL: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_keeps_its_schedule_and_stops_at_a_word() {
    type Ticks = BTreeMap<String, Vec<(u64, u64)>>;
    let seen: Arc<Mutex<Ticks>> = Arc::default();
    let emit = {
        let seen = Arc::clone(&seen);
        Arc::new(move |beat: &Beat, tick: Tick| {
            assert!(tick.now >= tick.planned, "a beat before its time");
            seen.lock().unwrap().entry(beat.node_id.clone()).or_default().push((beat.sequence, tick.planned));
        })
    };
    let fleet = Fleet::spawn((0..NODES).map(|n| beat(&format!("n{n}"), 0)), INTERVAL, Clock::start(), emit);
    assert_eq!(fleet.len(), NODES);
    let start = std::time::Instant::now();
    while seen.lock().unwrap().values().filter(|ticks| ticks.len() >= 3).count() < NODES {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(fleet.stop(DEADLINE).await);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    for ticks in seen.values() {
        let (first_sequence, first) = ticks[0];
        for (n, &(sequence, planned)) in ticks.iter().enumerate() {
            assert_eq!(sequence, first_sequence + n as u64);
            // No drift: every time is a whole number of intervals after the first.
            assert_eq!((planned - first) % INTERVAL.as_nanos() as u64, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beats_of_many_nodes_arrive_single_and_batched() {
    for batched in [false, true] {
        let mut monitor = Monitor::new();
        let receiver = Receiver::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, stop) = (receiver.local_addr().unwrap(), CancellationToken::new());
        let receiving = tokio::spawn(receiver.run(Arc::clone(&monitor.ingest), stop.clone()));
        let (outlet, flushing): (Arc<dyn DatagramSender>, _) = if batched {
            let writer = BatchWriter::new(keys(), "agent".into(), 1, DATAGRAM_BYTES);
            let outlet = BatchSender::connect(address, writer).await.unwrap();
            let (flusher, stop) = (Arc::clone(&outlet), stop.clone());
            (outlet, Some(tokio::spawn(async move { flusher.keep_flushing(stop).await })))
        } else {
            (Arc::new(SingleSender::connect(address, keys()).await.unwrap()), None)
        };
        let emit = {
            let outlet = Arc::clone(&outlet);
            Arc::new(move |beat: &Beat, _: Tick| outlet.send(beat))
        };
        let fleet = Fleet::spawn((0..200).map(|n| beat(&format!("n{n}"), 0)), INTERVAL, Clock::start(), emit);
        monitor.until("all nodes", |ingest| ingest.table().len() == 200).await;
        assert!(fleet.stop(DEADLINE).await);
        let (_, first) = monitor.next().await;
        assert_eq!((first.services.len(), first.incarnation), (2, 1));
        stop.cancel();
        receiving.await.unwrap().unwrap();
        if let Some(flushing) = flushing {
            flushing.await.unwrap();
            assert!(outlet.counts().datagrams() < monitor.ingest.counts().accepted());
        }
        assert_eq!(monitor.ingest.counts().rejected_total(), 0);
    }
}

#[test]
fn batches_fill_datagrams_and_lose_no_beat() {
    for padded in [false, true] {
        let monitor = Monitor::new();
        let writer = BatchWriter::new(keys(), "agent".into(), 1, DATAGRAM_BYTES);
        let mut writer = if padded { writer.padded() } else { writer };
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        for n in 0..500 {
            writer.push(&beat(&format!("node-{n}"), 1), |datagram| datagrams.push(datagram.to_vec()));
        }
        let full = datagrams.len();
        writer.flush(|datagram| datagrams.push(datagram.to_vec()));
        writer.flush(|_| panic!("nothing is left"));
        let mut scratch = heartbeat::transport::Scratch::default();
        let peer = "127.0.0.1:1".parse().unwrap();
        for (n, datagram) in datagrams.iter().enumerate() {
            assert!(datagram.len() <= DATAGRAM_BYTES && (n == full || datagram.len() > DATAGRAM_BYTES - 150));
            assert!(!padded || n == full || datagram.len() == DATAGRAM_BYTES, "{}", datagram.len());
            monitor.ingest.frame(&mut scratch, 1, peer, datagram).unwrap();
        }
        assert_eq!((monitor.ingest.table().len(), monitor.ingest.counts().rejected_total()), (500, 0));
    }
}
