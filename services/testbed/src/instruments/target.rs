//! What is under load, and its counters at an instant.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use launcher::{Description, cpu};
use report::{Scheduling, soak::Sample};

use super::{
    scheduling::{Accounts, LOAD},
    scrape::Reading,
};
use crate::stack::endpoints;

/// The processes under load, from the description of their stack: a stack of this run, or the one of `up`.
pub struct Target {
    pub gateway: String,
    replicas: Vec<String>,
    /// `None`: somebody else's endpoint.
    faultproxy: Option<String>,
    /// nginx's; `None` for a stack elsewhere.
    pub access_log: Option<PathBuf>,
    /// Kind and pid: `api`, `mysql`, `redis`, `nginx`, `faultproxy`.
    processes: Vec<(String, u32)>,
    http: reqwest::Client,
}

impl Target {
    pub fn of(dir: Option<&Path>, stack: &Description) -> anyhow::Result<Self> {
        let endpoint =
            |name: &str| stack.endpoints.get(name).cloned().with_context(|| format!("the stack has no {name}"));
        let kind = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
        Ok(Self {
            gateway: endpoint("gateway")?,
            faultproxy: Some(endpoint("faultproxy")?),
            replicas: endpoints::replicas(stack)?,
            access_log: dir.map(|dir| dir.join("nginx/access.log")),
            processes: stack.children.iter().map(|child| (kind(&child.name), child.process.pid)).collect(),
            http: runtime::http::plain().timeout(Duration::from_secs(10)).build()?,
        })
    }

    /// Somebody else's endpoint at this base URL: it has no processes and counters that are known here.
    pub fn foreign(base_url: String) -> anyhow::Result<Self> {
        Ok(Self {
            gateway: base_url,
            faultproxy: None,
            replicas: Vec::new(),
            access_log: None,
            processes: Vec::new(),
            http: runtime::http::plain().build()?,
        })
    }

    /// Its admin address.
    ///
    /// # Errors
    /// The target is somebody else's endpoint.
    pub fn faultproxy(&self) -> anyhow::Result<&str> {
        self.faultproxy.as_deref().context("the target has no faultproxy")
    }

    /// Memory and open files by kind of process. A process that has ended counts 0.
    pub fn resources(&self) -> Sample {
        let mut sample = Sample::default();
        for (kind, pid) in &self.processes {
            let mib = cpu::rss_bytes(*pid).unwrap_or(0) as f64 / f64::from(1 << 20);
            *sample.rss_mb.entry(kind.clone()).or_default() += mib;
            *sample.open_files.entry(kind.clone()).or_default() += cpu::open_fds(*pid).unwrap_or(0) as f64;
        }
        sample
    }

    /// The profile that the replicas report: `baseline + protected` where they differ.
    pub async fn profile(&self) -> anyhow::Result<String> {
        let (replicas, _) = self.reading().await?;
        Ok(replicas.labels("api_profile_info", "profile").into_iter().collect::<Vec<_>>().join(" + "))
    }

    /// Counters of the replicas, summed, and of faultproxy.
    ///
    /// # Errors
    /// One of them does not answer.
    pub async fn reading(&self) -> anyhow::Result<(Reading, Reading)> {
        let (replicas, faultproxy) = self.readings().await?;
        Ok((Reading::all(replicas), faultproxy))
    }

    /// Counters of each replica, and of faultproxy.
    ///
    /// # Errors
    /// One of them does not answer.
    pub async fn readings(&self) -> anyhow::Result<(Vec<Reading>, Reading)> {
        let read = async |admin: &String| {
            Reading::get(&self.http, admin).await.with_context(|| format!("cannot read {admin}/metrics"))
        };
        let replicas = futures::future::try_join_all(self.replicas.iter().map(read)).await?;
        // Somebody else's endpoint has none.
        let faultproxy = match &self.faultproxy {
            Some(admin) => read(admin).await?,
            None => Reading::all(Vec::new()),
        };
        Ok((replicas, faultproxy))
    }
}

/// Counters at one instant.
pub struct Snapshot {
    pub at: Instant,
    pub at_unix_ms: u64,
    pub replicas: Reading,
    pub faultproxy: Reading,
    /// CPU seconds by kind of process.
    pub cpu: BTreeMap<String, f64>,
    pub machine: Option<cpu::MachineCpu>,
    pub accounts: Accounts,
}

impl Snapshot {
    /// Of this machine's accounts, for the load generator and the processes under load.
    pub fn scheduling_since(&self, earlier: &Self) -> Scheduling {
        self.accounts.since(&earlier.accounts, (self.at - earlier.at).as_secs_f64())
    }

    /// Of all cores of the machine; 0 if it was not measured.
    pub fn cpu_pct_since(&self, earlier: &Self) -> f64 {
        self.machine.zip(earlier.machine).map_or(0.0, |(now, then)| 100.0 * now.busy_share_since(then))
    }
}

impl Target {
    /// `generator`: pid of the process that sends the load, if its CPU is of interest.
    ///
    /// # Errors
    /// A process does not answer.
    pub async fn snapshot(&self, generator: Option<u32>) -> anyhow::Result<Snapshot> {
        let mut seconds = BTreeMap::new();
        let ourselves = [("testbed".to_owned(), std::process::id())];
        let generator = generator.map(|pid| (LOAD.to_owned(), pid));
        let accounts = Accounts::read(self.processes.iter().chain(&generator).map(|(kind, pid)| (kind.as_str(), *pid)));
        for (kind, pid) in self.processes.iter().chain(&generator).chain(&ourselves) {
            // The tree of this process would hold all the others.
            let used = if kind == "testbed" { cpu::process_seconds(*pid) } else { cpu::process_tree_seconds(*pid) };
            *seconds.entry(kind.clone()).or_default() += used.unwrap_or(0.0);
        }
        let (replicas, faultproxy) = self.reading().await?;
        Ok(Snapshot {
            at: Instant::now(),
            at_unix_ms: unix_ms(),
            replicas,
            faultproxy,
            cpu: seconds,
            machine: cpu::machine(),
            accounts,
        })
    }
}

pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
