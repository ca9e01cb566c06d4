//! This worker's heartbeats to every monitor.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

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
use runtime::vitals::cpu_seconds;
use serde::{Deserialize, Serialize};
use tokio::{net::lookup_host, sync::watch, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Monitor, Transport, WorkerConfig},
    life::Life,
    metrics::Metrics,
};

/// What a beat says the node offers.
const SERVICE: &str = "partitions";

/// A monitor's name is looked up anew so often, for beats over UDP: one that was made anew may have another address, and nobody says so.
const LOOK_UP_EVERY: Duration = Duration::from_secs(10);

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
                let outlet = Arc::new(outlet);
                let looking = look_up(Arc::clone(&outlet), monitor.beats.clone(), address, LOOK_UP_EVERY);
                tasks.spawn(stop.clone().run_until_cancelled_owned(looking));
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
                    monitor: monitor.beats.clone(),
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

/// Follows the monitor's name for ever. A name that cannot be looked up now stands for what it did.
async fn look_up(outlet: Arc<Single>, name: String, mut known: SocketAddr, every: Duration) {
    loop {
        sleep(every).await;
        let Ok(found) = lookup_host(&name).await.map(Vec::from_iter) else { continue };
        // A name may have several addresses, in another order each time.
        let Some(&address) = found.first().filter(|_| !found.contains(&known)) else { continue };
        match outlet.redirect(address).await {
            Ok(()) => {
                tracing::info!(name, %address, "the monitor has another address");
                known = address;
            }
            Err(error) => tracing::warn!(name, %address, %error, "cannot send heartbeats to the monitor's new address"),
        }
    }
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
    busy: Busy,
}

impl Maker {
    fn new(id: &str, life: Life) -> Self {
        let beat = Beat { node_id: id.to_owned(), services: vec![SERVICE.to_owned()], ..Beat::default() };
        Self { beat, life, busy: Busy::begin() }
    }

    fn next(&mut self) -> Beat {
        let incarnation = self.life.incarnation();
        if incarnation != self.beat.incarnation {
            (self.beat.incarnation, self.beat.sequence) = (incarnation, 0);
        }
        self.beat.sequence += 1;
        self.beat.timestamp = wall_ms();
        self.beat.load = self.busy.since_last();
        self.beat.clone()
    }
}

/// CPU that this process uses, of all that the machine has.
struct Busy {
    cores: f64,
    /// Up to the last beat: when that was, and CPU seconds.
    last: (Instant, f64),
}

impl Busy {
    fn begin() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { cores: cores as f64, last: (Instant::now(), cpu_seconds()) }
    }

    fn since_last(&mut self) -> f32 {
        let (at, cpu) = (Instant::now(), cpu_seconds());
        let (before, used) = std::mem::replace(&mut self.last, (at, cpu));
        let seconds = (at - before).as_secs_f64();
        if seconds > 0.0 { ((cpu - used).max(0.0) / (seconds * self.cores)) as f32 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::UdpSocket, time::timeout};

    use super::*;

    #[test]
    fn a_beat_says_how_busy_the_process_is() {
        let mut beats = Maker::new("w", Life::begin());
        let mut busiest = 0.0_f32;
        while busiest == 0.0 {
            busiest = busiest.max(beats.next().load);
        }
        assert!(busiest.is_finite() && beats.next().check().is_ok());
    }

    #[tokio::test]
    async fn beats_over_udp_follow_the_monitors_name() {
        let monitor = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (at, former) = (monitor.local_addr().unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let outlet = Single::connect(former.local_addr().unwrap(), Keys::new(1, b"of this test")).await.unwrap();
        let (outlet, known) = (Arc::new(outlet), former.local_addr().unwrap());
        tokio::spawn(look_up(Arc::clone(&outlet), at.to_string(), known, Duration::from_millis(1)));
        let mut beats = Maker::new("w", Life::begin());
        let heard = async {
            let mut bytes = [0; 512];
            while timeout(Duration::from_millis(5), monitor.recv(&mut bytes)).await.is_err() {
                outlet.send(&beats.next());
            }
        };
        timeout(Duration::from_secs(30), heard).await.expect("a beat at the new address");
    }
}
