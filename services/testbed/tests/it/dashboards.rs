//! grafana/: every dashboard is complete and consistent, and Grafana's schema and Prometheus accept its parts. queries.rs checks that each
//! query finds data.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

/// None of them is deprecated in Grafana 12.
const PANELS: [&str; 9] =
    ["timeseries", "state-timeline", "stat", "heatmap", "bargauge", "table", "logs", "text", "row"];
const EXPECTED: [&str; 12] = [
    "cache-and-guards",
    "capacity",
    "event-path",
    "heartbeats",
    "load-test",
    "overview",
    "request-path",
    "runbook",
    "runtime",
    "segments",
    "servers",
    "shards",
];
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

/// Rows and panels, those of collapsed rows too.
fn all(board: &Value) -> impl Iterator<Item = &Value> {
    list(board, "panels").iter().flat_map(|panel| std::iter::once(panel).chain(list(panel, "panels")))
}

/// Panels that show data.
fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    all(board).filter(|panel| !["row", "text"].contains(&text(panel, "type")))
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
        assert!(all(board).count() >= 6, "{name} is nearly empty");
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
        let mut ids = BTreeSet::new();
        do_not_overlap(&name, list(&board, "panels"));
        list(&board, "panels").iter().for_each(|row| do_not_overlap(&name, list(row, "panels")));
        for panel in all(&board) {
            let place = format!("{name}, panel {}: {}", panel["id"], text(panel, "title"));
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}: the id is taken");
            assert!(PANELS.contains(&text(panel, "type")), "{place} is a {}", text(panel, "type"));
            let targets = list(panel, "targets");
            let refs: BTreeSet<&str> = targets.iter().map(|target| text(target, "refId")).collect();
            assert!(refs.len() == targets.len() && !refs.contains(""), "{place}: refIds");
        }
    }
}

fn do_not_overlap(board: &str, panels: &[Value]) {
    let mut taken = BTreeMap::new();
    for panel in panels {
        let place = format!("{board}, panel {}: {}", panel["id"], text(panel, "title"));
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(w >= 3 && h >= 1 && x + w <= 24, "{place} is outside of the grid");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            if let Some(other) = taken.insert(cell, place.clone()) {
                panic!("{place} overlaps {other}");
            }
        }
    }
}

#[test]
fn all_rows_but_the_first_are_collapsed() {
    for (name, board) in dashboards() {
        let rows = list(&board, "panels").iter().filter(|panel| text(panel, "type") == "row");
        for (n, row) in rows.enumerate() {
            let place = format!("{name}, row {}", text(row, "title"));
            assert_eq!(row["collapsed"], n > 0, "{place}");
            // Grafana keeps the panels of a collapsed row inside it, those of an open row beside it.
            assert_eq!(list(row, "panels").is_empty(), n == 0, "{place}");
        }
    }
}

/// Addresses of links in this value, wherever they are.
fn links(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("url").and_then(Value::as_str).filter(|url| !url.is_empty()).map(str::to_owned));
            map.values().for_each(|value| links(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| links(value, found)),
        _ => {}
    }
}

#[test]
fn links_lead_to_dashboards_and_every_stat_of_the_overview_has_one() {
    let boards = dashboards();
    for (name, board) in &boards {
        let mut found = Vec::new();
        links(board, &mut found);
        for url in found {
            let target = url.strip_prefix("/d/testbed-").map(|rest| rest.split('?').next().unwrap());
            assert!(target.is_some_and(|target| boards.contains_key(target)), "{name}: {url}");
        }
    }
    let stats: Vec<&Value> = panels(&boards["overview"]).filter(|panel| text(panel, "type") == "stat").collect();
    assert!(stats.len() >= 8, "only {} stats", stats.len());
    for stat in stats {
        assert_eq!(list(&stat["fieldConfig"]["defaults"], "links").len(), 1, "{}", text(stat, "title"));
    }
}

#[test]
fn the_runbook_is_that_of_the_alerts() {
    let boards = dashboards();
    let runbook = crate::deploy::read("deploy/prometheus/runbook.md");
    let shown: BTreeMap<&str, &str> = list(&boards["runbook"], "panels")
        .iter()
        .map(|panel| (text(panel, "title"), text(&panel["options"], "content")))
        .collect();
    let alerts = crate::alerts::alerts();
    let expected = alerts.keys().map(|alert| (alert.as_str(), crate::alerts::section(&runbook, alert))).collect();
    assert_eq!(shown, expected, "grafana/dashboards/runbook.json has the sections of deploy/prometheus/runbook.md");
    // And the panels that it names exist.
    let titles: BTreeSet<&str> = boards.values().flat_map(all).map(|panel| text(panel, "title")).collect();
    let text = runbook.replace('\n', " ");
    for title in text.split('"').skip(1).step_by(2).filter(|title| *title != "Recommendation testbed") {
        assert!(titles.contains(title), "the runbook names a panel \"{title}\", which does not exist");
    }
}

/// Each line of a burn panel is the two windows of an alert.
#[test]
fn burn_panels_have_the_windows_of_the_alerts() {
    let windows = |text: &str, sli: &str, ends: &[char]| -> Vec<String> {
        let series = format!("slo:{sli}_error:ratio_rate");
        let parts = text.split(&series).skip(1);
        parts.map(|rest| rest.split(ends).next().unwrap().to_owned()).collect()
    };
    let (boards, alerts) = (dashboards(), crate::alerts::alerts());
    for sli in ["availability", "latency"] {
        let of_alerts: BTreeSet<Vec<String>> = alerts
            .values()
            .map(|alert| windows(alert["expr"].as_str().unwrap(), sli, &[' ']))
            .flat_map(|windows| windows.chunks(2).map(<[String]>::to_vec).collect::<Vec<_>>())
            .collect();
        let panel = panels(&boards["overview"]).find(|panel| text(panel, "title") == format!("Burn rate: {sli}"));
        let shown: BTreeSet<Vec<String>> = list(panel.unwrap(), "targets")
            .iter()
            .flat_map(|target| windows(text(target, "expr"), sli, &[')']))
            .map(|pair| pair.trim_start_matches('(').split('|').map(str::to_owned).collect())
            .collect();
        assert_eq!(of_alerts.len(), 4);
        assert_eq!(shown, of_alerts, "{sli}");
    }
}

#[test]
fn texts_are_in_plain_words() {
    let mut texts = vec![("runbook.md".to_owned(), crate::deploy::read("deploy/prometheus/runbook.md"))];
    texts.extend(crate::alerts::alerts().into_iter().map(|(name, alert)| (name, alert["annotations"].to_string())));
    for (name, board) in dashboards() {
        for value in all(&board).chain([&board]) {
            let place = format!("{name}: {}", text(value, "title"));
            texts.push((place, format!("{} {}", text(value, "title"), text(value, "description"))));
        }
    }
    for (place, text) in texts {
        let words = format!(" {} ", text.to_lowercase().replace(['\n', '.', ',', ';', ':'], " "));
        for phrase in
            ["so many", "whoever", "whichever", "whatever", "nobody", "an own", "is told", "those that", "by itself"]
        {
            assert!(!words.contains(&format!(" {phrase} ")), "{place}: \"{phrase}\" is no plain English");
        }
    }
}

#[test]
fn faults_load_steps_scaling_and_alerts_are_annotations_everywhere() {
    for (name, board) in dashboards() {
        let annotations = list(&board["annotations"], "list");
        for (what, series) in [
            ("Faults", "faultproxy_fault_active"),
            ("Load steps", "loadgen_step"),
            ("Scaling", "autoscaler_decisions_total"),
            ("Alerts", "ALERTS"),
        ] {
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
