use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use heartbeat::{
    auth::{Keys, Reject},
    clock::{Clock, wall_ms},
    message::Beat,
    table::Table,
    transport::{Ingest, Sink},
};
use tokio::sync::mpsc;

/// Long enough for a loaded machine: tests wait for conditions, this only ends a hanging one.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub fn keys() -> Keys {
    Keys::new(b"of these tests")
}

pub fn beat(node: &str, sequence: u64) -> Beat {
    let services = vec!["api".to_owned(), "health".to_owned()];
    Beat {
        timestamp: wall_ms(),
        node_id: node.to_owned(),
        services,
        sequence,
        incarnation: 1,
        load: 0.25,
        report: None,
    }
}

/// A monitor's receiving side, and what its sink received.
pub struct Monitor {
    pub ingest: Arc<Ingest>,
    beats: mpsc::UnboundedReceiver<(SocketAddr, Beat)>,
}

impl Monitor {
    pub fn new() -> Self {
        let (to, beats) = mpsc::unbounded_channel();
        let sink: Arc<dyn Sink> = Arc::new(move |_at, peer, beat: Beat| {
            to.send((peer, beat)).ok();
        });
        let ingest =
            Ingest::new(Clock::start(), keys(), Arc::new(Table::new(10_000)), Some(sink)).reject_future_incarnations();
        Self { ingest: Arc::new(ingest), beats }
    }

    pub async fn next(&mut self) -> (SocketAddr, Beat) {
        tokio::time::timeout(DEADLINE, self.beats.recv()).await.expect("a beat").unwrap()
    }

    pub fn none_left(&mut self) -> bool {
        self.beats.try_recv().is_err()
    }

    pub async fn until_rejected(&self, reason: Reject, count: u64) {
        self.until(reason.label(), |ingest| ingest.counts().rejected(reason) >= count).await;
    }

    pub async fn until(&self, what: &str, wanted: impl Fn(&Ingest) -> bool) {
        let start = Instant::now();
        while !wanted(&self.ingest) {
            assert!(start.elapsed() < DEADLINE, "never: {what}; {:?}", self.ingest.counts());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
