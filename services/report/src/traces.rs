//! Recorded requests: the duration of their stages, and one of each kind as a waterfall.

use super::{
    numbers::{NO_FIGURE, count, ms},
    schema::{Report, Row, Stage, Step, Waterfall},
    section::Table,
    svg::escape,
};

pub(super) const MEANING: &str = "Requests that were recorded from the user to the store. Each moment counts for the innermost stage, so the \
     stages add up. Work after the answer (the cache fill) counts for none. Gateway is the user's time less the replica's: nginx, sockets, \
     and waiting for a core on both sides. MySQL is measured in the replica and includes the modelled delay.";

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
            "{} to {} % of each step's, chosen before they are sent; other requests build no spans",
            ms(100.0 * low),
            ms(100.0 * high)
        )
    })
}

/// A row per step: mean and median of each stage, and the sum of the means.
pub(super) fn table(report: &Report) -> Option<Table> {
    let stages = recorded(report).find_map(|step| step.time_spent.as_ref()).map(|spent| &spent.stages)?;
    let names = stages.iter().map(|stage| stage.name.as_str());
    let head: Vec<&str> = ["step"].into_iter().chain(names).chain(["sum", "requests"]).collect();
    let row = |step: &Step| {
        let spent = step.time_spent.clone().unwrap_or_default();
        let stage = |stage: &Stage| match stage.median_ms {
            Some(median) => format!("{} ({})", ms(stage.mean_ms), ms(median)),
            None => NO_FIGURE.into(),
        };
        let mut cells = vec![format!("{} {:.0}", step.profile, step.offered_per_s)];
        cells.extend(spent.stages.iter().map(stage));
        cells.push(ms(spent.stages.iter().map(|stage| stage.mean_ms).sum()));
        cells.push(count(spent.requests as f64));
        cells
    };
    Some(Table::new(
        "Time by stage, ms",
        "Mean over the recorded requests (a random sample if there are more than 1,000); in brackets the median of the requests with that stage.",
        &head,
        recorded(report).map(row).collect(),
    ))
}

pub(super) fn title(example: &Waterfall) -> String {
    format!("{}: {} at {:.0}/s", example.kind, example.profile, example.offered_per_s)
}

pub(super) const HEAD: [&str; 5] = ["span", "process", "from, ms", "duration, ms", "attributes"];

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
         <th scope=\"col\">when</th><th scope=\"col\">duration</th><th scope=\"col\">attributes</th></tr></thead>\n<tbody>{rows}</tbody></table></div>\n",
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
    // Even the shortest span is visible.
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
