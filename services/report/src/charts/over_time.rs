//! Charts of answers over time: the seconds of a step.

use loadtest::figures::Tail;

use super::{Key, Swatch, figure};
use crate::{
    analysis::typical,
    numbers::{count, ms},
    schema::{Report, Second, Step},
    svg::{Axis, Caption, Slice, areas},
};

/// A step second by second, each profile.
pub(crate) fn timelines(report: &Report, users: u32) -> String {
    // One height for all panels of a step, so that they compare.
    let steps: Vec<&Step> =
        report.profiles.iter().filter_map(|p| typical(report, p, users)).filter(|s| !s.series.is_empty()).collect();
    let top = steps.iter().flat_map(|s| s.series.iter().map(|x| (x.good + x.errors) as f64)).fold(0.0, f64::max);
    let panels = steps.iter().enumerate().map(|(i, step)| {
        let title = format!("{} at {} requests/s, second by second", step.profile, count(step.offered_per_s));
        let level = Level { per_s: step.offered_per_s, name: "offered" };
        answers(&title, "", &step.series, &level, top, &format!("time-{users}-{i}"))
    });
    panels.collect()
}

/// A rate to compare the answers with.
pub(super) struct Level<'a> {
    pub(super) per_s: f64,
    pub(super) name: &'a str,
}

/// Good answers and errors of each second. `top`: requests per second at the top of the axis.
pub(super) fn answers(title: &str, lead: &str, series: &[Second], level: &Level, top: f64, id: &str) -> String {
    let slices: Vec<Slice> = series
        .iter()
        .map(|s| Slice {
            x: f64::from(s.second),
            lower: s.good as f64,
            upper: s.errors as f64,
            hint: format!(
                "second {}: {} good, {} errors, {} {} ms",
                s.second,
                count(s.good as f64),
                count(s.errors as f64),
                s.tail().map_or("p99", Tail::name),
                ms(s.tail().map_or(f64::NAN, Tail::ms))
            ),
        })
        .collect();
    let (good, errors): (u64, u64) = series.iter().fold((0, 0), |(g, e), s| (g + s.good, e + s.errors));
    let described = format!(
        "Area chart over {} seconds: {} good answers and {} errors in all.",
        series.len(),
        count(good as f64),
        count(errors as f64)
    );
    let last = series.last().map_or(1.0, |s| f64::from(s.second)).max(1.0);
    let caption = Caption { id, title, description: &described };
    let drawn = areas(
        &caption,
        &Axis::ticks("second of the step", ticks(last)),
        &Axis::from_zero("requests per second", top.max(level.per_s), count),
        level.per_s,
        &slices,
    );
    let key = |swatch, label: &str| Key { class: String::new(), swatch, label: label.into() };
    let keys = [key(Swatch::Area, "good"), key(Swatch::Hatch, "errors"), key(Swatch::Rule, level.name)];
    figure(title, lead, &drawn, &keys)
}

/// From 0 to `last`, about six round ones.
pub(super) fn ticks(last: f64) -> Vec<(f64, String)> {
    let strides = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0, 600.0];
    let stride = strides.into_iter().find(|stride| last / stride <= 6.5).unwrap_or(3600.0);
    let mut ticks: Vec<(f64, String)> =
        (0..=(last / stride) as u32).map(|i| f64::from(i) * stride).map(|v| (v, count(v))).collect();
    if ticks.last().is_some_and(|t| t.0 < last) {
        // The axis has to reach the last point; a tick without words does.
        ticks.push((last, String::new()));
    }
    ticks
}
