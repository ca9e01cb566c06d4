//! `telemetry.*`

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Of an OTLP receiver, `http://host:4317` (gRPC) or `http://host:4318` (HTTP); `off`: nothing is recorded.
    pub endpoint: String,
    pub protocol: Protocol,
    /// Share of the traces begun here that are recorded. A request that brings a decision along keeps it.
    pub sample_ratio: f64,
    /// Whether a request that is not recorded and fails, or takes `slow_ms`, is told of by one span afterwards.
    pub retrospective: bool,
    /// A request that takes this long is slow.
    pub slow_ms: u64,
    /// Share of the recorded requests that also get a log line. Failed ones always do.
    pub log_ratio: f64,
    /// Whether log lines are sent as well; they are on stdout in any case.
    pub logs: bool,
    /// Spans, and log lines, that wait to be sent; further ones are dropped and counted.
    pub queue: usize,
    /// At least this often what waits is sent.
    pub flush_ms: u64,
    /// For one attempt to send.
    pub timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Grpc,
    /// Protobuf by HTTP/1.1.
    Http,
}

pub const OFF: &str = "off";

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            endpoint: OFF.to_owned(),
            protocol: Protocol::Grpc,
            sample_ratio: 0.01,
            retrospective: true,
            // The latency objective.
            slow_ms: 300,
            log_ratio: 0.01,
            logs: true,
            // Some seconds of a replica at its limit with every request recorded; half a kilobyte each.
            queue: 16_384,
            flush_ms: 1_000,
            timeout_ms: 3_000,
        }
    }
}

impl TelemetryConfig {
    /// On, with defaults.
    pub fn to(endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), ..Self::default() }
    }

    pub fn is_on(&self) -> bool {
        self.endpoint != OFF
    }

    pub fn validate(&self, problems: &mut Vec<String>) {
        let is_url = || reqwest::Url::parse(&self.endpoint).is_ok_and(|url| url.scheme() == "http" && url.has_host());
        if self.is_on() && !is_url() {
            problems.push(format!("telemetry.endpoint: '{}' is neither http://host:port nor off", self.endpoint));
        }
        for (key, value) in [("sample_ratio", self.sample_ratio), ("log_ratio", self.log_ratio)] {
            if !(0.0..=1.0).contains(&value) {
                problems.push(format!("telemetry.{key}: {value} is not in 0..=1"));
            }
        }
        for (key, value, range) in [
            ("slow_ms", self.slow_ms, 1..=600_000),
            ("queue", self.queue as u64, 1..=1_000_000),
            ("flush_ms", self.flush_ms, 1..=60_000),
            ("timeout_ms", self.timeout_ms, 1..=60_000),
        ] {
            if !range.contains(&value) {
                problems.push(format!("telemetry.{key}: {value} is not in {}..={}", range.start(), range.end()));
            }
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_come_together() {
        let mut problems = Vec::new();
        TelemetryConfig::default().validate(&mut problems);
        TelemetryConfig { endpoint: "http://[::1]:4317".into(), ..TelemetryConfig::default() }.validate(&mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let bad =
            TelemetryConfig { endpoint: "localhost".into(), sample_ratio: 1.1, queue: 0, ..TelemetryConfig::default() };
        bad.validate(&mut problems);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
