//! Settings of the model.

use serde::{Deserialize, Serialize};

/// More workers than any stack has.
const MAX_WORKERS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Where the model comes from: `store` or `segments`.
    pub source: ModelSource,
    /// Addresses of workers, `host:port`, that serve the segments; for `segments` only. One that answers is enough, as workers redirect to
    /// the primary of a segment. With several the replica needs no certain one.
    pub workers: Vec<String>,
    /// Time between two questions for newer segments, in milliseconds; for `segments` only.
    pub poll_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelSource {
    /// The newest model in the catalogue when the replica starts. It stays until the replica ends.
    Store,
    /// The newest versions of the 16 segments that workers publish. The replica switches to newer ones while it serves requests.
    Segments,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self { source: ModelSource::Store, workers: Vec::new(), poll_ms: 1_000 }
    }
}

impl ModelConfig {
    pub(super) fn validate(&self, problems: &mut Vec<String>) {
        if self.source == ModelSource::Segments && self.workers.is_empty() {
            problems.push(
                "model.workers: is empty; with model.source=segments list the workers, e.g. [\"127.0.0.1:7100\"]"
                    .into(),
            );
        }
        if self.workers.len() > MAX_WORKERS {
            problems.push(format!("model.workers: {} addresses, list at most {MAX_WORKERS}", self.workers.len()));
        }
        for (n, address) in self.workers.iter().enumerate().take(MAX_WORKERS) {
            let parts = address.rsplit_once(':');
            let is_host = |host: &str| !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
            if !parts.is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0)) {
                problems.push(format!("model.workers[{n}]: '{address}' is not host:port, e.g. 127.0.0.1:7100"));
            }
        }
        if !(10..=600_000).contains(&self.poll_ms) {
            problems.push(format!("model.poll_ms: {} is not in 10..=600000", self.poll_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(source: ModelSource, workers: &[&str], poll_ms: u64) -> Vec<String> {
        let workers = workers.iter().map(|worker| (*worker).to_owned()).collect();
        let mut problems = Vec::new();
        ModelConfig { source, workers, poll_ms }.validate(&mut problems);
        problems
    }

    #[test]
    fn bad_settings_are_named_with_what_to_do() {
        for (source, workers) in [
            (ModelSource::Store, &[][..]),
            (ModelSource::Store, &["127.0.0.1:7100"]),
            (ModelSource::Segments, &["127.0.0.1:7100", "worker-1:80", "[::1]:7100"]),
        ] {
            assert_eq!(problems(source, workers, 1_000), Vec::<String>::new(), "{workers:?}");
        }
        let none = problems(ModelSource::Segments, &[], 1_000);
        assert!(none.len() == 1 && none[0].contains("list the workers"), "{none:?}");
        for address in ["nowhere", ":7100", "a:0", "a:65536", "http://a:7100", "a/b:7100", "", "a b:1"] {
            let found = problems(ModelSource::Segments, &["ok:1", address], 1_000);
            assert!(found.len() == 1 && found[0].starts_with("model.workers[1]: "), "{address}: {found:?}");
        }
        let poll = |poll_ms| problems(ModelSource::Store, &[], poll_ms);
        assert_eq!(poll(9), ["model.poll_ms: 9 is not in 10..=600000"]);
        assert_eq!(poll(600_001), ["model.poll_ms: 600001 is not in 10..=600000"]);
        assert!(poll(10).is_empty() && poll(600_000).is_empty());
        let many: Vec<&str> = std::iter::repeat_n("a:1", MAX_WORKERS + 1).collect();
        assert!(problems(ModelSource::Segments, &many, 10)[0].contains("at most 256"));
    }
}
