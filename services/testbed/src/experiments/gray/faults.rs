//! The faults. Each affects one worker, the victim, unless nothing should be moved for it.

use std::time::Duration;

use faultproxy::{Client, Direction, Fault, FaultSpec, WriteError};
use launcher::{Signal, Stack};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::stack::control_plane::Member;

const SEED: u64 = 1;
/// A network that is cut and later heals: datagrams are lost, bytes of TCP connections arrive when it is open again.
const CUT: Fault = Fault::Stall;
const FLIP_FLOP: Duration = Duration::from_secs(20);
const QUICK_FLIP_FLOP: Duration = Duration::from_secs(6);
const SUSPENDED: Duration = Duration::from_secs(1);
const BRIEFLY_SUSPENDED: Duration = Duration::from_millis(200);
/// A shard's answers are this much later: users notice, their timeout does not pass.
const SLOW_SHARD_MS: f64 = 300.0;
const SLOW_WORKER_MS: f64 = 500.0;
const SLOW_ETCD_MS: f64 = 500.0;
const LATENCIES_MS: [f64; 3] = [1.0, 10.0, 100.0];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum GrayFault {
    LossIn,
    LossOut,
    #[value(name = "loss-80")]
    #[serde(rename = "loss-80")]
    Loss80,
    FlipFlop,
    Suspended,
    BrieflySuspended,
    EtcdSlow,
    WritesStall,
    #[value(name = "fail-10")]
    #[serde(rename = "fail-10")]
    Fail10,
    #[value(name = "fail-40")]
    #[serde(rename = "fail-40")]
    Fail40,
    SlowShard,
    SlowWorker,
    Latency,
    DiskFull,
}

/// What a good defence does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// Users are served again.
    Serves,
    /// Users are served, and nothing is moved: another worker would serve them no better.
    Stays,
}

/// One change of the faults in force.
enum Change {
    Impose(FaultSpec),
    Clear,
    Signal(Signal),
}

impl GrayFault {
    pub const ALL: [Self; 14] = [
        Self::LossIn,
        Self::LossOut,
        Self::Loss80,
        Self::FlipFlop,
        Self::Suspended,
        Self::BrieflySuspended,
        Self::EtcdSlow,
        Self::WritesStall,
        Self::Fail10,
        Self::Fail40,
        Self::SlowShard,
        Self::SlowWorker,
        Self::Latency,
        Self::DiskFull,
    ];

    /// Of the twelve kinds. Two kinds have two strengths each.
    pub fn kind(self) -> usize {
        match self {
            Self::LossIn => 1,
            Self::LossOut => 2,
            Self::Loss80 => 3,
            Self::FlipFlop => 4,
            Self::Suspended | Self::BrieflySuspended => 5,
            Self::EtcdSlow => 6,
            Self::WritesStall => 7,
            Self::Fail10 | Self::Fail40 => 8,
            Self::SlowShard => 9,
            Self::SlowWorker => 10,
            Self::Latency => 11,
            Self::DiskFull => 12,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Self::LossIn => "everything sent to a worker is lost",
            Self::LossOut => "everything sent by a worker is lost",
            Self::Loss80 => "80 % loss, both ways",
            Self::FlipFlop => "cut off for 20 s, open for 20 s",
            Self::Suspended => "stopped (SIGSTOP) for 1 s, runs for 1 s",
            Self::BrieflySuspended => "stopped (SIGSTOP) for 200 ms, runs for 200 ms",
            Self::EtcdSlow => "etcd slow: requests of monitors 500 ms late (modelled)",
            Self::WritesStall => "writes of a worker stall",
            Self::Fail10 => "10 % of a worker's writes fail",
            Self::Fail40 => "40 % of a worker's writes fail",
            Self::SlowShard => "one shard 300 ms slower for all workers",
            Self::SlowWorker => "HTTP answers of a worker 500 ms late",
            Self::Latency => "links of a worker +1, then +10, then +100 ms",
            Self::DiskFull => "disk full: a worker's writes to one shard fail",
        }
    }

    pub fn expected(self) -> Expected {
        match self {
            Self::EtcdSlow | Self::SlowShard | Self::Latency => Expected::Stays,
            _ => Expected::Serves,
        }
    }

    /// How long it lasts.
    pub fn lasts(self, quick: bool) -> Duration {
        match (self, quick) {
            (Self::FlipFlop, false) => 2 * FLIP_FLOP,
            (_, false) => Duration::from_secs(25),
            (_, true) => Duration::from_secs(12),
        }
    }

