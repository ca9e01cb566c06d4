//! What is killed and stopped while the events flow, and its way back.

use std::time::Duration;

use anyhow::Context as _;
use launcher::Signal;
use monitor::status::Status;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::stack::{
    control_plane::{ControlPlane, Member},
    event_stack::EventStack,
};

const PAUSE: Duration = Duration::from_millis(20);
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// At least this many workers run at any time.
const LEAST_WORKERS: usize = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    KillWorker,
    StopWorker,
    KillBroker,
    KillMysql,
    KillLeader,
}

impl Fault {
    pub fn text(self) -> &'static str {
        match self {
            Self::KillWorker => "kill -9 of a worker",
            Self::StopWorker => "-STOP of a worker, continued later",
            Self::KillBroker => "kill -9 of the broker",
            Self::KillMysql => "kill -9 of MySQL",
            Self::KillLeader => "kill -9 of the leading monitor",
        }
    }
}

/// How many of each.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// Killed and stopped in turns.
    pub workers: usize,
    pub brokers: usize,
    pub mysql: usize,
    pub leaders: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    pub fault: Fault,
    /// Share of the events after which it comes.
    pub at: f64,
    /// Until the process is started or continued again.
    pub lasts: Duration,
}

/// What happened.
#[derive(Debug, Clone, Serialize)]
pub struct Imposed {
    pub fault: Fault,
    /// Name of the process.
    pub process: String,
    /// Seconds since the begin.
    pub at_s: f64,
    pub lasts_s: f64,
}

/// Evenly over the run, in random order. Servers are away for a second or two; workers for longer or shorter than the monitors take to notice.
pub fn plan(counts: Counts, beat: Duration, seed: u64) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let workers = (0..counts.workers).map(|n| if n % 2 == 0 { Fault::KillWorker } else { Fault::StopWorker });
    let servers =
        [(Fault::KillBroker, counts.brokers), (Fault::KillMysql, counts.mysql), (Fault::KillLeader, counts.leaders)];
    let servers = servers.into_iter().flat_map(|(fault, count)| std::iter::repeat_n(fault, count));
    let mut faults: Vec<Fault> = workers.chain(servers).collect();
    faults.shuffle(&mut random);
    let count = faults.len() as f64;
    let planned = faults.into_iter().enumerate().map(|(n, fault)| {
        let lasts = match fault {
            Fault::KillWorker | Fault::StopWorker => beat.mul_f64(random.random_range(0.5..6.0)),
            Fault::KillBroker | Fault::KillMysql | Fault::KillLeader => {
                Duration::from_secs_f64(random.random_range(0.5..2.0))
            }
        };
        // The last one comes while events still flow.
        Planned { fault, at: (n as f64 + random.random_range(0.3..0.9)) / (count + 0.5), lasts }
    });
    planned.collect()
}

/// A process that is to come back.
struct Away {
    at: Instant,
    process: Process,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    Worker { index: usize, is_stopped: bool },
    Monitor(usize),
}

