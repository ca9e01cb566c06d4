//! The settings of a process, and the Kafka client's that follow from them.

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Addresses of brokers: `host:port`, separated by commas. Empty, the default, means no Kafka.
    pub brokers: String,
    /// How long the producer collects events for one request to the broker, in milliseconds. More events per request cost less CPU time.
    pub linger_ms: u64,
    /// Events that a replica has sent and that the broker has not acknowledged. A request that would exceed it is answered 503.
    pub queue_events: u32,
    /// Messages of one partition that a worker fetches in advance, in kilobytes. It may hold twice as much.
    pub prefetch_kb: u32,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self { brokers: String::new(), linger_ms: 5, queue_events: 20_000, prefetch_kb: 1_024 }
    }
}

/// The producer gives a message up after this time, in milliseconds. Its sender has been answered earlier.
const MESSAGE_TIMEOUT_MS: u64 = 10_000;
/// Longest message, in bytes. A dead letter is a message of a topic with the broker's default limit, 1 MiB, and a few headers.
pub(crate) const MAX_MESSAGE_BYTES: usize = 2 << 20;
/// Of one partition; the client's limit is a little below 1 GB.
const MAX_FETCH_BYTES: u64 = 50 << 20;

impl KafkaConfig {
    /// False: events do not go through Kafka.
    pub fn is_on(&self) -> bool {
        !self.brokers.is_empty()
    }

    pub fn validate(&self, problems: &mut Vec<String>) {
        for address in self.brokers.split(',').filter(|_| self.is_on()) {
            let parts = address.rsplit_once(':');
            if !parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
                problems.push(format!("kafka.brokers: '{address}' is not host:port"));
            }
        }
        for (key, value, range) in [
            ("linger_ms", self.linger_ms, 0..=1_000),
            ("queue_events", u64::from(self.queue_events), 1_000..=1_000_000),
            ("prefetch_kb", u64::from(self.prefetch_kb), 1..=1_000_000),
        ] {
            if !range.contains(&value) {
                problems.push(format!("kafka.{key}: {value} is not in {}..={}", range.start(), range.end()));
            }
        }
    }

    /// Settings of every client.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "recommendation-testbed")
            // The default, 10 s, would be most of the time to recover from a restarted broker.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("socket.connection.setup.timeout.ms", "3000")
            // A silent broker: the default is 60 s. It must be longer than a fetch may wait for messages.
            .set("socket.timeout.ms", "6000")
            .set("socket.keepalive.enable", "true")
            // Idle connections are closed as a matter of course.
            .set("log.connection.close", "false")
            .set("enable.metrics.push", "false");
        client
    }

    pub(crate) fn producer(&self) -> ClientConfig {
        let mut client = self.client();
        // A retry neither repeats nor reorders messages, and an acknowledged one is on all replicas that are in sync.
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", self.linger_ms.to_string())
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS.to_string())
            .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
            .set("retry.backoff.ms", "50")
            // `Producer` counts the messages itself. Twice as many: dead letters are not counted.
            .set("queue.buffering.max.messages", (2 * u64::from(self.queue_events)).to_string())
            .set("queue.buffering.max.kbytes", "65536");
        client
    }

    pub(crate) fn consumer(&self) -> ClientConfig {
        let mut client = self.client();
        client
            // The client asks for a group even where there is none.
            .set("group.id", "recommendation-testbed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Never skip: an offset that the broker does not have is an error.
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            // Both bounds hold per partition, as each partition has a queue of its own.
            .set("queued.min.messages", "1000")
            .set("queued.max.messages.kbytes", self.prefetch_kb.to_string())
            // What one more fetch adds to a queue that is nearly full.
            .set("fetch.message.max.bytes", (u64::from(self.prefetch_kb) * 1_024).min(MAX_FETCH_BYTES).to_string())
            // A partition whose queue was full is fetched again after this time; the default is 1 s.
            .set("fetch.queue.backoff.ms", "20")
            .set("fetch.error.backoff.ms", "100")
            // For the end offsets.
            .set("statistics.interval.ms", "1000");
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_named_and_without_brokers_there_is_none() {
        let mut problems = Vec::new();
        KafkaConfig::default().validate(&mut problems);
        assert_eq!(problems, Vec::<String>::new());
        let config = KafkaConfig { brokers: "a:1,b,:2".into(), queue_events: 1, ..KafkaConfig::default() };
        config.validate(&mut problems);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("'b' is not host:port") && problems[1].contains("':2'"), "{problems:?}");
    }
}
