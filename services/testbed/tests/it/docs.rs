//! The documents: links, anchors and paths resolve, lengths are kept, examples compile, generated parts are current.
//! That each command is accepted is checked in `commands/docs/tests.rs`, where the command line is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use loadtest::{
    model::open::{self, GivenUp},
    scenario::Scenario,
};

use crate::{Home, dashboards::expressions};

#[path = "../../../../docs/examples/detector.rs"]
mod example_detector;
#[path = "../../../../docs/examples/guard.rs"]
mod example_guard;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn examples() -> PathBuf {
    root().join("docs/examples")
}

/// All files below a directory; build results and hidden directories left out.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with('.') || ["target", "reports"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// Path from the root → text.
fn documents(files: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    let root = root();
    let of_project = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let files = files.iter().filter(of_project);
    files.map(|path| (path.strip_prefix(&root).unwrap().to_owned(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The text outside of fenced blocks.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// Inline code, and the prose without it.
fn split_code(prose: &str) -> (Vec<&str>, String) {
    let parts: Vec<&str> = prose.split('`').collect();
    let code = parts.iter().skip(1).step_by(2).copied().collect();
    (code, parts.iter().step_by(2).copied().collect::<Vec<_>>().join("`"))
}

/// Targets of `[text](target)`.
fn links(prose: &str) -> Vec<String> {
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// Anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in prose(text).lines().filter(|line| line.starts_with('#')) {
        let title = heading.trim_start_matches('#').trim();
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let anchor: String =
            title.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect();
        let mut unique = anchor.clone();
        let mut number = 0;
        while !anchors.insert(unique.clone()) {
            number += 1;
            unique = format!("{anchor}-{number}");
        }
    }
    anchors
}

#[test]
fn every_link_and_anchor_resolves() {
    let mut files = Vec::new();
    walk(&root(), &mut files);
    let documents = documents(&files);
    let (mut broken, mut count) = (Vec::new(), 0);
    for (file, text) in &documents {
        let prose = prose(text);
        for target in links(&split_code(&prose).1) {
            if target.starts_with("http://") || target.starts_with("https://") {
                continue;
            }
            count += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let full = root().join(file).parent().unwrap().join(path);
            let full = if path.is_empty() { root().join(file) } else { full };
            let exists = full.exists();
            let has_anchor =
                anchor.is_empty() || std::fs::read_to_string(&full).is_ok_and(|text| anchors(&text).contains(anchor));
            if !exists || !has_anchor {
                broken.push(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
    assert!(count > 60, "only {count} links found");
}

/// `{a,b}` expanded.
fn alternatives(text: &str) -> Vec<String> {
    match text.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
        Some((before, (inside, after))) => {
            inside.split(',').flat_map(|part| alternatives(&format!("{before}{part}{after}"))).collect()
        }
        None => vec![text.to_owned()],
    }
}

#[test]
fn every_path_of_the_repository_in_the_documents_exists() {
    let mut files = Vec::new();
    walk(&root(), &mut files);
    let names: BTreeSet<String> =
        files.iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let is_end = |path: &str| files.iter().any(|file| file.ends_with(path) || file.parent().unwrap().ends_with(path));
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-{},".contains(c);
    let (mut missing, mut count) = (Vec::new(), 0);
    for (file, text) in documents(&files) {
        // It tells of files that are gone.
        if file == Path::new("CHANGELOG.md") {
            continue;
        }
        let prose = prose(&text);
        for token in split_code(&prose).0 {
            if !token.chars().all(plain) || token.starts_with('/') {
                continue;
            }
            for path in alternatives(token) {
                let first = path.split('/').next().unwrap();
                let of_root = path.contains('/')
                    && ["services", "loadtest", "docs", "deploy", "grafana", "migrations"].contains(&first);
                let is_source = path.ends_with(".rs");
                if !of_root && !is_source {
                    continue;
                }
                count += 1;
                let found = root().join(&path).exists()
                    || (!of_root && if path.contains('/') { is_end(&path) } else { names.contains(&path) });
                if !found {
                    missing.push(format!("{}: {path}", file.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "paths that do not exist:\n{}", missing.join("\n"));
    assert!(count > 100, "only {count} paths found");
}

#[test]
fn readme_and_architecture_are_short() {
    for (name, most) in [("README.md", 150), ("ARCHITECTURE.md", 250)] {
        let lines = std::fs::read_to_string(root().join(name)).unwrap().lines().count();
        assert!(lines <= most, "{name} has {lines} lines, at most {most}");
    }
}

#[test]
fn the_reference_of_settings_is_current() {
    let file = root().join("docs/configuration.md");
    Home::bare().ok(&["docs", "configuration", "--check", file.to_str().unwrap()]);
}

#[test]
fn the_reports_in_the_documents_can_be_read() {
    let home = Home::bare();
    for entry in std::fs::read_dir(root().join("docs/results")).unwrap() {
        let dir = entry.unwrap().path();
        assert!(home.ok(&["report", dir.to_str().unwrap()]).contains("protected"), "{}", dir.display());
    }
}

#[test]
fn the_example_scenario_is_valid() {
    let file = examples().join("scenario.toml");
    let scenario = Scenario::load(file.to_str().unwrap()).unwrap();
    assert_eq!(scenario.faults_of(1).len(), 1);
}

/// The queueing model says of it what its comments say: the store does not recover with these retries, and does without them.
#[test]
fn the_example_of_retries_overloads_its_store() {
    let scenario = Scenario::load(examples().join("retries.toml").to_str().unwrap()).unwrap();
    assert_eq!(scenario.store_capacity_per_s().map(f64::round), Some(313.0));
    assert_eq!(scenario.law.rate_per_s(61.0).map(f64::round), Some(383.0));
    let goodput_of_offered = |scenario: &Scenario| {
        let seconds = open::run(scenario, 200, 1, GivenUp::Leaves).unwrap();
        let last = &seconds[seconds.len() - 5..];
        let sum = |figure: fn(&open::Second) -> u64| last.iter().map(figure).sum::<u64>() as f64;
        sum(|second| second.good) / sum(|second| second.requests)
    };
    assert!(goodput_of_offered(&scenario) < 0.5);
    let mut once = scenario;
    once.retry.as_mut().unwrap().attempts = 1;
    assert!(goodput_of_offered(&once) > 0.9);
}

/// The script is the command of these figures. A line that is missing is found.
#[test]
fn the_tables_of_scale_are_those_of_its_script() {
    if !launcher::testing::have(&["python3"]) {
        return;
    }
    let check = |document: &Path| {
        let mut script = Command::new("python3");
        script.arg(examples().join("scale.py")).arg("--check").arg(document).output().unwrap()
    };
    let document = root().join("docs/scale.md");
    let output = check(&document);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = std::fs::read_to_string(&document).unwrap();
    let fewer: Vec<&str> = text.lines().filter(|line| !line.starts_with("| memory of each worker |")).collect();
    let scratch = tempfile::tempdir().unwrap();
    let changed = scratch.path().join("scale.md");
    std::fs::write(&changed, fewer.join("\n")).unwrap();
    let output = check(&changed);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stdout).contains("| memory of each worker |"));
}

fn promtool(dir: &Path, args: &[&str]) {
    let program = launcher::find_program(&["promtool"]).unwrap();
    let output = Command::new(program).args(args).current_dir(dir).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {said}");
}

#[test]
fn the_example_alert_fires_in_its_case_and_the_example_dashboard_asks_what_prometheus_understands() {
    let board = serde_json::from_slice(&std::fs::read(examples().join("dashboard.json")).unwrap()).unwrap();
    let expressions = expressions(&board);
    assert!(expressions.len() >= 4, "the panel and the annotations: {expressions:?}");
    if !launcher::testing::have(&["promtool"]) {
        return;
    }
    promtool(&examples(), &["test", "rules", "alert_test.yml"]);
    let rules: Vec<serde_json::Value> = expressions
        .into_iter()
        .enumerate()
        .map(|(n, (_, expression))| {
            serde_json::json!({ "record": format!("rule_{n}"), "expr": expression.replace("$__rate_interval", "10s") })
        })
        .collect();
    let scratch = tempfile::tempdir().unwrap();
    // JSON is YAML.
    let groups = serde_json::json!({ "groups": [{ "name": "example", "rules": rules }] });
    std::fs::write(scratch.path().join("rules.yml"), groups.to_string()).unwrap();
    promtool(scratch.path(), &["check", "rules", "rules.yml"]);
}
