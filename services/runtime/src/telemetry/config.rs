//! The settings `telemetry.*`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tonic::transport::Uri;

use super::queue::BATCH_BYTES;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// URL of the OTLP receiver, `http://host:4317` (gRPC) or `http://host:4318` (HTTP). `off`, the default, records nothing.
    pub endpoint: String,
    /// OTLP transport: `grpc` or `http`.
    pub protocol: Protocol,
    /// Share of the traces that begin in this process and are recorded, 0 to 1.
    pub sample_ratio: f64,
    /// Whether the sampling decision in a caller's `traceparent` is followed. Off by default: with it, any caller can have all of its
    /// requests recorded. The caller's trace id is used in both cases.
    pub trust_caller: bool,
    /// Records one span afterwards for a request that was not sampled but failed or was slow (`slow_ms`).
    pub retrospective: bool,
    /// Duration from which a request is slow, in milliseconds. The default is the latency objective.
    pub slow_ms: u64,
    /// Share of the recorded requests that also get a log line, 0 to 1. A failed request always gets one; of
    /// unsampled ones that the API's admission refuses, at most ten per second do.
    pub log_ratio: f64,
    /// Whether log lines are exported as well. They are written to stdout in any case.
    pub logs: bool,
    /// Spans, and likewise log lines, that may wait to be exported. Further ones are dropped and counted.
    pub queue: usize,
    /// Bytes of the waiting spans, and likewise of the waiting log lines.
    pub queue_bytes: usize,
    /// Longest time between two exports, in milliseconds.
    pub flush_ms: u64,
    /// Timeout of one attempt to export a batch, in milliseconds.
    pub timeout_ms: u64,
    /// Replaces the attribute `service.name`. Empty, the default, keeps the name of the process's role.
    pub service_name: String,
    /// Adds or replaces attributes of the process: `key=value,key=value`.
    pub resource_attributes: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Grpc,
    /// Protobuf over HTTP/1.1.
    Http,
}

pub const OFF: &str = "off";
/// Each batch carries the attributes.
const MAX_ATTRIBUTES_BYTES: usize = 16_384;

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            endpoint: OFF.to_owned(),
            protocol: Protocol::Grpc,
            sample_ratio: 0.01,
            trust_caller: false,
            retrospective: true,
            // The latency objective.
            slow_ms: 300,
            log_ratio: 0.01,
            logs: true,
            // At 1 kB each, one second of a replica at its limit with all requests recorded, or ten seconds with a tenth recorded.
            queue: 16_384,
            queue_bytes: 16 << 20,
            flush_ms: 1_000,
            timeout_ms: 3_000,
            service_name: String::new(),
            resource_attributes: String::new(),
        }
    }
}

impl TelemetryConfig {
    /// Exports to `endpoint`, with defaults.
    pub fn to(endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), ..Self::default() }
    }

    pub fn is_on(&self) -> bool {
        self.endpoint != OFF
    }

    pub fn validate(&self, problems: &mut Vec<String>) {
        if self.is_on()
            && let Err(problem) = self.address()
        {
            problems.push(problem);
        }
        for (key, value) in [("sample_ratio", self.sample_ratio), ("log_ratio", self.log_ratio)] {
            if !(0.0..=1.0).contains(&value) {
                problems.push(format!("telemetry.{key}: {value} is not in 0..=1"));
            }
        }
        for (key, value, range) in [
            ("slow_ms", self.slow_ms, 1..=600_000),
            ("queue", self.queue as u64, 1..=1_000_000),
            ("queue_bytes", self.queue_bytes as u64, BATCH_BYTES as u64..=1 << 30),
            ("flush_ms", self.flush_ms, 1..=60_000),
            ("timeout_ms", self.timeout_ms, 1..=60_000),
        ] {
            if !range.contains(&value) {
                problems.push(format!("telemetry.{key}: {value} is not in {}..={}", range.start(), range.end()));
            }
        }
        let attributes = &self.resource_attributes;
        if attributes.len() > MAX_ATTRIBUTES_BYTES || pairs(attributes).any(|pair| pair.is_none()) {
            problems.push(format!(
                "telemetry.resource_attributes: '{attributes}' is not key=value,key=value of at most {MAX_ATTRIBUTES_BYTES} bytes"
            ));
        }
    }

    /// The receiver's address. Checked as both `Uri` and `Url`: the clients of the two protocols parse it differently.
    pub(super) fn address(&self) -> Result<Uri, String> {
        let endpoint = &self.endpoint;
        let bad = |why: &str| format!("telemetry.endpoint: '{endpoint}' is neither http://host:port nor off: {why}");
        let uri: Uri = endpoint.parse().map_err(|error| bad(&format!("{error}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad("its scheme is not http"));
        }
        if uri.query().is_some() {
            return Err(bad("it has a query"));
        }
        match reqwest::Url::parse(&uri.to_string()) {
            Err(error) => Err(bad(&format!("{error}"))),
            Ok(url) if !url.has_host() => Err(bad("it has no host")),
            Ok(_) => Ok(uri),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// The pairs of `key=value,key=value`; `None` for an entry of another form.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = Option<(&str, &str)>> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|entry| {
        let (key, value) = entry.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        (!key.is_empty()).then_some((key, value))
    })
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
        let bad = TelemetryConfig {
            endpoint: "localhost".into(),
            sample_ratio: 1.1,
            queue: 0,
            queue_bytes: 0,
            resource_attributes: "a=b,c".into(),
            ..TelemetryConfig::default()
        };
        bad.validate(&mut problems);
        assert_eq!(problems.len(), 5, "{problems:?}");
    }
}
