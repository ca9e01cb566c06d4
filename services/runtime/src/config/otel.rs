//! OpenTelemetry's environment variables (`OTEL_*`) as settings `telemetry.*`. They override the defaults, and explicit settings override
//! them. Other `OTEL_*` variables are ignored. The exporter reads `OTEL_EXPORTER_OTLP_HEADERS` directly: headers may contain a password, and
//! the configuration is written to files and printed.

use figment::value::Value;

use crate::telemetry::config::{OFF, pairs};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const COMPRESSION: &str = "OTEL_EXPORTER_OTLP_COMPRESSION";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// Keys and values of the settings. An empty variable counts as not set. Invalid values are added to `problems`.
pub(super) fn settings(
    variable: impl Fn(&str) -> Option<String>,
    problems: &mut Vec<String>,
) -> Vec<(&'static str, Value)> {
    let variable = |name| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let mut settings = Vec::new();
    for (name, key) in [
        (ENDPOINT, "telemetry.endpoint"),
        (SERVICE_NAME, "telemetry.service_name"),
        (RESOURCE_ATTRIBUTES, "telemetry.resource_attributes"),
    ] {
        settings.extend(variable(name).map(|value| (key, value.into())));
    }
    if let Some(protocol) = variable(PROTOCOL) {
        match protocol.as_str() {
            "grpc" => settings.push(("telemetry.protocol", "grpc".into())),
            "http/protobuf" => settings.push(("telemetry.protocol", "http".into())),
            other => problems.push(format!("{PROTOCOL}: '{other}' is neither grpc nor http/protobuf")),
        }
    }
    if let Some(timeout) = variable(TIMEOUT) {
        match timeout.parse::<u64>() {
            Ok(ms) => settings.push(("telemetry.timeout_ms", ms.into())),
            Err(_) => problems.push(format!("{TIMEOUT}: '{timeout}' is not a number of milliseconds")),
        }
    }
    if let Some(ratio) = sample_ratio(variable(SAMPLER).as_deref(), variable(SAMPLER_ARG).as_deref(), problems) {
        settings.push(("telemetry.sample_ratio", ratio.into()));
    }
    if let Some(disabled) = variable(DISABLED) {
        match disabled.to_ascii_lowercase().as_str() {
            "true" => settings.push(("telemetry.endpoint", OFF.into())),
            "false" => {}
            _ => problems.push(format!("{DISABLED}: '{disabled}' is neither true nor false")),
        }
    }
    // The value is not shown: it may contain a password.
    let is_header = |(name, value): (&str, &str)| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
            && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
    };
    if variable(HEADERS).is_some_and(|headers| pairs(&headers).any(|pair| !pair.is_some_and(is_header))) {
        problems.push(format!("{HEADERS}: the value is not of the form name=value,name=value"));
    }
    if let Some(compression) = variable(COMPRESSION).filter(|compression| compression != "none") {
        problems.push(format!("{COMPRESSION}: '{compression}' is not supported, only none"));
    }
    settings
}

