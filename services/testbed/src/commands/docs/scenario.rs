//! The table of a scenario's keys. The reader of scenarios answers which keys it knows, which it requires and what it accepts:
//! it is asked with documents that have one error each.

use loadtest::scenario::{BUILT_IN, Scenario};
use toml::{Table, Value};

use super::{settings::cell, source::Source};

/// No table has this key.
const UNKNOWN: &str = "no_such_key";

/// Meanings of the keys whose struct has another form than the document.
const MEANINGS: [(&str, &str); 18] = [
    ("ids.unknown_share", "Share of requests with an unknown id: one number, or a list with one per step."),
    ("ids.exponent", "Exponent of the Zipf distribution."),
    ("law.kind", "`modelled`: faultproxy delays the store's answers; `none`: the store's real speed."),
    ("law.base_ms", "Delay of a command that is alone in the store."),
    ("law.slope_ms", "Further delay for each command in flight in the whole store."),
    (
        "law.crosstalk_ms",
        "Further delay for each ordered pair of commands in flight, by default 0: with n commands n × (n − 1) times this. It makes the law the \
         universal scalability law: the rate is highest at √(base_ms / crosstalk_ms) commands in flight and falls beyond.",
    ),
    (
        "criticality",
        "Shares of the requests by criticality, which each carries in the header `x-criticality`. Without the table: none.",
    ),
    ("retry", "How the load generator sends a failed request again. Without the table: not at all."),
    ("law.spread", "Sigma of the log-normal factor."),
    ("faults.step", "Number of the step, 1 for the first. Without it the fault is in every step."),
    ("faults.ms", "Latency that is added to each answer."),
    ("faults.pct", "Percentage of commands and answers that are lost."),
    ("faults.seed", "Decides which commands and answers are lost."),
    ("open", "Spacing, bound and curve of open arrivals."),
    ("profiles", "Profiles of the replicas, in the order of their runs."),
    ("article.baseline.users", "The step that the figures are for."),
    ("article.protected.users", "The step that the figures are for."),
    (
        "tolerances.overload_users",
        "Users of the steps in which the baseline must break, and the protected profile must not.",
    ),
];

struct Found {
    path: String,
    required: bool,
    accepts: String,
}

pub fn table() -> anyhow::Result<String> {
    let mut found = Vec::new();
    visit(&base()?, "", &mut found);
    let source = Source::read(&[
        include_str!("../../../../../loadtest/src/scenario.rs"),
        include_str!("../../../../../loadtest/src/figures.rs"),
        include_str!("../../../../../loadtest/src/arrivals.rs"),
        include_str!("../../../../../loadtest/src/retry.rs"),
        include_str!("../../../../../loadtest/src/criticality.rs"),
        include_str!("../../../../../loadtest/src/scenario/law.rs"),
    ]);
    let mut text = String::from("| key | required | values | meaning |\n|---|---|---|---|\n");
    for Found { path, required, accepts } in found {
        let required = if required { "yes" } else { "no" };
        text.push_str(&format!(
            "| `{path}` | {required} | {} | {} |\n",
            cell(&accepts),
            cell(&meaning(&source, &path))
        ));
    }
    Ok(text)
}

/// A valid document in which each optional table may be added.
fn base() -> anyhow::Result<Table> {
    let (_, smoke) = BUILT_IN[BUILT_IN.len() - 1];
    let mut base: Table = toml::from_str(smoke)?;
    base.remove("law");
    // As many as there may be: the range of `faults.step` depends on it.
    base.insert("steps".into(), Value::Array((1..=50).map(Value::Integer).collect()));
    let law = [("base_ms", 1.0), ("slope_ms", 0.0), ("spread", 0.0)];
    base.insert(
        "law".into(),
        Value::Table(law.map(|(key, value)| (key.to_owned(), Value::Float(value))).into_iter().collect()),
    );
    Ok(base)
}

/// `path` of the table, with a dot at its end; empty for the document.
fn visit(base: &Table, path: &str, found: &mut Vec<Found>) {
    for key in known_keys(base, path) {
        let key_path = format!("{path}{key}");
        let required = errors(&edited(base, &key_path, None))
            .iter()
            .any(|error| error.contains(" is missing") && at(error, &key_path));
        let Some(accepts) = accepts(base, &key_path) else {
            let list =
                errors(&edited(base, &key_path, Some(Value::Boolean(true)))).iter().any(|error| error.contains("[["));
            let accepts = if list { format!("`[[{key_path}]]`") } else { format!("`[{key_path}]`") };
            found.push(Found { path: key_path.clone(), required, accepts });
            visit(base, &format!("{key_path}{}.", if list { "[]" } else { "" }), found);
            continue;
        };
        found.push(Found { path: key_path.replace("[]", ""), required, accepts });
    }
}

fn known_keys(base: &Table, path: &str) -> Vec<String> {
    let errors = errors(&edited(base, &format!("{path}{UNKNOWN}"), Some(Value::Integer(0))));
    let known = errors.iter().find_map(|error| error.split_once(&format!("{UNKNOWN} is unknown; known here: ")));
    known.map(|(_, keys)| keys.split(", ").map(str::to_owned).collect()).unwrap_or_default()
}

