//! What an experiment found out that is no evaluation of the service under load: tables and checks, written and shown as a
//! report is.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::schema::{Machine, Revision, SCHEMA_VERSION, Verdict};
use super::{charts, html, markdown, svg::escape, words};

/// `report.json` of such an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    pub schema_version: u32,
    /// Of the experiment; no report of an evaluation has this key.
    pub experiment: String,
    /// When it began, RFC 3339.
    pub created: String,
    /// What was done, in words.
    pub what: String,
    /// A shortened run: shown, but nothing is judged.
    pub quick: bool,
    pub machine: Machine,
    pub versions: BTreeMap<String, String>,
    pub revision: Revision,
    pub tables: Vec<Table>,
    #[serde(default)]
    pub charts: Vec<Chart>,
    /// The tables in numbers; the shape is the experiment's own.
    pub measured: serde_json::Value,
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
    #[serde(default)]
    pub remarks: Vec<String>,
}

/// Rows as long as the head; the first cell of each is its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub title: String,
    pub meaning: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Curves of one figure over another, both on a log scale. What is 0 stands at the axis's beginning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    pub title: String,
    pub meaning: String,
    /// With its unit.
    pub x_label: String,
    pub y_label: String,
    pub curves: Vec<Curve>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    pub name: String,
    /// `(x, y)`, along the line.
    pub points: Vec<(f64, f64)>,
}

impl Findings {
    /// `None`: the file is something else, such as an evaluation's report.
    ///
    /// # Errors
    /// The file cannot be read, or is of another schema than this program knows.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let Ok(findings) = serde_json::from_str::<Self>(&text) else { return Ok(None) };
        let version = findings.schema_version;
        ensure!(
            version == SCHEMA_VERSION,
            "{} has schema version {version}, this program reads {SCHEMA_VERSION}",
            path.display()
        );
        Ok(Some(findings))
    }

    /// Writes `report.json`, `report.md` and the self-contained `report.html` into `out`, which is created if missing.
    ///
    /// # Errors
    /// The folder or a file cannot be written.
    pub fn write_all(&self, out: &Path) -> Result<()> {
        super::write(out, self, &self.markdown(), &self.html())
    }

    /// Something was judged and failed.
    pub fn failed(&self) -> bool {
        self.verdicts.iter().any(|verdict| verdict.passed == Some(false))
    }

    fn markdown(&self) -> String {
        let text = markdown::text;
        let mut out = format!("# Experiment: {}\n\n{}\n", text(&self.experiment), text(&self.what));
        if self.quick {
            out.push_str("\n**Quick run: nothing is judged.**\n");
        }
        for table in &self.tables {
            out.push_str(&format!("\n## {}\n\n{}\n\n", text(&table.title), text(&table.meaning)));
            markdown::push_table(&mut out, &table.head, table.rows.iter().cloned());
        }
        markdown::push_checks(&mut out, &self.verdicts);
        markdown::push_remarks(&mut out, &self.remarks);
        out.push_str("\n## Conditions\n\n");
        let rows = self.conditions().into_iter().map(|(name, value)| vec![name, value]);
        markdown::push_table(&mut out, &["what", "value"].map(String::from), rows);
        out
    }

    fn html(&self) -> String {
        let title = format!("Experiment: {}", self.experiment);
        let quick = if self.quick { "<p class=\"banner\">Quick run: nothing is judged.</p>\n" } else { "" };
        let mut body = format!(
            "<header>\n<p class=\"kicker\">Recommendation testbed · {}</p>\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n{quick}</header>\n",
            escape(&self.created),
            escape(&title),
            escape(&self.what)
        );
        if !self.charts.is_empty() {
            body.push_str(&format!(
                "<section aria-labelledby=\"curves\"><h2 id=\"curves\">The curves</h2>\n<div class=\"charts\">{}</div></section>\n",
                charts::curves(&self.charts)
            ));
        }
        body.push_str(
            "<section aria-labelledby=\"figures\"><h2 id=\"figures\">The figures</h2>\n<div class=\"tables\">",
        );
        for table in &self.tables {
            body.push_str(&html::plain_table(&table.title, &table.meaning, &table.head, &table.rows));
        }
        body.push_str("</div></section>\n");
        body.push_str(&html::checks(&self.verdicts));
        body.push_str(&html::remarks(&self.remarks));
        body.push_str(&html::conditions(&self.conditions(), ""));
        html::page(&title, &body)
    }

    fn conditions(&self) -> Vec<(String, String)> {
        let mut all = vec![
            ("Machine".into(), words::machine(&self.machine)),
            ("Source code".into(), words::revision(&self.revision)),
            ("Begun".into(), self.created.clone()),
        ];
        all.extend(self.versions.iter().map(|(name, version)| (format!("Version: {name}"), version.clone())));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal;

    fn findings() -> Findings {
        let cells = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        Findings {
            schema_version: SCHEMA_VERSION,
            experiment: "codecs".into(),
            created: "2026-01-01T00:00:00Z".into(),
            what: "three <ways>".into(),
            quick: false,
            machine: Machine::default(),
            versions: BTreeMap::from([("rustc".into(), "1.95".into())]),
            revision: Revision::default(),
            tables: vec![Table {
                title: "Bytes".into(),
                meaning: "of a beat".into(),
                head: cells(["codec", "bytes"]),
                rows: vec![cells(["JSON", "187"])],
            }],
            charts: vec![Chart {
                title: "Size & speed".into(),
                meaning: "smaller is slower".into(),
                x_label: "bytes".into(),
                y_label: "ns".into(),
                curves: vec![Curve { name: "Protobuf".into(), points: vec![(0.0, 900.0), (73.0, 10.0)] }],
            }],
            measured: serde_json::json!({"JSON": {"bytes": 187.0}}),
            verdicts: vec![Verdict {
                name: "small".into(),
                expected: "≤ 100".into(),
                measured: "187".into(),
                passed: Some(false),
                note: "why".into(),
                undecided: false,
            }],
            remarks: vec!["a remark".into()],
        }
    }

    #[test]
    fn written_read_and_shown() {
        let dir = tempfile::tempdir().unwrap();
        let findings = findings();
        findings.write_all(dir.path()).unwrap();
        assert_eq!(Findings::load(&dir.path().join("report.json")).unwrap().as_ref(), Some(&findings));
        let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let (page, markdown, shown) =
            (read("report.html"), read("report.md"), terminal::render_findings(&findings, false));
        for part in ["187", "small", "a remark", "Bytes"] {
            assert!(page.contains(part) && markdown.contains(part) && shown.contains(part), "{part}");
        }
        assert!(page.contains("three &lt;ways&gt;") && findings.failed());
        assert!(page.contains("Size &amp; speed") && page.contains("Protobuf: 73") && !page.contains("NaN"));
    }

    #[test]
    fn a_report_of_an_evaluation_is_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report.json");
        std::fs::write(&file, "{\"schema_version\": 1, \"scenario\": {}}").unwrap();
        assert_eq!(Findings::load(&file).unwrap(), None);
    }
}
