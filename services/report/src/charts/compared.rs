//! Several reports in one chart: a line each.

use super::{
    Figure, OverRate, Series, curve_class, draw_over_rate, marker, pct,
    percentiles::{Measured, by_percentile},
};
use crate::{
    analysis::{over_repeats, typical},
    compare::{Comparison, Run},
    numbers::{count, ms},
    schema::Step,
    svg::escape,
};

/// A shape of its own for each of the lines that share a colour.
fn shape(run: usize) -> usize {
    run + run / super::PROFILE_COLOURS
}

/// The mark of a report, for the list of them.
pub(crate) fn run_key(run: usize) -> String {
    format!(
        "<svg class=\"key {}\" viewBox=\"0 0 28 14\" aria-hidden=\"true\"><polyline class=\"line\" points=\"1,7 27,7\"/>{}</svg>",
        escape(&curve_class(run)),
        marker(shape(run), 14.0, 7.0)
    )
}

/// Mean latency, p99, errors and good answers of a profile over the offered rate; `n` numbers the profiles of the page.
pub(crate) fn over_rate_of_runs(comparison: &Comparison, profile: &str, n: usize) -> String {
    let charts: [(&str, OverRate, Figure); 4] = [
        (
            "mean",
            OverRate {
                id: "",
                title: "Mean latency",
                lead: "Errors included. Lower is better.",
                y_label: "mean latency, ms",
                unit: " ms",
                show: ms,
                ideal: false,
            },
            |s| Some(s.mean_ms),
        ),
        (
            "p99",
            OverRate {
                id: "",
                title: "Latency p99",
                lead: "99 % of the requests were at most as long. Lower is better.",
                y_label: "latency p99, ms",
                unit: " ms",
                show: ms,
                ideal: false,
            },
            |s| Some(s.p99_ms),
        ),
        (
            "errors",
            OverRate {
                id: "",
                title: "Errors",
                lead: "Requests that failed, of those answered. Lower is better.",
                y_label: "errors, %",
                unit: " %",
                show: pct,
                ideal: false,
            },
            |s| Some(s.error_pct),
        ),
        (
            "good",
            OverRate {
                id: "",
                title: "Good answers",
                lead: "Beside what was offered. Higher is better.",
                y_label: "good answers per second",
                unit: "/s",
                show: count,
                ideal: true,
            },
            |s| Some(s.good_per_s),
        ),
    ];
    let rates = comparison.rates(profile);
    let steps: Vec<u32> = (0..).zip(&rates).map(|(n, _)| n).collect();
    let offered = |n: u32| rates.get(n as usize).map_or(f64::NAN, |rate| *rate as f64);
    let tags = tags(comparison);
    let drawn = charts.into_iter().map(|(name, chart, figure)| {
        let id = format!("{name}-{n}");
        let chart = OverRate { id: &id, ..chart };
        draw_over_rate(&steps, offered, &chart, series(comparison, profile, &rates, figure), &tags)
    });
    drawn.collect()
}

/// A line per report. Its steps are the indices of the rates, because users of different scenarios offer different rates.
fn series<'a>(comparison: &'a Comparison, profile: &'a str, rates: &'a [u64], figure: Figure) -> Vec<Series<'a>> {
    let of_run = |(run, one): (usize, &'a Run)| {
        let users = move |n: u32| one.users_at(profile, *rates.get(n as usize)?);
        Series {
            label: comparison.label(run),
            class: curve_class(run),
            shape: shape(run),
            value: Box::new(move |n| Some(over_repeats(&one.report, profile, users(n)?, figure)?.mean)),
            interval: Box::new(move |n| over_repeats(&one.report, profile, users(n)?, figure)?.interval),
            doubtful: Box::new(move |n| {
                users(n).is_some_and(|users| one.report.runs(profile, users).any(|step| !step.valid))
            }),
        }
    };
    comparison.runs().iter().enumerate().map(of_run).collect()
}

/// The latencies of a profile at a rate by percentile; `n` numbers the profiles of the page.
pub(crate) fn by_percentile_of_runs(comparison: &Comparison, profile: &str, n: usize, rate: u64) -> String {
    let typical: Vec<Option<&Step>> =
        comparison.runs().iter().map(|run| typical(&run.report, profile, run.users_at(profile, rate)?)).collect();
    let (mut measured, mut shown) = (Vec::new(), Vec::new());
    for ((run, step), tag) in typical.into_iter().enumerate().zip(tags(comparison)) {
        let Some(step) = step else { continue };
        measured.push(Measured { name: comparison.label(run), class: curve_class(run), shape: shape(run), step });
        shown.push(tag);
    }
    let title = format!("Latency by percentile, {profile} at {} requests/s", count(rate as f64));
    by_percentile(&format!("percentiles-{n}-{rate}"), &title, &measured, &shown)
}

fn tags(comparison: &Comparison) -> Vec<String> {
    (1..=comparison.runs().len()).map(|number| number.to_string()).collect()
}
