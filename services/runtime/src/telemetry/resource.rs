//! OpenTelemetry's resource: the attributes of this process.

use std::collections::BTreeMap;

use contract::spans::{SCHEMA_URL, resource};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;

use super::config::{TelemetryConfig, pairs};

/// The identity of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `api`, `monitor`, …
    pub name: &'static str,
    /// Its address or name, which distinguishes it from other instances on this machine.
    pub listen: String,
}

/// The attributes of the process, extended or replaced by the configuration.
pub(super) fn resource(service: &Service, config: &TelemetryConfig) -> Resource {
    let instance = format!("{}/{}", hostname(), service.listen);
    let mut attributes: BTreeMap<&str, &str> = BTreeMap::from([
        (resource::SERVICE_NAME, service.name),
        (resource::SERVICE_NAMESPACE, resource::NAMESPACE),
        (resource::SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
        (resource::SERVICE_INSTANCE_ID, instance.as_str()),
    ]);
    // `validate` has reported malformed pairs.
    attributes.extend(pairs(&config.resource_attributes).flatten());
    if !config.service_name.is_empty() {
        attributes.insert(resource::SERVICE_NAME, &config.service_name);
    }
    let attributes = attributes.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned()));
    Resource::builder_empty().with_schema_url(attributes, SCHEMA_URL).build()
}

pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("testbed").with_schema_url(SCHEMA_URL).build()
}

/// In a container this is the container's id.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_unreadable| "localhost".into(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use opentelemetry::Key;

    use super::*;

    #[test]
    fn the_configuration_adds_and_replaces() {
        let config = TelemetryConfig {
            resource_attributes: "deployment.environment.name=test, service.version = 7 ,service.name=from attributes"
                .into(),
            ..TelemetryConfig::default()
        };
        let service = Service { name: "api", listen: "here".into() };
        let value = |config: &TelemetryConfig, key: &'static str| {
            resource(&service, config).get(&Key::new(key)).map(|value| value.to_string())
        };
        for (key, expected) in [
            (resource::SERVICE_NAME, "from attributes"),
            (resource::SERVICE_NAMESPACE, resource::NAMESPACE),
            (resource::SERVICE_VERSION, "7"),
            ("deployment.environment.name", "test"),
        ] {
            assert_eq!(value(&config, key).as_deref(), Some(expected), "{key}");
        }
        assert!(value(&config, resource::SERVICE_INSTANCE_ID).is_some_and(|instance| instance.ends_with("/here")));
        let named = TelemetryConfig { service_name: "named".into(), ..config };
        assert_eq!(value(&named, resource::SERVICE_NAME).as_deref(), Some("named"));
        assert_eq!(value(&TelemetryConfig::default(), resource::SERVICE_NAME).as_deref(), Some("api"));
    }
}
