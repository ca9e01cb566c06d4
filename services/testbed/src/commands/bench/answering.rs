//! Processes that answer requests for lists, and what an answer costs them: what `bench hit` and `bench telemetry` share.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, bail, ensure};
use api::Profile;
use launcher::{ChildId, Spec, cpu};
use loadtest::scenario::{self, Scenario};
use stores::redis::RedisConfig;

use crate::{
    data,
    instruments::comparison::Figures,
    roles::bare,
    roles::hammer::{self, Outcome},
    stack::service::{Plan, ServiceStack, own_program},
};

/// Few enough that an in-process cache of one second has them all nearly always.
pub const USERS: usize = 200;
/// More than that: some have no list.
const GENERATED: u32 = 2_000;
pub const PER_CPU_S: &str = "requests_per_cpu_s";
pub const CPU_US: &str = "cpu_us_per_request";

/// One of the processes that answer.
pub struct Target {
    pub name: &'static str,
    pub address: SocketAddr,
    child: ChildId,
    pid: u32,
}

/// Servers and data as in the evaluation, without a law, and those who answer.
pub struct Answering {
    pub cluster: ServiceStack,
    pub targets: Vec<Target>,
}

impl Answering {
    /// No target yet, but room for so many replicas.
    pub async fn start(replicas: u32) -> anyhow::Result<Self> {
        let mut scenario = Scenario::load("smoke")?;
        scenario.law = scenario::Law::None;
        scenario.replicas = replicas;
        let cluster = ServiceStack::start(Plan::new("bench", &scenario)).await?;
        cluster.load(&data::Source::Generator(GENERATED).load().await?.dataset).await?;
        Ok(Self { cluster, targets: Vec::new() })
    }

    /// The n-th replica, with all guards: model, filter, and users of whom each is warmed up.
    pub async fn replica(&mut self, n: usize, name: &'static str, sets: &[String]) -> anyhow::Result<()> {
        let (child, address) = self.cluster.start_replica(n, Profile::Protected, sets).await?;
        self.add(name, child, address)
    }

    /// The least that can be done; `words` are further ones of `serve bare`.
    pub async fn bare(&mut self, name: &'static str, words: &[&str]) -> anyhow::Result<()> {
        let redis = self.cluster.redis.url.clone();
        let words = [&["bare", "--redis", redis.as_str()][..], words].concat();
        let (child, listen) = self.serve(format!("bare-{}", self.targets.len()), &words).await?;
        self.add(name, child, listen)
    }

    /// Takes spans and reads none; answers its address.
    pub async fn sink(&mut self) -> anyhow::Result<String> {
        let (_child, listen) = self.serve("sink".to_owned(), &["sink"]).await?;
        Ok(format!("http://{listen}"))
    }

    async fn serve(&mut self, name: String, words: &[&str]) -> anyhow::Result<(ChildId, SocketAddr)> {
        let listen = SocketAddr::from(([127, 0, 0, 1], launcher::free_port()?));
        let spec = Spec::new(name, own_program()?).args(["serve"]).args(words).args(["--listen", &listen.to_string()]);
        let child = self.cluster.stack.spawn(spec)?;
        let up = || async { tokio::net::TcpStream::connect(listen).await.is_ok() };
        self.cluster.stack.wait_ready(child, Duration::from_secs(30), up).await?;
        Ok((child, listen))
    }

    fn add(&mut self, name: &'static str, child: ChildId, address: SocketAddr) -> anyhow::Result<()> {
        let pid = self.cluster.stack.pid(child).with_context(|| format!("{name} has ended"))?;
        self.targets.push(Target { name, address, child, pid });
        Ok(())
    }

    pub async fn stop_targets(&mut self) -> anyhow::Result<()> {
        for target in std::mem::take(&mut self.targets) {
            self.cluster.stack.stop_child(target.child).await?;
        }
        Ok(())
    }

    /// Gives the bare handlers the very bytes that the first target, a replica, answers; returns the users.
    pub async fn fill(&self) -> anyhow::Result<Vec<String>> {
        let http = runtime::http::plain().timeout(Duration::from_secs(5)).build()?;
        let config =
            RedisConfig { url: self.cluster.redis.url.clone(), response_timeout_ms: 5_000, connect_timeout_ms: 2_000 };
        let mut redis = config.open()?;
        let mut ids = Vec::with_capacity(USERS);
        for id in (0..GENERATED).map(|n| format!("u{n:06}")) {
            let url = format!("http://{}{}", self.targets[0].address, path(&id));
            let body = http.get(&url).send().await?.error_for_status()?.bytes().await?;
            // A user from whose behaviour nothing can be ranked gets the popular items, which are no hit.
            if body.starts_with(b"{\"source\":\"cache\"") {
                redis::cmd("SET").arg(bare::key(&id)).arg(body.as_ref()).query_async::<()>(&mut redis).await?;
                ids.push(id);
            }
            if ids.len() == USERS {
                return Ok(ids);
            }
        }
        bail!("only {} users are in the cache after the warm-up", ids.len())
    }

    /// One run of one side. CPU is read before the load generator starts and after it has ended: nothing else asks then.
    pub async fn load(
        &mut self,
        target: usize,
        connections: usize,
        ids: &[String],
        run_ms: u64,
    ) -> anyhow::Result<Figures> {
        let dir = self.cluster.stack.child_dir("hammer")?;
        let (file, result) = (dir.join("plan.json"), dir.join("result.json"));
        let target = &self.targets[target];
        let plan = hammer::Plan {
            address: target.address,
            paths: ids.iter().map(|id| path(id)).collect(),
            connections,
            run_ms,
            result: result.clone(),
        };
        std::fs::write(&file, serde_json::to_vec(&plan)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let (name, pid, redis) = (target.name, target.pid, self.cluster.redis.pid);
        let seconds = |pid: u32| cpu::process_seconds(pid).context("a measured process has ended");
        let before = (seconds(pid)?, seconds(redis)?);
        let spec = Spec::new("hammer", own_program()?).args(["serve", "hammer"]).args([&file]);
        self.cluster.stack.run(spec, Duration::from_millis(run_ms) + Duration::from_secs(30)).await?;
        let used = (seconds(pid)? - before.0, seconds(redis)? - before.1);
        let outcome = read(&result)?;
        ensure!(outcome.requests > 0 && used.0 > 0.0, "{name} answered nothing");
        let requests = outcome.requests as f64;
        Ok(Figures::from([
            (PER_CPU_S, requests / used.0),
            ("requests_per_s", requests / outcome.seconds),
            (CPU_US, 1e6 * used.0 / requests),
            ("redis_cpu_us_per_request", 1e6 * used.1 / requests),
            ("body_bytes", outcome.body_bytes as f64 / requests),
        ]))
    }
}

fn path(id: &str) -> String {
    format!("/recommendations?user_id={id}")
}

fn read(file: &Path) -> anyhow::Result<Outcome> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).context("the load generator wrote something else")
}
