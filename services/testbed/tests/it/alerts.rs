//! deploy/prometheus: each alert has a section in the runbook, and behaves as its cases in alerts_test.yml say. queries.rs checks that its
//! expression finds data; `experiment alerts`, that a real fault fires it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

fn prometheus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(prometheus().join(name)).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Every alert by its name.
pub fn alerts() -> BTreeMap<String, Value> {
    let file: Value = serde_saphyr::from_str(&read("alerts.yml")).unwrap();
    let rules = list(&file["groups"]).iter().flat_map(|group| list(&group["rules"]));
    rules.map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule.clone())).collect()
}

/// Of the runbook, without its heading.
pub fn section<'a>(runbook: &'a str, alert: &str) -> &'a str {
    runbook.split(&format!("## {alert}\n")).nth(1).unwrap().split("\n## ").next().unwrap().trim()
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_to_do() {
    let runbook = read("runbook.md");
    let sections: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    assert!(alerts.len() >= 9, "only {} alerts", alerts.len());
    assert_eq!(
        sections,
        alerts.keys().map(String::as_str).collect(),
        "a section of runbook.md for each alert, and no other"
    );
    for (name, alert) in &alerts {
        assert!(["page", "ticket"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{name}");
        assert!(alert["annotations"]["summary"].as_str().unwrap().len() > 20, "{name}");
        let (file, anchor) = alert["annotations"]["runbook_url"].as_str().unwrap().split_once('#').unwrap();
        let linked = std::fs::read_to_string(crate::deploy::root().join(file)).unwrap();
        let headings = linked.lines().filter_map(|line| line.strip_prefix("## "));
        // The anchor of a heading of one word, where Markdown is rendered.
        let found: Vec<&str> = headings.filter(|heading| heading.to_lowercase() == anchor).collect();
        assert_eq!(found, [name.as_str()], "{file}#{anchor}");
        let section = section(&linked, name);
        for word in ["**Means**", "**Look**", "**Do**"] {
            assert!(section.contains(word), "{name}: the runbook does not say {word}");
        }
    }
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let file: Value = serde_saphyr::from_str(&read("alerts_test.yml")).unwrap();
    let cases = list(&file["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"]));
    let (mut fires, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for case in cases {
        let name = case["alertname"].as_str().unwrap().to_owned();
        if list(&case["exp_alerts"]).is_empty() {
            silent.insert(name)
        } else {
            fires.insert(name)
        };
    }
    let all: BTreeSet<String> = alerts().into_keys().collect();
    assert_eq!(fires, all);
    assert_eq!(silent, all);
}

fn promtool(dir: &Path) -> Output {
    let program = launcher::find_program(&["promtool"]).unwrap();
    Command::new(program).args(["test", "rules", "alerts_test.yml"]).current_dir(dir).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn alerts_fire_and_clear_when_they_should() {
    if !launcher::testing::have(&["promtool"]) {
        return;
    }
    let output = promtool(&prometheus());
    assert!(output.status.success(), "{}", said(&output));
}

/// The cases notice an alert that is a little off: each one, spoiled on purpose, fails them.
#[test]
fn the_cases_notice_a_spoiled_alert() {
    if !launcher::testing::have(&["promtool"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    std::fs::copy(prometheus().join("rules.yml"), scratch.path().join("rules.yml")).unwrap();
    let (sound, cases): (String, Value) =
        (read("alerts.yml"), serde_saphyr::from_str(&read("alerts_test.yml")).unwrap());
    for (name, alert) in alerts() {
        // Its comparisons, turned round.
        let is_equal = alert["expr"].as_str().unwrap().contains(" == ");
        let (at, turned) = if is_equal { (" == ", " != ") } else { (" > ", " < ") };
        let (before, after) = sound.split_once(&format!("alert: {name}\n")).unwrap();
        let (expression, rest) = after.split_once("labels:").unwrap();
        let spoiled = format!("{before}alert: {name}\n{}labels:{rest}", expression.replace(at, turned));
        assert_ne!(spoiled, sound, "{name}");
        std::fs::write(scratch.path().join("alerts.yml"), &spoiled).unwrap();
        // Only the cases that speak of it: all of them for each of the alerts would take a minute.
        let mut of_it = cases.clone();
        let speaks =
            |test: &Value| list(&test["alert_rule_test"]).iter().any(|case| case["alertname"] == name.as_str());
        of_it["tests"].as_array_mut().unwrap().retain(speaks);
        // JSON is YAML.
        std::fs::write(scratch.path().join("alerts_test.yml"), of_it.to_string()).unwrap();
        let output = promtool(scratch.path());
        assert!(!output.status.success(), "{name}, spoiled, passes");
        assert!(said(&output).contains(name.as_str()), "{name}: {}", said(&output));
    }
}