/// `parentbased_` has no effect here: `telemetry.trust_caller` decides whether a caller's decision is followed.
fn sample_ratio(sampler: Option<&str>, argument: Option<&str>, problems: &mut Vec<String>) -> Option<f64> {
    match sampler? {
        "always_on" | "parentbased_always_on" => Some(1.0),
        "always_off" | "parentbased_always_off" => Some(0.0),
        "traceidratio" | "parentbased_traceidratio" => {
            let Some(argument) = argument else { return Some(1.0) };
            let ratio = argument.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            if ratio.is_none() {
                problems.push(format!("{SAMPLER_ARG}: '{argument}' is not in 0..=1"));
            }
            ratio
        }
        other => {
            problems.push(format!(
                "{SAMPLER}: '{other}' is not one of always_on, always_off, traceidratio, or one of these with the prefix parentbased_"
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::{
        config::{Validate, load_with},
        telemetry::{Protocol, TelemetryConfig},
    };

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        telemetry: TelemetryConfig,
    }
    impl Validate for Config {
        fn validate(&self, problems: &mut Vec<String>) {
            self.telemetry.validate(problems);
        }
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoTelemetry {}
    impl Validate for NoTelemetry {
        fn validate(&self, _: &mut Vec<String>) {}
    }

    fn loaded(variables: &[(&str, &str)], sets: &[&str]) -> anyhow::Result<TelemetryConfig> {
        let variable = |name: &str| variables.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned());
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        load_with(Config::default(), None, &sets, variable).map(|config| config.telemetry)
    }

    const ALL: [(&str, &str); 8] = [
        (ENDPOINT, "http://collector:4318"),
        (PROTOCOL, "http/protobuf"),
        (HEADERS, "authorization=Basic%20abc,x-tenant=7"),
        (TIMEOUT, "700"),
        (SERVICE_NAME, "named"),
        (RESOURCE_ATTRIBUTES, "deployment.environment.name=test"),
        (SAMPLER, "parentbased_traceidratio"),
        (SAMPLER_ARG, "0.25"),
    ];

    #[test]
    fn they_override_defaults_and_explicit_settings_override_them() {
        let expected = TelemetryConfig {
            protocol: Protocol::Http,
            timeout_ms: 700,
            service_name: "named".into(),
            resource_attributes: "deployment.environment.name=test".into(),
            sample_ratio: 0.25,
            ..TelemetryConfig::to("http://collector:4318")
        };
        assert_eq!(loaded(&ALL, &[]).unwrap(), expected);
        assert!(!expected.trust_caller, "callers are not trusted by default");
        let sets = ["telemetry.endpoint=http://other:4317", "telemetry.protocol=grpc", "telemetry.sample_ratio=0.5"];
        let set = loaded(&ALL, &sets).unwrap();
        assert_eq!((set.endpoint.as_str(), set.protocol, set.sample_ratio), ("http://other:4317", Protocol::Grpc, 0.5));
        assert_eq!((set.timeout_ms, set.service_name.as_str()), (700, "named"));
        assert_eq!(loaded(&[], &[]).unwrap(), TelemetryConfig::default());
        assert_eq!(loaded(&[(ENDPOINT, " "), (SAMPLER, "")], &[]).unwrap(), TelemetryConfig::default());
    }

    #[test]
    fn samplers_and_the_switch() {
        for (sampler, argument, expected) in [
            ("always_on", "0.5", 1.0),
            ("always_off", "", 0.0),
            ("parentbased_always_on", "", 1.0),
            ("parentbased_always_off", "", 0.0),
            ("traceidratio", "0.125", 0.125),
            ("parentbased_traceidratio", "", 1.0),
        ] {
            let config = loaded(&[(SAMPLER, sampler), (SAMPLER_ARG, argument)], &[]).unwrap();
            assert_eq!(config.sample_ratio, expected, "{sampler}");
        }
        let off = [ALL.as_slice(), &[(DISABLED, "TRUE")]].concat();
        assert!(!loaded(&off, &[]).unwrap().is_on());
        assert!(loaded(&off, &["telemetry.endpoint=http://here:1"]).unwrap().is_on());
    }

    #[test]
    fn invalid_values_are_reported_together() {
        let bad = [
            (ENDPOINT, "https://collector:4318"),
            (PROTOCOL, "http/json"),
            (HEADERS, "secret"),
            (TIMEOUT, "soon"),
            (SAMPLER, "traceidratio"),
            (SAMPLER_ARG, "2"),
            (DISABLED, "perhaps"),
            (COMPRESSION, "gzip"),
            (RESOURCE_ATTRIBUTES, "a"),
        ];
        let error = loaded(&bad, &["telemetry.queue=0"]).unwrap_err().to_string();
        let bad_settings = ["telemetry.endpoint", "telemetry.resource_attributes", "telemetry.queue"];
        let names = [PROTOCOL, HEADERS, TIMEOUT, SAMPLER_ARG, DISABLED, COMPRESSION];
        for name in names.iter().chain(&bad_settings) {
            assert!(error.contains(&format!("\n  {name}: ")), "{name}: {error}");
        }
        assert!(!error.contains("secret"), "{error}");
        assert!(loaded(&[(SAMPLER, "jaeger_remote")], &[]).unwrap_err().to_string().contains(SAMPLER));
    }

    #[test]
    fn a_process_without_telemetry_ignores_them() {
        load_with(NoTelemetry {}, None, &[], |name| (name == ENDPOINT || name == PROTOCOL).then(|| "bad".to_owned()))
            .unwrap();
    }
}
