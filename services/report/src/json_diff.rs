//! Two JSON values compared leaf by leaf.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// A leaf that differs; null where one side has none.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// `scenario.steps[1]`; empty if the values themselves differ.
    pub path: String,
    pub before: Value,
    pub now: Value,
}

/// All leaves that are not `same`, and how many were compared. Lists of different length count as one leaf.
pub fn changes(before: &Value, now: &Value, same: &impl Fn(&Value, &Value) -> bool) -> (Vec<Changed>, u64) {
    let (mut changed, mut compared) = (Vec::new(), 0);
    compare(String::new(), before, now, same, &mut changed, &mut compared);
    (changed, compared)
}

fn compare(
    path: String,
    before: &Value,
    now: &Value,
    same: &impl Fn(&Value, &Value) -> bool,
    changed: &mut Vec<Changed>,
    compared: &mut u64,
) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            for key in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(path, &of(before), &of(now), same, changed, compared);
            }
        }
        (Value::Array(before), Value::Array(now)) if before.len() == now.len() => {
            for (n, (before, now)) in before.iter().zip(now).enumerate() {
                compare(format!("{path}[{n}]"), before, now, same, changed, compared);
            }
        }
        _ => {
            *compared += 1;
            if !same(before, now) {
                changed.push(Changed { path, before: before.clone(), now: now.clone() });
            }
        }
    }
}
