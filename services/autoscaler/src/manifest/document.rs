//! The fields of a HorizontalPodAutoscaler that the planner reads. Unknown fields inside them are refused: a misspelt policy would
//! otherwise be left out in silence.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, Visitor},
};
use serde_saphyr::Spanned;

use crate::{PolicyKind, Select};

/// Read first, because another kind has other fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    pub api_version: Option<Spanned<String>>,
    pub kind: Option<Spanned<String>>,
}

#[derive(Deserialize)]
pub struct Document {
    pub spec: Option<HpaSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HpaSpec {
    #[serde(rename = "scaleTargetRef")]
    _scale_target_ref: Option<IgnoredAny>,
    pub min_replicas: Option<Spanned<i32>>,
    pub max_replicas: Option<Spanned<i32>>,
    pub metrics: Option<Vec<Spanned<MetricSpec>>>,
    pub behavior: Option<HpaBehavior>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetricSpec {
    #[serde(rename = "type")]
    pub kind: String,
    pub resource: Option<ResourceSource>,
    pub container_resource: Option<ContainerResourceSource>,
    pub external: Option<ExternalSource>,
    pub pods: Option<IgnoredAny>,
    pub object: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceSource {
    pub name: Spanned<String>,
    pub target: Spanned<Target>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerResourceSource {
    pub name: Spanned<String>,
    pub container: String,
    pub target: Spanned<Target>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalSource {
    pub metric: MetricName,
    pub target: Spanned<Target>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricName {
    pub name: String,
    #[serde(rename = "selector")]
    _selector: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    #[serde(rename = "type")]
    pub kind: String,
    pub average_utilization: Option<i32>,
    pub average_value: Option<Text>,
    pub value: Option<Text>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HpaBehavior {
    pub scale_up: Option<HpaRules>,
    pub scale_down: Option<HpaRules>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HpaRules {
    pub stabilization_window_seconds: Option<Spanned<i32>>,
    pub select_policy: Option<Select>,
    pub policies: Option<Vec<Spanned<HpaPolicy>>>,
    pub tolerance: Option<Spanned<Text>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HpaPolicy {
    #[serde(rename = "type")]
    pub kind: PolicyKind,
    pub value: i32,
    pub period_seconds: i32,
}

/// The text of a quantity, which YAML may have read as a number.
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar)
    }
}

struct Scalar;

impl Visitor<'_> for Scalar {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }
}
