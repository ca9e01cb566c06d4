//! A real broker, and what the cases share.

use std::time::Duration;

use contract::{Event, EventKind, ShardId, shard_of};
use eventlog::{Consumer, ConsumerMetrics, KafkaConfig, Message, Producer, ProducerMetrics, Subscription};
use launcher::{Signal, Stack, kafka};
use prometheus::{Encoder as _, Registry, TextEncoder};
use rdkafka::{ClientConfig, admin::AdminClient, client::DefaultClientContext};
use tokio::time::Instant;

/// For everything that should succeed.
pub const PATIENCE: Duration = Duration::from_secs(30);
const LINGER: Duration = Duration::from_millis(20);

pub struct Broker {
    pub stack: Stack,
    pub kafka: kafka::Kafka,
}

impl Broker {
    /// `None`: skipped, there is no Kafka here.
    pub async fn start(name: &str) -> Option<Self> {
        if !launcher::testing::have_kafka().await {
            return None;
        }
        let mut stack = Stack::create(name).unwrap();
        let kafka = kafka::start(&mut stack, &kafka::Options::default()).await.unwrap();
        Some(Self { stack, kafka })
    }

    pub fn config(&self) -> KafkaConfig {
        KafkaConfig { brokers: self.kafka.bootstrap.clone(), ..KafkaConfig::default() }
    }

    pub fn producer(&self) -> Producer {
        Producer::start(&self.config(), ProducerMetrics::new(&Registry::new()).unwrap()).unwrap()
    }

    pub fn consumer(&self) -> Consumer {
        Consumer::start(&self.config(), ConsumerMetrics::new(&Registry::new()).unwrap()).unwrap()
    }

    /// A client without the settings of this crate.
    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.kafka.bootstrap);
        client
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    pub async fn kill(&mut self) {
        self.stack.kill(self.kafka.child, Signal::SIGKILL).unwrap();
        self.stack.stop_child(self.kafka.child).await.unwrap();
    }

    /// On the same port and data.
    pub async fn restart(&mut self) {
        let options = kafka::Options { port: Some(self.kafka.port), ..kafka::Options::default() };
        self.kafka = kafka::start(&mut self.stack, &options).await.unwrap();
    }

    pub async fn stop(self) {
        self.stack.stop().await.unwrap();
    }
}

pub fn shard(index: usize) -> ShardId {
    ShardId::all().nth(index).unwrap()
}

/// Events of one user of this shard.
pub fn events(index: usize, count: usize) -> Vec<Event> {
    let user = (0..).map(|n| format!("user-{n}")).find(|user| shard_of(user).index() == index).unwrap();
    let event = |n: usize| Event {
        user_id: user.parse().unwrap(),
        item_id: format!("item-{n}").parse().unwrap(),
        kind: EventKind::View,
        at_ms: 1_000 + n as i64,
        weight: 1.0,
    };
    (0..count).map(event).collect()
}

pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Exactly this many messages.
pub async fn read(subscription: &mut Subscription, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let batch = tokio::time::timeout(PATIENCE, subscription.next_batch(count - messages.len(), LINGER));
        messages.extend(batch.await.expect("messages arrive").unwrap());
    }
    messages
}

pub fn offsets(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.offset).collect()
}

/// The value of a series without labels.
pub fn metric(registry: &Registry, name: &str) -> f64 {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.parse().unwrap()
}
