//! This worker's heartbeats to every monitor.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use heartbeat::{
    Nanos,
    auth::Keys,
    clock::{Clock, wall_ms},
    codec::Protobuf,
    message::Beat,
    reconnect::{Policy, State},
    sender::{Outlet as _, Pace, Single, on_schedule},
    transport::tcp,
};
use prometheus::{IntCounterVec, IntGauge};
use serde::{Deserialize, Serialize};
use tokio::{net::lookup_host, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Monitor, Transport, WorkerConfig},
    life::Life,
    metrics::Metrics,
};

/// What a beat says the node offers.
const SERVICE: &str = "partitions";

/// Who starts a sender again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The monitor was in touch.
    Contact,
    Operator,
}

impl By {
    pub const ALL: [Self; 2] = [Self::Contact, Self::Operator];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Contact => "contact",
            Self::Operator => "operator",
        }
    }
}

/// What became of a sender that was asked to start again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The state it was in: see `heartbeat::reconnect::State::LABELS`.
    pub was: String,
    /// False: it was at it already.
    pub resumed: bool,
}

/// The senders that can give a monitor up, by its name; none over UDP, which never does. Cheap to clone.
#[derive(Clone)]
pub struct Senders {
    handles: Arc<BTreeMap<String, tcp::Handle>>,
    resumed: IntCounterVec,
}

impl Senders {
    /// Starts the sender to this monitor again. `None`: there is none.
    pub fn resume(&self, monitor: &str, by: By) -> Option<Resumed> {
        let (state, resumed) = self.handles.get(monitor)?.resume();
        if resumed {
            self.resumed.with_label_values(&[monitor, by.as_str()]).inc();
            tracing::info!(monitor, was = state.label(), by = by.as_str(), "heartbeats are tried again");
        }
        Some(Resumed { was: state.label().to_owned(), resumed })
    }

    /// All of them.
    pub fn resume_all(&self, by: By) -> BTreeMap<String, Resumed> {
        self.handles.keys().filter_map(|monitor| Some((monitor.clone(), self.resume(monitor, by)?))).collect()
    }
}

/// Starts a sender for each monitor.
///
/// # Errors
/// A monitor's address cannot be resolved, or no socket can be had.
pub async fn spawn(
    config: &WorkerConfig,
    keys: &Keys,
    life: &Life,
    metrics: &Metrics,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Senders> {
    let (clock, interval) = (Clock::start(), Duration::from_millis(config.beats.interval_ms));
    let mut handles = BTreeMap::new();
    for (name, monitor) in &config.monitors {
        let address = resolve(name, monitor).await?;
        let mut beats = Maker::new(&config.node.id, life.clone());
        let states =
            State::LABELS.map(|state| (state, metrics.sender_state.with_label_values(&[name.as_str(), state])));
        for by in By::ALL {
            metrics.resumed.with_label_values(&[name.as_str(), by.as_str()]);
        }
        match config.beats.transport {
            Transport::Udp => {
                let outlet =
                    Single::connect(address, keys.clone()).await.context("cannot open a socket for heartbeats")?;
                let pace = Pace::new(clock.now(), interval.as_nanos() as Nanos);
                let [sent, refused] =
                    ["sent", "refused"].map(|outcome| metrics.beats.with_label_values(&[name.as_str(), outcome]));
                let emit = move |_| {
                    outlet.send(&beats.next());
                    sent.inc_by(outlet.sent().datagrams() - sent.get());
                    refused.inc_by(outlet.sent().refused() - refused.get());
                };
                tasks.spawn(on_schedule(clock, pace, stop.clone(), emit));
            }
            Transport::Tcp => {
                let settings = tcp::Settings {
                    monitor: address,
                    keys: keys.clone(),
                    codec: Box::new(Protobuf),
                    interval,
                    wait: interval,
                    policy: Policy::default(),
                    seed: wall_ms(),
                };
                let (sender, handle) = tcp::Sender::new(settings, clock);
                tasks.spawn(show_state(handle.state(), states, stop.clone()));
                handles.insert(name.clone(), handle);
                tasks.spawn(sender.run(move || beats.next(), stop.clone()));
            }
        }
    }
    Ok(Senders { handles: Arc::new(handles), resumed: metrics.resumed.clone() })
}

async fn show_state(
    mut state: watch::Receiver<State>,
    gauges: [(&'static str, IntGauge); State::LABELS.len()],
    stop: CancellationToken,
) {
    let follow = async {
        loop {
            let now = state.borrow_and_update().label();
            gauges.iter().for_each(|(label, gauge)| gauge.set((*label == now).into()));
            if state.changed().await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(follow).await;
}

async fn resolve(name: &str, monitor: &Monitor) -> anyhow::Result<SocketAddr> {
    let found = lookup_host(&monitor.beats).await;
    let found = found.with_context(|| format!("monitors.{name}.beats: cannot resolve {}", monitor.beats))?;
    found.into_iter().next().with_context(|| format!("monitors.{name}.beats: {} has no address", monitor.beats))
}

/// Numbers the beats of each life from 1.
struct Maker {
    beat: Beat,
    life: Life,
}

impl Maker {
    fn new(id: &str, life: Life) -> Self {
        let beat = Beat { node_id: id.to_owned(), services: vec![SERVICE.to_owned()], ..Beat::default() };
        Self { beat, life }
    }

    fn next(&mut self) -> Beat {
        let incarnation = self.life.incarnation();
        if incarnation != self.beat.incarnation {
            (self.beat.incarnation, self.beat.sequence) = (incarnation, 0);
        }
        self.beat.sequence += 1;
        self.beat.timestamp = wall_ms();
        self.beat.clone()
    }
}
