//! Whether a JSON value satisfies a schema, for the keywords that `report.schema.json` uses. A crate that knows all of JSON Schema brings
//! thirty others.

use serde_json::{Map, Value};

/// What does not match, each with its path; empty when all of it does.
///
/// # Panics
/// The schema uses a keyword that is not known here.
pub fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Walk { root: schema, found: &mut found }.check(schema, value, "");
    found
}

struct Walk<'a> {
    root: &'a Value,
    found: &'a mut Vec<String>,
}

impl Walk<'_> {
    fn check(&mut self, schema: &Value, value: &Value, path: &str) {
        let Value::Object(schema) = schema else {
            // `true` allows everything.
            assert_eq!(schema, &Value::Bool(true), "{path}");
            return;
        };
        for (keyword, argument) in schema {
            self.keyword(schema, keyword, argument, value, path);
        }
    }

    fn keyword(&mut self, schema: &Map<String, Value>, keyword: &str, argument: &Value, value: &Value, path: &str) {
        let list = || argument.as_array().into_iter().flatten();
        match keyword {
            "$schema" | "$defs" | "title" | "description" | "format" | "default" => {}
            "$ref" => {
                let pointer = argument.as_str().and_then(|target| target.strip_prefix('#')).unwrap();
                let target = self.root.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in the schema"));
                self.check(&target.clone(), value, path);
            }
            "type" => {
                let names: Vec<&str> = list().chain([argument]).filter_map(Value::as_str).collect();
                self.expect(names.iter().any(|name| is_of_type(value, name)), path, &format!("is no {names:?}"));
            }
            "const" => self.expect(value == argument, path, &format!("is not {argument}")),
            "enum" => self.expect(list().any(|allowed| allowed == value), path, &format!("is none of {argument}")),
            "minimum" => {
                let is_low = value.as_f64().zip(argument.as_f64()).is_some_and(|(value, least)| value < least);
                self.expect(!is_low, path, &format!("is below {argument}"));
            }
            "required" => {
                for name in list().filter_map(Value::as_str) {
                    self.expect(value.get(name).is_some(), path, &format!("has no {name}"));
                }
            }
            "properties" => {
                for (name, schema) in argument.as_object().into_iter().flatten() {
                    if let Some(value) = value.get(name) {
                        self.check(schema, value, &format!("{path}/{name}"));
                    }
                }
            }
            "additionalProperties" => {
                let named = |name: &String| schema.get("properties").is_some_and(|known| known.get(name).is_some());
                for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| !named(name)) {
                    self.check(argument, value, &format!("{path}/{name}"));
                }
            }
            "prefixItems" => {
                for (n, (schema, value)) in list().zip(value.as_array().into_iter().flatten()).enumerate() {
                    self.check(schema, value, &format!("{path}/{n}"));
                }
            }
            "items" => {
                for (n, value) in value.as_array().into_iter().flatten().enumerate() {
                    self.check(argument, value, &format!("{path}/{n}"));
                }
            }
            "minItems" | "maxItems" => {
                let length = value.as_array().map(|items| items.len() as u64);
                self.expect(length.is_none() || length == argument.as_u64(), path, "has another length");
            }
            "anyOf" | "oneOf" => {
                let root = self.root;
                let tried: Vec<Vec<String>> = list()
                    .map(|option| {
                        let mut found = Vec::new();
                        Walk { root, found: &mut found }.check(option, value, path);
                        found
                    })
                    .collect();
                if tried.iter().all(|found| !found.is_empty()) {
                    // The option that comes closest says best what is wrong.
                    self.found.extend(tried.into_iter().min_by_key(Vec::len).into_iter().flatten());
                }
            }
            other => panic!("the walk does not know the keyword {other} at {path}"),
        }
    }

    fn expect(&mut self, holds: bool, path: &str, problem: &str) {
        if !holds {
            self.found.push(format!("{path} {problem}"));
        }
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("there is no type {other}"),
    }
}
