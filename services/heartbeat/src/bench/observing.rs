//! The observer behind the table, with the queue that a monitor has between them.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use tokio::sync::mpsc;

use crate::{
    Nanos,
    assign::NodeId,
    clock::Clock,
    detector::AnyDetector,
    message::{Alive, Beat},
    observer::{Observer, ReceivedBeat, Settings},
    registry::{Monitors, Registration, Snapshot},
    transport::Sink,
};

/// Capacity of the queue.
const INBOX: usize = 65_536;
/// Heartbeats that are handled before the observer decides again.
const MAX_BATCH: u64 = 1_024;
const INTERVAL: Nanos = 1_000_000_000;

pub(super) struct Observing {
    thread: JoinHandle<Instant>,
    observed: Arc<AtomicU64>,
}

impl Observing {
    /// Starts the observer of these nodes. Returns the sink for its heartbeats; it ends when the sink is dropped.
    ///
    /// # Errors
    /// The detector's default is not valid.
    pub(super) fn start(clock: Clock, beats: &[Beat]) -> io::Result<(impl Sink + use<>, Self)> {
        let (inbox, inputs) = mpsc::channel(INBOX);
        let observed = Arc::<AtomicU64>::default();
        let (observer, counter) = (observer(clock.now(), beats)?, Arc::clone(&observed));
        let thread = thread::spawn(move || observe(observer, clock, inputs, &counter));
        // A full queue counts as a loss.
        let sink = move |_at: Nanos, _peer: SocketAddr, beat: Beat| _ = inbox.try_send(beat);
        Ok((sink, Self { thread, observed }))
    }

    /// Heartbeats handled so far.
    pub(super) fn observed(&self) -> &AtomicU64 {
        &self.observed
    }

    /// Returns how many heartbeats were handled, and when the last one was.
    pub(super) fn join(self) -> io::Result<(u64, Instant)> {
        let last = self.thread.join().map_err(|_| io::Error::other("the observer has panicked"))?;
        Ok((self.observed.load(Relaxed), last))
    }
}

fn observe(mut observer: Observer, clock: Clock, mut inputs: mpsc::Receiver<Beat>, observed: &AtomicU64) -> Instant {
    let mut last = Instant::now();
    while let Some(first) = inputs.blocking_recv() {
        let (mut next, mut handled, mut heard) = (Some(first), 0, 0);
        while let Some(beat) = next {
            // False: the node is not registered.
            let now = clock.now();
            let received = ReceivedBeat {
                at: now,
                incarnation: beat.incarnation,
                sequence: beat.sequence,
                // Time stamps of the corpus stand still.
                sent_ms: 0,
                is_authenticated: true,
                report: beat.report,
            };
            heard += u64::from(observer.heard(now, &beat.node_id, received));
            handled += 1;
            next = if handled < MAX_BATCH { inputs.try_recv().ok() } else { None };
        }
        observer.tick(clock.now());
        observed.fetch_add(heard, Relaxed);
        last = Instant::now();
    }
    last
}

/// All nodes are registered. The detector is a monitor's default.
fn observer(now: Nanos, beats: &[Beat]) -> io::Result<Observer> {
    let me = NodeId::from("monitor-0");
    let detector = AnyDetector::named("fixed", INTERVAL, &[("suspect".into(), 1.3), ("scan".into(), 0.0)])
        .map_err(io::Error::other)?;
    let new_detector = Box::new(move || Box::new(detector.clone()) as _);
    let settings = Settings::for_interval(INTERVAL, 5 * INTERVAL);
    let monitors = Monitors { version: 1, members: [(me.clone(), String::new())].into() };
    let mut observer = Observer::new(me, monitors, settings, new_detector, 1, now);
    let node = |beat: &Beat| {
        let (id, incarnation) = (NodeId::from(beat.node_id.as_str()), beat.incarnation);
        (
            id.clone(),
            Registration { id, incarnation, process: 1, http: String::new(), udp: String::new(), leaving: false },
        )
    };
    let nodes: BTreeMap<NodeId, Registration> = beats.iter().map(node).collect();
    observer.learn(now, now, Arc::new(Snapshot { revision: 1, nodes, ..Snapshot::default() }));
    // All have answered their first probe: their heartbeats count.
    for beat in beats {
        let alive = Alive { incarnation: beat.incarnation, sent_ms: 0 };
        observer.answered(now, &beat.node_id, alive, 1);
    }
    Ok(observer)
}
