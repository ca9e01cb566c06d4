//! The raw log and the prepared features give the same list for every user, over the real path: api → Kafka → worker → MySQL → api on a
//! miss. The lists that the worker has published are the same, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ::redis::aio::MultiplexedConnection;
use api::{ApiConfig, Profile};
use contract::{
    ShardId, UserId,
    http::{NewEvent, Recommendations, ScoredItem, Source},
    keys,
};
use eventlog::{Consumer, ConsumerMetrics, KafkaConfig};
use launcher::{Stack, etcd, free_port, kafka, mariadb, redis};
use lists::RankedList;
use model::{BadRows, Dataset, GenerateParams, Interaction, NeighbourModel};
use monitor::MonitorConfig;
use prometheus::Registry;
use reqwest::{Client, StatusCode};
use stores::{ImportEvent, Store, StoreConfig, StoreMetrics};
use tokio_util::sync::{CancellationToken, DropGuard};
use worker::{WorkerConfig, config::Monitor};

const KEY: &str = "a key for tests";
const LIMIT: usize = 20;
/// Of `POST /events`.
const BATCH: usize = 1_000;

/// Servers, and a model of all data.
struct Servers {
    stack: Stack,
    /// Where the worker publishes lists.
    lists: redis::Redis,
    /// The replicas' own, so that each read of theirs is a miss.
    cache: redis::Redis,
    etcd: etcd::Etcd,
    kafka: kafka::Kafka,
    config: StoreConfig,
    store: Store,
    _stop: DropGuard,
    stop: CancellationToken,
}

impl Servers {
    /// `None`: a server is not installed, and the test counts as skipped.
    async fn start(dataset: &Dataset) -> Option<Self> {
        let programs = ["redis-server", "mariadbd|mysqld", "etcd"];
        if !launcher::testing::have(&programs) {
            return None;
        }
        if let Err(reason) = kafka::provide().await {
            launcher::testing::skip(&reason);
            return None;
        }
        let mut stack = Stack::create("test-lists").unwrap();
        let named = |name: &str| redis::Options { name: name.into(), ..redis::Options::default() };
        let lists = redis::start(&mut stack, &named("redis-lists")).await.unwrap();
        let cache = redis::start(&mut stack, &named("redis-cache")).await.unwrap();
        let etcd = etcd::start(&mut stack, &etcd::Options::default()).await.unwrap();
        let kafka = kafka::start(&mut stack, &kafka::Options::default()).await.unwrap();
        let mysql = mariadb::start(&mut stack, "mysql", &mariadb::Options::default()).await.unwrap();
        let config = StoreConfig::spread_over(&[format!("127.0.0.1:{}", mysql.port)]);
        let config = StoreConfig { pool_size: 8, checkout_timeout_ms: 10_000, ..config };
        stores::migrate(&config).await.unwrap();
        let store = Store::new(config.clone(), &StoreMetrics::new(&Registry::new()).unwrap()).unwrap();
        let threads = std::num::NonZero::<usize>::MIN;
        let built = NeighbourModel::build(dataset, threads);
        let (header, rows) = built.to_rows();
        store.save_model(&header, &rows.collect::<Vec<_>>(), 0).await.unwrap();
        let stop = CancellationToken::new();
        Some(Self { stack, lists, cache, etcd, kafka, config, store, _stop: stop.clone().drop_guard(), stop })
    }

