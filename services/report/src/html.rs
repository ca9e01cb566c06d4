//! `report.html`: one file, nothing loaded from elsewhere, no script.

use super::charts;
use super::schema::{Report, Verdict};
use super::svg::escape;
use super::tables::{self, Block, Cell, Grid, Mark, Rank};
use super::{outage, traces, words};

const STYLE: &str = include_str!("style.css");

pub(super) fn render(report: &Report) -> String {
    let blocks = tables::blocks(report);
    let title = format!("Evaluation: {}", report.scenario.name);
    let mut body = header(report, &title);
    body.push_str(&summary(report));
    body.push_str(&format!("<section aria-labelledby=\"load\"><h2 id=\"load\">Under rising load</h2><div class=\"charts\">{}</div></section>\n", charts::load(report)));
    body.push_str(&figures(report, &blocks));
    body.push_str(&extras(report));
    body.push_str(&format!(
        "<section aria-labelledby=\"inside\"><h2 id=\"inside\">Inside the highest steps</h2><div class=\"charts\">{}{}{}</div></section>\n",
        charts::timelines(report),
        charts::percentiles(report),
        charts::cpu(report)
    ));
    body.push_str(&time_spent(report));
    body.push_str(&checks(&report.verdicts));
    body.push_str(&remarks(&report.remarks));
    body.push_str(&details(report, &blocks));
    body.push_str(&conditions(&tables::conditions(report), &logs(report)));
    page(&title, &body)
}

pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(title)
    )
}

fn header(report: &Report, title: &str) -> String {
    let quick = if report.quick {
        "<p class=\"banner\">Quick run: steps are short, figures scatter, no tolerance is judged.</p>\n"
    } else {
        ""
    };
    format!(
        "<header>\n<p class=\"kicker\">Recommendation testbed · {}</p>\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n\
         <p class=\"lead\"><strong>Store delay:</strong> {}.</p>\n{quick}</header>\n",
        escape(&report.created),
        escape(title),
        escape(&words::opening(report)),
        escape(&words::law(&report.law))
    )
}

fn summary(report: &Report) -> String {
    let cards: String = words::headlines(report)
        .iter()
        .enumerate()
        .map(|(i, h)| {
            let (sign, said, class) = match h.held {
                Some(true) => ("✓", "holds", "good"),
                Some(false) => ("✗", "breaks", "bad"),
                None => ("?", "cannot be told", "open"),
            };
            format!(
                "<article class=\"card {class} s{}\"><h3><span class=\"sign\" role=\"img\" aria-label=\"{said}\">{sign}</span> {}{}</h3>\
                 <p class=\"big\">{}</p><p>{}</p></article>\n",
                i % 6,
                escape(&h.profile),
                h.meaning.as_ref().map(|m| format!(" <small>{}</small>", escape(m))).unwrap_or_default(),
                escape(&h.title),
                escape(&h.text)
            )
        })
        .collect();
    let score = if report.verdicts.is_empty() {
        String::new()
    } else {
        format!("<p class=\"score\"><a href=\"#checks\">Checks: {}</a></p>\n", escape(&words::score(&report.verdicts)))
    };
    format!(
        "<section aria-labelledby=\"result\"><h2 id=\"result\">Result</h2>\n<div class=\"cards\">{cards}</div>\n{score}</section>\n"
    )
}

/// What only experiments and soaks have.
fn extras(report: &Report) -> String {
    let grids = tables::extras(report);
    if grids.is_empty() {
        return String::new();
    }
    let tables: String = grids.iter().chain(&outage::seconds(report)).map(grid).collect();
    format!(
        "<section aria-labelledby=\"extras\"><h2 id=\"extras\">Over time</h2>\n<div class=\"tables\">{tables}</div>\n\
         <div class=\"charts\">{}{}{}</div></section>\n",
        charts::recoveries(report),
        charts::outages(report),
        charts::soak(report)
    )
}

fn time_spent(report: &Report) -> String {
    let charts = charts::time_spent(report);
    if charts.is_empty() {
        return String::new();
    }
    let waterfalls: String = report.waterfalls.iter().map(traces::html).collect();
    let examples =
        if waterfalls.is_empty() { String::new() } else { format!("<div class=\"waterfalls\">{waterfalls}</div>") };
    let tables: String = traces::grid(report).iter().map(grid).collect();
    format!(
        "<section aria-labelledby=\"time\"><h2 id=\"time\">Where the time went</h2>\n<p class=\"note\">{}</p>\n\
         <div class=\"charts\">{charts}</div>\n{tables}{examples}</section>\n",
        escape(traces::MEANING)
    )
}

fn figures(report: &Report, blocks: &[Block]) -> String {
    let mut out = String::from("<section aria-labelledby=\"figures\"><h2 id=\"figures\">The figures</h2>\n");
    out.push_str(&format!(
        "<p class=\"note\">Columns: requests offered per second. {}.</p>\n<div class=\"tables\">",
        escape(&tables::legend(report))
    ));
    out.push_str(&block_table(report, blocks, Rank::Main, "What users get"));
    out.push_str(&block_table(report, blocks, Rank::Why, "Why"));
    out.push_str("</div></section>\n");
    out
}

