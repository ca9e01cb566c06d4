//! What a parameter trades: mistakes against detection time, detector by detector. Pure.

use heartbeat::detector::KINDS;
use report::{Chart, Curve, Drawing, Table};

use super::{
    sweep::{Cell, Outcome, summary},
    text,
};

const X: &str = "mistakes a day";
const Y: &str = "p99 detection time, intervals";

/// A setting and its figures.
struct Point {
    setting: usize,
    p99: f64,
    mistakes: f64,
}

/// Settings of a detector that no other setting of it beats in both figures: mistakes ascending, p99 descending.
fn front(outcome: &Outcome, detector: &str, of: impl Fn(usize) -> Option<(f64, f64)>) -> Vec<Point> {
    let settings = (0..outcome.settings.len()).filter(|&n| outcome.settings[n].detector == detector);
    let mut known: Vec<Point> =
        settings.filter_map(|setting| of(setting).map(|(p99, mistakes)| Point { setting, p99, mistakes })).collect();
    known.sort_by(|a, b| a.mistakes.total_cmp(&b.mistakes).then(a.p99.total_cmp(&b.p99)));
    let mut soonest = f64::INFINITY;
    known.retain(|point| {
        let is_better = point.p99 < soonest;
        soonest = soonest.min(point.p99);
        is_better
    });
    known
}

/// Over all conditions and rates.
fn overall(outcome: &Outcome, detector: &str) -> Vec<Point> {
    let cells: Vec<&Cell> = outcome.cells.iter().collect();
    front(outcome, detector, |setting| summary(&cells, setting).map(|(p99, mistakes, _)| (p99, mistakes)))
}

pub fn table(outcome: &Outcome) -> Table {
    let cells: Vec<&Cell> = outcome.cells.iter().collect();
    let mut rows = Vec::new();
    for kind in &KINDS {
        for point in overall(outcome, kind.name) {
            let held = summary(&cells, point.setting).map_or(0, |all| all.2);
            let words = outcome.settings[point.setting].words();
            rows.push(vec![kind.name.into(), words, text(point.mistakes, 3), text(point.p99, 2), held.to_string()]);
        }
    }
    Table::new(
        "The curves' settings",
        "Settings that no other setting of the same detector beats in both mistakes a day (mean over the conditions) and p99 detection time (in \
         intervals, geometric mean). More allowed mistakes mean a shorter detection time. report.json has each condition separately. A \
         detector without rows makes more than 1,000 mistakes a day somewhere with every setting.",
        &["detector", "setting", X, "p99, intervals", "conditions held"],
        rows,
    )
}

/// One over all conditions, then each named condition at each rate.
pub fn charts(outcome: &Outcome) -> Vec<Chart> {
    let all = chart(
        "All conditions",
        "Mean of the mistakes, geometric mean of the p99. Lower left is better; settings without a mistake are at the left edge.",
        curves(|detector| overall(outcome, detector)),
    );
    let named = outcome.cells.iter().filter(|cell| !cell.condition.is_drawn());
    std::iter::once(all).chain(named.map(|cell| of_cell(outcome, cell))).collect()
}

fn of_cell(outcome: &Outcome, cell: &Cell) -> Chart {
    let of = |setting: usize| {
        cell.qualities[setting].as_ref().map(|q| (cell.intervals(q.detection_p99_s), q.mistakes_per_day))
    };
    let mut curves = curves(|detector| front(outcome, detector, of));
    let fitted = (cell.hindsight.mistakes_per_day, cell.intervals(cell.hindsight.detection_p99_s));
    curves.push(Curve { name: "fixed, fitted in hindsight".into(), points: vec![fitted] });
    chart(&cell.name(), cell.condition.description(), curves)
}

fn curves(front: impl Fn(&str) -> Vec<Point>) -> Vec<Curve> {
    let curve = |kind: &heartbeat::detector::DetectorKind| {
        let points: Vec<(f64, f64)> = front(kind.name).iter().map(|point| (point.mistakes, point.p99)).collect();
        (!points.is_empty()).then(|| Curve { name: kind.name.into(), points })
    };
    KINDS.iter().filter_map(curve).collect()
}

fn chart(title: &str, meaning: &str, curves: Vec<Curve>) -> Chart {
    Chart::new(title, meaning, Drawing::LogLog { x_label: X.into(), y_label: Y.into(), curves })
}