    /// One monitor, and one worker that gets all partitions.
    fn start_worker(&self) {
        let mut monitor = MonitorConfig::new("monitor-0");
        (monitor.node.key, monitor.node.monitor_key) = (KEY.into(), format!("{KEY} of monitors"));
        let listen = &mut monitor.listen;
        (listen.http, listen.tcp, listen.udp, listen.admin) = (loopback(), loopback(), loopback(), loopback());
        monitor.registry.etcd = vec![self.etcd.url.clone()];
        let (http, beats) = (listen.http.to_string(), listen.udp.to_string());
        let known = Monitor { http, beats, rpc: String::new() };
        let mut worker = WorkerConfig::new("worker-0", self.config.clone());
        worker.node.key = KEY.into();
        (worker.listen.http, worker.listen.udp, worker.listen.admin) = (loopback(), loopback(), loopback());
        worker.monitors = BTreeMap::from([("monitor-0".to_owned(), known)]);
        worker.kafka.brokers.clone_from(&self.kafka.bootstrap);
        worker.redis.url.clone_from(&self.lists.url);
        let (of_monitor, of_worker) = (self.stop.clone(), self.stop.clone());
        tokio::spawn(async move { monitor::serve(monitor, of_monitor).await.unwrap() });
        tokio::spawn(async move { worker::serve(worker, of_worker).await.unwrap() });
    }

    /// A replica whose lists expire at once.
    async fn replica(&self, features: &str) -> String {
        let defaults = ApiConfig::new(Profile::Baseline, self.config.clone(), &self.cache.url);
        let (listen, admin) = (loopback(), loopback());
        let sets = [
            format!("http.listen={listen}"),
            format!("http.admin={admin}"),
            format!("kafka.brokers={}", self.kafka.bootstrap),
            format!("features={features}"),
            "cache.fresh_ms=1".into(),
            "cache.stale_ms=0".into(),
        ];
        let config = runtime::config::load(defaults, None, &sets).unwrap();
        let stop = self.stop.clone();
        tokio::spawn(async move { api::serve(config, stop).await.unwrap() });
        let ready = format!("http://{admin}/readyz");
        until("the replica is ready", async || {
            reqwest::get(&ready).await.is_ok_and(|answer| answer.status() == StatusCode::OK)
        })
        .await;
        format!("http://{listen}")
    }

    /// Messages of the topic.
    async fn end(&self) -> u64 {
        let config = KafkaConfig { brokers: self.kafka.bootstrap.clone(), ..KafkaConfig::default() };
        let consumer = Consumer::start(&config, ConsumerMetrics::new(&Registry::new()).unwrap()).unwrap();
        let mut sum = 0;
        for shard in ShardId::all() {
            sum += consumer.end(shard).await.unwrap();
        }
        sum
    }

    async fn consumed(&self) -> u64 {
        let mut sum = 0;
        for shard in ShardId::all() {
            sum += self.store.event_position(shard).await.unwrap().next_offset;
        }
        sum
    }

    /// The list that the worker has published. Connections are cheap to clone.
    async fn published(mut connection: MultiplexedConnection, user: &UserId) -> Option<Vec<ScoredItem>> {
        let get = ::redis::cmd("GET").arg(keys::recommendations(user.as_str())).to_owned();
        let bytes: Option<Vec<u8>> = get.query_async(&mut connection).await.unwrap();
        let list = RankedList::decode(bytes?.into()).unwrap();
        let items = [b"[", list.items_json(LIMIT), b"]"].concat();
        Some(serde_json::from_slice(&items).unwrap())
    }
}

