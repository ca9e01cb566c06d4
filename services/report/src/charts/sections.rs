//! Charts of a section: curves on log scales, figures over time, answers of each second.

use super::{
    Axis, Caption, Key, Line, Point, Swatch, count, curve_class, figure, lines,
    over_time::{Level, answers, ticks},
    plain, thin_markers,
};
use crate::section::{Chart, Curve, Drawing, Section};

/// One `<figure>` each; `n` numbers the sections of a page.
pub(crate) fn of_section(n: usize, section: &Section) -> String {
    // One height for all panels, so that they compare.
    let top = section.charts.iter().filter_map(highest_second).fold(0.0, f64::max);
    let drawn = section.charts.iter().enumerate().map(|(m, chart)| draw(&format!("section-{n}-{m}"), chart, top));
    drawn.collect()
}

fn highest_second(chart: &Chart) -> Option<f64> {
    let Drawing::Answers { series, .. } = &chart.drawing else { return None };
    series.iter().map(|second| (second.good + second.errors) as f64).max_by(f64::total_cmp)
}

fn draw(id: &str, chart: &Chart, top: f64) -> String {
    match &chart.drawing {
        Drawing::LogLog { x_label, y_label, curves } => {
            let every = || curves.iter().flat_map(|curve| &curve.points);
            let x = Axis::decades(x_label, every().map(|point| point.0));
            let y = Axis::decades(y_label, every().map(|point| point.1));
            draw_curves(id, chart, [x_label, y_label], curves, (&x, &y))
        }
        Drawing::OverTime { x_label, y_label, curves } => {
            let every = || curves.iter().flat_map(|curve| &curve.points);
            let last = every().map(|point| point.0).fold(1.0, f64::max);
            let highest = every().map(|point| point.1).fold(0.0, f64::max);
            let (x, y) = (Axis::ticks(x_label, ticks(last)), Axis::from_zero(y_label, highest, count));
            draw_curves(id, chart, [x_label, y_label], curves, (&x, &y))
        }
        Drawing::Answers { series, level_per_s, level } => {
            let level = Level { per_s: *level_per_s, name: level };
            answers(&chart.title, &chart.meaning, series, &level, top, id)
        }
    }
}

fn draw_curves(id: &str, chart: &Chart, labels: [&str; 2], curves: &[Curve], axes: (&Axis, &Axis)) -> String {
    let [x_label, y_label] = labels;
    let (mut all, mut keys) = (Vec::new(), Vec::new());
    for (i, curve) in curves.iter().enumerate() {
        let class = curve_class(i);
        keys.push(Key { class: class.clone(), swatch: Swatch::Line(i), label: curve.name.clone() });
        let point = |&(x, y): &(f64, f64)| {
            let hint = format!("{}: {} {x_label}, {} {y_label}", curve.name, plain(x), plain(y));
            Point { x, y, hint, ..Point::default() }
        };
        all.push(Line { class, shape: Some(i), points: curve.points.iter().map(point).collect() });
    }
    thin_markers(&mut all);
    let description = format!("Line chart: {y_label} over {x_label}. {}", chart.meaning);
    let caption = Caption { id, title: &chart.title, description: &description };
    figure(&chart.title, &chart.meaning, &lines(&caption, axes.0, axes.1, None, &all), &keys)
}
