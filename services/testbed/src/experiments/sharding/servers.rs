//! The MySQL servers of the experiment, and the shards on some of them.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use contract::{SHARDS, UserId, shard_of};
use faultproxy::{Law, Proxy, Route};
use launcher::{Cores, QuotaChoice, QuotaMode, Stack, free_port, mariadb, redis};
use runtime::Endpoint;
use stores::{QueueOrder, Store, StoreConfig, StoreMetrics};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{data, stack::service::direct_store};

/// Users who are read. Each has a dozen events, as the service's users have.
const USERS: u32 = 2_000;
/// One server has all connections of a layout, and a few for import.
const MAX_CONNECTIONS: u32 = 1_500;
const BUFFER_POOL_MB: u32 = 32;
/// All connections of a layout open within it, also on servers with a small quota.
const OPEN_LIMIT: Duration = Duration::from_secs(120);
/// Clients that wait for a connection are part of the load: none is refused.
const MAX_WAITING: usize = 100_000;

/// All servers run all the time; a layout uses the first ones.
pub struct Servers {
    stack: Stack,
    mysql: Vec<mariadb::MySql>,
    pub redis: redis::Redis,
    /// Of the proxies.
    admins: Vec<SocketAddr>,
    /// Users with events, by shard.
    pub users: Vec<Vec<UserId>>,
}

/// The 16 shards on the first servers, and the connections to them.
pub struct Layout {
    pub store: Store,
    /// Pids of its servers.
    pub pids: Vec<u32>,
    proxies: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Servers {
    /// Starts `counts.last()` servers, and imports the data into the layout of each count.
    ///
    /// # Errors
    /// A server is not installed or does not start, or the import fails.
    pub async fn start(counts: &[u16]) -> anyhow::Result<Self> {
        let most = *counts.last().context("there is no count of servers")?;
        let mut stack = Stack::create("sharding")?;
        stack.batch();
        stack.set_quotas(QuotaChoice::Auto)?;
        let redis = redis::start(&mut stack, &redis::Options::default()).await?;
        let options = mariadb::Options {
            max_connections: MAX_CONNECTIONS,
            buffer_pool_mb: BUFFER_POOL_MB,
            cores: Some(all_cores()?),
            ..mariadb::Options::default()
        };
        let mut mysql = Vec::new();
        for n in 0..most {
            mysql.push(mariadb::start(&mut stack, &format!("mysql-{n:02}"), &options).await?);
        }
        let admins = (0..most).map(|_| Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?))));
        let admins = admins.collect::<anyhow::Result<Vec<_>>>()?;
        let dataset = data::Source::Generator(USERS).load().await?.dataset;
        let mut users = vec![Vec::new(); usize::from(SHARDS)];
        for user in &dataset.users {
            users[shard_of(user.as_str()).index()].push(user.clone());
        }
        let servers = Self { stack, mysql, redis, admins, users };
        for &count in counts {
            let config = direct_store(&servers.sockets(count)?);
            stores::migrate(&config).await?;
            data::import(&store(config)?, &dataset, |_| ()).await?;
        }
        Ok(servers)
    }

    /// How the kernel holds quotas; the reason if it does not.
    pub fn quotas(&self) -> Result<String, String> {
        match self.stack.quotas() {
            Some(kernel @ QuotaMode::Kernel(_)) => Ok(kernel.to_string()),
            Some(modelled) => Err(modelled.reason().unwrap_or_default().to_owned()),
            None => Err("the stack has no quotas".into()),
        }
    }

    /// Gives every server this quota. `None`: all cores.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn set_quota(&self, cores: Option<Cores>) -> anyhow::Result<()> {
        let cores = cores.map_or_else(all_cores, Ok)?;
        self.mysql.iter().try_for_each(|server| self.stack.set_cores(server.child, cores))
    }

    /// Opens `connections` in all to the shards on the first `count` servers; with a law each server has it for itself.
    ///
    /// # Errors
    /// The connections cannot be divided or opened, or a proxy cannot be bound.
    pub async fn open(&self, count: u16, connections: u32, law: Option<Law>) -> anyhow::Result<Layout> {
        let of_server = connections / u32::from(count);
        ensure!(of_server * u32::from(count) == connections, "{connections} connections to {count} servers");
        let stop = CancellationToken::new();
        let (mut proxies, mut addresses) = (JoinSet::new(), self.sockets(count)?);
        if let Some(law) = law {
            // A proxy counts the commands in flight of all its listeners: each server needs one of its own.
            for (n, address) in addresses.iter_mut().enumerate() {
                let listen = Endpoint::Unix(self.stack.socket_path(&format!("law-{n:02}")));
                let route = Route::new(listen.clone(), Endpoint::Unix(self.mysql[n].socket.clone()));
                let proxy = Proxy::bind(faultproxy::Config {
                    listeners: vec![route],
                    links: Vec::new(),
                    admin: self.admins[n],
                    law,
                    max_connections: faultproxy::DEFAULT_MAX_CONNECTIONS,
                });
                proxies.spawn(proxy.await?.serve(stop.clone()));
                *address = listen.to_string();
            }
        }
        let config = StoreConfig {
            pool_size: of_server,
            max_waiting: MAX_WAITING,
            order: QueueOrder::Oldest,
            ..direct_store(&addresses)
        };
        let store = store(config)?;
        store.open(of_server, OPEN_LIMIT).await.context("cannot open the connections of a layout")?;
        let pids = self.mysql.iter().take(count.into()).map(|server| server.pid).collect();
        Ok(Layout { store, pids, proxies, stop })
    }

    /// # Errors
    /// A server has ended meanwhile, or one does not end.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stack.check()?;
        self.stack.stop().await
    }

    pub fn version(&self) -> String {
        self.mysql.first().map_or_else(String::new, |server| server.version.clone())
    }

    fn sockets(&self, count: u16) -> anyhow::Result<Vec<String>> {
        let servers = self.mysql.get(..count.into()).with_context(|| format!("there are no {count} servers"))?;
        Ok(servers.iter().map(|server| Endpoint::Unix(server.socket.clone()).to_string()).collect())
    }
}

impl Layout {
    /// Closes its connections, and ends its proxies: at most 5 s.
    ///
    /// # Errors
    /// A proxy failed.
    pub async fn close(mut self) -> anyhow::Result<()> {
        drop(self.store);
        self.stop.cancel();
        while let Some(ended) = self.proxies.join_next().await {
            ended.context("a proxy crashed")??;
        }
        Ok(())
    }
}

fn store(config: StoreConfig) -> anyhow::Result<Store> {
    Ok(Store::new(config, &StoreMetrics::new(&prometheus::Registry::new())?)?)
}

/// What a server may use without a limit.
fn all_cores() -> anyhow::Result<Cores> {
    Cores::new(std::thread::available_parallelism().context("cannot count the cores")?.get() as f64)
}
