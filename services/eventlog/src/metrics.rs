//! Metrics of producers and consumers. All series exist from the start.

use prometheus::{IntCounter, IntGauge, Registry, Result};

/// Clones share the series.
#[derive(Debug, Clone)]
pub struct ProducerMetrics {
    pub(crate) pending: IntGauge,
    pub(crate) acknowledged: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) replaced: IntCounter,
}

#[derive(Debug, Clone)]
pub struct ConsumerMetrics {
    pub(crate) messages: IntCounter,
    pub(crate) bytes: IntCounter,
    pub(crate) prefetched_bytes: IntGauge,
    pub(crate) errors: IntCounter,
    pub(crate) restarts: IntCounter,
}

impl ProducerMetrics {
    /// # Errors
    /// The registry has these names already.
    pub fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            pending: gauge(
                registry,
                "kafka_producer_pending_messages",
                "Messages that were sent to Kafka and are not acknowledged yet",
            )?,
            acknowledged: counter(
                registry,
                "kafka_producer_acknowledged_messages_total",
                "Messages that Kafka has acknowledged",
            )?,
            failed: counter(
                registry,
                "kafka_producer_failed_messages_total",
                "Messages that were given up. Kafka may have some of them",
            )?,
            replaced: counter(
                registry,
                "kafka_producer_replaced_total",
                "Producers that were replaced after a fatal error",
            )?,
        })
    }
}

impl ConsumerMetrics {
    /// # Errors
    /// The registry has these names already.
    pub fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            messages: counter(registry, "kafka_consumer_messages_total", "Messages read from Kafka")?,
            bytes: counter(
                registry,
                "kafka_consumer_bytes_total",
                "Payload of the messages read from Kafka, in bytes",
            )?,
            prefetched_bytes: gauge(
                registry,
                "kafka_consumer_prefetched_bytes",
                "Messages of all partitions that were fetched and not read yet, in bytes; at most one second old",
            )?,
            errors: counter(
                registry,
                "kafka_consumer_errors_total",
                "Errors of the Kafka consumer, such as a broken connection. It tries again by itself",
            )?,
            restarts: counter(
                registry,
                "kafka_consumer_restarts_total",
                "Partitions that were fetched anew from their position, because messages were missing",
            )?,
        })
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}
