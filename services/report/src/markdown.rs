//! `report.md`: the terminal's content as tables.

use super::schema::{Report, Verdict};
use super::tables::{self, Block, Mark, Rank};
use super::{outage, traces, words};

pub(super) fn render(report: &Report) -> String {
    let mut out = format!(
        "# Evaluation: {}\n\n{}\n\nStore delay: {}.\n",
        text(&report.scenario.name),
        text(&words::opening(report)),
        text(&words::law(&report.law))
    );
    if report.quick {
        out.push_str("\n**Quick run: no tolerance is judged.**\n");
    }
    out.push_str("\n## Result\n\n");
    for h in words::headlines(report) {
        let sign = match h.held {
            Some(true) => "✓",
            Some(false) => "✗",
            None => "?",
        };
        out.push_str(&format!(
            "- {sign} **{}{} {}.** {}\n",
            text(&h.profile),
            h.meaning.as_ref().map(|m| format!(" ({m})")).unwrap_or_default(),
            text(&h.title),
            text(&h.text)
        ));
    }
    let blocks = tables::blocks(report);
    for (rank, title) in [(Rank::Main, "What users get"), (Rank::Why, "Why")] {
        out.push_str(&format!("\n## {title}\n\nColumns: requests offered per second. {}.\n", tables::legend(report)));
        push_blocks(&mut out, report, &blocks, rank);
    }
    for grid in tables::extras(report).into_iter().chain(outage::seconds(report)) {
        out.push_str(&format!("\n## {}\n\n{}\n\n", grid.title, grid.meaning));
        push_table(&mut out, &grid.head, grid.rows.iter().cloned());
    }
    if let Some(grid) = traces::grid(report) {
        out.push_str(&format!("\n## {}\n\n{}\n\n", grid.title, grid.meaning));
        push_table(&mut out, &grid.head, grid.rows.iter().cloned());
    }
    for example in &report.waterfalls {
        out.push_str(&format!("\n### {}\n\n", text(&traces::title(example))));
        push_table(&mut out, &traces::HEAD.map(String::from), traces::rows(example));
    }
    push_checks(&mut out, &report.verdicts);
    push_remarks(&mut out, &report.remarks);
    out.push_str("\n## Details\n");
    push_blocks(&mut out, report, &blocks, Rank::Detail);
    for grid in tables::grids(report) {
        out.push_str(&format!("\n### {}\n\n{}\n\n", grid.title, grid.meaning));
        push_table(&mut out, &grid.head, grid.rows.iter().cloned());
    }
    out.push_str("\n## Conditions\n\n");
    push_table(
        &mut out,
        &["what", "value"].map(String::from),
        tables::conditions(report).into_iter().map(|(k, v)| vec![k, v]),
    );
    out
}

fn push_blocks(out: &mut String, report: &Report, blocks: &[Block], rank: Rank) {
    for block in blocks.iter().filter(|b| b.rank == rank) {
        out.push_str(&format!("\n### {}\n\n{}\n\n", block.title, block.meaning));
        let head: Vec<String> = std::iter::once(String::new()).chain(tables::columns(report)).collect();
        let rows = block.rows.iter().map(|row| {
            let cells = row.cells.iter().map(|c| {
                let range = c.range.as_ref().map(|r| format!(" ({r})")).unwrap_or_default();
                let sign = if c.mark == Mark::Plain { String::new() } else { format!(" {}", c.mark.sign()) };
                format!("{}{range}{sign}", c.text)
            });
            std::iter::once(row.label.clone()).chain(cells).collect()
        });
        push_table(out, &head, rows);
    }
}

pub(super) fn push_checks(out: &mut String, verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        return;
    }
    out.push_str(&format!("\n## Checks: {}\n\n", words::score(verdicts)));
    let rows = verdicts.iter().map(|v| {
        let result = match v.passed {
            Some(true) => "✓ passed",
            Some(false) => "✗ failed",
            None => "– not judged",
        };
        vec![result.into(), v.name.clone(), v.expected.clone(), v.measured.clone(), v.note.clone()]
    });
    push_table(out, &["result", "check", "wanted", "measured", "each step"].map(String::from), rows);
}

pub(super) fn push_remarks(out: &mut String, remarks: &[String]) {
    if remarks.is_empty() {
        return;
    }
    out.push_str("\n## Remarks\n\n");
    for remark in remarks {
        out.push_str(&format!("- {}\n", text(remark)));
    }
}

/// The first column is text, the others are numbers unless the heads say words.
pub(super) fn push_table(out: &mut String, head: &[String], rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: &[String]| format!("| {} |\n", cells.iter().map(|c| text(c)).collect::<Vec<_>>().join(" | "));
    let numbers = head.first().is_some_and(|h| h.is_empty() || h == "step");
    out.push_str(&line(head));
    let rules: Vec<&str> = (0..head.len()).map(|i| if i > 0 && numbers { "---:" } else { "---" }).collect();
    out.push_str(&format!("| {} |\n", rules.join(" | ")));
    for row in rows {
        out.push_str(&line(&row));
    }
}

/// Text that Markdown takes for nothing but text, in one line.
pub(super) fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '#' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
