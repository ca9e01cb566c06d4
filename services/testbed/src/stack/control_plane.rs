//! The control plane as child processes: etcd, monitors, workers, and on request a faultproxy between them.

mod links;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use launcher::{ChildId, Signal, Spec, Stack, etcd, free_port, prometheus};
use monitor::{MonitorConfig, config::VoteRule};
use runtime::telemetry::TelemetryConfig;
use stores::StoreConfig;
use worker::{
    WorkerConfig,
    config::{Monitor, Transport},
};

pub use self::links::LinkProxy;
use self::links::Links;
use crate::stack::service::{self, own_program};

/// Settles within three beats, and the time that processes take to start on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// The leader's lease in beats; etcd grants no less than 2 s.
const TERM_BEATS: u64 = 5;
const LEAST_TERM_MS: u64 = 2_000;

/// The processes of a control plane.
#[derive(Debug, Clone)]
pub struct Plan {
    pub monitors: usize,
    pub workers: usize,
    pub interval_ms: u64,
    /// Of the beats.
    pub transport: Transport,
    /// How many monitors must agree that a worker has failed.
    pub votes: VoteRule,
    /// Further settings of every monitor, `key=value`.
    pub monitor_sets: Vec<String>,
    /// The same of every worker.
    pub worker_sets: Vec<String>,
    /// Of monitors and workers.
    pub telemetry: TelemetryConfig,
    /// With a faultproxy between the members, and in front of the store and the workers' clients.
    pub links: bool,
    /// Workers fold, publish and hold the segments of the model.
    pub segments: bool,
}

/// Setting of workers that rank lists by the segments, as their replicas do (`segment_sets`).
pub const LISTS_BY_SEGMENTS: &str = "lists.model=segments";

impl Default for Plan {
    fn default() -> Self {
        Self {
            monitors: 3,
            workers: 3,
            interval_ms: 1_000,
            transport: Transport::Udp,
            votes: VoteRule::Majority,
            monitor_sets: Vec::new(),
            worker_sets: Vec::new(),
            telemetry: TelemetryConfig::default(),
            links: false,
            segments: false,
        }
    }
}

pub struct ControlPlane {
    pub etcd: etcd::Etcd,
    pub monitors: Vec<Member>,
    pub workers: Vec<Member>,
    /// If the plan has links.
    pub links: Option<LinkProxy>,
    http: reqwest::Client,
}

/// A monitor or a worker.
pub struct Member {
    pub name: String,
    pub child: ChildId,
    /// `host:port`
    pub http: String,
    /// `host:port` of a worker as clients reach it, and as other members do; without links as `http`.
    pub for_clients: String,
    pub advertised: String,
    /// Base URL of the admin port.
    pub admin: String,
    /// Directory of a worker's segments; empty: it has none.
    pub segments: PathBuf,
    role: &'static str,
    config: PathBuf,
    /// Further settings, `key=value`, from the next start on.
    pub sets: Vec<String>,
}

impl ControlPlane {
    /// Starts all of it, and waits until every worker is admitted. The shards of `store` must be migrated.
    ///
    /// # Errors
    /// etcd is not installed, or a process is not ready within a minute.
    pub async fn start(stack: &mut Stack, plan: &Plan, store: &StoreConfig) -> anyhow::Result<Self> {
        let etcd = etcd::start(stack, &etcd::Options::default()).await?;
        let [key, monitor_key] = std::array::from_fn(|_| format!("{:032x}", rand::random::<u128>()));
        let mut links = Links::new(plan.links);
        let monitors = monitor_configs(plan, [&key, &monitor_key], etcd.ports.0, &mut links)?;
        let mut workers = worker_configs(plan, &key, &monitors, store, &mut links)?;
        if plan.segments {
            for (config, _) in &mut workers {
                config.segments.dir = stack.child_dir(&config.node.id)?.join("segments").display().to_string();
            }
        }
        let links = links.start(stack).await?;
        let http = runtime::http::plain().timeout(Duration::from_secs(2)).build()?;
        let mut plane = Self { etcd, monitors: Vec::new(), workers: Vec::new(), links, http };
        for config in &monitors {
            let (name, listen) = (config.node.id.clone(), &config.listen);
            let member = Member::new(stack, name, "monitor", (listen.http, listen.admin), config, &plan.monitor_sets)?;
            plane.monitors.push(member);
        }
        for (config, for_clients) in &workers {
            let (name, listen) = (config.node.id.clone(), &config.listen);
            let member = Member::new(stack, name, "worker", (listen.http, listen.admin), config, &plan.worker_sets)?;
            let (for_clients, advertised) = (for_clients.to_string(), listen.http_address());
            let segments = PathBuf::from(&config.segments.dir);
            plane.workers.push(Member { for_clients, advertised, segments, ..member });
        }
        plane.wait_ready(stack).await?;
        for member in plane.members() {
            stack.set_endpoint(&member.name, &format!("http://{}", member.http))?;
            stack.set_endpoint(&format!("{}-admin", member.name), &member.admin)?;
            if !member.segments.as_os_str().is_empty() {
                stack.set_endpoint(&segments_of(&member.name), &member.segments.display().to_string())?;
            }
        }
        stack.set_endpoint("etcd", &plane.etcd.url)?;
        Ok(plane)
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.monitors.iter().chain(&self.workers)
    }

