//! Which charts a report gets. Each is a `<figure>` with its legend.

mod compared;
mod heat;
mod over_time;
mod percentiles;
mod sections;
mod time_spent;

use std::collections::BTreeMap;

use statistics::Interval;

use super::analysis::{over_repeats, typical};
use super::numbers::{count, ms, pct, per_request, plain, tick};
use super::schema::{Report, Step};
use super::svg::{Axis, Bar, Caption, Line, Point, bars, escape, lines, marker, tagged_lines};
pub(super) use compared::{by_percentile_of_runs, over_rate_of_runs, run_key};
pub(super) use heat::heat_maps;
pub(super) use over_time::timelines;
pub(super) use percentiles::percentiles;
pub(super) use sections::of_section;
pub(super) use time_spent::time_spent;

/// Colours of the page's palette for profiles, and for processes.
const PROFILE_COLOURS: usize = 6;
const PROCESS_COLOURS: usize = 8;

/// A key of a legend: class, marker, words.
struct Key {
    class: String,
    swatch: Swatch,
    label: String,
}

enum Swatch {
    Line(usize),
    /// A line without markers.
    Bare,
    Rule,
    Area,
    Hatch,
    Box,
}

fn figure(title: &str, lead: &str, svg: &str, keys: &[Key]) -> String {
    let keys: String = keys
        .iter()
        .map(|k| {
            let drawn = match k.swatch {
                Swatch::Line(shape) => {
                    format!("<polyline class=\"line\" points=\"1,7 27,7\"/>{}", marker(shape, 14.0, 7.0))
                }
                Swatch::Bare => "<polyline class=\"line\" points=\"1,7 27,7\"/>".into(),
                Swatch::Rule => "<line class=\"rule\" x1=\"1\" x2=\"27\" y1=\"7\" y2=\"7\"/>".into(),
                Swatch::Area => "<rect class=\"area-good\" x=\"4\" y=\"1\" width=\"20\" height=\"12\"/>".into(),
                Swatch::Hatch => "<rect class=\"hatch-key\" x=\"4\" y=\"1\" width=\"20\" height=\"12\"/>".into(),
                Swatch::Box => "<rect class=\"part\" x=\"1\" y=\"1\" width=\"12\" height=\"12\"/>".into(),
            };
            let wide = if matches!(k.swatch, Swatch::Box) { 14 } else { 28 };
            format!(
                "<li><svg class=\"key {}\" viewBox=\"0 0 {wide} 14\" aria-hidden=\"true\">{drawn}</svg>{}</li>",
                escape(&k.class),
                escape(&k.label)
            )
        })
        .collect();
    format!(
        "<figure><figcaption><strong>{}</strong><span>{}</span></figcaption><ul class=\"legend\">{keys}</ul>{svg}</figure>\n",
        escape(title),
        escape(lead)
    )
}

fn profile_class(index: usize) -> String {
    format!("s{}", index % PROFILE_COLOURS)
}

/// There are six colours; a second set of them is dashed, a third one dotted.
fn curve_class(index: usize) -> String {
    let again = match index / PROFILE_COLOURS {
        0 => "",
        1 => " again",
        _ => " third",
    };
    format!("{}{again}", profile_class(index))
}

/// A line over the steps.
struct Series<'a> {
    label: String,
    class: String,
    shape: usize,
    value: Box<dyn Fn(u32) -> Option<f64> + 'a>,
    /// Drawn as whiskers.
    interval: Box<dyn Fn(u32) -> Option<Interval> + 'a>,
    /// Whether the step is invalid.
    doubtful: Box<dyn Fn(u32) -> bool + 'a>,
}

type Figure = fn(&Step) -> Option<f64>;

/// Article and model as far as they state the figure, then each profile.
fn series<'a>(report: &'a Report, article: Figure, model: Figure, measured: Figure) -> Vec<Series<'a>> {
    let mut all: Vec<Series<'a>> = Vec::new();
    for (label, class, shape, figure) in [("article", "q0", 0, article), ("model", "q1", 1, model)] {
        // The first profile that is quoted: the article's single figure for another one would be a lone dot.
        let quoted =
            report.profiles.iter().find(|p| report.steps.iter().any(|s| s.profile == **p && figure(s).is_some()));
        if let Some(profile) = quoted {
            all.push(Series {
                label: label.into(),
                class: class.into(),
                shape,
                value: Box::new(move |users| report.runs(profile, users).find_map(figure)),
                interval: Box::new(|_| None),
                doubtful: Box::new(|_| false),
            });
        }
    }
    for (i, profile) in report.profiles.iter().enumerate() {
        all.push(Series {
            label: profile.clone(),
            class: profile_class(i),
            shape: i,
            value: Box::new(move |users| over_repeats(report, profile, users, measured).map(|s| s.mean)),
            interval: Box::new(move |users| over_repeats(report, profile, users, measured)?.interval),
            doubtful: Box::new(move |users| report.runs(profile, users).any(|step| !step.valid)),
        });
    }
    all
}

