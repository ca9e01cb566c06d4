//! The stack as child processes: redis, Kafka on request, MySQL servers, faultproxy, the receiver of traces, api replicas, nginx.

mod observers;
mod replicas;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use api::{ApiConfig, Profile};
use faultproxy::Law;
use launcher::{ChildId, Cores, QuotaChoice, Signal, Spec, Stack, free_port, kafka, mariadb, nginx, prometheus, redis};
use loadtest::scenario::{self, Scenario};
use runtime::{Endpoint, telemetry::TelemetryConfig};
use serde_json::{Value, json};
use stores::{Store, StoreConfig, StoreMetrics};

pub use self::{
    observers::{Traces, job, start_traces},
    replicas::{LEAVE_DEADLINE, Replica},
};
use self::{
    observers::{jobs, loopback, start_access_log, start_exporters},
    replicas::{Leaving, replica_socket},
};
use crate::data;

/// The parts of a stack, without the profile of its replicas.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the stack: `evaluate`, `up`.
    pub name: String,
    pub instances: u16,
    pub replicas: u32,
    pub law: Law,
    pub store: scenario::Store,
    /// Settings for every replica, `key=value`.
    pub sets: Vec<String>,
    /// The gateway's; a free one without it.
    pub port: Option<u16>,
    /// Of every replica; the sets of single ones come after it.
    pub telemetry: TelemetryConfig,
    /// With a receiver of traces, to which all replicas send: `telemetry` says the rest.
    pub traces: bool,
    pub prometheus: Option<Monitoring>,
    /// Once the data is imported nothing is written: commits need not survive a server that is killed.
    pub only_read: bool,
    /// With Kafka: replicas send events to it, and read the features that workers compute (`worker_event_sets`).
    pub events: bool,
    /// Most replicas at a time, at least `replicas`: replicas come and go while the stack runs, and the gateway knows the sockets of all of
    /// them (`add_replica`, `leave`). `None`: the replicas stay.
    pub slots: Option<u32>,
    /// `None`: replicas use as much CPU as they get.
    pub quota: Option<Quota>,
    /// Of all processes: SCHED_BATCH, or else the policy of this process.
    pub batch: bool,
}

/// Of each replica.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    pub choice: QuotaChoice,
    pub cores: Cores,
    /// CPU time that a request for recommendations costs besides what it needs, in microseconds (`http.work_us`).
    pub work_us: u64,
}

/// Prometheus as part of the stack.
#[derive(Debug, Clone, Copy)]
pub struct Monitoring {
    /// Where the load generator will show its counters to it.
    pub loadgen: SocketAddr,
    /// Of scraping and of the rules.
    pub interval: Duration,
    /// All times of the rules are divided by this.
    pub hurry: u32,
    /// With the exporters that are installed.
    pub exporters: bool,
}

impl Monitoring {
    /// A stack of `up` often lives for minutes only.
    pub fn usual(loadgen: SocketAddr) -> Self {
        Self { loadgen, interval: Duration::from_secs(2), hurry: 1, exporters: true }
    }
}

pub struct ServiceStack {
    pub stack: Stack,
    pub redis: redis::Redis,
    /// If the plan has events.
    pub kafka: Option<kafka::Kafka>,
    pub servers: Vec<mariadb::MySql>,
    pub proxy: Proxy,
    pub nginx: nginx::Nginx,
    /// In the order of their numbers.
    pub replicas: Vec<Replica>,
    leaving: Vec<Leaving>,
    /// `allow_ends` was called.
    ends_allowed: bool,
    pub prometheus: Option<prometheus::Prometheus>,
    traces: Option<Traces>,
    plan: Plan,
    admins: Vec<u16>,
    http: reqwest::Client,
}

pub struct Proxy {
    pub admin: String,
    pub client: faultproxy::Client,
    /// Where to reach each MySQL server through it.
    pub addresses: Vec<Endpoint>,
}

/// Worker processes of nginx.
const GATEWAY_WORKERS: u32 = 2;

/// What a stack's receiver of OTLP is called among its endpoints; not there if there is none.
pub const OTLP: &str = "otlp";
/// Kafka's address, `host:port`; not there without events.
pub const KAFKA: &str = "kafka";
/// Where traces are asked for.
pub const TRACES: &str = "traces";

impl Plan {
    pub fn new(name: &str, scenario: &Scenario) -> Self {
        Self {
            name: name.to_owned(),
            instances: 1,
            replicas: scenario.replicas,
            law: law(scenario.law),
            store: scenario.store,
            sets: Vec::new(),
            port: None,
            telemetry: TelemetryConfig::default(),
            traces: false,
            prometheus: None,
            only_read: false,
            events: false,
            slots: None,
            quota: None,
            batch: true,
        }
    }

