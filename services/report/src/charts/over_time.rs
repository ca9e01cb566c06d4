//! Charts over time: seconds of a step, a surge and its end, the minutes of a soak.

use std::collections::BTreeSet;

use super::{Key, PROCESS_COLOURS, Swatch, figure, profile_class};
use crate::{
    analysis::typical,
    numbers::{count, ms, plain},
    schema::{Report, Second, Step},
    svg::{Axis, Caption, Line, Point, Slice, areas, lines},
};

/// The highest steps second by second: the two highest with up to two profiles, else the highest.
pub(crate) fn timelines(report: &Report) -> String {
    let mut users = report.user_steps();
    users.drain(..users.len().saturating_sub(if report.profiles.len() <= 2 { 2 } else { 1 }));
    let mut out = String::new();
    for users in users {
        // One height for all panels of a step, so that they compare.
        let steps: Vec<&Step> =
            report.profiles.iter().filter_map(|p| typical(report, p, users)).filter(|s| !s.series.is_empty()).collect();
        let top = steps.iter().flat_map(|s| s.series.iter().map(|x| (x.good + x.errors) as f64)).fold(0.0, f64::max);
        for (i, step) in steps.iter().enumerate() {
            let title = format!("{} at {} requests/s, second by second", step.profile, count(step.offered_per_s));
            let level = (step.offered_per_s, "offered");
            out.push_str(&timeline(&title, "", &step.series, level, top, &format!("time-{users}-{i}")));
        }
    }
    out
}

/// Each surge, with what is offered before and after it as a level.
pub(crate) fn recoveries(report: &Report) -> String {
    let ended = |second: &Second| (second.good + second.errors) as f64;
    let top = report.recoveries.iter().flat_map(|r| r.series.iter().map(ended)).fold(0.0, f64::max);
    let charts = report.recoveries.iter().enumerate().filter(|(_, r)| !r.series.is_empty()).map(|(i, r)| {
        let title = format!("{} through the surge", r.profile);
        let back = match r.back_after_s {
            Some(seconds) => format!("back to normal {seconds} s after it"),
            None => "not back to normal within the run".into(),
        };
        let lead =
            format!("{} requests/s in seconds {} to {}: {back}.", count(r.peak_per_s), r.surge_from_s, r.surge_to_s);
        timeline(&title, &lead, &r.series, (r.base_per_s, "offered before and after"), top, &format!("surge-{i}"))
    });
    charts.collect()
}

/// `level`: a rate to compare with, and what it is.
pub(super) fn timeline(title: &str, lead: &str, series: &[Second], level: (f64, &str), top: f64, id: &str) -> String {
    let slices: Vec<Slice> = series
        .iter()
        .map(|s| Slice {
            x: f64::from(s.second),
            lower: s.good as f64,
            upper: s.errors as f64,
            hint: format!(
                "second {}: {} good, {} errors, p99 {} ms",
                s.second,
                count(s.good as f64),
                count(s.errors as f64),
                ms(s.p99_ms.unwrap_or(f64::NAN))
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
        &Axis::from_zero("requests per second", top.max(level.0), count),
        level.0,
        &slices,
    );
    let key = |swatch, label: &str| Key { class: String::new(), swatch, label: label.into() };
    let keys = [key(Swatch::Area, "good"), key(Swatch::Hatch, "errors"), key(Swatch::Rule, level.1)];
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

/// Memory by kind of process over the minutes of a soak.
pub(crate) fn soak(report: &Report) -> String {
    let Some(soak) = report.soak.as_ref().filter(|soak| soak.minutes.len() > 1) else { return String::new() };
    let names: BTreeSet<&String> = soak.minutes.iter().flat_map(|minute| minute.rss_mb.keys()).collect();
    let (mut drawn, mut keys, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for (i, name) in names.into_iter().take(PROCESS_COLOURS).enumerate() {
        let point = |minute: &crate::SoakMinute| {
            let mb = *minute.rss_mb.get(name)?;
            let hint = format!("{name}: {} MiB after minute {}", plain(mb), minute.minute);
            Some(Point { x: f64::from(minute.minute), y: mb, hint, ..Point::default() })
        };
        let points: Vec<Point> = soak.minutes.iter().filter_map(point).collect();
        if let (Some(first), Some(last)) = (points.first(), points.last()) {
            told.push(format!("{name}: from {} to {} MiB", plain(first.y), plain(last.y)));
        }
        keys.push(Key { class: profile_class(i), swatch: Swatch::Line(i), label: name.clone() });
        drawn.push(Line { class: profile_class(i), shape: Some(i), points });
    }
    let top = drawn.iter().flat_map(|line| &line.points).map(|point| point.y).fold(0.0, f64::max);
    super::thin_markers(&mut drawn);
    let last = soak.minutes.last().map_or(1.0, |minute| f64::from(minute.minute)).max(1.0);
    let title = "Memory over the soak";
    let caption = Caption { id: "soak", title, description: &format!("Line chart. {}.", told.join("; ")) };
    let (x, y) = (Axis::ticks("minute", ticks(last)), Axis::from_zero("resident memory, MiB", top, count));
    figure(title, "Replicas summed. A level line is what is wanted.", &lines(&caption, &x, &y, None, &drawn), &keys)
}