    /// Settings of replicas, `key=value`, with which they hold the model's segments. Only with the plan's `segments`.
    pub fn segment_sets(&self) -> Vec<String> {
        vec!["model.source=segments".to_owned(), format!("model.workers={:?}", self.worker_addresses())]
    }

    /// `host:port` of each worker, as clients reach it.
    pub fn worker_addresses(&self) -> Vec<String> {
        self.workers.iter().map(|worker| worker.for_clients.clone()).collect()
    }

    /// What Prometheus asks, by the jobs that compose's has for them.
    pub fn jobs(&self) -> [prometheus::ScrapeJob; 2] {
        let of = |members: &[Member]| {
            let target = |member: &Member| (member.name.clone(), member.admin.trim_start_matches("http://").to_owned());
            members.iter().map(target).collect::<Vec<_>>()
        };
        [service::job("monitor", of(&self.monitors)), service::job("worker", of(&self.workers))]
    }

    /// Until every monitor knows the registry and every worker is online.
    ///
    /// # Errors
    /// A process ended, or is not ready in time.
    pub async fn wait_ready(&self, stack: &Stack) -> anyhow::Result<()> {
        let ready = self.members().map(|member| {
            let url = format!("{}/readyz", member.admin);
            stack.wait_ready(member.child, READY_DEADLINE, move || {
                let get = self.http.get(&url).send();
                async { get.await.is_ok_and(|answer| answer.status().is_success()) }
            })
        });
        futures::future::try_join_all(ready).await.map(drop)
    }

    /// Ends all of it, etcd last.
    ///
    /// # Errors
    /// A process could not be ended.
    pub async fn stop(self, stack: &mut Stack) -> anyhow::Result<()> {
        for member in self.workers.iter().chain(&self.monitors) {
            // A stopped process does not receive other signals.
            stack.kill(member.child, Signal::SIGCONT).ok();
            stack.stop_child(member.child).await?;
        }
        if let Some(links) = self.links {
            links.stop(stack).await?;
        }
        stack.stop_child(self.etcd.child).await
    }

    /// Starts those again that have ended; answers their names.
    ///
    /// # Errors
    /// A process cannot be started.
    pub async fn restart_dead(&mut self, stack: &mut Stack) -> anyhow::Result<Vec<String>> {
        let mut restarted = Vec::new();
        for member in self.monitors.iter_mut().chain(&mut self.workers) {
            if stack.pid(member.child).is_none() {
                member.restart(stack).await?;
                restarted.push(member.name.clone());
            }
        }
        Ok(restarted)
    }
}

impl Member {
    fn new(
        stack: &mut Stack,
        name: String,
        role: &'static str,
        (http, admin): (SocketAddr, SocketAddr),
        config: &impl serde::Serialize,
        sets: &[String],
    ) -> anyhow::Result<Self> {
        let file = stack.child_dir(&name)?.join("config.toml");
        std::fs::write(&file, toml::to_string(config)?).with_context(|| format!("cannot write {}", file.display()))?;
        let sets = sets.to_vec();
        let child = spawn(stack, &name, role, &file, &sets)?;
        let [http, for_clients, advertised] = [(); 3].map(|()| http.to_string());
        let admin = format!("http://{admin}");
        let segments = PathBuf::new();
        Ok(Self { name, child, http, for_clients, advertised, admin, segments, role, config: file, sets })
    }

    /// Kills what is left of it and starts it anew.
    ///
    /// # Errors
    /// It cannot be ended or started.
    pub async fn restart(&mut self, stack: &mut Stack) -> anyhow::Result<()> {
        stack.stop_child(self.child).await?;
        self.child = spawn(stack, &self.name, self.role, &self.config, &self.sets)?;
        Ok(())
    }