    /// What replicas with these settings run with; of addresses only the defaults.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn settings(&self, profile: Profile, sets: &[String]) -> anyhow::Result<ApiConfig> {
        let store = StoreConfig::spread_over(&["127.0.0.1:3306".to_owned()]);
        let mut defaults = ApiConfig::new(profile, store, "redis://127.0.0.1:6379");
        defaults.store.pool_size = self.pool_size();
        runtime::config::load(defaults, None, sets)
    }

    /// Whether replicas would take these settings, and the proxy their connections. Asked before anything is started: a replica that
    /// refuses its words ends its stack, and long after the command was given.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self, profile: Profile, sets: &[String]) -> anyhow::Result<()> {
        let pool_size = self.settings(profile, sets)?.store.pool_size;
        let replicas = self.most_replicas();
        let all = u64::from(replicas) * u64::from(self.instances) * u64::from(pool_size);
        let max = faultproxy::DEFAULT_MAX_CONNECTIONS as u64;
        ensure!(
            all <= max,
            "{replicas} replicas with store.pool_size={pool_size} to each of {} MySQL servers open {all} connections, and the proxy in front \
             of them takes {max}: choose a smaller pool",
            self.instances
        );
        Ok(())
    }

    fn most_replicas(&self) -> u32 {
        self.slots.unwrap_or_default().max(self.replicas)
    }

    /// Of a replica's connections to each server: the scenario says how many it has in all, so that more servers do not make a larger
    /// store of it.
    fn pool_size(&self) -> u32 {
        self.store.pool_size.div_ceil(u32::from(self.instances))
    }
}

pub fn law(law: scenario::Law) -> Law {
    match law {
        scenario::Law::Modelled { base_ms, slope_ms, crosstalk_ms, spread } => {
            Law::Linear { base_ms, slope_ms, crosstalk_ms, spread }
        }
        scenario::Law::None => Law::None,
    }
}

impl ServiceStack {
    /// Starts everything but the replicas, which need data first, and nginx's upstreams are not there yet.
    pub async fn start(mut plan: Plan) -> anyhow::Result<Self> {
        let mut stack = Stack::create(&plan.name)?;
        if plan.batch {
            stack.batch();
        }
        if let Some(quota) = plan.quota {
            stack.set_quotas(quota.choice)?;
        }
        let redis = redis::start(&mut stack, &redis::Options::default()).await?;
        let kafka = if plan.events { Some(kafka::start(&mut stack, &kafka::Options::default()).await?) } else { None };
        let options = mysql_options(&plan);
        let mut servers = Vec::new();
        for n in 0..plan.instances {
            servers.push(mariadb::start(&mut stack, &mysql_name(n), &options).await?);
        }
        let http = runtime::http::plain().timeout(Duration::from_secs(5)).build()?;
        let proxy = start_proxy(&mut stack, &servers, plan.law).await?;
        let traces =
            if plan.traces { Some(start_traces(&mut stack, &http, Traces::addresses()?).await?) } else { None };
        if let Some(traces) = &traces {
            // It accepts no log records: the logs are files of the stack.
            plan.telemetry =
                TelemetryConfig { endpoint: format!("http://{}", traces.otlp), logs: false, ..plan.telemetry };
        }
        let admins = (0..plan.most_replicas()).map(|_| free_port()).collect::<anyhow::Result<Vec<_>>>()?;
        let listen_port = plan.port.map_or_else(free_port, Ok)?;
        let (mut prometheus, mut access_log) = (None, None);
        if let Some(Monitoring { loadgen, interval, hurry, exporters }) = plan.prometheus {
            // Replicas that come and go are added when they are ready.
            let fixed = if plan.slots.is_some() { &[] } else { admins.as_slice() };
            let mut jobs = jobs(fixed, &proxy.admin, loadgen);
            let counter = start_access_log(&mut stack, &http).await?;
            access_log = Some(counter.listen);
            jobs.push(job("access-log", [("access-log".into(), counter.admin.to_string())]));
            let gateway = job("gateway", [("nginx".into(), loopback(listen_port).to_string())]);
            jobs.push(prometheus::ScrapeJob { path: "/-/metrics", ..gateway });
            if exporters {
                jobs.extend(start_exporters(&mut stack, &redis, &servers).await?);
            }
            jobs.extend(traces.iter().map(|traces| job("tracestore", [("traces".into(), traces.admin.to_string())])));
            let options = prometheus::Options { interval, time_divisor: hurry, jobs };
            let started = prometheus::start(&mut stack, &options).await?;
            stack.set_endpoint("prometheus", &started.url)?;
            prometheus = Some(started);
        }
        let gateway = nginx::Options {
            listen_port,
            upstreams: (0..admins.len()).map(|n| replica_socket(&stack, n).to_string()).collect(),
            worker_processes: GATEWAY_WORKERS,
            access_log,
            slots: plan.slots.map(|_| nginx::Slots::default()),
        };
        let nginx = nginx::start(&mut stack, &gateway).await?;
        stack.set_endpoint("gateway", &nginx.url)?;
        stack.set_endpoint("redis", &redis.url)?;
        stack.set_endpoint("faultproxy", &proxy.admin)?;
        if let Some(kafka) = &kafka {
            stack.set_endpoint(KAFKA, &kafka.bootstrap)?;
        }
        if plan.telemetry.is_on() {
            stack.set_endpoint(OTLP, &plan.telemetry.endpoint)?;
        }
        for (n, server) in servers.iter().enumerate() {
            stack.set_endpoint(&format!("mysql-{n:02}"), &format!("127.0.0.1:{}", server.port))?;
        }
        Ok(Self {
            stack,
            redis,
            kafka,
            servers,
            proxy,
            nginx,
            replicas: Vec::new(),
            leaving: Vec::new(),
            ends_allowed: false,
            prometheus,
            traces,
            plan,
            admins,
            http,
        })
    }

