//! Tables of a process's settings: key, default, values, meaning.

use runtime::config::Validate;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::source::{Field, Source};

/// One process whose settings are documented.
pub struct Process<'a> {
    pub root: &'a str,
    pub source: Source,
    pub defaults: Value,
    /// Defaults of the other profile, where the process has two.
    pub other: Option<(&'a str, Value)>,
    /// The range of a number, as the process's own check states it.
    pub range: fn(&Value, &str) -> Option<String>,
}

impl Process<'_> {
    /// A table of the settings outside of any section, then one for each section.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        let Some(root) = self.source.item(self.root) else {
            return format!("(no struct {} in its source)\n", self.root);
        };
        let (sections, plain): (Vec<_>, Vec<_>) = root
            .fields
            .iter()
            .partition(|field| self.source.item(&field.kind).is_some_and(|item| !item.fields.is_empty()));
        let mut rows = Vec::new();
        for field in plain {
            self.row("", field, &mut rows);
        }
        push_table(&mut text, &rows);
        for section in sections {
            let mut rows = Vec::new();
            self.row("", section, &mut rows);
            let doc = if section.doc.is_empty() { String::new() } else { format!(" {}", cell(&section.doc)) };
            text.push_str(&format!("\n`[{}]`{doc}\n\n", section.name));
            push_table(&mut text, &rows);
        }
        text
    }

    fn row(&self, prefix: &str, field: &Field, rows: &mut Vec<[String; 4]>) {
        let key = format!("{prefix}{}", field.name);
        let item = self.source.item(&field.kind);
        if let Some(item) = item
            && !item.fields.is_empty()
        {
            for inner in &item.fields {
                self.row(&format!("{key}."), inner, rows);
            }
            return;
        }
        let mut meaning = field.doc.clone();
        for variant in item.iter().flat_map(|item| &item.variants).filter(|variant| !variant.doc.is_empty()) {
            meaning.push_str(&format!(" `{}`: {}", variant.name, variant.doc));
        }
        rows.push([format!("`{key}`"), self.default(&key), self.values(&key, field), cell(meaning.trim())]);
        let element = between(&field.kind, "Vec<", ">").map(|kind| (kind, "[]"));
        let element = element.or_else(|| between(&field.kind, "BTreeMap<String, ", ">").map(|kind| (kind, ".NAME")));
        if let Some((kind, suffix)) = element
            && let Some(item) = self.source.item(kind)
        {
            for inner in &item.fields {
                self.row(&format!("{key}{suffix}."), inner, rows);
            }
        }
    }

    fn default(&self, key: &str) -> String {
        let value = shown(at(&self.defaults, key));
        match &self.other {
            Some((profile, other)) if shown(at(other, key)) != value => {
                format!("{value}; {profile}: {}", shown(at(other, key)))
            }
            _ => value,
        }
    }

    fn values(&self, key: &str, field: &Field) -> String {
        if let Some(item) = self.source.item(&field.kind) {
            let names: Vec<_> = item.variants.iter().map(|variant| format!("`{}`", variant.name)).collect();
            return names.join(", ");
        }
        let kind = match field.kind.as_str() {
            "bool" => "`true`, `false`".to_owned(),
            "f32" | "f64" => "number".to_owned(),
            "String" => "text".to_owned(),
            "SocketAddr" => "`address:port`".to_owned(),
            "Endpoint" => "`address:port` or `unix:/path`".to_owned(),
            kind if kind.starts_with("Vec<") => "list".to_owned(),
            kind if kind.starts_with("BTreeMap<") => "table".to_owned(),
            _ => "integer".to_owned(),
        };
        (self.range)(&self.defaults, key).unwrap_or(kind)
    }
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    text.strip_prefix(before)?.strip_suffix(after)
}

fn at<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    key.split('.').try_fold(value, |value, part| value.get(part))
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) if text.is_empty() => "empty".to_owned(),
        Some(Value::Array(list)) if list.is_empty() => "none".to_owned(),
        Some(Value::Object(table)) if table.is_empty() => "none".to_owned(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(value) => format!("`{value}`"),
    }
}

/// One cell of a Markdown table.
pub fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn push_table(text: &mut String, rows: &[[String; 4]]) {
    if rows.is_empty() {
        return;
    }
    text.push_str("| setting | default | values | meaning |\n|---|---|---|---|\n");
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
}

/// Above every range of the settings; in milliseconds it still fits into 64 bits of nanoseconds.
const LARGE: u64 = 1_000_000_000_000;

/// Tries values that are too large or too small: the check answers with the range. `None`: it accepts all of them.
pub fn range<C: DeserializeOwned + Validate>(defaults: &Value, key: &str) -> Option<String> {
    if !at(defaults, key)?.is_number() {
        return None;
    }
    [json!(LARGE), json!(u32::MAX), json!(1e12), json!(0), json!(-1.0)].into_iter().find_map(|value| {
        let config: C = serde_json::from_value(with(defaults, key, value)?).ok()?;
        let mut problems = Vec::new();
        config.validate(&mut problems);
        let range = problems.iter().find_map(|problem| problem.strip_prefix(key)?.split_once(" is not in "))?.1;
        let (least, most) = range.split_once("..=")?;
        Some(format!("{least} to {most}"))
    })
}

/// For a process whose check states no ranges.
pub fn no_range(_: &Value, _: &str) -> Option<String> {
    None
}

fn with(value: &Value, key: &str, new: Value) -> Option<Value> {
    let mut table: Map<String, Value> = value.as_object()?.clone();
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), new);
        }
        Some((first, rest)) => {
            let inner = with(table.get(first)?, rest, new)?;
            table.insert(first.to_owned(), inner);
        }
    }
    Some(Value::Object(table))
}
