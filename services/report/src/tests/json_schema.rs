//! `report.schema.json`: current, and true of reports.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use super::{schema_walk::problems, *};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/report.schema.json");

/// Either kind of report.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum AnyReport {
    Experiment(Findings),
    Evaluation(Report),
}

fn schema() -> Value {
    let generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    let mut schema = generator.into_root_schema_for::<AnyReport>().to_value();
    schema["title"] = json!("report.json of ./testbed evaluate and ./testbed experiment");
    schema
}

/// What of a report does not match the schema.
pub fn problems_of(report: &Value) -> Vec<String> {
    problems(&schema(), report)
}

/// `UPDATE_SCHEMA=1` writes the file instead.
#[test]
fn the_schema_file_is_current() {
    let text = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let file = std::fs::read_to_string(FILE).unwrap();
    assert!(
        file == text,
        "services/report/report.schema.json is not current: run UPDATE_SCHEMA=1 cargo test --workspace --lib -- the_schema_file_is_current"
    );
}

#[test]
fn sample_reports_are_valid_and_broken_ones_are_not() {
    let schema = schema();
    let evaluations = [sample::report(), sample::ablation(), sample::repeated(), sample::with_extras()];
    let experiments = [sample::findings(), sample::plain_findings()];
    let evaluations = evaluations.iter().map(serde_json::to_value);
    for report in evaluations.chain(experiments.iter().map(serde_json::to_value)) {
        let report = report.unwrap();
        assert_eq!(problems(&schema, &report), [""; 0]);
        for (field, broken) in [("created", json!(7)), ("machine", json!({"cores": "two"})), ("verdicts", json!({}))] {
            let mut report = report.clone();
            report[field] = broken;
            assert!(!problems(&schema, &report).is_empty(), "{field}");
        }
    }
}