    /// # Errors
    /// It has ended.
    pub fn kill(&self, stack: &mut Stack, signal: Signal) -> anyhow::Result<()> {
        stack.kill(self.child, signal)
    }
}

/// The endpoint that names the directory of a worker's segments.
pub fn segments_of(worker: &str) -> String {
    format!("{worker}-segments")
}

fn spawn(stack: &mut Stack, name: &str, role: &str, config: &PathBuf, sets: &[String]) -> anyhow::Result<ChildId> {
    let spec = Spec::new(name, own_program()?)
        .args(["serve", role, name, "--config"])
        .args([config])
        .args(sets.iter().flat_map(|set| ["--set", set]))
        .expendable();
    stack.spawn(spec)
}

fn monitor_configs(
    plan: &Plan,
    [key, monitor_key]: [&str; 2],
    etcd: u16,
    links: &mut Links,
) -> anyhow::Result<Vec<MonitorConfig>> {
    ensure!(plan.monitors % 2 == 1, "an even number of monitors has no better majority than one less");
    let names: Vec<String> = (0..plan.monitors).map(|n| format!("monitor-{n}")).collect();
    let http = names.iter().map(|_| loopback()).collect::<anyhow::Result<Vec<_>>>()?;
    let configs = names.iter().zip(&http).map(|(name, address)| {
        let mut config = MonitorConfig::new(name);
        key.clone_into(&mut config.node.key);
        monitor_key.clone_into(&mut config.node.monitor_key);
        let listen = &mut config.listen;
        (listen.http, listen.tcp, listen.udp, listen.admin) = (*address, loopback()?, loopback()?, loopback()?);
        listen.rpc = loopback()?;
        let etcd = links.tcp(&format!("{name}>etcd"), SocketAddr::from(([127, 0, 0, 1], etcd)))?;
        config.registry.etcd = vec![format!("http://{etcd}")];
        config.registry.term_ms = (plan.interval_ms * TERM_BEATS).max(LEAST_TERM_MS);
        config.detect.interval_ms = plan.interval_ms;
        config.detect.votes = plan.votes;
        config.telemetry.clone_from(&plan.telemetry);
        for (other, http) in names.iter().zip(&http).filter(|(other, _)| *other != name) {
            let http = links.tcp(&format!("{name}>{other}/http"), *http)?;
            config.peers.insert(other.clone(), http.to_string());
        }
        Ok(config)
    });
    configs.collect()
}

/// With the address at which clients reach each worker.
fn worker_configs(
    plan: &Plan,
    key: &str,
    monitors: &[MonitorConfig],
    store: &StoreConfig,
    links: &mut Links,
) -> anyhow::Result<Vec<(WorkerConfig, SocketAddr)>> {
    let mut workers = Vec::new();
    for name in (0..plan.workers).map(|n| format!("worker-{n}")) {
        let mut config = WorkerConfig::new(&name, links.store(&name, store)?);
        key.clone_into(&mut config.node.key);
        let listen = &mut config.listen;
        (listen.http, listen.udp, listen.admin) = (loopback()?, loopback()?, loopback()?);
        listen.advertise_http = links.tcp(&format!("members>{name}/http"), listen.http)?.to_string();
        listen.advertise_udp = links.udp(&format!("members>{name}/udp"), listen.udp)?.to_string();
        let for_clients = links.tcp(&format!("clients>{name}/http"), listen.http)?;
        (config.beats.interval_ms, config.beats.transport) = (plan.interval_ms, plan.transport);
        for monitor in monitors {
            let (id, listen) = (&monitor.node.id, &monitor.listen);
            let http = links.tcp(&format!("{name}>{id}/http"), listen.http)?;
            let beats = format!("{name}>{id}/beats");
            let beats = match plan.transport {
                Transport::Udp => links.udp(&beats, listen.udp)?,
                Transport::Tcp => links.tcp(&beats, listen.tcp)?,
            };
            let rpc = links.tcp(&format!("{name}>{id}/rpc"), listen.rpc)?;
            let known = Monitor { http: http.to_string(), beats: beats.to_string(), rpc: rpc.to_string() };
            config.monitors.insert(id.clone(), known);
        }
        config.telemetry.clone_from(&plan.telemetry);
        workers.push((config, for_clients));
    }
    Ok(workers)
}

fn loopback() -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?)))
}