/// What the reader says of bad values; `None`: it wants a table.
fn accepts(base: &Table, key: &str) -> Option<String> {
    // `pct belongs to kind = "loss"`
    let errors_of_one = errors(&edited(base, key, Some(Value::Integer(1))));
    let condition = errors_of_one.iter().find_map(|error| error.split_once(" belongs to "));
    if let Some((_, condition)) = condition
        && let Some((sibling, value)) = condition.split_once(" = ")
    {
        let table = key.rsplit_once('.').map_or(String::new(), |(table, _)| format!("{table}."));
        let value = Value::String(value.trim_matches('"').to_owned());
        let base = edited(base, &format!("{table}{sibling}"), Some(value));
        return Some(format!("{}; only with `{condition}`", limits(&base, key)?));
    }
    limits(base, key)
}

fn limits(base: &Table, key: &str) -> Option<String> {
    let said = |value: Value| {
        let errors = errors(&edited(base, key, Some(value)));
        let error = errors.iter().find(|error| at(error, key))?;
        let (_, must) = error.split_once(" must ")?;
        Some(must.split(", is ").next().unwrap_or(must).split(", has ").next().unwrap_or(must).to_owned())
    };
    let limits = said(Value::Integer(-1))
        .or_else(|| said(Value::Integer(i64::MAX)))
        .or_else(|| said(Value::String(String::new())))?;
    if limits.contains("a table") || limits.contains("[[") {
        return None;
    }
    if limits == "be a list" {
        let length = said(Value::Array(Vec::new())).unwrap_or_default();
        let element = said(Value::Array(vec![Value::Integer(-1)])).unwrap_or_default();
        let length = length.trim_start_matches("have ").to_owned();
        let length =
            if length.is_empty() || length.starts_with("be") { String::new() } else { format!("{}, ", range(&length)) };
        return Some(format!("list: {length}each {}", range(element.trim_start_matches("be "))));
    }
    Some(range(limits.trim_start_matches("be ")))
}

fn range(text: &str) -> String {
    text.replace("..=", " to ")
}

/// Whether an error names this key, or an element of its list.
fn at(error: &str, key: &str) -> bool {
    let key = key.replace("[]", "[0]");
    let Some((_, error)) = error.split_once(": ") else { return false };
    error.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with([' ', '[']))
}

fn errors(document: &Table) -> Vec<String> {
    let text = toml::to_string(document).unwrap_or_default();
    match Scenario::parse("documentation", &text) {
        Ok(_) => Vec::new(),
        Err(error) => error.to_string().lines().map(|line| line.trim().to_owned()).collect(),
    }
}

/// The document with one key changed, or removed. Tables on the way are added; `name[]` is the first table of a list.
fn edited(base: &Table, path: &str, value: Option<Value>) -> Table {
    let mut document = base.clone();
    let mut parts: Vec<&str> = path.split('.').collect();
    let key = parts.pop().unwrap_or_default();
    let mut table = &mut document;
    for part in parts {
        let name = part.trim_end_matches("[]");
        let is_list = part.ends_with("[]");
        let entry = table.entry(name).or_insert_with(|| {
            if is_list { Value::Array(vec![Value::Table(Table::new())]) } else { Value::Table(Table::new()) }
        });
        let inner = match entry {
            Value::Array(list) => list.first_mut().and_then(Value::as_table_mut),
            other => other.as_table_mut(),
        };
        match inner {
            Some(inner) => table = inner,
            None => return base.clone(),
        }
    }
    match value {
        Some(value) => table.insert(key.to_owned(), value),
        None => table.remove(key),
    };
    document
}

fn meaning(source: &Source, path: &str) -> String {
    if let Some((_, meaning)) = MEANINGS.iter().find(|(of, _)| *of == path) {
        return (*meaning).to_owned();
    }
    let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
    let items: &[&str] = match table {
        "" | "ids" => &["Scenario", "Known"],
        "law" => &["Law"],
        "store" => &["Store"],
        "faults" => &["Fault", "FaultKind"],
        "outage" => &["Outage"],
        "open" => &["Open"],
        "retry" => &["Retry", "Backoff", "Budget"],
        "criticality" => &["CriticalityMix"],
        "tolerances" => &["Tolerances"],
        _ => &["ArticleRow", "ArticleFigures"],
    };
    let fields = || items.iter().filter_map(|item| source.item(item)).flat_map(|item| &item.fields);
    let field = fields().find(|field| field.name == key);
    let mut doc = field.map(|field| field.doc.clone()).unwrap_or_default();
    let kind =
        field.map(|field| field.kind.trim_start_matches("Option<").trim_start_matches("Vec<").trim_end_matches('>'));
    if let Some(item) = kind.and_then(|kind| source.item(kind)) {
        if doc.is_empty() {
            doc = item.doc.clone();
        }
        for variant in item.variants.iter().filter(|variant| !variant.doc.is_empty()) {
            doc.push_str(&format!(" `{}`: {}", variant.name, variant.doc));
        }
    }
    doc.trim().to_owned()
}
