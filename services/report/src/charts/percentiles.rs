//! Latency by percentile, as HdrHistogram plots it: each further nine has the same room.

use statistics::has_percentile;

use super::{
    Axis, Caption, Key, Line, Point, Swatch, count, figure, ms, plain, profile_class, tagged_lines, thin_markers,
};
use crate::{
    analysis::typical,
    schema::{Report, Step},
};

/// Requests beyond it are fewer than one in 100,000.
const LEAST_SHARE: f64 = 1e-5;

/// Every profile's latencies in one step.
pub(crate) fn percentiles(report: &Report, users: u32) -> String {
    let profiles = report.profiles.iter().enumerate();
    let lines = profiles.filter_map(|(i, profile)| {
        let step = typical(report, profile, users)?;
        Some(Measured { name: profile.clone(), class: profile_class(i), shape: i, step })
    });
    let offered = report.steps.iter().find(|s| s.users == users).map_or(f64::NAN, |s| s.offered_per_s);
    let title = format!("Latency by percentile at {} requests/s", count(offered));
    by_percentile(&format!("percentiles-{users}"), &title, &lines.collect::<Vec<_>>(), &[])
}

/// A step and how its line looks.
pub(super) struct Measured<'a> {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) shape: usize,
    pub(super) step: &'a Step,
}

/// `tags`: short names beside the ends of the lines. Empty if no step has percentiles.
pub(super) fn by_percentile(id: &str, title: &str, measured: &[Measured], tags: &[String]) -> String {
    let mut drawn = Vec::new();
    let mut keys = Vec::new();
    let mut described = Vec::new();
    let mut shown_tags = Vec::new();
    for (n, one) in measured.iter().enumerate().filter(|(_, one)| !one.step.latency_curve.is_empty()) {
        let step = one.step;
        let points = step.latency_curve.iter().map(|&(p, v)| Point {
            x: nines(p),
            y: v.max(1e-3),
            hint: format!("{}: {} % within {} ms", one.name, plain(p), ms(v)),
            ..Point::default()
        });
        let p99 =
            if has_percentile(99.0, step.samples()) { format!("p99 {} ms, ", ms(step.p99_ms)) } else { String::new() };
        described.push(format!("{}: p50 {} ms, {p99}longest {} ms", one.name, ms(step.p50_ms), ms(step.max_ms)));
        keys.push(Key { class: one.class.clone(), swatch: Swatch::Line(one.shape), label: one.name.clone() });
        shown_tags.extend(tags.get(n).cloned());
        drawn.push(Line { class: one.class.clone(), shape: Some(one.shape), points: points.collect() });
    }
    if drawn.is_empty() {
        return String::new();
    }
    let deepest = drawn.iter().flat_map(|l| &l.points).map(|p| p.x).fold(2.0, f64::max);
    let y = Axis::decades("latency, ms (log scale)", drawn.iter().flat_map(|l| &l.points).map(|p| p.y));
    let x = Axis::ticks("percent of requests with at most this latency", ticks(deepest));
    let caption = Caption { id, title, description: &format!("Line chart. {}.", described.join("; ")) };
    // Markers at every point of a dense curve would be a smear.
    thin_markers(&mut drawn);
    // Each line has become two, the bare one and its markers.
    let shown_tags: Vec<String> = shown_tags.into_iter().flat_map(|tag| [tag, String::new()]).collect();
    let svg = tagged_lines(&caption, &x, &y, None, &drawn, &shown_tags);
    figure(title, "Requests further to the right are rarer and slower.", &svg, &keys)
}

/// Equal room for each nine: 90, 99, 99.9, …
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(LEAST_SHARE).log10()
}

fn ticks(deepest: f64) -> Vec<(f64, String)> {
    const NAMED: [(f64, &str); 7] =
        [(0.0, "0"), (50.0, "50"), (90.0, "90"), (99.0, "99"), (99.9, "99.9"), (99.99, "99.99"), (99.999, "99.999")];
    let named = NAMED.map(|(percentile, text)| (nines(percentile), text.to_owned()));
    let mut ticks: Vec<(f64, String)> = named.into_iter().filter(|(at, _)| *at <= deepest + 1e-9).collect();
    if ticks.last().is_some_and(|tick| tick.0 < deepest - 1e-9) {
        // The axis has to reach the last point; a tick without words does.
        ticks.push((deepest, String::new()));
    }
    ticks
}
