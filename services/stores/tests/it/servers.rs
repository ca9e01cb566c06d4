//! The servers of a test.

use launcher::{Signal, Stack, mariadb};
use prometheus::Registry;
use sqlx::{ConnectOptions, Connection, Executor, MySqlConnection, Row, mysql::MySqlConnectOptions};
use stores::{Store, StoreConfig, StoreMetrics};

/// The servers of a test, with all schemas.
pub struct Servers {
    pub stack: Stack,
    pub servers: Vec<mariadb::MySql>,
    pub config: StoreConfig,
    pub registry: Registry,
    options: mariadb::Options,
    locker: Option<MySqlConnection>,
}

impl Servers {
    /// `None`: the server is not installed, and the test counts as skipped.
    pub async fn start(count: usize) -> Option<Self> {
        let servers = Self::start_bare(count).await?;
        stores::migrate(&servers.config).await.unwrap();
        Some(servers)
    }

    /// Without schemas.
    pub async fn start_bare(count: usize) -> Option<Self> {
        let options = mariadb::Options { server: Some(crate::flavour().await?), ..mariadb::Options::default() };
        let mut stack = Stack::create("test-stores").unwrap();
        let mut servers = Vec::new();
        for n in 0..count {
            servers.push(mariadb::start(&mut stack, &format!("mysql-{n:02}"), &options).await.unwrap());
        }
        let addresses: Vec<String> = servers.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        let mut config = StoreConfig::spread_over(&addresses);
        config.pool_size = 4;
        Some(Self { locker: None, stack, servers, config, registry: Registry::new(), options })
    }

    pub fn store(&self) -> Store {
        Store::new(self.config.clone(), &StoreMetrics::new(&self.registry).unwrap()).unwrap()
    }

    /// Kills the first server.
    pub async fn kill_first(&mut self) {
        self.stack.kill(self.servers[0].child, Signal::SIGKILL).unwrap();
        self.stack.stop_child(self.servers[0].child).await.unwrap();
    }

    /// Restarts the first server with its data and port.
    pub async fn restart_first(&mut self) {
        let options = mariadb::Options { port: Some(self.servers[0].port), ..self.options.clone() };
        self.servers[0] = mariadb::start(&mut self.stack, "mysql-00", &options).await.unwrap();
    }

    /// Value of a counter without labels.
    pub fn count(&self, name: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric()[0].get_counter().get_value() as u64
    }

    /// Value of the counter whose only label has this value.
    pub fn labelled(&self, name: &str, label: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let metric = family.get_metric().iter().find(|metric| metric.get_label()[0].value() == label).unwrap();
        metric.get_counter().get_value() as u64
    }

    /// Sum of a gauge's series that have this value in some label; "": of all series.
    pub fn gauge(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let metrics = family.get_metric().iter();
        let matching =
            metrics.filter(|metric| label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label));
        matching.map(|metric| metric.get_gauge().get_value()).sum()
    }

    /// A separate connection to the first server.
    pub async fn connect(&self) -> MySqlConnection {
        MySqlConnectOptions::new()
            .host("127.0.0.1")
            .port(self.servers[0].port)
            .username("root")
            .connect()
            .await
            .unwrap()
    }

    /// Commands that `work` sends to the first server, counted by the server.
    pub async fn commands(&self, work: impl Future<Output = ()>) -> i64 {
        let mut connection = self.connect().await;
        let mut questions = async || {
            let status = connection.fetch_one("SHOW GLOBAL STATUS LIKE 'Questions'").await.unwrap();
            status.get_unchecked::<String, _>(1).parse::<i64>().unwrap()
        };
        let (first, before) = (questions().await, questions().await);
        work.await;
        // The query for the counter is a command as well, or two.
        questions().await - before - (before - first)
    }

    /// From now on all reads of the log wait in the server.
    pub async fn lock_tables(&mut self) {
        let mut connection = self.connect().await;
        let tables: Vec<String> = contract::ShardId::all().map(|s| format!("{}.behaviour WRITE", s.schema())).collect();
        let lock = format!("LOCK TABLES {}", tables.join(", "));
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(lock))).await.unwrap();
        self.locker = Some(connection);
    }

    pub async fn unlock_tables(&mut self) {
        self.locker.take().unwrap().close().await.unwrap();
    }
}
