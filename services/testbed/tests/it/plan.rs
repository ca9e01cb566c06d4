//! `plan` as a process: exit codes, what is printed where, streams.

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use crate::Home;

const CASE: &str =
    r#"{"id":"a","kind":"external","current_replicas":3,"values_milli":[4500],"target_average_milli":1000}"#;
const ANSWER: &str = concat!(
    r#"{"id":"a","replicas":5,"usage_milli":1500,"explain":["#,
    r#""The metric is 4.5, the target is 1 per replica: 4.5 / 1, rounded up, is 5."]}"#
);
const MANIFEST: &str =
    "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nspec:\n  minReplicas: 8\n  maxReplicas: 20\n";

#[test]
fn bad_lines_are_reported_and_the_others_answered() {
    let home = Home::bare();
    let lines = [
        CASE,
        "{nonsense",
        r#"{"id":"b","kind":"rate","replicas":1}"#,
        r#"{"id":"c","kind":"rate","current_replicas":1,"desired_replicas":1,"min_replicas":3,"max_replicas":2,"behavior":{}}"#,
        r#"{"id":"d","kind":"external","current_replicas":3,"values_milli":[9223372036854775808],"target_value_milli":1}"#,
        r#"{"id":"e","kind":"external","current_replicas":3,"tolerance_up":NaN}"#,
        r#"{"id":"f","kind":"external","current_replicas":3,"target_value_milli":1}"#,
    ];
    std::fs::write(home.path().join("cases"), lines.join("\n")).unwrap();
    let output = home.run(&["plan", "cases"]);
    assert_eq!(output.status.code(), Some(1));
    let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(out.lines().count(), 2, "{out}");
    assert_eq!(out.lines().next(), Some(ANSWER));
    assert!(out.lines().nth(1).unwrap().contains(r#""error":"no_external_metrics""#), "{out}");
    let expected = [
        "line 2: ",
        "line 3: replicas: unknown field",
        "line 4: min_replicas: 3",
        "line 5: values_milli[0]",
        "line 6: tolerance_up",
    ];
    assert_eq!(error.lines().count(), expected.len(), "{error}");
    assert!(error.lines().zip(expected).all(|(line, expected)| line.starts_with(expected)), "{error}");
    // Missing metrics are an answer.
    std::fs::write(home.path().join("cases"), lines[6]).unwrap();
    assert_eq!(home.run(&["plan", "cases"]).status.code(), Some(0));
}

#[test]
fn a_manifest_fills_in_and_a_wrong_one_stops_everything() {
    let home = Home::bare();
    std::fs::write(home.path().join("hpa.yaml"), MANIFEST).unwrap();
    std::fs::write(home.path().join("cases"), r#"{"id":"a","kind":"reconcile","current_replicas":30,"steps":[{}]}"#)
        .unwrap();
    let answer = home.json(&["plan", "--hpa", "hpa.yaml", "cases"]);
    assert_eq!(answer["steps"][0]["replicas"], 20);
    assert!(home.ok(&["plan", "--hpa", "hpa.yaml", "cases", "--table"]).contains("30 → 20"));
    assert!(home.fails(&["plan", "cases"]).contains("line 1: max_replicas: is missing"));

    std::fs::write(home.path().join("hpa.yaml"), MANIFEST.replace("v2", "v1")).unwrap();
    let output = home.run(&["plan", "--hpa", "hpa.yaml", "cases"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("hpa.yaml: line 1: apiVersion"), "{error}");
}

#[test]
fn each_line_is_answered_before_the_next_is_read() {
    let home = Home::bare();
    let mut child = home.command(&["plan", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        writeln!(input, "{CASE}").unwrap();
        assert_eq!(output.next().unwrap().unwrap(), ANSWER);
    }
    drop(input);
    assert!(output.next().is_none());
    assert!(child.wait().unwrap().success());
}
