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
    message::{Beat, WorkerReport},
    reconnect::{Policy, State},
    sender::{DatagramSender as _, Pace, SingleSender, on_schedule},
    transport::tcp,
};
use prometheus::{IntCounterVec, IntGauge};
use runtime::vitals::cpu_seconds;
use serde::{Deserialize, Serialize};
use tokio::{net::lookup_host, sync::watch, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Monitor, Transport, WorkerConfig},
    incarnation::Incarnation,
    metrics::Metrics,
};

/// Service that heartbeats of this worker announce.
const SERVICE: &str = "partitions";

/// Interval of DNS look-ups for heartbeats over UDP: a monitor that was recreated may have another address.
const LOOK_UP_EVERY: Duration = Duration::from_secs(10);

/// Why a sender tries to reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumedBy {
    /// The monitor has answered a poll.
    Contact,
    Operator,
}

impl ResumedBy {
    pub const ALL: [Self; 2] = [Self::Contact, Self::Operator];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Contact => "contact",
            Self::Operator => "operator",
        }
    }
}

/// Outcome of a request to resume a sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeOutcome {
    /// State before the request: see `heartbeat::reconnect::State::LABELS`.
    pub was: String,
    /// False: the sender was connected or reconnecting already.
    pub resumed: bool,
}

/// Senders by monitor that can stop reconnecting. UDP senders never stop and are not in it. Cheap to clone.
#[derive(Clone)]
pub struct Senders {
    handles: Arc<BTreeMap<String, tcp::Handle>>,
    resumed: IntCounterVec,
}

impl Senders {
    /// Resumes the sender to this monitor. `None`: there is no such sender.
    pub fn resume(&self, monitor: &str, by: ResumedBy) -> Option<ResumeOutcome> {
        let (state, resumed) = self.handles.get(monitor)?.resume();
        if resumed {
            self.resumed.with_label_values(&[monitor, by.as_str()]).inc();
            tracing::info!(monitor, was = state.label(), by = by.as_str(), "heartbeat sender resumed");
        }
        Some(ResumeOutcome { was: state.label().to_owned(), resumed })
    }

    /// Resumes all senders.
    pub fn resume_all(&self, by: ResumedBy) -> BTreeMap<String, ResumeOutcome> {
        self.handles.keys().filter_map(|monitor| Some((monitor.clone(), self.resume(monitor, by)?))).collect()
    }
}

/// Starts a sender for each monitor.
///
/// # Errors
/// A monitor's address cannot be resolved, or a socket cannot be opened.
pub async fn spawn(
    config: &WorkerConfig,
    keys: &Keys,
    incarnation: &Incarnation,
    report: impl Fn() -> WorkerReport + Clone + Send + 'static,
    metrics: &Metrics,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Senders> {
    let (clock, interval) = (Clock::start(), Duration::from_millis(config.beats.interval_ms));
    let mut handles = BTreeMap::new();
    for (name, monitor) in &config.monitors {
        let address = resolve(name, monitor).await?;
        let mut beats = BeatSource::new(&config.node.id, incarnation.clone(), report.clone());
        let states =
            State::LABELS.map(|state| (state, metrics.sender_state.with_label_values(&[name.as_str(), state])));
        for by in ResumedBy::ALL {
            metrics.resumed.with_label_values(&[name.as_str(), by.as_str()]);
        }
        match config.beats.transport {
            Transport::Udp => {
                let sender = SingleSender::connect(address, keys.clone())
                    .await
                    .context("cannot open a socket for heartbeats")?;
                let sender = Arc::new(sender);
                let looking = look_up(Arc::clone(&sender), monitor.beats.clone(), address, LOOK_UP_EVERY);
                tasks.spawn(stop.clone().run_until_cancelled_owned(looking));
                let pace = Pace::new(clock.now(), interval.as_nanos() as Nanos);
                let [sent, refused] =
                    ["sent", "refused"].map(|outcome| metrics.beats.with_label_values(&[name.as_str(), outcome]));
                let emit = move |_| {
                    sender.send(&beats.next());
                    sent.inc_by(sender.counts().datagrams() - sent.get());
                    refused.inc_by(sender.counts().refused() - refused.get());
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

/// Looks the monitor's name up periodically and redirects the sender when its address changes. A failed look-up changes nothing.
async fn look_up(sender: Arc<SingleSender>, name: String, mut known: SocketAddr, every: Duration) {
    loop {
        sleep(every).await;
        let Ok(found) = lookup_host(&name).await.map(Vec::from_iter) else { continue };
        // A name may have several addresses, in any order.
        let Some(&address) = found.first().filter(|_| !found.contains(&known)) else { continue };
        match sender.redirect(address).await {
            Ok(()) => {
                tracing::info!(name, %address, "the monitor's address has changed");
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

/// Makes this worker's heartbeats. Numbers those of each incarnation from 1.
struct BeatSource<R> {
    beat: Beat,
    incarnation: Incarnation,
    report: R,
    busy: CpuShare,
}

impl<R: Fn() -> WorkerReport> BeatSource<R> {
    fn new(id: &str, incarnation: Incarnation, report: R) -> Self {
        let beat = Beat { node_id: id.to_owned(), services: vec![SERVICE.to_owned()], ..Beat::default() };
        Self { beat, incarnation, report, busy: CpuShare::begin() }
    }

    fn next(&mut self) -> Beat {
        let incarnation = self.incarnation.current();
        if incarnation != self.beat.incarnation {
            (self.beat.incarnation, self.beat.sequence) = (incarnation, 0);
        }
        self.beat.sequence += 1;
        self.beat.timestamp = wall_ms();
        self.beat.load = self.busy.since_last();
        self.beat.report = Some((self.report)());
        self.beat.clone()
    }
}

/// This process's share of the machine's CPU.
struct CpuShare {
    cores: f64,
    /// Time and CPU seconds at the last heartbeat.
    last: (Instant, f64),
}

impl CpuShare {
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
        let mut beats = BeatSource::new("w", Incarnation::begin(), WorkerReport::default);
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
        let sender = SingleSender::connect(former.local_addr().unwrap(), Keys::new(b"of this test")).await.unwrap();
        let (sender, known) = (Arc::new(sender), former.local_addr().unwrap());
        tokio::spawn(look_up(Arc::clone(&sender), at.to_string(), known, Duration::from_millis(1)));
        let mut beats = BeatSource::new("w", Incarnation::begin(), WorkerReport::default);
        let heard = async {
            let mut bytes = [0; 512];
            while timeout(Duration::from_millis(5), monitor.recv(&mut bytes)).await.is_err() {
                sender.send(&beats.next());
            }
        };
        timeout(Duration::from_secs(30), heard).await.expect("a beat at the new address");
    }
}
