//! Tables, charts and verdicts: what every report is made of besides its steps.

use loadtest::figures::Second;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validity::Validity;

/// One question and its figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Section {
    pub title: String,
    /// How to read it, in a sentence or two; may be empty.
    pub meaning: String,
    pub tables: Vec<Table>,
    pub charts: Vec<Chart>,
    /// The figures for programs. Each experiment has its own shape.
    pub measured: serde_json::Value,
}

/// Rows as long as the head; the first cell of each is its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Table {
    pub title: String,
    pub meaning: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// Too long for the terminal: only the pages show it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pages_only: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Chart {
    pub title: String,
    pub meaning: String,
    #[serde(flatten)]
    pub drawing: Drawing,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Drawing {
    /// One figure over another, both on log scales; 0 is drawn at the axis' beginning.
    LogLog { x_label: String, y_label: String, curves: Vec<Curve> },
    /// Points without lines, both axes from 0: one figure against another for each name.
    Points { x_label: String, y_label: String, curves: Vec<Curve> },
    /// Figures over time, both axes from 0.
    OverTime { x_label: String, y_label: String, curves: Vec<Curve> },
    /// Good answers and errors of each second, and a rate to compare them with.
    Answers { series: Vec<Second>, level_per_s: f64, level: String },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Curve {
    pub name: String,
    /// `(x, y)`, along the line.
    pub points: Vec<(f64, f64)>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    pub name: String,
    /// The tolerance, in words with units.
    pub expected: String,
    /// The figure that decides: the worst of the steps.
    pub measured: String,
    /// Null: not judged; the note says why.
    pub passed: Option<bool>,
    /// Each step's figure, and what kept a step from being judged.
    pub note: String,
    /// True: the verdict is open because a step that it needs was not valid, or because the confidence interval of a figure has values that
    /// meet the limit and values that do not. Absent in JSON if false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undecided: bool,
}

impl Section {
    pub fn new(title: &str, meaning: &str, measured: serde_json::Value) -> Self {
        Self { title: title.to_owned(), meaning: meaning.to_owned(), measured, ..Self::default() }
    }

    #[must_use]
    pub fn with_tables(self, tables: Vec<Table>) -> Self {
        Self { tables, ..self }
    }

    #[must_use]
    pub fn with_charts(self, charts: Vec<Chart>) -> Self {
        Self { charts, ..self }
    }
}

impl Table {
    pub fn new(title: &str, meaning: &str, head: &[&str], rows: Vec<Vec<String>>) -> Self {
        let head = head.iter().map(|&cell| cell.to_owned()).collect();
        Self { title: title.to_owned(), meaning: meaning.to_owned(), head, rows, pages_only: false }
    }
}

impl Chart {
    pub fn new(title: &str, meaning: &str, drawing: Drawing) -> Self {
        Self { title: title.to_owned(), meaning: meaning.to_owned(), drawing }
    }
}

impl Verdict {
    pub fn new(name: &str, expected: String, measured: String, passed: bool, note: &str) -> Self {
        Self {
            name: name.to_owned(),
            expected,
            measured,
            passed: Some(passed),
            note: note.to_owned(),
            undecided: false,
        }
    }

    /// Of a window of load: undecided with the reason if the window is not valid. A verdict that is not judged stays so.
    #[must_use]
    pub fn within(self, validity: &Validity) -> Self {
        if validity.is_valid() || self.passed.is_none() {
            return self;
        }
        let note = [validity.note(), self.note].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        Self { passed: None, undecided: true, note: note.join("; "), ..self }
    }
}
