//! Two or more sides measured in turns within one run, and their ratios. Pure, except for the measurement.

use std::collections::{BTreeMap, BTreeSet};

use report::{Machine, Revision};
use serde::Serialize;
use statistics::{median, percentile};

/// The figures of one run of one side. The unit is in the name.
pub type Figures = BTreeMap<&'static str, f64>;

/// `bench NAME --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub name: &'static str,
    /// What was done, in words.
    pub what: String,
    pub repeats: usize,
    /// Of the first ratio, as are the two below.
    pub ratio_median: f64,
    pub ratio_min: f64,
    pub ratio_max: f64,
    pub ratios: Vec<Ratio>,
    /// The ratios by the sampling rate, where the sides differ in it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rates: BTreeMap<String, Summary>,
    pub sides: Vec<Side>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Comparand>,
    pub conditions: Conditions,
}

/// A figure of a side, and one to compare it with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparand {
    pub side: String,
    pub figure: &'static str,
    /// Median.
    pub measured: f64,
    #[serde(flatten)]
    pub beside: Reference,
    /// `None`: there is no aim.
    pub met: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// Published; measured on another machine.
    Article(f64),
    AtLeast(f64),
    AtMost(f64),
}

/// A figure of one side over that of another, pair by pair: both runs of a pair lie close together, so a machine that slows
/// down in between slows both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    pub figure: &'static str,
    pub of: String,
    pub to: String,
    #[serde(flatten)]
    pub spread: Spread,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    pub ratio_median: f64,
    pub ratio_min: f64,
    pub ratio_max: f64,
}

impl Ratio {
    pub fn summary(&self) -> Summary {
        let Spread { median, min, max, .. } = self.spread;
        Summary { ratio_median: median, ratio_min: min, ratio_max: max }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    pub name: String,
    pub figures: BTreeMap<&'static str, Spread>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conditions {
    pub machine: Machine,
    pub versions: BTreeMap<String, String>,
    pub revision: Revision,
    /// What a reader must know to read the figures rightly, such as that this is a debug build.
    pub remarks: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// In the order measured.
    pub runs: Vec<f64>,
}

impl Spread {
    /// NaN throughout without runs.
    pub fn of(runs: Vec<f64>) -> Self {
        let at = |percent| percentile(&runs, percent).unwrap_or(f64::NAN);
        Self { median: median(&runs).unwrap_or(f64::NAN), min: at(0.0), max: at(100.0), runs }
    }
}

/// The sides of one turn: forwards, then backwards, because a later side runs on a warmer machine.
fn turn(sides: usize, number: usize) -> Vec<usize> {
    let forwards = 0..sides;
    if number.is_multiple_of(2) { forwards.collect() } else { forwards.rev().collect() }
}

/// Runs every side `repeats` times, in turns. Answers the runs by side, each in the order measured.
///
/// # Errors
/// The first run that fails ends it.
pub async fn in_turns(
    sides: usize,
    repeats: usize,
    mut run: impl AsyncFnMut(usize) -> anyhow::Result<Figures>,
) -> anyhow::Result<Vec<Vec<Figures>>> {
    let mut runs = vec![Vec::with_capacity(repeats); sides];
    for number in 0..repeats {
        for side in turn(sides, number) {
            runs[side].push(run(side).await?);
        }
    }
    Ok(runs)
}

impl Side {
    pub fn new(name: &str, runs: &[Figures]) -> Self {
        let names: Vec<&'static str> = runs.first().map(|run| run.keys().copied().collect()).unwrap_or_default();
        let runs_of = |figure| runs.iter().filter_map(|run| run.get(figure).copied()).collect();
        Self {
            name: name.to_owned(),
            figures: names.into_iter().map(|name| (name, Spread::of(runs_of(name)))).collect(),
        }
    }

    /// A side without the figure counts as one without runs.
    pub fn over(&self, other: &Self, figure: &'static str) -> Ratio {
        let runs = |side: &Self| side.figures.get(figure).map(|spread| spread.runs.clone()).unwrap_or_default();
        let pairs = std::iter::zip(runs(self), runs(other)).map(|(mine, theirs)| mine / theirs);
        Ratio { figure, of: self.name.clone(), to: other.name.clone(), spread: Spread::of(pairs.collect()) }
    }

    /// A side without the figure has NaN, which meets nothing.
    pub fn mark(&self, figure: &'static str, beside: Reference) -> Comparand {
        let measured = self.figures.get(figure).map_or(f64::NAN, |spread| spread.median);
        let met = match beside {
            Reference::Article(_) => None,
            Reference::AtLeast(least) => Some(measured >= least),
            Reference::AtMost(most) => Some(measured <= most),
        };
        Comparand { side: self.name.clone(), figure, measured, beside, met }
    }
}

impl Comparison {
    /// `ratios` must not be empty: the first is the answer.
    pub fn new(
        name: &'static str,
        what: String,
        sides: Vec<Side>,
        ratios: Vec<Ratio>,
        conditions: Conditions,
    ) -> anyhow::Result<Self> {
        let first = ratios.first().map(|ratio| ratio.spread.clone());
        let first = first.ok_or_else(|| anyhow::anyhow!("nothing was compared"))?;
        Ok(Self {
            name,
            what,
            repeats: first.runs.len(),
            ratio_median: first.median,
            ratio_min: first.min,
            ratio_max: first.max,
            ratios,
            rates: BTreeMap::new(),
            sides,
            marks: Vec::new(),
            conditions,
        })
    }

