//! The faults, and which alerts each of them is to set off.

use std::time::Duration;

use anyhow::Context;
use faultproxy::Fault as StoreFault;
use launcher::{ProcessIdentity, Signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bed::Bed;

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
    MonitorsHang,
    EtcdHangs,
    RedisGone,
    ReceiverGone,
    UnknownIds,
    StoreSlow,
    StoreLate,
    StoreGone,
}

/// Budgets last: what other faults have used of them is to be over.
pub const CASES: [Case; 10] = [
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
    Case {
        fault: Fault::MonitorsHang,
        what: "two of three monitors are stopped (SIGSTOP)",
        alerts: &["MonitorsWithoutMajority"],
    },
    Case { fault: Fault::EtcdHangs, what: "etcd is stopped (SIGSTOP)", alerts: &["NobodyLeads"] },
    Case { fault: Fault::RedisGone, what: "Redis is killed", alerts: &["CacheAway"] },
    Case { fault: Fault::ReceiverGone, what: "the receiver of traces is killed", alerts: &["TelemetryLost"] },
    Case { fault: Fault::UnknownIds, what: "all requests are for ids nobody has", alerts: &["CachePenetration"] },
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
    pulses: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Fault {
    pub async fn begin(self, bed: &mut Bed) -> anyhow::Result<Ongoing> {
        let proxy = bed.cluster.proxy.client.clone();
        let later = |ms| StoreFault::Latency { ms, jitter_ms: 0.0 };
        let mut pulses = None;
        match self {
            Self::ReplicaHangs => signal(bed, Signal::SIGSTOP)?,
            Self::ReplicaStalls => {
                let stop = CancellationToken::new();
                let task = tokio::spawn(pulse(replica(bed)?, stop.clone()));
                pulses = Some((stop, task));
            }
            Self::MonitorsHang => signal_monitors(bed, Signal::SIGSTOP)?,
            Self::EtcdHangs => bed.cluster.stack.kill(bed.plane.etcd.child, Signal::SIGSTOP)?,
            Self::RedisGone => bed.cluster.kill_redis().await?,
            Self::ReceiverGone => bed.cluster.kill_traces().await?,
            Self::UnknownIds => bed.load.ask_for_unknown(true),
            Self::StoreSlow => proxy.add_fault(later(3_000.0)).await?,
            Self::StoreLate => proxy.add_fault(later(400.0)).await?,
            Self::StoreGone => {
                proxy.add_fault(StoreFault::Refuse).await?;
                proxy.add_fault(StoreFault::Reset).await?;
            }
        }
        Ok(Ongoing { fault: self, pulses })
    }
}

impl Ongoing {
    pub async fn end(self, bed: &mut Bed) -> anyhow::Result<()> {
        match self.fault {
            Fault::ReplicaHangs => signal(bed, Signal::SIGCONT)?,
            Fault::ReplicaStalls => {
                if let Some((stop, task)) = self.pulses {
                    stop.cancel();
                    task.await.context("stopping and continuing a replica")?;
                }
            }
            Fault::MonitorsHang => signal_monitors(bed, Signal::SIGCONT)?,
            Fault::EtcdHangs => bed.cluster.stack.kill(bed.plane.etcd.child, Signal::SIGCONT)?,
            Fault::RedisGone => bed.cluster.restart_redis().await?,
            Fault::ReceiverGone => bed.cluster.restart_traces().await?,
            Fault::UnknownIds => bed.load.ask_for_unknown(false),
            Fault::StoreSlow | Fault::StoreLate | Fault::StoreGone => bed.cluster.proxy.client.clear().await?,
        }
        Ok(())
    }
}

fn signal(bed: &mut Bed, signal: Signal) -> anyhow::Result<()> {
    let child = bed.cluster.replicas.first().context("there is no replica")?.child;
    bed.cluster.stack.kill(child, signal)
}

/// All but one.
fn signal_monitors(bed: &mut Bed, signal: Signal) -> anyhow::Result<()> {
    bed.plane.monitors.iter().skip(1).try_for_each(|monitor| monitor.kill(&mut bed.cluster.stack, signal))
}

fn replica(bed: &Bed) -> anyhow::Result<ProcessIdentity> {
    let child = bed.cluster.replicas.first().context("there is no replica")?.child;
    bed.cluster.stack.pid(child).and_then(ProcessIdentity::of).context("the replica has ended")
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
