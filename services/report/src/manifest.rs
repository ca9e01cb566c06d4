//! What a run was made of, so that somebody else can repeat it, and `evaluate --resume` can check that it goes on with the same run.

use std::collections::BTreeMap;

use loadtest::figures::Tolerances;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json_diff::{Changed, changes};

/// Stands for a password or a token.
pub const REDACTED: &str = "REDACTED";
/// A setting whose name has one of these parts is not shown.
const SECRETS: [&str; 5] = ["password", "secret", "token", "headers", "credential"];

/// What decides a run. Addresses of the stack and paths of the machine are not in it: they differ from run to run. Secrets are replaced by
/// [`REDACTED`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// The words of the command, without the program.
    pub argv: Vec<String>,
    pub seed: u64,
    /// BLAKE3 hash of the program's file, in hexadecimal.
    pub binary_blake3: String,
    /// The whole scenario as it was run, with the article's figures.
    pub scenario: Value,
    /// The scenario's limits; null if the run is not judged.
    #[serde(default)]
    pub tolerances: Option<Tolerances>,
    /// What the command adds to the scenario: data, variants, repeats, attempts.
    pub run: Value,
    /// Settings in force of each process, by name; of addresses only the defaults.
    pub processes: BTreeMap<String, Value>,
}

impl Manifest {
    /// What differs from this one, in words, without the words of the command: `scenario.measure_s: 60, now 30`.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let [before, now] = [self, now].map(|manifest| serde_json::to_value(manifest).unwrap_or_default());
        let (changed, _) = changes(&before, &now, &|before, now| before == now);
        let changed = changed.into_iter().filter(|change| !change.path.starts_with("argv"));
        changed.map(|Changed { path, before, now }| format!("{path}: {before}, now {now}")).collect()
    }

    /// Replaces secrets.
    #[must_use]
    pub fn redacted(mut self) -> Self {
        redact("", &mut self.scenario);
        redact("", &mut self.run);
        self.processes.values_mut().for_each(|process| redact("", process));
        for word in &mut self.argv {
            if let Some((key, value)) = word.split_once('=')
                && is_secret(key, value)
            {
                *word = format!("{key}={REDACTED}");
            }
        }
        self
    }
}

fn redact(key: &str, value: &mut Value) {
    match value {
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| redact(key, value)),
        Value::Array(all) => all.iter_mut().for_each(|value| redact(key, value)),
        Value::String(text) if is_secret(key, text) => REDACTED.clone_into(text),
        _ => {}
    }
}

/// Whether this setting is a secret or a URL with one.
fn is_secret(key: &str, value: &str) -> bool {
    let key = key.to_lowercase();
    let in_url =
        value.split_once("://").is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|h| h.contains('@')));
    !value.is_empty() && (in_url || SECRETS.iter().any(|secret| key.contains(secret)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            argv: vec!["evaluate".into()],
            seed: 1,
            binary_blake3: "00".into(),
            scenario: json!({"steps": [60, 80], "law": {"base_ms": 74.0}}),
            processes: [("api baseline".to_owned(), json!({"store": {"pool_size": 80, "password": "hunter2"}}))].into(),
            ..Manifest::default()
        }
    }

    #[test]
    fn each_difference_is_named() {
        let now = Manifest {
            argv: vec!["evaluate".into(), "--json".into()],
            seed: 2,
            binary_blake3: "01".into(),
            scenario: json!({"steps": [60, 90], "law": {"base_ms": 74.0}, "new": 1}),
            processes: BTreeMap::new(),
            ..manifest()
        };
        let differences = manifest().differences(&now);
        assert_eq!(differences[0], "binary_blake3: \"00\", now \"01\"");
        assert!(differences[1].starts_with("processes.api baseline: {") && differences[1].ends_with("now null"));
        assert_eq!(differences[2..], ["scenario.new: null, now 1", "scenario.steps[1]: 80, now 90", "seed: 1, now 2"]);
        assert_eq!(manifest().differences(&Manifest { argv: Vec::new(), ..manifest() }), [""; 0]);
    }

    #[test]
    fn secrets_are_replaced() {
        let argv = ["--set", "redis.url=redis://me:pass@host/", "--set", "store.password=x", "--set", "cache.items=5"];
        let redacted = Manifest { argv: argv.map(str::to_owned).to_vec(), ..manifest() }.redacted();
        let words = ["--set", "redis.url=REDACTED", "--set", "store.password=REDACTED", "--set", "cache.items=5"];
        assert_eq!(redacted.argv, words);
        assert_eq!(redacted.processes["api baseline"]["store"], json!({"pool_size": 80, "password": REDACTED}));
        assert!(!is_secret("password", "") && !is_secret("redis.url", "redis://127.0.0.1:6379/"));
    }
}
