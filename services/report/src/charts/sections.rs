//! Charts of a section: curves on log scales, points, figures over time, answers of each second.

use super::{
    Axis, Caption, Key, Line, PROFILE_COLOURS, Point, Swatch, curve_class, figure, lines,
    over_time::{Level, answers, ticks},
    plain, thin_markers, tick,
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
        Drawing::Points { x_label, y_label, curves } => draw_points(id, chart, [x_label, y_label], curves),
        Drawing::OverTime { x_label, y_label, curves } => {
            let every = || curves.iter().flat_map(|curve| &curve.points);
            let last = every().map(|point| point.0).fold(1.0, f64::max);
            let highest = every().map(|point| point.1).fold(0.0, f64::max);
            let (x, y) = (Axis::ticks(x_label, ticks(last)), Axis::from_zero(y_label, highest, tick));
            draw_curves(id, chart, [x_label, y_label], curves, (&x, &y))
        }
        Drawing::Answers { series, level_per_s, level } => {
            let level = Level { per_s: *level_per_s, name: level };
            answers(&chart.title, &chart.meaning, series, &level, top, id)
        }
    }
}

/// Each name has another pair of colour and shape. The class hides the line of the key.
fn draw_points(id: &str, chart: &Chart, labels: [&str; 2], curves: &[Curve]) -> String {
    let [x_label, y_label] = labels;
    let axis = |label, of: fn(&(f64, f64)) -> f64| {
        Axis::from_zero(label, curves.iter().flat_map(|curve| &curve.points).map(of).fold(0.0, f64::max), tick)
    };
    let (x, y) = (axis(x_label, |point| point.0), axis(y_label, |point| point.1));
    let (mut all, mut keys) = (Vec::new(), Vec::new());
    for (i, curve) in curves.iter().enumerate() {
        let (class, shape) = (format!("{} marks", curve_class(i)), i + i / PROFILE_COLOURS);
        keys.push(Key { class: class.clone(), swatch: Swatch::Line(shape), label: curve.name.clone() });
        let points = curve.points.iter().map(|point| named_point(curve, labels, point)).collect();
        all.push(Line { class, shape: Some(shape), points });
    }
    let description = format!("Chart of points: {y_label} against {x_label}. {}", chart.meaning);
    let caption = Caption { id, title: &chart.title, description: &description };
    figure(&chart.title, &chart.meaning, &lines(&caption, &x, &y, None, &all), &keys)
}

fn named_point(curve: &Curve, [x_label, y_label]: [&str; 2], &(x, y): &(f64, f64)) -> Point {
    let hint = format!("{}: {} {x_label}, {} {y_label}", curve.name, plain(x), plain(y));
    Point { x, y, hint, ..Point::default() }
}

fn draw_curves(id: &str, chart: &Chart, labels: [&str; 2], curves: &[Curve], axes: (&Axis, &Axis)) -> String {
    let [x_label, y_label] = labels;
    let (mut all, mut keys) = (Vec::new(), Vec::new());
    for (i, curve) in curves.iter().enumerate() {
        let class = curve_class(i);
        keys.push(Key { class: class.clone(), swatch: Swatch::Line(i), label: curve.name.clone() });
        let points = curve.points.iter().map(|point| named_point(curve, labels, point)).collect();
        all.push(Line { class, shape: Some(i), points });
    }
    thin_markers(&mut all);
    let description = format!("Line chart: {y_label} over {x_label}. {}", chart.meaning);
    let caption = Caption { id, title: &chart.title, description: &description };
    figure(&chart.title, &chart.meaning, &lines(&caption, axes.0, axes.1, None, &all), &keys)
}