/// The older half of the events is imported, as from a time before Kafka. The newer half is sent.
async fn same_lists(dataset: &Dataset) {
    let Some(servers) = Servers::start(dataset).await else { return };
    let mut events: Vec<&Interaction> = dataset.events.iter().collect();
    events.sort_by_key(|event| event.at_ms);
    let (old, new) = events.split_at(events.len() / 2);
    let row = |event: &&Interaction| ImportEvent {
        user_id: &dataset.users[event.user as usize],
        item_id: &dataset.items[event.item as usize],
        kind: event.kind,
        at_ms: event.at_ms,
        weight: event.weight,
    };
    servers.store.import(old.iter().map(row).collect(), |_| ()).await.unwrap();
    let (inline, prepared) = (servers.replica("inline").await, servers.replica("kafka").await);
    let http = Client::new();
    for batch in new.chunks(BATCH) {
        let body: Vec<NewEvent> = batch.iter().map(|event| new_event(dataset, event)).collect();
        // A busy machine may answer 503: "send all again". The events have their times, so that each counts once.
        until("the events are accepted", async || {
            let answer = http.post(format!("{prepared}/events")).json(&body).send().await.unwrap();
            answer.status() == StatusCode::ACCEPTED
        })
        .await;
    }
    servers.start_worker();
    let sent = servers.end().await;
    assert!(sent >= new.len() as u64);
    until("all events are consumed", async || servers.consumed().await == sent).await;

    // All users of one replica, then all of the other: the list that a replica has cached is expired when the other one looks.
    let from_log = lists_of(&http, &inline, dataset).await;
    let from_features = lists_of(&http, &prepared, dataset).await;
    let differing: Vec<&UserId> = (0..dataset.users.len())
        .filter(|&user| from_log[user] != from_features[user])
        .map(|user| &dataset.users[user])
        .collect();
    assert!(differing.is_empty(), "{} of {} users: {differing:?}", differing.len(), dataset.users.len());
    let own = from_log.iter().filter(|(source, _)| *source == Source::Store).count();
    assert!(own * 10 > dataset.users.len() * 9, "only {own} of {} users have a list of their own", dataset.users.len());
    let acted: BTreeSet<u32> = new.iter().map(|event| event.user).collect();
    let redis = ::redis::Client::open(servers.lists.url.as_str()).unwrap();
    let redis = redis.get_multiplexed_async_connection().await.unwrap();
    for user in acted {
        let (id, expected) = (&dataset.users[user as usize], &from_log[user as usize]);
        if expected.0 == Source::Store {
            until(id.as_str(), async || Servers::published(redis.clone(), id).await.as_ref() == Some(&expected.1))
                .await;
        }
    }
    servers.stop.cancel();
    servers.stack.stop().await.unwrap();
}

fn new_event(dataset: &Dataset, event: &Interaction) -> NewEvent {
    NewEvent {
        user_id: dataset.users[event.user as usize].as_str().to_owned(),
        item_id: dataset.items[event.item as usize].as_str().to_owned(),
        event: event.kind,
        timestamp: Some(event.at_ms as f64 / 1e3),
        weight: Some(f64::from(event.weight)),
    }
}

/// By number of the user. No list is cached.
async fn lists_of(http: &Client, replica: &str, dataset: &Dataset) -> Vec<(Source, Vec<ScoredItem>)> {
    let mut all = Vec::with_capacity(dataset.users.len());
    for user in &dataset.users {
        let query = [("user_id", user.as_str()), ("limit", &LIMIT.to_string())];
        let answer = http.get(format!("{replica}/recommendations")).query(&query).send().await.unwrap();
        let list: Recommendations = answer.error_for_status().unwrap().json().await.unwrap();
        assert!(matches!(list.source, Source::Store | Source::Popular), "{user}: {:?}", list.source);
        all.push((list.source, list.items));
    }
    all
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()))
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition().await {
        assert!(Instant::now() < deadline, "not within 120 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_generated_users() {
    // Some users have more than 100 events, so that their windows are full.
    let params = GenerateParams {
        users: 300,
        items: 400,
        clusters: 10,
        mean_events_per_user: 40.0,
        ..GenerateParams::default()
    };
    let dataset = model::generate(&params).unwrap();
    let mut events = vec![0; dataset.users.len()];
    dataset.events.iter().for_each(|event| events[event.user as usize] += 1);
    assert!(events.iter().filter(|&&count| count > 150).count() > 5, "no user fills the window");
    same_lists(&dataset).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ml_100k() {
    // MovieLens 100K's licence does not allow it in the repository.
    let file = std::env::var_os("TESTBED_ML100K").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/ml-100k.inter"),
        PathBuf::from,
    );
    let Ok(file) = std::fs::File::open(&file) else {
        launcher::testing::skip(&format!("{} is not there (TESTBED_ML100K names another)", file.display()));
        return;
    };
    let (dataset, _) = model::parse(file, BadRows::Skip).unwrap();
    same_lists(&dataset).await;
}