/// One table for the blocks of a rank: a group of rows each.
fn block_table(report: &Report, blocks: &[Block], rank: Rank, caption: &str) -> String {
    let columns = tables::columns(report);
    let heads: String = columns.iter().map(|c| format!("<th scope=\"col\">{}</th>", escape(c))).collect();
    let groups: String = blocks
        .iter()
        .filter(|b| b.rank == rank)
        .map(|block| {
            let rows: String = block
                .rows
                .iter()
                .map(|row| {
                    let class = if row.measured { "" } else { " class=\"quoted\"" };
                    let cells: String = row.cells.iter().map(cell).collect();
                    format!("<tr{class}><th scope=\"row\">{}</th>{cells}</tr>\n", escape(&row.label).replace('/', "/<wbr>"))
                })
                .collect();
            format!(
                "<tbody><tr class=\"group\"><th scope=\"rowgroup\" colspan=\"{}\">{} <small>{}</small></th></tr>\n{rows}</tbody>\n",
                columns.len() + 1,
                escape(block.title),
                escape(block.meaning)
            )
        })
        .collect();
    scrolling(
        caption,
        &format!(
            "<table class=\"blocks\"><caption>{}</caption><thead><tr><th scope=\"col\">offered/s</th>{heads}</tr></thead>\n{groups}</table>",
            escape(caption)
        ),
    )
}

fn cell(cell: &Cell) -> String {
    let (class, sign) = match cell.mark {
        Mark::Plain => ("", ""),
        Mark::Bad => (" class=\"bad\"", "<abbr title=\"past the limit for a step that is held\">✗</abbr>"),
        Mark::Invalid => (" class=\"open\"", "<abbr title=\"the step is invalid\">!</abbr>"),
    };
    let range =
        cell.range.as_ref().map(|r| format!("<small class=\"range\">{}</small>", escape(r))).unwrap_or_default();
    format!("<td{class}>{}<span class=\"mark-sign\">{sign}</span>{range}</td>", escape(&cell.text))
}

/// Wide tables scroll in their own box, which the keyboard reaches.
fn scrolling(label: &str, table: &str) -> String {
    format!("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{}\">{table}</div>\n", escape(label))
}

pub(super) fn checks(verdicts: &[Verdict]) -> String {
    if verdicts.is_empty() {
        return String::new();
    }
    let rows: String = verdicts
        .iter()
        .map(|v| {
            let (class, sign, said) = match v.passed {
                Some(true) => ("good", "✓", "passed"),
                Some(false) => ("bad", "✗", "failed"),
                None => ("open", "–", "not judged"),
            };
            format!(
                "<tr class=\"{class}\"><td class=\"result\">{sign} {said}</td><th scope=\"row\">{}<small>{}</small></th><td>{}</td><td>{}</td></tr>\n",
                escape(&v.name),
                escape(&v.note),
                escape(&v.expected),
                escape(&v.measured)
            )
        })
        .collect();
    let table = format!(
        "<table class=\"words\"><caption class=\"hidden\">Checks</caption><thead><tr><th scope=\"col\">result</th>\
         <th scope=\"col\">check, and each step's figure</th><th scope=\"col\">wanted</th><th scope=\"col\">worst step</th></tr></thead>\n<tbody>{rows}</tbody></table>"
    );
    format!(
        "<section aria-labelledby=\"checks\"><h2 id=\"checks\">Checks: {}</h2>\n{}</section>\n",
        escape(&words::score(verdicts)),
        scrolling("Checks", &table)
    )
}

pub(super) fn remarks(remarks: &[String]) -> String {
    if remarks.is_empty() {
        return String::new();
    }
    let items: String = remarks.iter().map(|r| format!("<li>{}</li>", escape(r))).collect();
    format!("<section aria-labelledby=\"remarks\"><h2 id=\"remarks\">Remarks</h2>\n<ul>{items}</ul></section>\n")
}

fn details(report: &Report, blocks: &[Block]) -> String {
    let grids: String = tables::grids(report).iter().map(grid).collect();
    format!(
        "<section aria-labelledby=\"details\"><h2 id=\"details\">Details</h2>\n<div class=\"tables\">{}<div>{grids}</div></div></section>\n",
        block_table(report, blocks, Rank::Detail, "More of each step")
    )
}

fn grid(grid: &Grid) -> String {
    plain_table(grid.title, grid.meaning, &grid.head, &grid.rows)
}

/// The first cell of a row is its name.
pub(super) fn plain_table(title: &str, meaning: &str, head: &[String], rows: &[Vec<String>]) -> String {
    let heads: String = head.iter().map(|h| format!("<th scope=\"col\">{}</th>", escape(h))).collect();
    let rows: String = rows
        .iter()
        .map(|row| {
            let mut cells = row.iter();
            let head = cells.next().map(|c| format!("<th scope=\"row\">{}</th>", escape(c))).unwrap_or_default();
            format!("<tr>{head}{}</tr>\n", cells.map(|c| format!("<td>{}</td>", escape(c))).collect::<String>())
        })
        .collect();
    let table = format!(
        "<table><caption>{} <small>{}</small></caption><thead><tr>{heads}</tr></thead>\n<tbody>{rows}</tbody></table>",
        escape(title),
        escape(meaning)
    );
    scrolling(title, &table)
}

/// `after`: HTML that follows the list.
pub(super) fn conditions(conditions: &[(String, String)], after: &str) -> String {
    let rows: String = conditions
        .iter()
        .map(|(name, value)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value)))
        .collect();
    format!(
        "<section aria-labelledby=\"conditions\"><h2 id=\"conditions\">Conditions</h2>\n<dl>{rows}</dl>\n{after}</section>\n"
    )
}

fn logs(report: &Report) -> String {
    let logs: String = report
        .steps
        .iter()
        .filter_map(|s| Some((s, s.hdr_log.as_ref()?)))
        .map(|(s, log)| {
            format!(
                "<li>{} {:.0}, repeat {}: <code>{}</code></li>",
                escape(&s.profile),
                s.offered_per_s,
                s.repeat,
                escape(log)
            )
        })
        .collect();
    if logs.is_empty() {
        return logs;
    }
    format!("<details><summary>Files with every latency (HDR histogram logs, µs)</summary><ul>{logs}</ul></details>\n")
}
