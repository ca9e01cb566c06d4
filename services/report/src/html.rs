//! `report.html`: one file, nothing loaded from elsewhere, no script.

mod compared;

use super::{
    adding_up, attempts, charts,
    findings::Findings,
    numbers::count,
    schema::Report,
    section::{Section, Table, Verdict},
    svg::escape,
    tables::{self, Block, Cell, Flag, Rank},
    traces, words,
};
pub(super) use compared::render_comparison;

/// From this number of columns on, a table does not share its line with another one.
const WIDE_COLUMNS: usize = 5;
/// Bytes of a cell that is read and not compared.
const SENTENCE: usize = 60;
const STYLE: &str = include_str!("style.css");

pub(super) fn render(report: &Report) -> String {
    let title = format!("Evaluation: {}", report.scenario.name);
    let mut body = header(&report.created, &title, &[&words::opening(report)], Some(report), banner(report.quick));
    body.push_str(&steps(report));
    body.push_str(&checks(&report.verdicts));
    body.push_str(&remarks(&report.remarks));
    body.push_str(&details(report));
    body.push_str(&conditions(&tables::conditions(report), &logs(report)));
    page(&title, &body)
}

pub(super) fn render_findings(findings: &Findings) -> String {
    let report = findings.steps_report();
    let title = format!("Experiment: {}", findings.experiment);
    let opening = report.as_ref().map(words::opening).unwrap_or_default();
    let banner = banner(findings.quick);
    let mut body = header(&findings.created, &title, &[&findings.what, &opening], report.as_ref(), banner);
    body.push_str(&report.as_ref().map_or_else(|| sections(&findings.sections), steps));
    body.push_str(&checks(&findings.verdicts));
    body.push_str(&remarks(&findings.remarks));
    body.push_str(&report.as_ref().map(details).unwrap_or_default());
    let logs = report.as_ref().map(logs).unwrap_or_default();
    body.push_str(&conditions(&tables::conditions_of_findings(findings), &logs));
    page(&title, &body)
}

fn banner(quick: bool) -> &'static str {
    if quick { "<p class=\"banner\">Quick run: short, so its figures scatter and are not judged.</p>\n" } else { "" }
}

/// Steps of load and what was measured with them.
fn steps(report: &Report) -> String {
    let blocks = tables::blocks(report);
    let mut body = summary(report);
    body.push_str(&format!("<section aria-labelledby=\"load\"><h2 id=\"load\">Under rising load</h2><div class=\"charts\">{}</div></section>\n", charts::load(report)));
    body.push_str(&figures(report, &blocks));
    body.push_str(&sections(&report.sections));
    body.push_str(&inside(report));
    body.push_str(&time_spent(report));
    body
}

/// Answers second by second and latencies of a step that the reader chooses, at first the highest.
fn inside(report: &Report) -> String {
    let panel = |users: u32| {
        let offered = report.steps.iter().find(|step| step.users == users).map_or(f64::NAN, |step| step.offered_per_s);
        let charts =
            [charts::timelines(report, users), charts::percentiles(report, users), charts::heat_maps(report, users)]
                .concat();
        (format!("{}/s", count(offered)), format!("<div class=\"charts\">{charts}</div>"))
    };
    let panels: Vec<(String, String)> = report.user_steps().into_iter().map(panel).collect();
    let highest = panels.len().saturating_sub(1);
    format!(
        "<section aria-labelledby=\"inside\"><h2 id=\"inside\">Inside the steps</h2>\n{}<div class=\"charts one\">{}</div></section>\n",
        choice("step", "Step", panels, highest),
        charts::cpu(report)
    )
}

/// Panels of which one is shown; `(label, HTML)` each. Radio buttons and the style sheet do it without a script. `name`: unique in the page,
/// `[a-z0-9-]+`.
fn choice(name: &str, of_what: &str, panels: Vec<(String, String)>, chosen: usize) -> String {
    match panels.as_slice() {
        [] => return String::new(),
        [(_, only)] => return format!("{only}\n"),
        _ => {}
    }
    let panels: String = panels
        .iter()
        .enumerate()
        .map(|(n, (label, html))| {
            let checked = if n == chosen { " checked=\"\"" } else { "" };
            format!(
                "<input type=\"radio\" name=\"{name}\" id=\"{name}-{n}\"{checked}/><label for=\"{name}-{n}\">{}</label>\n\
                 <div class=\"panel\">{html}</div>\n",
                escape(label)
            )
        })
        .collect();
    format!("<div class=\"choice\" role=\"group\" aria-label=\"{of_what}\">\n{panels}</div>\n")
}

