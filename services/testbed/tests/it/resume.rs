//! A run that was killed goes on, and its report follows from the files beside it.

use std::{fs, io::Write};

use launcher::Signal;
use serde_json::{Value, json};

use crate::{Home, evaluate::SCENARIO, wait_until};

/// The steps that `steps.jsonl` has.
fn recorded(home: &Home) -> Vec<Value> {
    let text = fs::read_to_string(home.path().join("out/steps.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line.pointer("/step/step").cloned()).collect()
}

#[test]
fn a_killed_run_goes_on_and_its_report_can_be_checked() {
    let Some(home) = Home::new() else { return };
    let scenario = SCENARIO.replace("steps = [60]", "steps = [60, 80]");
    fs::write(home.path().join("tiny.toml"), &scenario).unwrap();
    let begin = ["evaluate", "--scenario", "tiny.toml", "--quick", "--users", "1000", "--out", "out"];
    let mut child = home.start(&begin);
    wait_until("the first step has ended", || !recorded(&home).is_empty());
    crate::signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    let before = recorded(&home);
    assert!(before.len() < 4, "it was killed too late");

    // The kill may come while a line is written.
    let mut file = fs::OpenOptions::new().append(true).open(home.path().join("out/steps.jsonl")).unwrap();
    file.write_all(b"{\"step\": {\"step\": {\"prof").unwrap();
    assert!(home.fails(&begin).contains("of a run that did not end: go on with ./testbed evaluate --resume out"));
    fs::write(home.path().join("tiny.toml"), scenario.replace("timeout_ms = 3000", "timeout_ms = 2950")).unwrap();
    let error = home.fails(&["evaluate", "--resume", "out"]);
    assert!(error.contains("cannot be resumed") && error.contains("scenario.timeout_ms: 3000, now 2950"), "{error}");
    fs::write(home.path().join("tiny.toml"), &scenario).unwrap();

    let report = home.json(&["evaluate", "--resume", "out", "--json"]);
    let steps = report["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| (step["profile"].as_str().unwrap(), step["users"].as_u64())).collect();
    let expected = [("baseline", 60), ("baseline", 80), ("protected", 60), ("protected", 80)];
    assert_eq!(names, expected.map(|(profile, users)| (profile, Some(users))));
    for (before, step) in before.iter().zip(steps) {
        for figure in ["mean_ms", "p99_ms", "good_per_s", "cpu_total_pct"] {
            let [before, after] = [before, step].map(|step| step[figure].as_f64().unwrap());
            assert!((before - after).abs() < 1e-6, "{figure}: {before}, now {after}");
        }
        assert_eq!((&before["samples"], &before["seed"]), (&step["samples"], &step["seed"]));
    }
    let remarks = report["remarks"].as_array().unwrap();
    let remark = remarks.iter().find(|remark| remark.as_str().unwrap().contains("interrupted and resumed at")).unwrap();
    assert!(remark.as_str().unwrap().contains("the steps up to baseline"), "{remark}");
    assert_eq!(report["manifest"]["argv"].as_array().unwrap().len(), begin.len());
    assert_eq!(report["manifest"]["binary_blake3"].as_str().unwrap().len(), 64);
    // Neither run has left anything.
    assert_eq!(home.processes(), [] as [u64; 0]);
    assert_eq!(fs::read_dir(home.path().join("stacks")).unwrap().count(), 0);

    let again = home.run(&["evaluate", "--resume", "out"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is complete"), "{again:?}");
    figures_are_checked(&home, &report);
}

fn figures_are_checked(home: &Home, report: &Value) {
    let checked = home.json(&["report", "check", "out", "--json"]);
    assert_eq!(checked["differences"], json!([]));
    assert!(checked["compared"]["histogram logs"].as_u64().unwrap() > 100, "{checked}");
    let path = home.path().join("out/report.json");
    for (pointer, place) in [
        ("/steps/0/p90_ms", "baseline 60, repeat 1"),
        ("/steps/1/cpu_total_pct", "baseline 80, repeat 1"),
        ("/steps/2/counts/gateway/generator", "protected 60, repeat 1"),
        ("/knees/0/peak_good_per_s", "knees"),
    ] {
        let mut changed = report.clone();
        let figure = changed.pointer_mut(pointer).unwrap();
        *figure = json!(figure.as_f64().map_or(1.0, |figure| figure + 1.0));
        if pointer.contains("counts") {
            *figure = json!(1);
        }
        fs::write(&path, serde_json::to_string(&changed).unwrap()).unwrap();
        let output = home.run(&["report", "check", "out"]);
        assert_eq!(output.status.code(), Some(2), "{pointer}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("✗ {place}")), "{pointer}: {output:?}");
    }
    fs::write(&path, serde_json::to_string(report).unwrap()).unwrap();
    let log = report["steps"][0]["hdr_log"].as_str().unwrap();
    fs::write(home.path().join("out").join(log), "damaged").unwrap();
    assert!(home.fails(&["report", "check", "out"]).contains(log));
}
