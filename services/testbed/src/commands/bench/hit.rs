//! `bench hit`: a cache hit of the api beside the least that axum and Redis can do, and beside its own in-process cache.
//!
//! At several concurrencies: the more requests are under way at the same time, the more of them share a system call to Redis, and the
//! less a look into Redis costs each.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, bail, ensure};
use api::Profile;
use launcher::{ChildId, Spec, cpu};
use loadtest::scenario::{self, Scenario};
use stores::redis::RedisConfig;

use super::conditions;
use crate::{
    bare,
    cli::BenchArgs,
    cluster::{Cluster, Plan, own_program},
    comparison::{self, Comparison, Figures, Side},
    data,
    hammer::{self, Outcome},
};

const REPEATS: u8 = 7;
const RUN_MS: u64 = 2_000;
/// Buffers, connections and branch predictors of all sides wake up.
const WARM_MS: u64 = 1_000;
/// Each with one request outstanding, always. The first is the one that the first ratio is of: a replica that answers in 3 ms what eight of
/// them are asked at 4000/s has fewer than two requests under way.
const CONNECTIONS: [usize; 3] = [8, 64, 1];
/// Few enough that an in-process cache of one second has them all nearly always.
const USERS: usize = 200;
/// More than that: some have no list.
const GENERATED: u32 = 2_000;
const LOCAL_CACHE: &str = "cache.local_ms=1000";
const PER_CPU_S: &str = "requests_per_cpu_s";

/// One of the processes that answer.
struct Target {
    name: &'static str,
    address: SocketAddr,
    pid: u32,
}

pub async fn run(args: BenchArgs) -> anyhow::Result<Comparison> {
    let mut bench = start().await?;
    let ids = bench.fill().await?;
    let targets = bench.targets.len();
    for target in 0..targets {
        bench.load(target, CONNECTIONS[0], &ids, WARM_MS).await?;
    }
    let repeats = usize::from(args.repeats.unwrap_or(REPEATS));
    // Those that are compared, the targets at one concurrency, follow each other.
    let loads: Vec<(usize, usize)> =
        CONNECTIONS.into_iter().flat_map(|connections| (0..targets).map(move |target| (target, connections))).collect();
    let runs = comparison::in_turns(loads.len(), repeats, async |side| {
        let (target, connections) = loads[side];
        bench.load(target, connections, &ids, RUN_MS).await
    });
    let runs = runs.await?;
    let side = |((target, connections), runs): (&(usize, usize), &Vec<Figures>)| {
        Side::new(&format!("{} × {connections}", bench.targets[*target].name), runs)
    };
    let sides: Vec<Side> = loads.iter().zip(&runs).map(side).collect();
    let of_concurrency = |sides: &[Side]| [sides[0].over(&sides[1], PER_CPU_S), sides[2].over(&sides[0], PER_CPU_S)];
    let ratios = sides.chunks_exact(targets).flat_map(of_concurrency).collect();
    let what = format!(
        "requests for a cached list per CPU second (user + system) of the answering process; × {} connections, each with one request \
         outstanding; {USERS} users, {RUN_MS} ms a run",
        CONNECTIONS.map(|connections| connections.to_string()).join(", ")
    );
    let conditions = conditions(&[("redis", &bench.cluster.redis.version)], Vec::new());
    bench.cluster.stack.stop().await?;
    Comparison::new("hit", what, sides, ratios, conditions)
}

struct Bench {
    cluster: Cluster,
    /// The api, the bare handler, and the api with its in-process cache.
    targets: Vec<Target>,
}

/// Every replica has Redis, model and filter as in the evaluation, and users of whom each is warmed up.
async fn start() -> anyhow::Result<Bench> {
    let mut scenario = Scenario::load("smoke")?;
    scenario.law = scenario::Law::None;
    scenario.replicas = 2;
    let mut cluster = Cluster::start(Plan::new("bench", &scenario)).await?;
    cluster.load(&data::Source::Generator(GENERATED).load()?.dataset).await?;
    let mut targets = Vec::new();
    let api = cluster.start_replica(0, Profile::Protected, &[]).await?;
    targets.push(target(&cluster, "api", api.0, api.1)?);
    let listen = SocketAddr::from(([127, 0, 0, 1], launcher::free_port()?));
    let spec = Spec::new("bare", own_program()?).args([
        "serve",
        "bare",
        "--listen",
        &listen.to_string(),
        "--redis",
        &cluster.redis.url,
    ]);
    let child = cluster.stack.spawn(spec)?;
    cluster
        .stack
        .wait_ready(child, Duration::from_secs(30), || async { tokio::net::TcpStream::connect(listen).await.is_ok() })
        .await?;
    targets.push(target(&cluster, "bare", child, listen)?);
    let local = cluster.start_replica(1, Profile::Protected, &[LOCAL_CACHE.to_owned()]).await?;
    targets.push(target(&cluster, "api with in-process cache", local.0, local.1)?);
    Ok(Bench { cluster, targets })
}

fn target(cluster: &Cluster, name: &'static str, child: ChildId, address: SocketAddr) -> anyhow::Result<Target> {
    let pid = cluster.stack.pid(child).with_context(|| format!("{name} has ended"))?;
    Ok(Target { name, address, pid })
}

impl Bench {
    /// Gives the bare handler the very bytes that the api answers; returns the users.
    async fn fill(&self) -> anyhow::Result<Vec<String>> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
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
    async fn load(
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
            ("cpu_us_per_request", 1e6 * used.0 / requests),
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
