//! Processes of a stack that observe it: the receiver of traces, the counter of the gateway's answers, exporters, and what Prometheus scrapes.

use std::net::SocketAddr;

use launcher::{ChildId, Spec, Stack, exporters, free_port, mariadb, prometheus, redis};

use super::{TRACES, mysql_name, own_program, spawn_healthy};

/// Scrape jobs of the replicas, faultproxy and the load generator, with the names that compose's Prometheus has.
pub fn jobs(admins: &[u16], faultproxy: &str, loadgen: SocketAddr) -> Vec<prometheus::ScrapeJob> {
    let replicas = admins.iter().enumerate().map(|(n, &port)| (format!("api-{n}"), loopback(port).to_string()));
    vec![
        job("api", replicas),
        job("faultproxy", [("faultproxy".into(), faultproxy.trim_start_matches("http://").into())]),
        // Answers only while a step runs.
        job("load", [("loadgen".into(), loadgen.to_string())]),
    ]
}

pub fn job(name: &str, targets: impl IntoIterator<Item = (String, String)>) -> prometheus::ScrapeJob {
    prometheus::ScrapeJob { name: name.into(), targets: targets.into_iter().collect(), path: prometheus::METRICS }
}

/// The receiver of traces: its OTLP address and its admin port.
pub struct Traces {
    pub child: ChildId,
    pub otlp: SocketAddr,
    pub admin: SocketAddr,
}

impl Traces {
    /// Free addresses: for OTLP, and for the admin port.
    pub fn addresses() -> anyhow::Result<(SocketAddr, SocketAddr)> {
        Ok((loopback(free_port()?), loopback(free_port()?)))
    }
}

pub async fn start_traces(
    stack: &mut Stack,
    http: &reqwest::Client,
    (otlp, admin): (SocketAddr, SocketAddr),
) -> anyhow::Result<Traces> {
    let child = start_role(stack, http, "traces", otlp, admin).await?;
    stack.set_endpoint(TRACES, &format!("http://{admin}"))?;
    Ok(Traces { child, otlp, admin })
}

/// Starts `testbed serve ROLE --listen … --admin …` and waits until its admin port reports health.
async fn start_role(
    stack: &mut Stack,
    http: &reqwest::Client,
    role: &str,
    listen: SocketAddr,
    admin: SocketAddr,
) -> anyhow::Result<ChildId> {
    let (listen, port) = (listen.to_string(), admin.to_string());
    let spec = Spec::new(role, own_program()?).args(["serve", role, "--listen", &listen, "--admin", &port]);
    spawn_healthy(stack, http, spec, admin).await
}

/// The process that counts the gateway's answers.
pub struct AccessLog {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
}

pub async fn start_access_log(stack: &mut Stack, http: &reqwest::Client) -> anyhow::Result<AccessLog> {
    let (listen, admin) = (loopback(free_port()?), loopback(free_port()?));
    start_role(stack, http, "access-log", listen, admin).await?;
    Ok(AccessLog { listen, admin })
}

/// Starts the exporters that are installed. Returns their scrape jobs, with the names that compose's Prometheus has.
pub async fn start_exporters(
    stack: &mut Stack,
    redis: &redis::Redis,
    servers: &[mariadb::MySql],
) -> anyhow::Result<Vec<prometheus::ScrapeJob>> {
    let mut jobs = Vec::new();
    if let Some(node) = exporters::node(stack).await? {
        jobs.push(job("machine", [("machine".into(), node.address.to_string())]));
    }
    if let Some(exporter) = exporters::redis(stack, redis).await? {
        jobs.push(job("redis", [("redis".into(), exporter.address.to_string())]));
    }
    let mut targets = Vec::new();
    for (n, server) in (0..).zip(servers) {
        let name = mysql_name(n);
        if let Some(exporter) = exporters::mysql(stack, &name, server).await? {
            targets.push((name, exporter.address.to_string()));
        }
    }
    if !targets.is_empty() {
        jobs.push(job("mysql", targets));
    }
    Ok(jobs)
}

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
