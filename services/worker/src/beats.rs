//! This worker's heartbeats to every monitor.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use heartbeat::{
    Nanos,
    auth::Keys,
    clock::{Clock, wall_ms},
    codec::Protobuf,
    message::Beat,
    reconnect::Policy,
    sender::{Outlet as _, Pace, Single, on_schedule},
    transport::tcp,
};
use tokio::net::lookup_host;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Monitor, Transport, WorkerConfig},
    life::Life,
    metrics::Metrics,
};

/// What a beat says the node offers.
const SERVICE: &str = "partitions";

/// To start senders again that have given a monitor up. None over UDP, which never gives up.
pub type Handles = BTreeMap<String, tcp::Handle>;

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
) -> anyhow::Result<Handles> {
    let (clock, interval) = (Clock::start(), Duration::from_millis(config.beats.interval_ms));
    let mut handles = Handles::new();
    for (name, monitor) in &config.monitors {
        let address = resolve(name, monitor).await?;
        let mut beats = Maker::new(&config.node.id, life.clone());
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
                handles.insert(name.clone(), handle);
                tasks.spawn(sender.run(move || beats.next(), stop.clone()));
            }
        }
    }
    Ok(handles)
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