/// A figure over the offered rate.
struct OverRate<'a> {
    id: &'a str,
    title: &'a str,
    lead: &'a str,
    y_label: &'a str,
    unit: &'a str,
    show: fn(f64) -> String,
    /// With the line of the offered rate.
    ideal: bool,
}

fn over_rate(report: &Report, chart: &OverRate, series: Vec<Series>) -> String {
    let offered = |users: u32| f64::from(users) * 1000.0 / report.scenario.interval_ms.max(1) as f64;
    draw_over_rate(&report.user_steps(), offered, chart, series, &[])
}

/// A series gives its figure for each of `users`; `offered` places these on the axis. `tags`: short names beside the ends of the lines.
fn draw_over_rate(
    users: &[u32],
    offered: impl Fn(u32) -> f64,
    chart: &OverRate,
    series: Vec<Series>,
    tags: &[String],
) -> String {
    let rates: Vec<f64> = users.iter().map(|&u| offered(u)).collect();
    let mut drawn = Vec::new();
    let mut keys = Vec::new();
    let mut described = Vec::new();
    let (mut any_doubtful, mut any_interval) = (false, false);
    let mut top = if chart.ideal { rates.iter().copied().fold(0.0, f64::max) } else { 0.0 };
    for s in series {
        let points: Vec<Point> = users
            .iter()
            .filter_map(|&u| Some((offered(u), (s.value)(u)?, (s.interval)(u), (s.doubtful)(u))))
            .map(|(x, y, interval, doubtful)| {
                let note = if doubtful { " (invalid step)" } else { "" };
                let ends = interval
                    .map_or_else(String::new, |i| format!(" [{}, {}]", (chart.show)(i.low), (chart.show)(i.high)));
                let (label, shown, unit) = (&s.label, (chart.show)(y), chart.unit);
                let hint = format!("{label}: {shown}{ends}{unit} at {} requests/s offered{note}", count(x));
                any_doubtful |= doubtful;
                any_interval |= interval.is_some();
                top = interval.map_or(top, |i| top.max(i.high));
                Point { x, y, hint, doubtful, whisker: interval.map(|i| (i.low, i.high)) }
            })
            .collect();
        top = points.iter().map(|p| p.y).fold(top, f64::max);
        if let Some(last) = points.last() {
            described.push(last.hint.clone());
        }
        keys.push(Key { class: s.class.clone(), swatch: Swatch::Line(s.shape), label: s.label });
        drawn.push(Line { class: s.class, shape: Some(s.shape), points });
    }
    let rule = match (chart.ideal, rates.first(), rates.last()) {
        (true, Some(low), Some(high)) => Some([(*low, *low), (*high, *high)]),
        _ => None,
    };
    if rule.is_some() {
        keys.push(Key { class: String::new(), swatch: Swatch::Rule, label: "offered".into() });
    }
    let caption =
        Caption { id: chart.id, title: chart.title, description: &format!("Line chart. {}.", described.join("; ")) };
    let x = Axis::at_values("requests/s offered", &rates, |v| format!("{v:.0}"));
    let y = Axis::from_zero(chart.y_label, top, tick);
    let mut lead = chart.lead.to_owned();
    if any_interval {
        lead.push_str(" Whiskers: confidence interval of the mean over the repeats.");
    }
    if any_doubtful {
        lead.push_str(" !: an invalid step.");
    }
    figure(chart.title, &lead, &tagged_lines(&caption, &x, &y, rule, &drawn, tags), &keys)
}

/// Mean latency, errors, good answers and what causes them over the offered rate.
pub(super) fn load(report: &Report) -> String {
    let latency = OverRate {
        id: "latency",
        title: "Mean latency",
        lead: "Latency of an answer, errors included. Lower is better.",
        y_label: "mean latency, ms",
        unit: " ms",
        show: ms,
        ideal: false,
    };
    let errors = OverRate {
        id: "errors",
        title: "Errors",
        lead: "Requests that failed, of those answered. Lower is better.",
        y_label: "errors, %",
        unit: " %",
        show: pct,
        ideal: false,
    };
    let good = OverRate {
        id: "good",
        title: "Good answers",
        lead: "Requests with a good answer. On the thin line every offered request succeeds.",
        y_label: "good answers per second",
        unit: "/s",
        show: count,
        ideal: true,
    };
    let queries = OverRate {
        id: "queries",
        title: "Store queries per request",
        lead: "Queries of the store cause the rest. Lower is better.",
        y_label: "store queries per request",
        unit: "",
        show: per_request,
        ideal: false,
    };
    let mut out = over_rate(
        report,
        &latency,
        series(report, |s| s.article.as_ref()?.mean_ms, |s| Some(s.model.as_ref()?.mean_ms), |s| Some(s.mean_ms)),
    );
    out.push_str(&over_rate(
        report,
        &errors,
        series(
            report,
            |s| Some(s.article.as_ref()?.error_pct),
            |s| Some(s.model.as_ref()?.error_pct),
            |s| Some(s.error_pct),
        ),
    ));
    out.push_str(&over_rate(
        report,
        &good,
        series(report, |_| None, |s| Some(s.model.as_ref()?.good_per_s), |s| Some(s.good_per_s)),
    ));
    out.push_str(&real_users(report));
    if report.scenario.target.is_none() {
        let measured = |s: &Step| Some(s.store_queries_per_request);
        out.push_str(&over_rate(report, &queries, series(report, |_| None, |_| None, measured)));
    }
    out
}