fn sections(sections: &[Section]) -> String {
    sections.iter().enumerate().map(|(n, one)| section(n, one)).collect()
}

fn section(n: usize, section: &Section) -> String {
    let tables: String = section.tables.iter().map(plain_table).collect();
    let charts = charts::of_section(n, section);
    let part = |class: &str, content: &str| match content {
        "" => String::new(),
        _ => format!("<div class=\"{class}\">{content}</div>\n"),
    };
    let meaning = match section.meaning.as_str() {
        "" => String::new(),
        meaning => format!("<p class=\"note\">{}</p>\n", escape(meaning)),
    };
    format!(
        "<section aria-labelledby=\"section-{n}\"><h2 id=\"section-{n}\">{}</h2>\n{meaning}{}{}</section>\n",
        escape(&section.title),
        part("tables", &tables),
        part("charts", &charts)
    )
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(title)
    )
}

fn header(created: &str, title: &str, leads: &[&str], steps: Option<&Report>, banner: &str) -> String {
    let leads = leads.iter().filter(|lead| !lead.is_empty());
    let leads: String = leads.map(|lead| format!("<p class=\"lead\">{}</p>\n", escape(lead))).collect();
    let law = steps.and_then(words::store_delay).map_or_else(String::new, |delay| {
        format!("<p class=\"lead\"><strong>Store delay:</strong> {}.</p>\n", escape(&delay))
    });
    format!(
        "<header>\n<p class=\"kicker\">Recommendation testbed · {}</p>\n<h1>{}</h1>\n{leads}{law}{banner}</header>\n",
        escape(created),
        escape(title)
    )
}

