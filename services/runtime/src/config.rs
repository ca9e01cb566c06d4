//! Typed configuration: defaults ← `OTEL_*` ← TOML file ← environment ← `--set key=value`. It is parsed once, and unknown keys are refused.

mod otel;

use std::path::Path;

use anyhow::{Context, bail};
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Serialize, de::DeserializeOwned};

/// Checks a configuration and reports all invalid values, not only the first.
pub trait Validate {
    /// Pushes one line for each invalid value: `section.key: what it must be`.
    fn validate(&self, problems: &mut Vec<String>);
}

/// `TESTBED_STORE__POOL_SIZE=50` sets `store.pool_size`.
const ENV_PREFIX: &str = "TESTBED_";

/// # Errors
/// The file cannot be read, a key is unknown, a value has the wrong type, or `validate` refuses values (all in one message).
pub fn load<T>(defaults: T, file: Option<&Path>, sets: &[String]) -> anyhow::Result<T>
where
    T: Serialize + DeserializeOwned + Validate,
{
    load_with(defaults, file, sets, |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
}

/// As `load`, with the `OTEL_*` variables from `variable`.
fn load_with<T>(
    defaults: T,
    file: Option<&Path>,
    sets: &[String],
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<T>
where
    T: Serialize + DeserializeOwned + Validate,
{
    let mut figment = Figment::from(Serialized::defaults(defaults));
    let mut problems = Vec::new();
    if figment.contains("telemetry") {
        for (key, value) in otel::settings(variable, &mut problems) {
            figment = figment.merge(Serialized::default(key, value));
        }
    }
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        figment = figment.merge(Toml::string(&text));
    }
    figment = figment.merge(Env::prefixed(ENV_PREFIX).filter(|key| key.as_str().contains("__")).split("__"));
    for set in sets {
        let is_switch = |key: &str| figment.find_value(key).is_ok_and(|value| value.to_bool().is_some());
        let set = set_to_toml(set, is_switch)?;
        figment = figment.merge(Toml::string(&set));
    }
    let config: T = figment.extract().map_err(|errors| {
        let lines: Vec<String> = errors.into_iter().map(|e| format!("  {e}")).collect();
        anyhow::anyhow!("the configuration is not valid:\n{}", lines.join("\n"))
    })?;
    config.validate(&mut problems);
    if !problems.is_empty() {
        bail!("the configuration is not valid:\n  {}", problems.join("\n  "));
    }
    Ok(config)
}

/// `guards.bloom=off` → `guards.bloom = false`. `on` and `off` become booleans only for a switch; other settings may have values of these
/// names. A value that is not TOML becomes a string.
fn set_to_toml(set: &str, is_switch: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    let Some((key, value)) = set.split_once('=') else {
        bail!("'{set}' is not of the form key=value, e.g. guards.bloom=off");
    };
    let (key, value) = (key.trim(), value.trim());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if key.is_empty() || !key.chars().all(plain) {
        bail!("'{key}' is not a configuration key, e.g. guards.bloom");
    }
    let value = match value {
        "on" if is_switch(key) => "true".to_owned(),
        "off" if is_switch(key) => "false".to_owned(),
        other if toml_value(other) => other.to_owned(),
        other => format!("{other:?}"),
    };
    Ok(format!("{key} = {value}"))
}

fn toml_value(text: &str) -> bool {
    Toml::from_str::<std::collections::BTreeMap<String, serde::de::IgnoredAny>>(&format!("v = {text}")).is_ok()
        && !text.contains('\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        name: String,
        guards: Guards,
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Guards {
        bloom: bool,
        fpr: f64,
    }
    impl Validate for Config {
        fn validate(&self, problems: &mut Vec<String>) {
            if self.name.is_empty() {
                problems.push("name: must not be empty".into());
            }
            if !(self.guards.fpr > 0.0 && self.guards.fpr < 1.0) {
                problems.push(format!("guards.fpr: must lie between 0 and 1, is {}", self.guards.fpr));
            }
        }
    }
    fn defaults() -> Config {
        Config { name: "a".into(), guards: Guards { bloom: true, fpr: 0.001 } }
    }
    fn sets(list: &[&str]) -> anyhow::Result<Config> {
        load(defaults(), None, &list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn later_sources_win() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "name = \"file\"\n[guards]\nfpr = 0.5\n").unwrap();
        let config = load(defaults(), Some(&file), &["guards.bloom=off".into(), "name=set".into()]).unwrap();
        assert!(!config.guards.bloom);
        assert_eq!((config.name.as_str(), config.guards.fpr), ("set", 0.5));
        assert_eq!(sets(&["name=off"]).unwrap().name, "off");
    }

    #[test]
    fn errors_name_the_key_and_come_together() {
        let error = sets(&["guards.fpr=2", "name=\"\""]).unwrap_err().to_string();
        assert!(error.contains("name:") && error.contains("guards.fpr:"), "{error}");
        let error = sets(&["guards.blom=on"]).unwrap_err().to_string();
        assert!(error.contains("blom"), "{error}");
        let error = sets(&["guards.bloom=maybe"]).unwrap_err().to_string();
        assert!(error.contains("guards.bloom") || error.contains("bloom"), "{error}");
        assert!(sets(&["guards.bloom"]).unwrap_err().to_string().contains("key=value"));
        assert!(sets(&["a b=1"]).unwrap_err().to_string().contains("not a configuration key"));
    }
}
