//! The page that `report compare` writes.

use super::{choice, page, plain_table, scrolling};
use crate::{charts, compare::Comparison, numbers::count, svg::escape};

pub(crate) fn render_comparison(comparison: &Comparison) -> String {
    let title = format!("Comparison of {} reports", comparison.runs().len());
    let mut body = format!(
        "<header>\n<p class=\"kicker\">Recommendation testbed</p>\n<h1>{title}</h1>\n</header>\n{}",
        reports(comparison)
    );
    let differences = comparison.differences();
    body.push_str("<section aria-labelledby=\"conditions\"><h2 id=\"conditions\">Conditions</h2>\n");
    if differences.rows.is_empty() {
        body.push_str("<p class=\"note\">All conditions that the reports state are the same.</p>\n");
    } else {
        body.push_str(&format!("<div class=\"left\">{}</div>\n", plain_table(&differences)));
    }
    body.push_str("</section>\n");
    let profiles = comparison.profiles();
    let panels =
        profiles.iter().enumerate().map(|(n, profile)| ((*profile).to_owned(), profile_panel(comparison, profile, n)));
    body.push_str(&format!(
        "<section aria-labelledby=\"figures\"><h2 id=\"figures\">The figures</h2>\n{}</section>\n",
        choice("profile", "Profile", panels.collect(), 0)
    ));
    page(&title, &body)
}

fn reports(comparison: &Comparison) -> String {
    let rows: String = comparison
        .list()
        .iter()
        .enumerate()
        .map(|(n, [label, created, what, profiles])| {
            format!(
                "<tr><th scope=\"row\">{} {}</th><td class=\"sentence\">{}</td><td class=\"sentence\">{}</td><td class=\"sentence\">{}</td></tr>\n",
                charts::run_key(n),
                escape(label),
                escape(created),
                escape(what),
                escape(profiles)
            )
        })
        .collect();
    let heads = ["begun", "scenario", "profiles"]
        .map(|head| format!("<th scope=\"col\" class=\"sentence\">{head}</th>"))
        .concat();
    let table = format!(
        "<table class=\"wide runs\"><caption class=\"hidden\">Reports</caption><thead><tr><th scope=\"col\">report</th>{heads}</tr></thead>\n\
         <tbody>{rows}</tbody></table>"
    );
    format!(
        "<section aria-labelledby=\"reports\"><h2 id=\"reports\">Reports</h2>\n{}</section>\n",
        scrolling("Reports", &table)
    )
}

fn profile_panel(comparison: &Comparison, profile: &str, n: usize) -> String {
    let rates = comparison.rates(profile);
    let panels: Vec<(String, String)> = rates
        .iter()
        .map(|&rate| (format!("{}/s", count(rate as f64)), charts::by_percentile_of_runs(comparison, profile, n, rate)))
        .filter(|(_, chart)| !chart.is_empty())
        .map(|(label, chart)| (label, format!("<div class=\"charts one\">{chart}</div>")))
        .collect();
    let highest = panels.len().saturating_sub(1);
    format!(
        "<div class=\"charts\">{}</div>\n<h3 class=\"choose\">Latencies of a step</h3>\n{}{}",
        charts::over_rate_of_runs(comparison, profile, n),
        choice(&format!("step-{n}"), "Step", panels, highest),
        plain_table(&comparison.figures(profile))
    )
}