fn summary(report: &Report) -> String {
    let cards: String = words::headlines(report)
        .iter()
        .enumerate()
        .map(|(i, h)| {
            let (sign, label, class) = match h.held {
                Some(true) => ("✓", "holds", "good"),
                Some(false) => ("✗", "breaks", "bad"),
                None => ("?", "not decided", "open"),
            };
            format!(
                "<article class=\"card {class} s{}\"><h3><span class=\"sign\" role=\"img\" aria-label=\"{label}\">{sign}</span> {}{}</h3>\
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

fn time_spent(report: &Report) -> String {
    let charts = charts::time_spent(report);
    if charts.is_empty() {
        return String::new();
    }
    let waterfalls: String = report.waterfalls.iter().map(traces::html).collect();
    let examples =
        if waterfalls.is_empty() { String::new() } else { format!("<div class=\"waterfalls\">{waterfalls}</div>") };
    let tables: String = traces::table(report).iter().map(plain_table).collect();
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
    let (class, sign) = match cell.flag {
        Flag::Plain => ("", ""),
        Flag::Bad => (" class=\"bad\"", "<abbr title=\"past the limit for a step that is held\">✗</abbr>"),
        Flag::Invalid => (" class=\"open\"", "<abbr title=\"the step is invalid\">!</abbr>"),
    };
    let range =
        cell.range.as_ref().map(|r| format!("<small class=\"range\">{}</small>", escape(r))).unwrap_or_default();
    format!("<td{class}>{}<span class=\"mark-sign\">{sign}</span>{range}</td>", escape(&cell.text))
}

/// Wide tables scroll in their own box, which the keyboard reaches.
fn scrolling(label: &str, table: &str) -> String {
    format!("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{}\">{table}</div>\n", escape(label))
}

fn checks(verdicts: &[Verdict]) -> String {
    if verdicts.is_empty() {
        return String::new();
    }
    let rows: String = verdicts
        .iter()
        .map(|v| {
            let (class, sign, result) = match v.passed {
                Some(true) => ("good", "✓", "passed"),
                Some(false) => ("bad", "✗", "failed"),
                None if v.undecided => ("open", "?", "undecided"),
                None => ("open", "–", "not judged"),
            };
            format!(
                "<tr class=\"{class}\"><td class=\"result\">{sign} {result}</td><th scope=\"row\">{}<small>{}</small></th><td>{}</td><td>{}</td></tr>\n",
                escape(&v.name),
                escape(&v.note),
                escape(&v.expected),
                escape(&v.measured)
            )
        })
        .collect();
    let table = format!(
        "<table class=\"words\"><caption class=\"hidden\">Checks</caption><thead><tr><th scope=\"col\">result</th>\
         <th scope=\"col\">check, and each step's figure</th><th scope=\"col\">wanted</th><th scope=\"col\">measured</th></tr></thead>\n<tbody>{rows}</tbody></table>"
    );
    format!(
        "<section aria-labelledby=\"checks\"><h2 id=\"checks\">Checks: {}</h2>\n{}</section>\n",
        escape(&words::score(verdicts)),
        scrolling("Checks", &table)
    )
}

fn remarks(remarks: &[String]) -> String {
    if remarks.is_empty() {
        return String::new();
    }
    let items: String = remarks.iter().map(|r| format!("<li>{}</li>", escape(r))).collect();
    format!("<section aria-labelledby=\"remarks\"><h2 id=\"remarks\">Remarks</h2>\n<ul>{items}</ul></section>\n")
}

fn details(report: &Report) -> String {
    let tables: String = tables::details(report).iter().map(plain_table).collect();
    let fold = |table: &Table| {
        format!("<details><summary>{}</summary>{}</details>\n", escape(&table.title), plain_table(table))
    };
    let folded: String = attempts::folded(report).iter().map(fold).collect();
    format!(
        "<section aria-labelledby=\"details\"><h2 id=\"details\">Details</h2>\n<div class=\"tables\">{}<div>{tables}</div></div>{folded}{}</section>\n",
        block_table(report, &tables::blocks(report), Rank::Detail, "More of each step"),
        counts(report)
    )
}

/// One folded table for each step.
fn counts(report: &Report) -> String {
    let folded = |table: &Table| {
        format!("<details><summary>{}</summary>{}</details>\n", escape(&table.title), plain_table(table))
    };
    adding_up::tables(report).iter().map(folded).collect()
}

/// The first cell of a row is its name. A column of sentences begins at the left, and its table is wide.
fn plain_table(table: &Table) -> String {
    let has_sentence = |row: &Vec<String>, column: usize| row.get(column).is_some_and(|cell| cell.len() >= SENTENCE);
    let class_of = |column: usize| {
        let of_sentences = column > 0 && table.rows.iter().any(|row| has_sentence(row, column));
        if of_sentences { " class=\"sentence\"" } else { "" }
    };
    let classes: Vec<&str> = (0..table.head.len()).map(class_of).collect();
    let head = |(h, class): (&String, &&str)| format!("<th scope=\"col\"{class}>{}</th>", escape(h));
    let heads: String = table.head.iter().zip(&classes).map(head).collect();
    let rows: String = table
        .rows
        .iter()
        .map(|row| {
            let mut cells = row.iter().zip(&classes);
            let head = cells.next().map(|(c, _)| format!("<th scope=\"row\">{}</th>", escape(c))).unwrap_or_default();
            let cells: String = cells.map(|(c, class)| format!("<td{class}>{}</td>", escape(c))).collect();
            format!("<tr>{head}{cells}</tr>\n")
        })
        .collect();
    let is_wide = table.head.len() >= WIDE_COLUMNS || classes.iter().any(|class| !class.is_empty());
    let class = if is_wide { " class=\"wide\"" } else { "" };
    let html = format!(
        "<table{class}><caption>{} <small>{}</small></caption><thead><tr>{heads}</tr></thead>\n<tbody>{rows}</tbody></table>",
        escape(&table.title),
        escape(&table.meaning)
    );
    scrolling(&table.title, &html)
}

/// `after`: HTML that follows the list.
fn conditions(conditions: &[(String, String)], after: &str) -> String {
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