/// Imposes all faults, and ends when all processes are back. `progress` of the clients: from 0 to 1.
///
/// # Errors
/// A process cannot be killed or started, or one ended by itself.
pub async fn impose(
    planned: &[Planned],
    (stack, plane): (&mut EventStack, &mut ControlPlane),
    progress: impl Fn() -> f64,
) -> anyhow::Result<Vec<Imposed>> {
    let begun = Instant::now();
    let mut away = Vec::<Away>::new();
    let mut imposed = Vec::new();
    let mut random = StdRng::seed_from_u64(planned.len() as u64);
    for Planned { fault, at, lasts } in planned {
        loop {
            bring_back(stack, plane, &mut away).await?;
            let is_room = match fault {
                Fault::KillWorker | Fault::StopWorker => running(plane, &away).len() > LEAST_WORKERS,
                // A broken server while it runs through another one's recovery is one fault at a time.
                Fault::KillBroker | Fault::KillMysql | Fault::KillLeader => true,
            };
            if progress() >= *at && is_room {
                break;
            }
            stack.service.stack.check()?;
            sleep(PAUSE).await;
        }
        let at_s = begun.elapsed().as_secs_f64();
        let process = match fault {
            Fault::KillWorker | Fault::StopWorker => {
                let running = running(plane, &away);
                let index = running[random.random_range(0..running.len())];
                let is_stopped = *fault == Fault::StopWorker;
                let signal = if is_stopped { Signal::SIGSTOP } else { Signal::SIGKILL };
                plane.workers[index].kill(&mut stack.service.stack, signal)?;
                away.push(Away { at: Instant::now() + *lasts, process: Process::Worker { index, is_stopped } });
                plane.workers[index].name.clone()
            }
            Fault::KillLeader => {
                let index = leader(plane).await?;
                plane.monitors[index].kill(&mut stack.service.stack, Signal::SIGKILL)?;
                away.push(Away { at: Instant::now() + *lasts, process: Process::Monitor(index) });
                plane.monitors[index].name.clone()
            }
            Fault::KillBroker => {
                stack.kill_kafka().await?;
                sleep(*lasts).await;
                stack.service.restart_kafka().await?;
                "kafka".to_owned()
            }
            Fault::KillMysql => {
                stack.service.kill_mysql().await?;
                sleep(*lasts).await;
                stack.service.restart_mysql().await?;
                "mysql-00".to_owned()
            }
        };
        eprintln!("  {at_s:.1} s: {} ({process}, {:.1} s)", fault.text(), lasts.as_secs_f64());
        imposed.push(Imposed { fault: *fault, process, at_s, lasts_s: lasts.as_secs_f64() });
    }
    while !away.is_empty() {
        bring_back(stack, plane, &mut away).await?;
        sleep(PAUSE).await;
    }
    Ok(imposed)
}

/// Starts or continues the processes whose time has come.
async fn bring_back(stack: &mut EventStack, plane: &mut ControlPlane, away: &mut Vec<Away>) -> anyhow::Result<()> {
    let now = Instant::now();
    let stack = &mut stack.service.stack;
    while let Some(n) = away.iter().position(|away| away.at <= now) {
        match away.swap_remove(n).process {
            Process::Worker { index, is_stopped: true } => plane.workers[index].kill(stack, Signal::SIGCONT)?,
            Process::Worker { index, is_stopped: false } => plane.workers[index].restart(stack).await?,
            Process::Monitor(index) => plane.monitors[index].restart(stack).await?,
        }
    }
    Ok(())
}

/// Indices of the workers that are neither killed nor stopped.
fn running(plane: &ControlPlane, away: &[Away]) -> Vec<usize> {
    let is_away =
        |n: usize| away.iter().any(|away| matches!(away.process, Process::Worker { index, .. } if index == n));
    (0..plane.workers.len()).filter(|n| !is_away(*n)).collect()
}

/// Waits for a monitor that leads.
async fn leader(plane: &ControlPlane) -> anyhow::Result<usize> {
    let http = runtime::http::plain().timeout(STATUS_TIMEOUT).build()?;
    let leads = async |monitor: &Member| {
        let answer = http.get(format!("http://{}/status", monitor.http)).send().await.ok()?;
        answer.json::<Status>().await.ok().map(|status| status.leading)
    };
    let found = async {
        loop {
            for (n, monitor) in plane.monitors.iter().enumerate() {
                if leads(monitor).await == Some(true) {
                    return n;
                }
            }
            sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.context("no monitor leads within 60 s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_spread_over_the_run() {
        let counts = Counts { workers: 20, brokers: 2, mysql: 1, leaders: 1 };
        let planned = plan(counts, Duration::from_secs(1), 1);
        let of = |fault| planned.iter().filter(|one| one.fault == fault).count();
        let all = [Fault::KillWorker, Fault::StopWorker, Fault::KillBroker, Fault::KillMysql, Fault::KillLeader];
        assert_eq!(all.map(of), [10, 10, 2, 1, 1]);
        assert!(planned.is_sorted_by(|a, b| a.at < b.at) && planned.iter().all(|one| (0.0..1.0).contains(&one.at)));
        assert!(planned.windows(2).all(|pair| pair[1].at - pair[0].at < 0.1), "{planned:?}");
        assert_eq!(planned, plan(counts, Duration::from_secs(1), 1));
    }
}
