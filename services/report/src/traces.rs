//! Recorded requests: what their stages took, and one of each kind as a waterfall.

use super::numbers::{NO_FIGURE, count, ms};
use super::schema::{Report, Row, Step, Waterfall};
use super::svg::escape;
use super::tables::Grid;

pub(super) const MEANING: &str = "Of the requests that were recorded from the user to the store. Each moment counts for the innermost part \
     of the way that it was spent in, so that the parts add up; what runs behind an answer (cache fill) counts for none. Gateway: what the \
     user's time is longer than the replica's, thus nginx, sockets, and the wait for a core on both sides. MySQL: as the replica sees it, \
     with the modelled delay.";

/// Steps with figures, in the order of the report.
pub(super) fn recorded(report: &Report) -> impl Iterator<Item = &Step> {
    report.steps.iter().filter(|step| step.time_spent.is_some() && step.repeat == 1)
}

/// `None` where nothing was recorded.
pub(super) fn conditions(report: &Report) -> Option<String> {
    let ratios = recorded(report).filter_map(|step| step.time_spent.as_ref()).map(|spent| spent.sample_ratio);
    let (low, high) = ratios.fold((f64::INFINITY, 0.0_f64), |(low, high), ratio| (low.min(ratio), high.max(ratio)));
    (high > 0.0).then(|| {
        format!(
            "{} to {} % of each step's, chosen before they are sent; the others build no spans",
            ms(100.0 * low),
            ms(100.0 * high)
        )
    })
}

/// A row per step: the mean of each stage, their sum, and the medians of those that have the stage.
pub(super) fn grid(report: &Report) -> Option<Grid> {
    let stages = recorded(report).find_map(|step| step.time_spent.as_ref()).map(|spent| &spent.stages)?;
    let names = stages.iter().map(|stage| stage.name.clone());
    let head = ["step".to_owned()].into_iter().chain(names).chain(["sum".into(), "requests".into()]).collect();
    let row = |step: &Step| {
        let spent = step.time_spent.clone().unwrap_or_default();
        let stage = |stage: &super::schema::Stage| match stage.median_ms {
            Some(median) => format!("{} ({})", ms(stage.mean_ms), ms(median)),
            None => NO_FIGURE.into(),
        };
        let mut cells = vec![format!("{} {:.0}", step.profile, step.offered_per_s)];
        cells.extend(spent.stages.iter().map(stage));
        cells.push(ms(spent.stages.iter().map(|stage| stage.mean_ms).sum()));
        cells.push(count(spent.requests as f64));
        cells
    };
    Some(Grid {
        title: "Time by stage, ms",
        meaning: "Mean over the recorded requests (of more than 1,000 a sample by lot); in brackets the median of those that have the stage.",
        head,
        rows: recorded(report).map(row).collect(),
    })
}

pub(super) fn title(example: &Waterfall) -> String {
    format!("{}: {} at {:.0}/s", example.kind, example.profile, example.offered_per_s)
}

pub(super) const HEAD: [&str; 5] = ["span", "process", "from, ms", "took, ms", "what it says"];

pub(super) fn rows(example: &Waterfall) -> impl Iterator<Item = Vec<String>> {
    example.rows.iter().map(|row| {
        let mark = if row.failed { " ✗" } else { "" };
        let name = format!("{}{}{mark}", "· ".repeat(indent(row)), row.name);
        vec![name, row.service.clone(), ms(row.offset_ms), ms(row.duration_ms), row.detail.clone()]
    })
}

/// A table whose second column is the picture.
pub(super) fn html(example: &Waterfall) -> String {
    let extent = example.rows.iter().map(|row| row.offset_ms + row.duration_ms).fold(0.0, f64::max);
    let rows: String = example.rows.iter().map(|row| html_row(row, extent)).collect();
    let title = title(example);
    format!(
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{0}\"><table class=\"waterfall\">\
         <caption>{0} <small>{1} ms · trace {2}</small></caption><thead class=\"hidden\"><tr><th scope=\"col\">span</th>\
         <th scope=\"col\">when</th><th scope=\"col\">took</th><th scope=\"col\">what it says</th></tr></thead>\n<tbody>{rows}</tbody></table></div>\n",
        escape(&title),
        ms(extent),
        escape(&example.trace_id)
    )
}

fn html_row(row: &Row, extent: f64) -> String {
    let share = |value: f64| {
        let share = 100.0 * value / extent;
        if share.is_finite() { share.clamp(0.0, 100.0) } else { 0.0 }
    };
    // What took any time at all is seen.
    let (from, wide) = (share(row.offset_ms).min(99.5), share(row.duration_ms).max(0.5));
    let class = match (row.failed, row.service.as_str()) {
        (true, _) => "failed",
        (_, "api") => "p0",
        _ => "p7",
    };
    format!(
        "<tr class=\"{class}\"><th scope=\"row\"><small>{}</small> <span style=\"padding-left:{:.1}em\">{}</span></th>\
         <td><svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect x=\"{from:.2}\" y=\"1\" width=\"{:.2}\" height=\"8\"/></svg></td><td>{} ms</td><td>{}{}</td></tr>\n",
        escape(&row.service),
        indent(row) as f64,
        escape(&row.name),
        wide.min(100.0 - from),
        ms(row.duration_ms),
        if row.failed { "✗ " } else { "" },
        escape(&row.detail)
    )
}

fn indent(row: &Row) -> usize {
    row.depth.min(12) as usize
}
