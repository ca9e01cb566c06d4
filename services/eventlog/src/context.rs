//! What the Kafka client reports outside of a call: logs and errors.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use rdkafka::error::KafkaError;

/// Between two log lines about errors. While a broker is away the client reports one per attempt to connect.
const LOG_INTERVAL_MS: u64 = 10_000;

/// Logs one error per interval.
#[derive(Debug)]
pub(crate) struct ErrorLog {
    started: Instant,
    /// Milliseconds after the start; 0: there was none.
    last_ms: AtomicU64,
}

impl ErrorLog {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    pub(crate) fn report(&self, error: &KafkaError, reason: &str) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        // Two threads may both log: a duplicate line does no harm.
        if last_ms == 0 || now_ms - last_ms.min(now_ms) >= LOG_INTERVAL_MS {
            self.last_ms.store(now_ms, Ordering::Relaxed);
            tracing::warn!(%error, reason, "kafka reports an error");
        }
    }
}
