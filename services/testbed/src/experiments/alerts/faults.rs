//! The faults, and the alerts that each must set off.

use std::time::Duration;

use anyhow::Context;
use contract::SegmentId;
use faultproxy::Fault as StoreFault;
use launcher::{ProcessIdentity, Signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    copies::{self, Unmounted},
    events::{FeaturesLock, send_no_events},
    stack::AlertsStack,
};
use crate::stack::control_plane::Member;

pub struct Case {
    pub fault: Fault,
    /// In words.
    pub what: &'static str,
    pub alerts: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    ReplicaHangs,
    ReplicaStalls,
    DiskNotMounted,
    CopyForged,
    MonitorsHang,
    EtcdHangs,
    RedisGone,
    ReceiverGone,
    UnknownIds,
    FeaturesLocked,
    NoEvents,
    WorkerNotReplaced,
    WorkersHang,
    StoreSlow,
    StoreLate,
    StoreGone,
}

/// Burn rates last: the windows must no longer contain the errors of other faults.
pub const CASES: [Case; 16] = [
    Case {
        fault: Fault::ReplicaHangs,
        what: "a replica is stopped (SIGSTOP)",
        alerts: &["TargetDown", "ReplicasMissing"],
    },
    Case {
        fault: Fault::ReplicaStalls,
        what: "a replica is stopped for 100 ms, twice a second",
        alerts: &["RuntimeStalls"],
    },
    // While that worker is the primary of some segments: not after it has been failed.
    Case {
        fault: Fault::DiskNotMounted,
        what: "a worker's directory of segments is a link that leads nowhere",
        alerts: &["SegmentUnderReplicated", "SegmentPublicationStopped"],
    },
    Case {
        fault: Fault::CopyForged,
        what: "a replica's copy of a segment has another content than the primary's",
        alerts: &["SegmentConflict"],
    },
    Case {
        fault: Fault::MonitorsHang,
        what: "two of three monitors are stopped (SIGSTOP)",
        alerts: &["MonitorsWithoutMajority"],
    },
    Case { fault: Fault::EtcdHangs, what: "etcd is stopped (SIGSTOP)", alerts: &["NobodyLeads"] },
    Case { fault: Fault::RedisGone, what: "Redis is killed", alerts: &["CacheAway"] },
    Case { fault: Fault::ReceiverGone, what: "the receiver of traces is killed", alerts: &["TelemetryLost"] },
    Case { fault: Fault::UnknownIds, what: "all requests are for unknown ids", alerts: &["CachePenetration"] },
    Case {
        fault: Fault::FeaturesLocked,
        what: "the table of features is locked in every shard",
        alerts: &["EventLag"],
    },
    Case { fault: Fault::NoEvents, what: "four messages in the topic are no events", alerts: &["DeadLetters"] },
    Case {
        fault: Fault::WorkerNotReplaced,
        what: "a worker and two of three monitors are stopped (SIGSTOP)",
        alerts: &["EventPartitionWithoutOwner"],
    },
    Case { fault: Fault::WorkersHang, what: "all workers are stopped (SIGSTOP)", alerts: &["ModelOld"] },
    Case { fault: Fault::StoreSlow, what: "each query takes 3 s longer", alerts: &["ConnectionPoolExhausted"] },
    Case {
        fault: Fault::StoreLate,
        what: "each query takes 400 ms longer",
        alerts: &["LatencyBudgetBurnsFast", "LatencyBudgetBurnsSlowly"],
    },
    Case {
        fault: Fault::StoreGone,
        what: "connections to the store are reset and refused",
        alerts: &["AvailabilityBudgetBurnsFast", "AvailabilityBudgetBurnsSlowly"],
    },
];

impl Case {
    /// Its alerts clear only after minutes.
    pub fn is_slow(&self) -> bool {
        self.alerts.iter().any(|alert| alert.ends_with("Slowly"))
    }
}

const STOPPED: Duration = Duration::from_millis(100);
const RUNNING: Duration = Duration::from_millis(400);

/// A fault that has begun.
pub struct Ongoing {
    fault: Fault,
    /// What goes on until its end.
    task: Option<(CancellationToken, JoinHandle<()>)>,
    lock: Option<FeaturesLock>,
    disk: Option<Unmounted>,
}

