//! Events from a real Kafka to the store and to Redis, with owners that the test assigns.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use contract::{Event, EventKind, ItemId, ShardId, UserId, event_message, keys, shard_of};
use eventlog::{KafkaConfig, Position, Producer, ProducerMetrics};
use launcher::{Stack, kafka, redis};
use model::Features;
use prometheus::Registry;
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseProducer, BaseRecord, Producer as _},
    topic_partition_list::{Offset, TopicPartitionList},
};
use stores::{Store, StoreMetrics};
use tokio::time::Instant;

use crate::{
    monitor::Monitor,
    relay::until,
    support::{Stores, Worker, configure, metric},
};

/// Kafka, Redis and a store with a model of the items `i0` to `i9`.
struct Servers {
    stores: Stores,
    stack: Stack,
    redis: redis::Redis,
    kafka: KafkaConfig,
    store: Store,
    producer: Producer,
}

impl Servers {
    /// `None`: a server is not installed, and the test counts as skipped.
    async fn start() -> Option<Self> {
        if !launcher::testing::have(&["redis-server"]) || !launcher::testing::have_kafka().await {
            return None;
        }
        let stores = Stores::start(1).await?;
        let mut stack = Stack::create("test-worker-events").unwrap();
        let redis = redis::start(&mut stack, &redis::Options::default()).await.unwrap();
        let broker = kafka::start(&mut stack, &kafka::Options::default()).await.unwrap();
        let kafka = KafkaConfig { brokers: broker.bootstrap, ..KafkaConfig::default() };
        let store = Store::new(stores.config.clone(), &StoreMetrics::new(&Registry::new()).unwrap()).unwrap();
        save_model(&store).await;
        eventlog::prepare_topics(&kafka, Duration::from_secs(30)).await.unwrap();
        let producer = Producer::start(&kafka, ProducerMetrics::new(&Registry::new()).unwrap()).unwrap();
        Some(Self { stores, stack, redis, kafka, store, producer })
    }

    fn worker(&self, id: &str, monitor: &Monitor) -> (Worker, SocketAddr) {
        let mut config = configure(id, monitor, &self.stores.config);
        config.kafka = self.kafka.clone();
        config.redis.url.clone_from(&self.redis.url);
        let admin = config.listen.admin;
        (Worker::serve(config), admin)
    }

    async fn send(&self, events: &[Event]) -> Vec<Position> {
        self.producer.send(events, None, Instant::now() + Duration::from_secs(30)).await.unwrap()
    }

    async fn position(&self, shard: ShardId) -> u64 {
        self.store.event_position(shard).await.unwrap().next_offset
    }

    /// Items of the user's features, newest first, and the number of events.
    async fn features(&self, user: &UserId) -> (Vec<String>, u64) {
        let rows = self
            .store
            .features_of(shard_of(user.as_str()), std::slice::from_ref(user), stores::Turn::default())
            .await
            .unwrap();
        let Some(row) = rows.get(user) else { return (Vec::new(), 0) };
        let features = Features::decode(&row.bytes).unwrap();
        (features.window().map(|(item, _)| item.to_owned()).collect(), features.events())
    }

    async fn list(&self, user: &UserId) -> Option<Vec<u8>> {
        let client = ::redis::Client::open(self.redis.url.as_str()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        ::redis::cmd("GET").arg(keys::recommendations(user.as_str())).query_async(&mut connection).await.unwrap()
    }

    async fn stop(self) {
        self.stack.stop().await.unwrap();
        self.stores.stop().await;
    }

    /// Writes payloads into the partition, valid or not.
    fn send_raw(&self, shard: ShardId, payloads: &[Option<&[u8]>]) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &self.kafka.brokers).create().unwrap();
        for payload in payloads {
            let mut record = BaseRecord::<(), [u8]>::to(eventlog::BEHAVIOUR).partition(shard.index() as i32);
            record.payload = *payload;
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Keys and values of the dead letters.
    fn dead_letters(&self, count: usize) -> BTreeMap<String, Option<Vec<u8>>> {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.kafka.brokers).set("group.id", "test").create().unwrap();
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(eventlog::DEAD_LETTERS, 0, Offset::Beginning).unwrap();
        consumer.assign(&partitions).unwrap();
        let mut found = BTreeMap::new();
        while found.len() < count {
            let message = consumer.poll(Duration::from_secs(30)).expect("a dead letter").unwrap();
            let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
            found.insert(key, message.payload().map(<[u8]>::to_vec));
        }
        found
    }
}

/// Every item is a neighbour of every other one.
async fn save_model(store: &Store) {
    let mut all = model::DatasetBuilder::default();
    for user in 0..20 {
        for item in 0..10 {
            all.push(&format!("old{user}"), &format!("i{item}"), EventKind::View, i64::from(item), 1.0).unwrap();
        }
    }
    let threads = std::num::NonZero::<usize>::MIN;
    let model = model::NeighbourModel::build(&all.finish().0, threads);
    let (header, rows) = model.to_rows();
    store.save_model(&header, &rows.collect::<Vec<_>>(), 0).await.unwrap();
}

fn event(user: &UserId, item: &str, at_ms: i64) -> Event {
    let item_id = ItemId::new(item).unwrap();
    Event { user_id: user.clone(), item_id, kind: EventKind::View, at_ms, weight: 1.0 }
}

