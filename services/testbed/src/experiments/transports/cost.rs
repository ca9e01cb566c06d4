//! The cost of a heartbeat and its acknowledgement over each transport, without faultproxy.

use std::time::{Duration, Instant};

use heartbeat::{
    clock::Clock,
    codec::{CodecId, Corpus, codec},
    reconnect::Policy,
    transport::{
        tcp::{Sender, Settings},
        udp::{ReliableSender, Retries},
    },
};
use launcher::cpu;
use serde::Serialize;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Over;
use crate::stack::test_monitor::{TestMonitor, keys};

const NODES: u64 = 200;
const INTERVAL: Duration = Duration::from_millis(50);
const WAIT: Duration = Duration::from_millis(45);
const LENGTH: Duration = Duration::from_secs(5);
const QUICK_LENGTH: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
pub struct Cost {
    pub over: Over,
    /// Sender and monitor together, per acknowledged heartbeat.
    pub cpu_us_per_beat: f64,
    /// Open files per node, sender and monitor together.
    pub descriptors_per_node: f64,
    pub beats_per_s: f64,
}

pub async fn measure(quick: bool) -> anyhow::Result<[Cost; 2]> {
    let length = if quick { QUICK_LENGTH } else { LENGTH };
    Ok([of(Over::Tcp, length).await?, of(Over::Udp, length).await?])
}

async fn of(over: Over, length: Duration) -> anyhow::Result<Cost> {
    let monitor = TestMonitor::start(NODES as usize).await?;
    let own = std::process::id();
    let files = || cpu::open_fds(own).unwrap_or(0) as f64;
    let before = files();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    for n in 0..NODES {
        let mut beat = Corpus::held_out().beat(n);
        match over {
            Over::Tcp => {
                let settings = Settings {
                    monitor: monitor.direct_tcp.to_string(),
                    keys: keys(),
                    codec: codec(CodecId::Protobuf)?,
                    interval: INTERVAL,
                    wait: WAIT,
                    policy: Policy::default(),
                    seed: n,
                };
                let (sender, _) = Sender::new(settings, Clock::start());
                let beats = move || {
                    beat.sequence += 1;
                    beat.clone()
                };
                tasks.spawn(sender.run(beats, stop.clone()));
            }
            Over::Udp => {
                let retries = Retries { count: 0, wait: WAIT };
                let codec = codec(CodecId::Protobuf)?;
                let mut sender = ReliableSender::connect(monitor.direct_udp, keys(), codec, retries).await?;
                tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
                    let mut ticks = tokio::time::interval(INTERVAL);
                    loop {
                        ticks.tick().await;
                        beat.sequence += 1;
                        // The monitor's table counts the heartbeats that arrived.
                        sender.send(&beat).await.ok();
                    }
                }));
            }
        }
        // One after the other, so that they do not send at the same instants.
        sleep(INTERVAL / 20).await;
    }
    tasks.close();
    let descriptors_per_node = (files() - before) / NODES as f64;
    let spent = || cpu::process_seconds(own).unwrap_or(0.0);
    let (beats, cpu, start) = (monitor.ingest.counts().accepted(), spent(), Instant::now());
    sleep(length).await;
    let beats = (monitor.ingest.counts().accepted() - beats) as f64;
    let (cpu, seconds) = (spent() - cpu, start.elapsed().as_secs_f64());
    stop.cancel();
    tasks.wait().await;
    monitor.stop().await?;
    Ok(Cost { over, cpu_us_per_beat: 1e6 * cpu / beats, descriptors_per_node, beats_per_s: beats / seconds })
}