/// Good answers to real users, where the steps differ in their share of unknown ids.
fn real_users(report: &Report) -> String {
    if !super::tables::shares_differ(report) || report.steps.iter().all(|s| s.known_good_per_s.is_none()) {
        return String::new();
    }
    let known = OverRate {
        id: "known",
        title: "Good answers to real users",
        lead: "While a growing share of the requests is for ids that do not exist. With guards the line should be level.",
        y_label: "good answers to real users per second",
        unit: "/s",
        show: count,
        ideal: false,
    };
    over_rate(report, &known, series(report, |_| None, |_| None, |s| s.known_good_per_s))
}

/// Splits each dense line into the bare line and a few marked points of it.
fn thin_markers(drawn: &mut Vec<Line>) {
    const MARKED: usize = 12;
    for line in std::mem::take(drawn) {
        let stride = line.points.len().div_ceil(MARKED).max(1);
        let bare = line.points.iter().map(|p| Point { x: p.x, y: p.y, ..Point::default() }).collect();
        let class = line.class.clone();
        let marks =
            line.points.into_iter().enumerate().filter(|(i, _)| i % stride == stride / 2).map(|(_, p)| p).collect();
        drawn.push(Line { class: class.clone(), shape: None, points: bare });
        drawn.push(Line { class: format!("{class} marks"), shape: line.shape, points: marks });
    }
}

/// Cores used by kind of process: every step with up to two profiles, else the highest two.
pub(super) fn cpu(report: &Report) -> String {
    let mut users = report.user_steps();
    if report.profiles.len() > 2 {
        users.drain(..users.len().saturating_sub(2));
    }
    let shown: Vec<(&Step, bool)> = report
        .profiles
        .iter()
        .flat_map(|p| users.iter().filter_map(move |&u| typical(report, p, u)).enumerate().map(|(i, s)| (s, i == 0)))
        .filter(|(s, _)| !s.cpu.is_empty())
        .collect();
    if shown.is_empty() {
        return String::new();
    }
    let mut totals: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, value) in shown.iter().flat_map(|(s, _)| &s.cpu) {
        *totals.entry(name).or_default() += value;
    }
    let mut names: Vec<&str> = totals.keys().copied().collect();
    names.sort_by(|a, b| totals[b].total_cmp(&totals[a]));
    // The smallest share the last colour.
    let crowded = names.len() > PROCESS_COLOURS;
    let own = if crowded { PROCESS_COLOURS - 1 } else { names.len() };
    let rest = names.split_off(own);
    let rows: Vec<Bar> = shown
        .iter()
        .map(|(step, first)| {
            let mut parts: Vec<(String, f64, String)> = names
                .iter()
                .enumerate()
                .map(|(i, name)| {
                    let value = step.cpu.get(*name).copied().unwrap_or(0.0);
                    (format!("p{i}"), value, format!("{name}: {value:.2} cores"))
                })
                .collect();
            if crowded {
                let value: f64 = rest.iter().filter_map(|name| step.cpu.get(*name)).sum();
                parts.push((format!("p{own}"), value, format!("others: {value:.2} cores")));
            }
            Bar { label: format!("{} {:.0}", step.profile, step.offered_per_s), parts, first_of_group: *first }
        })
        .collect();
    let mut keys: Vec<Key> = names
        .iter()
        .enumerate()
        .map(|(i, name)| Key { class: format!("p{i}"), swatch: Swatch::Box, label: (*name).to_string() })
        .collect();
    if crowded {
        keys.push(Key { class: format!("p{own}"), swatch: Swatch::Box, label: "others".into() });
    }
    let described: Vec<String> =
        rows.iter().map(|b| format!("{}: {:.2} cores", b.label, b.parts.iter().map(|p| p.1).sum::<f64>())).collect();
    let cores = f64::from(report.machine.cores);
    let caption = Caption {
        id: "cpu",
        title: "CPU by process",
        description: &format!("Stacked bars. {}.", described.join("; ")),
    };
    let lead = format!(
        "Cores used in each step, of {} (thin line); everything runs on this one machine.",
        report.machine.cores
    );
    figure("CPU by process", &lead, &bars(&caption, "cores used", cores, &rows), &keys)
}