    /// Imposes the fault from `begin` on, and removes it when its time is over.
    ///
    /// # Errors
    /// The proxy does not answer, or the victim has ended.
    pub async fn run(
        self,
        (proxy, stack, victim): (&Client, &mut Stack, &Member),
        begin: Instant,
        quick: bool,
    ) -> anyhow::Result<()> {
        let end = begin + self.lasts(quick);
        for (at, change) in self.changes(&victim.name, quick) {
            let at = begin + at;
            if at >= end {
                break;
            }
            sleep_until(at).await;
            match change {
                Change::Impose(fault) => proxy.add_fault(fault).await?,
                Change::Clear => proxy.clear().await?,
                Change::Signal(signal) => victim.kill(stack, signal)?,
            }
        }
        sleep_until(end).await;
        if matches!(self, Self::Suspended | Self::BrieflySuspended) {
            victim.kill(stack, Signal::SIGCONT)?;
        }
        Ok(proxy.clear().await?)
    }

    /// In order of time since the begin.
    fn changes(self, victim: &str, quick: bool) -> Vec<(Duration, Change)> {
        let lasts = self.lasts(quick);
        let (from_victim, to_victim) = (format!("{victim}>*"), format!("*>{victim}/*"));
        let (links, store) = (format!("*{victim}*"), format!("{victim}>store-*"));
        let now = |faults: Vec<FaultSpec>| {
            faults.into_iter().map(|fault| (Duration::ZERO, Change::Impose(fault))).collect::<Vec<_>>()
        };
        let latency = |ms| Fault::Latency { ms, jitter_ms: 0.0 };
        let fail = |pct, error| Fault::FailWrites { pct, seed: SEED, error };
        match self {
            Self::LossIn => now(vec![
                CUT.on(&to_victim).toward(Direction::ToServer),
                CUT.on(&from_victim).toward(Direction::ToClient),
            ]),
            Self::LossOut => now(vec![
                CUT.on(&to_victim).toward(Direction::ToClient),
                CUT.on(&from_victim).toward(Direction::ToServer),
            ]),
            Self::Loss80 => now(vec![Fault::Loss { pct: 80.0, seed: SEED }.on(&links)]),
            Self::FlipFlop => {
                let half = if quick { QUICK_FLIP_FLOP } else { FLIP_FLOP };
                alternating(half, lasts, |cut| if cut { Change::Impose(CUT.on(&links)) } else { Change::Clear })
            }
            Self::Suspended | Self::BrieflySuspended => {
                let half = if self == Self::Suspended { SUSPENDED } else { BRIEFLY_SUSPENDED };
                alternating(half, lasts, |stop| Change::Signal(if stop { Signal::SIGSTOP } else { Signal::SIGCONT }))
            }
            Self::EtcdSlow => now(vec![latency(SLOW_ETCD_MS).on("*>etcd").toward(Direction::ToServer)]),
            Self::WritesStall => now(vec![Fault::StallWrites.on(&store)]),
            Self::Fail10 => now(vec![fail(10.0, WriteError::ReadOnly).on(&store)]),
            Self::Fail40 => now(vec![fail(40.0, WriteError::ReadOnly).on(&store)]),
            Self::SlowShard => now(vec![latency(SLOW_SHARD_MS).on("*>store-0")]),
            Self::SlowWorker => {
                now(vec![latency(SLOW_WORKER_MS).on(&format!("*>{victim}/http")).toward(Direction::ToClient)])
            }
            Self::Latency => {
                let step = lasts / LATENCIES_MS.len() as u32;
                let impose = |(n, ms)| (step * n, Change::Impose(latency(ms).on(&links)));
                (0..).zip(LATENCIES_MS).map(impose).collect()
            }
            Self::DiskFull => now(vec![fail(100.0, WriteError::DiskFull).on(&format!("{victim}>store-0"))]),
        }
    }
}

/// `change(true)` first, then by turns.
fn alternating(half: Duration, lasts: Duration, change: impl Fn(bool) -> Change) -> Vec<(Duration, Change)> {
    (0..).map(|n: u32| (half * n, change(n.is_multiple_of(2)))).take_while(|(at, _)| *at < lasts).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn twelve_kinds_whose_changes_are_in_order_and_end_in_time() {
        let kinds: BTreeSet<usize> = GrayFault::ALL.into_iter().map(GrayFault::kind).collect();
        assert_eq!(kinds, (1..=12).collect());
        for fault in GrayFault::ALL {
            for quick in [false, true] {
                let changes = fault.changes("worker-1", quick);
                assert!(!changes.is_empty() && changes.is_sorted_by_key(|(at, _)| *at), "{fault:?}");
                assert!(changes.iter().all(|(at, _)| *at < fault.lasts(quick)), "{fault:?}");
            }
        }
        assert_eq!(GrayFault::FlipFlop.changes("w", false).len(), 2);
        assert_eq!(GrayFault::Suspended.changes("w", false).len(), 25);
    }
}