    pub fn beside(self, marks: Vec<Comparand>) -> Self {
        Self { marks, ..self }
    }

    /// For people: the median of each side's figures, then the ratios with their spread; ends in a line break.
    pub fn table(&self) -> String {
        let figures: BTreeSet<&str> = self.sides.iter().flat_map(|side| side.figures.keys().copied()).collect();
        let mut sides = vec![std::iter::once(String::new()).chain(figures.iter().map(|f| (*f).to_owned())).collect()];
        for side in &self.sides {
            let cell =
                |figure: &&str| side.figures.get(*figure).map_or_else(String::new, |spread| shown(spread.median));
            sides.push(std::iter::once(side.name.clone()).chain(figures.iter().map(cell)).collect());
        }
        let mut ratios = vec![["ratio", "median", "min", "max"].map(str::to_owned).to_vec()];
        for ratio in &self.ratios {
            let Spread { median, min, max, .. } = ratio.spread;
            let name = format!("{} / {}, {}", ratio.of, ratio.to, ratio.figure);
            ratios.push(std::iter::once(name).chain([median, min, max].map(shown)).collect());
        }
        let mut marks = vec![["beside", "measured", "other", "met"].map(str::to_owned).to_vec()];
        for mark in &self.marks {
            let other = match mark.beside {
                Reference::Article(value) => format!("{} (article)", shown(value)),
                Reference::AtLeast(value) => format!("≥ {}", shown(value)),
                Reference::AtMost(value) => format!("≤ {}", shown(value)),
            };
            let met = mark.met.map_or("", |met| if met { "yes" } else { "NO" });
            marks.push(vec![format!("{}, {}", mark.side, mark.figure), shown(mark.measured), other, met.to_owned()]);
        }
        let marks = if self.marks.is_empty() { String::new() } else { aligned(&marks) };
        let head = format!("{}: {}; {} runs of each side, in turns\n", self.name, self.what, self.repeats);
        let remarks: String = self.conditions.remarks.iter().map(|remark| format!("{remark}\n")).collect();
        let parts = [head, aligned(&sides), aligned(&ratios), marks, remarks];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let first = format!("{:<width$}", row[0], width = widths[0]);
        let rest = row[1..].iter().zip(&widths[1..]).map(|(cell, width)| format!("  {cell:>width$}"));
        std::iter::once(first).chain(rest).chain(["\n".to_owned()]).collect::<String>()
    };
    rows.iter().map(line).collect()
}

/// Four digits or a little more.
fn shown(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_odd_even_and_nothing() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of(vec![7.0]).median, 7.0);
        assert!(Spread::of(Vec::new()).median.is_nan());
    }

    #[tokio::test]
    async fn sides_take_turns_and_change_places() {
        let mut order = Vec::new();
        let runs = in_turns(3, 2, async |side| {
            order.push(side);
            Ok(Figures::from([("nth", order.len() as f64)]))
        });
        let runs = runs.await.unwrap();
        assert_eq!(order, [0, 1, 2, 2, 1, 0]);
        assert_eq!(runs[0], [Figures::from([("nth", 1.0)]), Figures::from([("nth", 6.0)])]);
        let failed =
            in_turns(2, 5, async |side| if side == 1 { anyhow::bail!("no") } else { Ok(Figures::new()) }).await;
        assert!(failed.is_err());
    }

    #[test]
    fn ratios_go_pair_by_pair() {
        let side = |name, runs: [f64; 3]| Side::new(name, &runs.map(|run| Figures::from([("per_s", run)])));
        // The machine was half as fast in the second turn: that is no difference of the sides.
        let (a, b) = (side("a", [100.0, 50.0, 110.0]), side("b", [200.0, 100.0, 200.0]));
        let ratio = a.over(&b, "per_s");
        assert_eq!((ratio.spread.median, ratio.spread.min, ratio.spread.max), (0.5, 0.5, 0.55));
        let conditions = Conditions {
            machine: Machine::default(),
            versions: BTreeMap::new(),
            revision: Revision::default(),
            remarks: vec!["a remark".into()],
        };
        let marks = vec![b.mark("per_s", Reference::AtLeast(300.0)), b.mark("per_s", Reference::Article(210.0))];
        let comparison = Comparison::new("x", "y".into(), vec![a, b], vec![ratio], conditions).unwrap().beside(marks);
        let json = serde_json::to_value(&comparison).unwrap();
        assert_eq!((json["ratio_median"].as_f64(), json["repeats"].as_u64()), (Some(0.5), Some(3)));
        assert_eq!(json["sides"][1]["figures"]["per_s"]["max"].as_f64(), Some(200.0));
        assert_eq!(json["ratios"][0]["of"], "a");
        assert_eq!(
            (json["marks"][0]["at_least"].as_f64(), json["marks"][0]["met"].as_bool()),
            (Some(300.0), Some(false))
        );
        assert_eq!((json["marks"][1]["article"].as_f64(), json["marks"][1]["met"].as_bool()), (Some(210.0), None));
        let table = comparison.table();
        assert!(table.contains("\na / b, per_s   0.500") && table.contains("a remark"), "{table}");
        assert!(table.contains("\n   per_s\na  100.0\nb  200.0\n"), "{table}");
        assert!(table.contains("≥ 300.0   NO\n"), "{table}");
    }
}
