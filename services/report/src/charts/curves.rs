//! Charts of an experiment's own: one figure against another, both on a log scale.

use super::super::findings::{Chart, Curve};
use super::super::numbers::plain;
use super::{Axis, Caption, Key, Line, PROFILE_COLOURS, Point, Swatch, figure, lines, profile_class, thin_markers};

/// One `<figure>` each.
pub(crate) fn curves(charts: &[Chart]) -> String {
    charts.iter().enumerate().map(|(n, chart)| drawn(n, chart)).collect()
}

fn drawn(n: usize, chart: &Chart) -> String {
    let mut all: Vec<Line> = Vec::new();
    let mut keys = Vec::new();
    for (i, curve) in chart.curves.iter().enumerate() {
        let class = class(i);
        keys.push(Key { class: class.clone(), swatch: Swatch::Line(i), label: curve.name.clone() });
        all.push(Line { class, shape: Some(i), points: points(chart, curve) });
    }
    let every = || chart.curves.iter().flat_map(|curve| &curve.points);
    let x = Axis::decades(&chart.x_label, every().map(|point| point.0));
    let y = Axis::decades(&chart.y_label, every().map(|point| point.1));
    thin_markers(&mut all);
    let description = format!("Line chart: {} over {}. {}", chart.y_label, chart.x_label, chart.meaning);
    let id = format!("curves-{n}");
    let caption = Caption { id: &id, title: &chart.title, description: &description };
    figure(&chart.title, &chart.meaning, &lines(&caption, &x, &y, None, &all), &keys)
}

/// There are six colours; a second round of them is dashed.
fn class(i: usize) -> String {
    let again = if i >= PROFILE_COLOURS { " again" } else { "" };
    format!("{}{again}", profile_class(i))
}

fn points(chart: &Chart, curve: &Curve) -> Vec<Point> {
    let point = |&(x, y): &(f64, f64)| {
        let hint = format!("{}: {} {}, {} {}", curve.name, plain(x), chart.x_label, plain(y), chart.y_label);
        Point { x, y, hint, ..Point::default() }
    };
    curve.points.iter().map(point).collect()
}