/// Users of this shard.
fn users(shard: ShardId, count: usize) -> Vec<UserId> {
    let all = (0..).map(|n| UserId::new(&format!("u{n}")).unwrap());
    all.filter(|user| shard_of(user.as_str()) == shard).take(count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_reach_log_features_and_lists_once_also_when_the_owner_changes() {
    let Some(servers) = Servers::start().await else { return };
    let monitor = Monitor::start().await;
    let (_first, first_admin) = servers.worker("w", &monitor);
    let (_second, second_admin) = servers.worker("v", &monitor);
    for worker in ["w", "v"] {
        until("registered", async || monitor.registered(worker).is_some()).await;
    }
    let shard = ShardId::all().next().unwrap();
    let [user, imported] = <[UserId; 2]>::try_from(users(shard, 2)).unwrap();
    // This user acted before there was Kafka.
    servers.store.append(&[event(&imported, "i9", 500)], 500, &runtime::telemetry::Span::NONE).await.unwrap();
    monitor.assign("w", &[0]);

    let sent = [event(&user, "i1", 1_000), event(&user, "i2", 2_000), event(&imported, "i1", 3_000)];
    let positions = servers.send(&sent).await;
    assert_eq!(positions.iter().map(|position| position.offset).collect::<Vec<_>>(), [0, 1, 2]);
    until("written", async || servers.position(shard).await == 3).await;
    assert_eq!(servers.features(&user).await, (vec!["i2".into(), "i1".into()], 2));
    assert_eq!(servers.features(&imported).await, (vec!["i1".into(), "i9".into()], 2));
    until("published", async || servers.list(&user).await.is_some() && servers.list(&imported).await.is_some()).await;
    let before = servers.list(&user).await;

    // Sent again, late, and new.
    let again = [sent[0].clone(), sent[1].clone(), event(&user, "i3", 1_500), event(&user, "i4", 4_000)];
    servers.send(&again).await;
    until("written", async || servers.position(shard).await == 7).await;
    let expected = (["i4", "i2", "i3", "i1"].map(str::to_owned).to_vec(), 4);
    assert_eq!(servers.features(&user).await, expected);
    until("published", async || servers.list(&user).await != before).await;
    // Appended without Kafka, while the worker has the user's features in memory.
    servers.store.append(&[event(&user, "i8", 4_500)], 4_500, &runtime::telemetry::Span::NONE).await.unwrap();
    servers.send(&[event(&user, "i6", 4_600)]).await;
    until("written", async || servers.position(shard).await == 8).await;
    let expected = (["i6", "i8", "i4", "i2", "i3", "i1"].map(str::to_owned).to_vec(), 6);
    assert_eq!(servers.features(&user).await, expected);
    let outcome = async |outcome: &str| {
        metric(first_admin, &format!("testbed_worker_events_total{{outcome=\"{outcome}\"}}")).await
    };
    assert_eq!([outcome("new").await, outcome("late").await, outcome("duplicate").await], [6.0, 1.0, 2.0].map(Some));

    // The next owner begins where the first one ended.
    monitor.assign("v", &[0]);
    servers.send(&[event(&user, "i5", 5_000)]).await;
    until("written by the next owner", async || servers.position(shard).await == 9).await;
    assert_eq!(servers.features(&user).await.1, 7);
    let owned =
        async |admin| metric(admin, "testbed_worker_event_partitions{partition=\"0\",state=\"consuming\"}").await;
    until("shown", async || [owned(first_admin).await, owned(second_admin).await] == [Some(0.0), Some(1.0)]).await;
    until("no lag", async || metric(second_admin, "testbed_worker_event_lag{partition=\"0\"}").await == Some(0.0))
        .await;
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_event_becomes_a_dead_letter_and_a_lost_position_stops_the_partition() {
    let Some(servers) = Servers::start().await else { return };
    let monitor = Monitor::start().await;
    let (_worker, admin) = servers.worker("w", &monitor);
    until("registered", async || monitor.registered("w").is_some()).await;
    let mut shards = ShardId::all();
    let (shard, other) = (shards.next().unwrap(), shards.next().unwrap());
    let user = users(shard, 1).remove(0);
    let elsewhere = users(other, 1).remove(0);
    let foreign = event_message::encode(&event(&elsewhere, "i1", 1_000));
    let large = vec![7; 900_000];
    servers.send_raw(shard, &[Some(b"\xff\xfe"), None, Some(&foreign), Some(&large)]);
    servers.send(&[event(&user, "i1", 1_000)]).await;
    // A position that the topic does not have.
    let (events, users) = (Vec::new(), Vec::new());
    let corrupted = stores::EventBatch { from_offset: 0, next_offset: 77, arrival_base: 1, events, users };
    servers.store.fence(other, 1, 9, Duration::from_secs(30)).await.unwrap().unwrap();
    servers.store.write_batch(other, &corrupted, 0, 1, 9).await.unwrap().unwrap();
    let mut table = heartbeat::assign::Table::clone(&monitor.table());
    table.epoch = 5;
    monitor.publish(table);
    monitor.assign("w", &[0, 1]);

    until("written", async || servers.position(shard).await == 5).await;
    assert_eq!(servers.features(&user).await, (vec!["i1".into()], 1));
    let letters = servers.dead_letters(4);
    let expected: Vec<String> = (0..4).map(|offset| format!("{}/0/{offset}", eventlog::BEHAVIOUR)).collect();
    assert_eq!(letters.keys().cloned().collect::<Vec<_>>(), expected);
    assert_eq!(letters[&expected[2]].as_deref(), Some(&*foreign));
    let stopped = "testbed_worker_event_partitions{partition=\"1\",state=\"stopped\"}";
    until("stopped loudly", async || metric(admin, stopped).await == Some(1.0)).await;
    assert_eq!(servers.position(other).await, 77, "it never resets by itself");
    servers.stop().await;
}