impl Fault {
    pub async fn begin(self, stack: &mut AlertsStack) -> anyhow::Result<Ongoing> {
        let proxy = stack.service.proxy.client.clone();
        let later = |ms| StoreFault::Latency { ms, jitter_ms: 0.0 };
        let (mut task, mut lock, mut disk) = (None, None, None);
        match self {
            Self::ReplicaHangs => signal(stack, Signal::SIGSTOP)?,
            Self::ReplicaStalls => {
                let stop = CancellationToken::new();
                let pulses = tokio::spawn(pulse(replica(stack)?, stop.clone()));
                task = Some((stop, pulses));
            }
            Self::DiskNotMounted => disk = Some(Unmounted::new(&worker(stack)?.segments)?),
            Self::CopyForged => {
                let (segment, stop) = (SegmentId::new(0).context("there is no segment")?, CancellationToken::new());
                let directory = copies::of_a_replica(&stack.control_plane, &stack.http, segment).await?;
                let forging = tokio::spawn(copies::forge(directory, segment, stop.clone()));
                task = Some((stop, forging));
            }
            Self::MonitorsHang => signal_monitors(stack, Signal::SIGSTOP)?,
            Self::EtcdHangs => stack.service.stack.kill(stack.control_plane.etcd.child, Signal::SIGSTOP)?,
            Self::RedisGone => stack.service.kill_redis().await?,
            Self::ReceiverGone => stack.service.kill_traces().await?,
            Self::UnknownIds => stack.load.ask_for_unknown(true),
            Self::FeaturesLocked => {
                let server = stack.service.servers.first().context("there is no MySQL server")?;
                lock = Some(FeaturesLock::take(server).await?);
            }
            Self::NoEvents => {
                let kafka = stack.service.kafka.as_ref().context("the stack has no Kafka")?;
                send_no_events(&kafka.bootstrap).await?;
            }
            Self::WorkerNotReplaced => {
                // First, so that no majority sees the worker fail.
                signal_monitors(stack, Signal::SIGSTOP)?;
                signal_worker(stack, Signal::SIGSTOP)?;
            }
            Self::WorkersHang => signal_workers(stack, Signal::SIGSTOP)?,
            Self::StoreSlow => proxy.add_fault(later(3_000.0)).await?,
            Self::StoreLate => proxy.add_fault(later(400.0)).await?,
            Self::StoreGone => {
                proxy.add_fault(StoreFault::Refuse).await?;
                proxy.add_fault(StoreFault::Reset).await?;
            }
        }
        Ok(Ongoing { fault: self, task, lock, disk })
    }
}

impl Ongoing {
    pub async fn end(self, stack: &mut AlertsStack) -> anyhow::Result<()> {
        match self.fault {
            Fault::ReplicaHangs => signal(stack, Signal::SIGCONT)?,
            Fault::ReplicaStalls | Fault::CopyForged => {
                if let Some((stop, task)) = self.task {
                    stop.cancel();
                    task.await.context("the fault ended early")?;
                }
            }
            Fault::DiskNotMounted => self.disk.context("the directory is not moved")?.mount()?,
            Fault::MonitorsHang => signal_monitors(stack, Signal::SIGCONT)?,
            Fault::EtcdHangs => stack.service.stack.kill(stack.control_plane.etcd.child, Signal::SIGCONT)?,
            Fault::RedisGone => stack.service.restart_redis().await?,
            Fault::ReceiverGone => stack.service.restart_traces().await?,
            Fault::UnknownIds => stack.load.ask_for_unknown(false),
            Fault::FeaturesLocked => self.lock.context("the features are not locked")?.release().await?,
            // They stay in the topic, behind the position of the partition.
            Fault::NoEvents => {}
            Fault::WorkerNotReplaced => {
                signal_worker(stack, Signal::SIGCONT)?;
                signal_monitors(stack, Signal::SIGCONT)?;
            }
            Fault::WorkersHang => signal_workers(stack, Signal::SIGCONT)?,
            Fault::StoreSlow | Fault::StoreLate | Fault::StoreGone => stack.service.proxy.client.clear().await?,
        }
        Ok(())
    }
}

fn signal(stack: &mut AlertsStack, signal: Signal) -> anyhow::Result<()> {
    let child = stack.service.replicas.first().context("there is no replica")?.child;
    stack.service.stack.kill(child, signal)
}

/// All but one.
fn signal_monitors(stack: &mut AlertsStack, signal: Signal) -> anyhow::Result<()> {
    stack.control_plane.monitors.iter().skip(1).try_for_each(|monitor| monitor.kill(&mut stack.service.stack, signal))
}

fn signal_worker(stack: &mut AlertsStack, signal: Signal) -> anyhow::Result<()> {
    let worker = stack.control_plane.workers.first().context("there is no worker")?;
    worker.kill(&mut stack.service.stack, signal)
}

fn signal_workers(stack: &mut AlertsStack, signal: Signal) -> anyhow::Result<()> {
    stack.control_plane.workers.iter().try_for_each(|worker| worker.kill(&mut stack.service.stack, signal))
}

fn worker(stack: &AlertsStack) -> anyhow::Result<&Member> {
    stack.control_plane.workers.first().context("there is no worker")
}

fn replica(stack: &AlertsStack) -> anyhow::Result<ProcessIdentity> {
    let child = stack.service.replicas.first().context("there is no replica")?.child;
    stack.service.stack.pid(child).and_then(ProcessIdentity::of).context("the replica has ended")
}

/// Ends with the process running.
async fn pulse(process: ProcessIdentity, stop: CancellationToken) {
    while !stop.is_cancelled() {
        process.signal(Signal::SIGSTOP);
        tokio::time::sleep(STOPPED).await;
        process.signal(Signal::SIGCONT);
        tokio::time::sleep(RUNNING).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_alert_has_a_fault_that_sets_it_off() {
        let rules = include_str!("../../../../../deploy/prometheus/alerts.yml");
        let all: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        let tried: Vec<&str> = CASES.iter().flat_map(|case| case.alerts).copied().collect();
        assert_eq!(all, tried.iter().copied().collect());
        assert_eq!(all.len(), tried.len(), "one fault each");
    }
}