    /// The store without faultproxy in front of it: for migration and import, which are no part of any measurement.
    pub fn direct_store(&self) -> StoreConfig {
        let addresses: Vec<String> = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        direct_store(&addresses)
    }

    /// Migrates all schemas, imports the data and builds the model; returns the model's version.
    pub async fn load(&self, dataset: &model::Dataset) -> anyhow::Result<u64> {
        stores::migrate(&self.direct_store()).await?;
        let store = Store::new(self.direct_store(), &StoreMetrics::new(&::prometheus::Registry::new())?)?;
        data::import(&store, dataset, |_| ()).await?;
        data::build_model(&store).await
    }

    /// The file of the users' ids for the load generator.
    pub fn write_known_ids(&self, dataset: &model::Dataset) -> anyhow::Result<PathBuf> {
        let file = self.stack.dir().join("known-ids.txt");
        std::fs::write(&file, data::known_ids(dataset)).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// The file of the items' ids for the generator of events.
    pub fn write_known_items(&self, dataset: &model::Dataset) -> anyhow::Result<PathBuf> {
        let file = self.stack.dir().join("known-items.txt");
        std::fs::write(&file, data::known_items(dataset))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// Settings of workers, `key=value`, with which they consume events and write lists. None without Kafka.
    pub fn worker_event_sets(&self) -> Vec<String> {
        let Some(kafka) = &self.kafka else { return Vec::new() };
        vec![format!("kafka.brokers={}", kafka.bootstrap), format!("redis.url={}", self.redis.socket_url)]
    }

    /// Settings, `key=value`, of the replicas that start from now on. The plan's own come after them.
    pub fn default_sets(&mut self, sets: Vec<String>) {
        self.plan.sets.splice(0..0, sets);
    }

    /// The n-th replica's admin port.
    pub fn admin(&self, n: usize) -> String {
        format!("http://127.0.0.1:{}", self.admins[n])
    }

    /// The replicas' telemetry settings, unless a replica has its own.
    pub fn telemetry(&self) -> &TelemetryConfig {
        &self.plan.telemetry
    }

    /// Kills all MySQL servers, as a crash would.
    pub async fn kill_mysql(&mut self) -> anyhow::Result<()> {
        for server in &self.servers {
            self.stack.kill(server.child, Signal::SIGKILL)?;
        }
        for server in &self.servers {
            self.stack.stop_child(server.child).await?;
        }
        Ok(())
    }

    /// Starts the killed servers again, on their data and ports; they recover on their own.
    pub async fn restart_mysql(&mut self) -> anyhow::Result<()> {
        for n in 0..self.plan.instances {
            let server = &mut self.servers[usize::from(n)];
            let options = mariadb::Options { port: Some(server.port), ..mysql_options(&self.plan) };
            *server = mariadb::start(&mut self.stack, &mysql_name(n), &options).await?;
        }
        Ok(())
    }

    /// From now on Redis, Kafka and the replicas, later ones too, may end: `fault` kills them, and `restart_dead` starts them again.
    pub fn allow_ends(&mut self) {
        self.ends_allowed = true;
        for child in self.restartable() {
            self.stack.make_expendable(child);
        }
    }

    fn restartable(&self) -> Vec<ChildId> {
        let servers = [self.redis.child].into_iter().chain(self.kafka.as_ref().map(|kafka| kafka.child));
        self.replicas.iter().map(|replica| replica.child).chain(servers).collect()
    }

    /// Keeps the gateway's access log, the one before it and its error log below about this size each. With slots each attempt to reach an
    /// absent replica is two lines in the error log: 2 kB/s with twelve of them.
    ///
    /// # Errors
    /// A file cannot be renamed or emptied, or nginx has ended.
    pub fn bound_access_log(&mut self, max_bytes: u64) -> anyhow::Result<()> {
        self.stack.bound_log("nginx", max_bytes)?;
        self.nginx.rotate_access_log(&mut self.stack, max_bytes).map(drop)
    }

    /// Whether Redis, Kafka and all replicas run.
    pub fn all_run(&self) -> bool {
        self.restartable().into_iter().all(|child| self.stack.pid(child).is_some())
    }

    /// Starts Redis, Kafka and the replicas again if they have ended, at their old addresses. Replicas that leave are not started again.
    /// Does not wait until the replicas are ready.
    ///
    /// # Errors
    /// A process cannot be started.
    pub async fn restart_dead(&mut self, profile: Profile) -> anyhow::Result<()> {
        if self.stack.pid(self.redis.child).is_none() {
            self.stack.stop_child(self.redis.child).await?;
            self.restart_redis().await?;
        }
        if let Some(kafka) = &self.kafka
            && self.stack.pid(kafka.child).is_none()
        {
            self.stack.stop_child(kafka.child).await?;
            self.restart_kafka().await?;
        }
        for index in 0..self.replicas.len() {
            let Replica { n, child, .. } = self.replicas[index];
            if self.stack.pid(child).is_none() {
                self.stack.stop_child(child).await?;
                let listen = replica_socket(&self.stack, n);
                self.replicas[index] = self.spawn_replica(n, listen, profile, &[])?;
            }
        }
        self.allow_ends();
        Ok(())
    }

    pub async fn kill_redis(&mut self) -> anyhow::Result<()> {
        self.stack.kill(self.redis.child, Signal::SIGKILL)?;
        self.stack.stop_child(self.redis.child).await
    }

    /// An empty one on the old one's port.
    pub async fn restart_redis(&mut self) -> anyhow::Result<()> {
        let options = redis::Options { port: Some(self.redis.port), ..redis::Options::default() };
        self.redis = redis::start(&mut self.stack, &options).await?;
        Ok(())
    }

    /// On the former one's data and port.
    pub async fn restart_kafka(&mut self) -> anyhow::Result<()> {
        let former = self.kafka.as_ref().context("the stack has no Kafka")?;
        let options = kafka::Options { port: Some(former.port), ..kafka::Options::default() };
        self.kafka = Some(kafka::start(&mut self.stack, &options).await?);
        Ok(())
    }

    /// The receiver of traces, with all that it has kept.
    pub async fn kill_traces(&mut self) -> anyhow::Result<()> {
        let child = self.traces.as_ref().context("the stack has no receiver of traces")?.child;
        self.stack.kill(child, Signal::SIGKILL)?;
        self.stack.stop_child(child).await
    }

    /// An empty one at the old one's addresses.
    pub async fn restart_traces(&mut self) -> anyhow::Result<()> {
        let traces = self.traces.as_mut().context("the stack has no receiver of traces")?;
        *traces = start_traces(&mut self.stack, &self.http, (traces.otlp, traces.admin)).await?;
        Ok(())
    }

    /// Redis for the testbed's own use: patient.
    pub fn redis_for_tools(&self) -> anyhow::Result<::redis::aio::ConnectionManager> {
        redis_for_tools(&self.redis.url)
    }

    /// Empties Redis.
    pub async fn flush_cache(&self) -> anyhow::Result<()> {
        flush_cache(&self.redis.url).await
    }
}

/// Redis for the testbed's own use: patient.
pub fn redis_for_tools(url: &str) -> anyhow::Result<::redis::aio::ConnectionManager> {
    let config =
        stores::redis::RedisConfig { url: url.to_owned(), response_timeout_ms: 10_000, connect_timeout_ms: 2_000 };
    config.open().context("the address of Redis is not valid")
}

/// Empties the Redis of a stack.
pub async fn flush_cache(url: &str) -> anyhow::Result<()> {
    let mut redis = redis_for_tools(url)?;
    ::redis::cmd("FLUSHALL").query_async::<()>(&mut redis).await.context("cannot empty redis")
}

fn mysql_options(plan: &Plan) -> mariadb::Options {
    let pool_size = plan.settings(Profile::Protected, &plan.sets).map_or(plan.pool_size(), |api| api.store.pool_size);
    mariadb::Options {
        max_connections: plan.most_replicas() * (pool_size + 2) + 200,
        buffer_pool_mb: 256 / u32::from(plan.instances) + 64,
        commits: if plan.only_read { mariadb::CommitDurability::Buffered } else { mariadb::CommitDurability::Written },
        ..mariadb::Options::default()
    }
}

/// Settings of the servers that are not ours, by name, for the manifest of a report.
pub fn server_settings(plan: &Plan) -> BTreeMap<String, Value> {
    let mysql = mysql_options(plan);
    let flush = mysql.commits.flush_log();
    let mysql = json!({
        "servers": plan.instances,
        "max_connections": mysql.max_connections,
        "buffer_pool_mb": mysql.buffer_pool_mb,
        "innodb_flush_log_at_trx_commit": flush,
    });
    let nginx = json!({ "worker_processes": GATEWAY_WORKERS, "upstreams": plan.most_replicas() });
    [("mysql".to_owned(), mysql), ("nginx".to_owned(), nginx)].into()
}

fn mysql_name(n: u16) -> String {
    format!("mysql-{n:02}")
}

/// A store on these servers (`host:port`), for tools: few connections, patient.
pub fn direct_store(addresses: &[String]) -> StoreConfig {
    let mut config = StoreConfig::spread_over(addresses);
    config.pool_size = 8;
    config.checkout_timeout_ms = 600_000;
    config.statement_timeout_ms = 0;
    config
}

/// This very program: the roles are its subcommands.
pub fn own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

/// Starts a role of this program and waits until its admin port reports health.
async fn spawn_healthy(
    stack: &mut Stack,
    http: &reqwest::Client,
    spec: Spec,
    admin: SocketAddr,
) -> anyhow::Result<ChildId> {
    let child = stack.spawn(spec)?;
    let health = format!("http://{admin}/healthz");
    stack
        .wait_ready(child, Duration::from_secs(30), || {
            let get = http.get(&health).send();
            async { get.await.is_ok_and(|answer| answer.status().is_success()) }
        })
        .await?;
    Ok(child)
}

/// Starts a faultproxy in front of these servers.
pub async fn start_proxy(stack: &mut Stack, servers: &[mariadb::MySql], law: Law) -> anyhow::Result<Proxy> {
    let http = runtime::http::plain().timeout(Duration::from_secs(1)).build()?;
    let listeners: Vec<_> = servers
        .iter()
        .enumerate()
        .map(|(n, server)| {
            let name = format!("store-{n:02}");
            let listen = Endpoint::Unix(stack.socket_path(&name));
            faultproxy::Route::new(listen, Endpoint::Unix(server.socket.clone())).named(&name)
        })
        .collect();
    let addresses = listeners.iter().map(|route| route.listen.clone()).collect();
    let admin = loopback(free_port()?);
    let max_connections = faultproxy::DEFAULT_MAX_CONNECTIONS;
    let config = faultproxy::Config { listeners, links: Vec::new(), admin, law, max_connections };
    let file = stack.child_dir("faultproxy")?.join("config.toml");
    std::fs::write(&file, toml::to_string(&config)?).with_context(|| format!("cannot write {}", file.display()))?;
    let spec = Spec::new("faultproxy", own_program()?).args(["serve", "faultproxy", "--config"]).args([file]);
    spawn_healthy(stack, &http, spec, admin).await?;
    let admin = format!("http://{admin}");
    Ok(Proxy { client: faultproxy::Client::new(&admin)?, admin, addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replicas_connections_are_shared_out_among_the_servers() {
        let mut plan = Plan::new("test", &Scenario::load("article").unwrap());
        for (instances, pool_size) in [(1, 100), (3, 34), (16, 7)] {
            plan.instances = instances;
            assert_eq!(plan.settings(Profile::Baseline, &[]).unwrap().store.pool_size, pool_size);
            plan.check(Profile::Baseline, &[]).unwrap();
        }
        // Of all that there may be.
        plan.slots = Some(20);
        let error = plan.check(Profile::Baseline, &["store.pool_size=32".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("20 replicas"), "{error}");
        plan.slots = None;
        // To each of 16 servers.
        plan.check(Profile::Baseline, &["store.pool_size=32".to_owned()]).unwrap();
        let error = plan.check(Profile::Baseline, &["store.pool_size=33".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("open 4224 connections") && error.contains("takes 4096"), "{error}");
    }
}
