//! An outage over time: answers and errors, and the p99 of each second.

use super::{
    Key, Swatch, figure,
    over_time::{ticks, timeline},
    profile_class,
};
use crate::{
    numbers::{count, ms, pct, plain},
    outage,
    schema::{Outage, Report},
    svg::{Axis, Caption, Line, Point, lines},
};

pub(crate) fn outages(report: &Report) -> String {
    let mut out = String::new();
    for (i, of) in report.outages.iter().enumerate().filter(|(_, of)| !of.series.is_empty()) {
        let name = outage::name(report, of);
        let top = of.series.iter().map(|second| (second.good + second.errors) as f64).fold(0.0, f64::max);
        let back = match of.back_after_s {
            Some(seconds) => format!("back to normal {seconds} s after that"),
            None => "not back to normal within the run".into(),
        };
        let lead = format!(
            "Killed at second {}, started again at {}: {back}.",
            plain(of.killed_s.round()),
            plain(of.restarted_s.round())
        );
        let title = format!("{name} is killed");
        out.push_str(&timeline(&title, &lead, &of.series, (of.offered_per_s, "offered"), top, &format!("outage-{i}")));
        out.push_str(&latency(&format!("{name} is killed: errors and p99"), &lead, of, &format!("outage-p99-{i}")));
    }
    out
}

/// Milliseconds and percent share the axis: both start at nothing, and both are to stay low.
fn latency(title: &str, lead: &str, of: &Outage, id: &str) -> String {
    let point = |second: u32, y: f64, hint: String| Point { x: f64::from(second), y, hint, ..Point::default() };
    let p99 = of.series.iter().filter_map(|s| {
        let value = s.p99_ms?;
        Some(point(s.second, value, format!("second {}: p99 {} ms", s.second, ms(value))))
    });
    let errors = of.series.iter().filter_map(|s| {
        let value = outage::error_pct(s)?;
        Some(point(s.second, value, format!("second {}: {} % errors", s.second, pct(value))))
    });
    let mut drawn = [p99.collect::<Vec<_>>(), errors.collect()]
        .into_iter()
        .enumerate()
        .map(|(i, points)| Line { class: profile_class(i), shape: Some(i), points })
        .collect::<Vec<_>>();
    let top = drawn.iter().flat_map(|line| &line.points).map(|point| point.y).fold(0.0, f64::max);
    super::thin_markers(&mut drawn);
    let last = of.series.last().map_or(1.0, |second| f64::from(second.second)).max(1.0);
    let worst = |line: &Line| line.points.iter().map(|point| point.y).fold(0.0, f64::max);
    let described = format!(
        "Line chart. p99 at most {} ms, errors at most {} % of a second's answers.",
        ms(worst(&drawn[0])),
        pct(worst(&drawn[1]))
    );
    let caption = Caption { id, title, description: &described };
    let (x, y) = (Axis::ticks("second of the run", ticks(last)), Axis::from_zero("p99 in ms, errors in %", top, count));
    let key = |i, label: &str| Key { class: profile_class(i), swatch: Swatch::Line(i), label: label.into() };
    figure(title, lead, &lines(&caption, &x, &y, None, &drawn), &[key(0, "p99, ms"), key(1, "errors, %")])
}
