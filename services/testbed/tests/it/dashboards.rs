//! grafana/: every dashboard is complete, consistent and made of what Grafana and Prometheus understand. That each query finds data
//! is a matter of the telemetry test, with a real Prometheus.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

/// None of them is deprecated in Grafana 12.
const PANELS: [&str; 7] = ["timeseries", "stat", "heatmap", "bargauge", "table", "logs", "row"];
/// By name: what each dashboard is for.
const EXPECTED: [&str; 7] =
    ["cache-and-guards", "heartbeats", "load-test", "overview", "request-path", "runtime", "shards"];
/// Grafana's own variables; all others must be declared.
const BUILT_IN: [&str; 3] = ["__rate_interval", "__interval", "__range"];

fn grafana() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../grafana")
}

pub fn dashboards() -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(grafana().join("dashboards")).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let board = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), board)
        })
        .collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Panels that show something, rows left out.
fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    list(board, "panels").iter().filter(|panel| text(panel, "type") != "row")
}

/// Every PromQL expression with where it stands.
pub fn expressions(board: &Value) -> Vec<(String, String)> {
    let of_panels = panels(board)
        .flat_map(|panel| list(panel, "targets").iter().map(move |target| (text(panel, "title"), target, "expr")));
    let of_annotations =
        list(&board["annotations"], "list").iter().map(|annotation| ("annotation", annotation, "expr"));
    of_panels
        .chain(of_annotations)
        .filter(|(_, query, _)| text(&query["datasource"], "type") == "prometheus")
        .map(|(place, query, key)| (format!("{}: {place}", text(board, "title")), text(query, key).to_owned()))
        .collect()
}

/// `$name` and `${name}` of an expression.
fn variables(expression: &str) -> BTreeSet<String> {
    let name = |part: &str| {
        let part = part.trim_start_matches('{');
        part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>()
    };
    expression.split('$').skip(1).map(name).collect()
}

#[test]
fn every_panel_says_what_it_shows_and_what_to_look_for() {
    let boards = dashboards();
    for name in EXPECTED {
        assert!(boards.contains_key(name), "there is no dashboard {name}");
    }
    for (name, board) in &boards {
        assert_eq!(text(board, "uid"), format!("testbed-{name}"));
        assert!(text(board, "description").ends_with(['.', '?']) && !text(board, "title").is_empty(), "{name}");
        assert_eq!(list(board, "tags"), ["recommendation-testbed"], "{name}: the list of dashboards goes by the tag");
        assert!(panels(board).count() >= 6, "{name} is nearly empty");
        for panel in panels(board) {
            let place = format!("{name}, panel {}: {}", panel["id"], text(panel, "title"));
            assert!(!text(panel, "title").is_empty(), "{place} has no title");
            assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{place} has no unit");
            assert!(text(panel, "description").len() >= 40, "{place} does not say what to look for");
            assert!(!list(panel, "targets").is_empty(), "{place} asks nothing");
        }
    }
    let titles: BTreeSet<&str> = boards.values().map(|board| text(board, "title")).collect();
    assert_eq!(titles.len(), boards.len(), "two dashboards of one title");
}

#[test]
fn panels_are_of_known_kinds_and_do_not_overlap() {
    for (name, board) in dashboards() {
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeMap::new());
        for panel in list(&board, "panels") {
            let place = format!("{name}, panel {}: {}", panel["id"], text(panel, "title"));
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}: the id is taken");
            assert!(PANELS.contains(&text(panel, "type")), "{place} is a {}", text(panel, "type"));
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(w >= 3 && h >= 1 && x + w <= 24, "{place} is outside of the grid");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                if let Some(other) = taken.insert(cell, place.clone()) {
                    panic!("{place} lies over {other}");
                }
            }
            let targets = list(panel, "targets");
            let refs: BTreeSet<&str> = targets.iter().map(|target| text(target, "refId")).collect();
            assert!(refs.len() == targets.len() && !refs.contains(""), "{place}: refIds");
        }
    }
}

#[test]
fn faults_load_steps_and_alerts_are_annotations_everywhere() {
    for (name, board) in dashboards() {
        let annotations = list(&board["annotations"], "list");
        for (what, series) in
            [("Faults", "faultproxy_fault_active"), ("Load steps", "loadgen_step"), ("Alerts", "ALERTS")]
        {
            let found = annotations.iter().find(|annotation| text(annotation, "name") == what);
            assert!(
                found.is_some_and(|it| text(it, "expr").contains(series) && it["enable"] == true),
                "{name}: {what}"
            );
        }
    }
}

#[test]
fn variables_are_declared_and_data_sources_provisioned() {
    let file = std::fs::read_to_string(grafana().join("provisioning/datasources/datasources.yaml")).unwrap();
    let provisioned: Value = serde_saphyr::from_str(&file).unwrap();
    let sources: BTreeMap<&str, &str> =
        list(&provisioned, "datasources").iter().map(|source| (text(source, "uid"), text(source, "type"))).collect();
    // Each way of the links ends at a source that is there.
    let links: Vec<String> = file
        .split("datasourceUid: ")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric()).collect())
        .collect();
    assert!(links.len() == 4 && links.iter().all(|uid| sources.contains_key(uid.as_str())), "{links:?}");
    for (name, board) in dashboards() {
        let declared: BTreeSet<&str> = list(&board["templating"], "list").iter().map(|it| text(it, "name")).collect();
        for (place, expression) in expressions(&board) {
            assert!(!expression.is_empty(), "{place} is empty");
            for variable in variables(&expression) {
                let known = BUILT_IN.contains(&variable.as_str()) || declared.contains(variable.as_str());
                assert!(known, "{place}: ${variable} is not declared");
            }
        }
        for panel in panels(&board) {
            for source in
                list(panel, "targets").iter().map(|target| &target["datasource"]).chain([&panel["datasource"]])
            {
                let (kind, uid) = (text(source, "type"), text(source, "uid"));
                let known = (uid == "${datasource}" && kind == "prometheus" && declared.contains("datasource"))
                    || sources.get(uid) == Some(&kind);
                assert!(known, "{name}, {}: {source} is not provisioned", text(panel, "title"));
            }
        }
    }
}

/// Each expression as the rule of a file that `promtool` judges: syntax, functions, types.
#[test]
fn prometheus_understands_every_expression() {
    if !launcher::testing::have(&["promtool"]) {
        return;
    }
    let mut rules = Vec::new();
    for (place, expression) in dashboards().values().flat_map(expressions) {
        let filled = BUILT_IN.iter().fold(expression, |text, name| text.replace(&format!("${name}"), "10s"));
        let filled = filled.replace("$instance", ".*");
        let name = format!("rule_{}", rules.len());
        rules.push(serde_json::json!({ "record": name, "expr": filled, "labels": { "place": place } }));
    }
    assert!(rules.len() > 100, "only {} expressions", rules.len());
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("rules.yml");
    // JSON is YAML.
    let groups = serde_json::json!({ "groups": [{ "name": "dashboards", "rules": rules }] });
    std::fs::write(&file, groups.to_string()).unwrap();
    let program = launcher::find_program(&["promtool"]).unwrap();
    let output = Command::new(program).args(["check", "rules"]).arg(&file).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}
