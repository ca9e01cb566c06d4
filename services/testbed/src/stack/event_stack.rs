//! The stack of experiments about events: the service with Kafka beside it, and control planes whose workers consume the events.
//!
//! Replicas reach MySQL through faultproxy. Workers reach it directly, unless the plan says otherwise: the law must not slow down a takeover.

use anyhow::Context as _;
use faultproxy::Law;
use launcher::{
    Signal,
    kafka::{self, Kafka},
};
use loadtest::scenario;
use model::Dataset;
use runtime::{Endpoint, telemetry::TelemetryConfig};
use stores::{Store, StoreConfig, StoreMetrics};

use super::{
    control_plane::{self, ControlPlane},
    service::{self, ServiceStack},
};

/// Workers give up a statement after this time: a row that another session locks must not stop a partition for long.
const WORKER_STATEMENT_TIMEOUT_MS: u64 = 3_000;
const WORKER_CHECKOUT_TIMEOUT_MS: u64 = 3_000;
const WORKER_POOL: u32 = 16;
const CHECKOUT_TIMEOUT_MS: u64 = 2_900;
const MAX_WAITING: u32 = 1_000;

#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the stack.
    pub name: String,
    pub replicas: u32,
    /// Connections of each replica to MySQL.
    pub pool_size: u32,
    /// Response times of MySQL, as the replicas see it.
    pub law: Law,
    /// The workers reach MySQL as the replicas do.
    pub slow_workers: bool,
    /// See [`service::Plan::batch`].
    pub batch: bool,
}

impl Plan {
    /// Two replicas without a law, under SCHED_BATCH.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), replicas: 2, pool_size: 20, law: Law::None, slow_workers: false, batch: true }
    }
}

/// Redis, MySQL, faultproxy, nginx, Kafka, and the replicas once they are started. Control planes are separate, so that an experiment can
/// run several of them on the same data.
pub struct EventStack {
    pub service: ServiceStack,
    plan: Plan,
}

impl EventStack {
    /// Starts the servers, imports the data and builds the model. Neither replicas nor workers run yet.
    ///
    /// # Errors
    /// A server is not installed or does not start; the data cannot be imported.
    pub async fn start(plan: Plan, dataset: &Dataset) -> anyhow::Result<Self> {
        let of_service = service::Plan {
            name: plan.name.clone(),
            instances: 1,
            replicas: plan.replicas,
            law: plan.law,
            store: scenario::Store {
                pool_size: plan.pool_size,
                order: scenario::Order::Newest,
                checkout_timeout_ms: CHECKOUT_TIMEOUT_MS,
                max_waiting: MAX_WAITING,
            },
            sets: Vec::new(),
            port: None,
            telemetry: TelemetryConfig::default(),
            traces: false,
            prometheus: None,
            only_read: false,
            events: true,
            slots: None,
            quota: None,
            batch: plan.batch,
        };
        let service = ServiceStack::start(of_service).await?;
        service.load(dataset).await?;
        Ok(Self { service, plan })
    }

    /// Starts etcd, monitors and workers that consume the events and publish lists. The plan's `worker_sets` come last.
    ///
    /// # Errors
    /// A process does not become ready.
    pub async fn start_control_plane(&mut self, plan: &control_plane::Plan) -> anyhow::Result<ControlPlane> {
        let events = self.service.worker_event_sets();
        let worker_sets = events.into_iter().chain(plan.worker_sets.iter().cloned()).collect();
        let plan = control_plane::Plan { worker_sets, ..plan.clone() };
        let store = self.worker_store();
        ControlPlane::start(&mut self.service.stack, &plan, &store).await
    }

    fn worker_store(&self) -> StoreConfig {
        let config = if self.plan.slow_workers {
            let addresses: Vec<String> = self.service.proxy.addresses.iter().map(Endpoint::to_string).collect();
            StoreConfig::spread_over(&addresses)
        } else {
            self.service.direct_store()
        };
        StoreConfig {
            pool_size: WORKER_POOL,
            checkout_timeout_ms: WORKER_CHECKOUT_TIMEOUT_MS,
            statement_timeout_ms: WORKER_STATEMENT_TIMEOUT_MS,
            ..config
        }
    }

    /// The store without faultproxy, for the experiment's own questions.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub fn store(&self) -> anyhow::Result<Store> {
        Store::new(self.service.direct_store(), &StoreMetrics::new(&::prometheus::Registry::new())?)
            .context("cannot configure the store")
    }

    /// `host:port` of the MySQL server, without faultproxy.
    ///
    /// # Errors
    /// The stack has no MySQL server.
    pub fn mysql(&self) -> anyhow::Result<String> {
        let server = self.service.servers.first().context("the stack has no MySQL server")?;
        Ok(format!("127.0.0.1:{}", server.port))
    }

    /// Base URL of the gateway.
    pub fn gateway(&self) -> &str {
        &self.service.nginx.url
    }

    /// The broker's address, `host:port`.
    ///
    /// # Errors
    /// The stack has no broker.
    pub fn brokers(&self) -> anyhow::Result<&str> {
        Ok(&self.kafka()?.bootstrap)
    }

    fn kafka(&self) -> anyhow::Result<&Kafka> {
        self.service.kafka.as_ref().context("the stack has no Kafka")
    }

    /// Kills the broker, as a crash would. `service.restart_kafka` starts it again on its data.
    ///
    /// # Errors
    /// It has ended already.
    pub async fn kill_kafka(&mut self) -> anyhow::Result<()> {
        let child = self.kafka()?.child;
        let stack = &mut self.service.stack;
        stack.kill(child, Signal::SIGKILL)?;
        stack.stop_child(child).await
    }

    /// Restarts the broker with these further settings, on its data and port.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn reconfigure_kafka(&mut self, properties: &[(&str, &str)]) -> anyhow::Result<()> {
        let port = Some(self.kafka()?.port);
        self.kill_kafka().await?;
        let properties = properties.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let options = kafka::Options { port, properties, ..kafka::Options::default() };
        self.service.kafka = Some(kafka::start(&mut self.service.stack, &options).await?);
        Ok(())
    }

    /// Ends all processes.
    ///
    /// # Errors
    /// A process does not end.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.service.stack.stop().await
    }
}
