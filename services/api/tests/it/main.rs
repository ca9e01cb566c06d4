//! A replica in this process, on a real Redis and a real MariaDB.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod deadlines;
mod document;
mod durability;
mod endpoints;
mod event_log;
mod features;
mod fuzz;
mod guards;
mod misses;
mod model_segments;
mod newcomers;
mod outage;
mod reporting;
mod rotation;
#[path = "../../../lists/tests/it/segment_server.rs"]
#[expect(dead_code, reason = "the tests of `lists` need more of it")]
mod segment_server;
mod slots;
mod telemetry;
mod work;
mod writes;

use std::{net::SocketAddr, time::Duration};

use api::{ApiConfig, Profile};
use contract::http::{Problem, Recommendations};
use launcher::{Signal, Stack, free_port, mariadb, redis};
use model::{GenerateParams, NeighbourModel};
use prometheus::Registry;
use reqwest::{Client, Response, StatusCode};
use sqlx::{ConnectOptions, Executor, MySqlConnection, mysql::MySqlConnectOptions};
use stores::{ImportEvent, Store, StoreConfig, StoreMetrics};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Connections in use.
pub const USED: &str =
    "db_client_connection_count{db_client_connection_pool_name=\"mysql-00\",db_client_connection_state=\"used\"}";

pub struct Fixture {
    pub stack: Stack,
    pub redis: redis::Redis,
    pub mysql: mariadb::MySql,
    pub store: StoreConfig,
    pub dataset: model::Dataset,
}

pub struct Replica {
    pub base: String,
    pub admin: String,
    pub http: Client,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Fixture {
    /// Servers with the behaviour of 400 synthetic users; `None`: skipped, no servers here.
    pub async fn start() -> Option<Self> {
        if !launcher::testing::have(&["redis-server", "mariadbd|mysqld"]) {
            return None;
        }
        let mut stack = Stack::create("test-api").unwrap();
        let redis = redis::start(&mut stack, &redis::Options::default()).await.unwrap();
        let mysql = mariadb::start(&mut stack, "mysql", &mariadb::Options::default()).await.unwrap();
        let mut store = StoreConfig::spread_over(&[format!("127.0.0.1:{}", mysql.port)]);
        store.pool_size = 4;
        stores::migrate(&store).await.unwrap();
        let params = GenerateParams { users: 400, items: 300, clusters: 10, ..GenerateParams::default() };
        let dataset = model::generate(&params).unwrap();
        let writer = Store::new(store.clone(), &StoreMetrics::new(&Registry::new()).unwrap()).unwrap();
        let rows = dataset.events.iter().map(|event| ImportEvent {
            user_id: &dataset.users[event.user as usize],
            item_id: &dataset.items[event.item as usize],
            kind: event.kind,
            at_ms: event.at_ms,
            weight: event.weight,
        });
        writer.import(rows.collect(), |_| ()).await.unwrap();
        let built = NeighbourModel::build(&dataset, std::num::NonZero::<usize>::MIN);
        let (header, rows) = built.to_rows();
        writer.save_model(&header, &rows.collect::<Vec<_>>(), 0).await.unwrap();
        Some(Self { stack, redis, mysql, store, dataset })
    }

    /// Until it is dropped, all reads of the log wait in the server.
    pub async fn lock_tables(&self) -> MySqlConnection {
        let options = MySqlConnectOptions::new().host("127.0.0.1").port(self.mysql.port).username("root");
        let mut connection = options.connect().await.unwrap();
        let tables: Vec<String> = contract::ShardId::all().map(|s| format!("{}.behaviour WRITE", s.schema())).collect();
        let lock = format!("LOCK TABLES {}", tables.join(","));
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(lock))).await.unwrap();
        connection
    }

    /// Replaces Redis by an empty one.
    pub async fn restart_redis(&mut self) {
        self.stack.kill(self.redis.child, Signal::SIGKILL).unwrap();
        self.stack.stop_child(self.redis.child).await.unwrap();
        let options = redis::Options { port: Some(self.redis.port), ..redis::Options::default() };
        self.redis = redis::start(&mut self.stack, &options).await.unwrap();
    }

    pub fn config(&self, profile: Profile) -> ApiConfig {
        let mut config = ApiConfig::new(profile, self.store.clone(), &self.redis.url);
        config.http.listen = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())).into();
        config.http.admin = ([127, 0, 0, 1], free_port().unwrap()).into();
        config
    }

    pub async fn replica(&self, profile: Profile) -> Replica {
        Replica::start(self.config(profile)).await
    }

    /// Items of the user's events.
    pub fn seen(&self, user: usize) -> Vec<&str> {
        let of_user = self.dataset.events.iter().filter(|event| event.user as usize == user);
        of_user.map(|event| self.dataset.items[event.item as usize].as_str()).collect()
    }

    pub fn user(&self, n: usize) -> &str {
        self.dataset.users[n].as_str()
    }
}

impl Replica {
    pub async fn start(config: ApiConfig) -> Self {
        let stop = CancellationToken::new();
        let (base, admin) = (format!("http://{}", config.http.listen), format!("http://{}", config.http.admin));
        let task = tokio::spawn(api::serve(config, stop.clone()));
        let replica = Self { base, admin, http: Client::new(), stop, task };
        wait_until("the replica is ready", async || {
            assert!(!replica.task.is_finished(), "the replica ended");
            let answer = replica.http.get(format!("{}/readyz", replica.admin)).send().await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
        })
        .await;
        replica
    }

    pub async fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &str) -> Response {
        let request = self.http.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        request.body(body.to_owned()).send().await.unwrap()
    }

    pub async fn recommend(&self, user: &str, limit: usize) -> Recommendations {
        let answer = self.get(&format!("/recommendations?user_id={user}&limit={limit}")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }

    /// Sum of all series that begin with this. At least one must exist: a wrong name would always be 0.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.http.get(format!("{}/metrics", self.admin)).send().await.unwrap().text().await.unwrap();
        let lines = text.lines().filter(|line| line.starts_with(series));
        let values: Vec<f64> = lines.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
        assert!(!values.is_empty(), "no series begins with {series}");
        values.iter().sum()
    }

    /// Ends it without a leave and without a drain. Its listener closes; the file of a Unix socket stays.
    pub async fn kill(mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }

    /// Stops the replica gracefully.
    pub async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap().unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn problem(answer: Response) -> (StatusCode, Problem) {
    let status = answer.status();
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Problem = answer.json().await.unwrap();
    assert_eq!(problem.status, status.as_u16());
    (status, problem)
}

pub async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
