//! `report.md`: the terminal's content as tables.

use super::{
    adding_up, attempts,
    findings::Findings,
    schema::Report,
    section::{Section, Table, Verdict},
    tables::{self, Block, Flag, Rank},
    traces, words,
};

pub(super) fn render(report: &Report) -> String {
    let mut out = format!("# Evaluation: {}\n\n{}\n", text(&report.scenario.name), text(&words::opening(report)));
    push_steps(&mut out, report);
    push_checks(&mut out, &report.verdicts);
    push_remarks(&mut out, &report.remarks);
    push_details(&mut out, report);
    push_conditions(&mut out, tables::conditions(report));
    out
}

pub(super) fn render_findings(findings: &Findings) -> String {
    let mut out = format!("# Experiment: {}\n\n{}\n", text(&findings.experiment), text(&findings.what));
    let report = findings.steps_report();
    if let Some(report) = &report {
        out.push_str(&format!("\n{}\n", text(&words::opening(report))));
        push_steps(&mut out, report);
    } else {
        push_quick(&mut out, findings.quick);
        push_sections(&mut out, &findings.sections);
    }
    push_checks(&mut out, &findings.verdicts);
    push_remarks(&mut out, &findings.remarks);
    if let Some(report) = &report {
        push_details(&mut out, report);
    }
    push_conditions(&mut out, tables::conditions_of_findings(findings));
    out
}

fn push_quick(out: &mut String, quick: bool) {
    if quick {
        out.push_str("\n**Quick run: short, so its figures scatter and are not judged.**\n");
    }
}

/// Steps of load and what was measured with them.
fn push_steps(out: &mut String, report: &Report) {
    if let Some(delay) = words::store_delay(report) {
        out.push_str(&format!("\nStore delay: {}.\n", text(&delay)));
    }
    push_quick(out, report.quick);
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
        push_blocks(out, report, &blocks, rank);
    }
    push_sections(out, &report.sections);
    if let Some(table) = traces::table(report) {
        push_titled(out, "##", &table);
    }
    for example in &report.waterfalls {
        out.push_str(&format!("\n### {}\n\n", text(&traces::title(example))));
        push_table(out, &traces::HEAD.map(String::from), traces::rows(example));
    }
}

fn push_sections(out: &mut String, sections: &[Section]) {
    for section in sections {
        out.push_str(&format!("\n## {}\n", text(&section.title)));
        if !section.meaning.is_empty() {
            out.push_str(&format!("\n{}\n", text(&section.meaning)));
        }
        section.tables.iter().for_each(|table| push_titled(out, "###", table));
    }
}

fn push_titled(out: &mut String, level: &str, table: &Table) {
    out.push_str(&format!("\n{level} {}\n\n{}\n\n", text(&table.title), text(&table.meaning)));
    push_table(out, &table.head, table.rows.iter().cloned());
}

fn push_details(out: &mut String, report: &Report) {
    out.push_str("\n## Details\n");
    push_blocks(out, report, &tables::blocks(report), Rank::Detail);
    let counts = adding_up::tables(report);
    tables::details(report).iter().chain(&counts).for_each(|table| push_titled(out, "###", table));
    for table in attempts::folded(report) {
        out.push_str(&format!("\n<details><summary>{}</summary>\n\n{}\n\n", text(&table.title), text(&table.meaning)));
        push_table(out, &table.head, table.rows.into_iter());
        out.push_str("\n</details>\n");
    }
}

fn push_conditions(out: &mut String, conditions: Vec<(String, String)>) {
    out.push_str("\n## Conditions\n\n");
    let rows = conditions.into_iter().map(|(name, value)| vec![name, value]);
    push_table(out, &["what", "value"].map(String::from), rows);
}

fn push_blocks(out: &mut String, report: &Report, blocks: &[Block], rank: Rank) {
    for block in blocks.iter().filter(|b| b.rank == rank) {
        out.push_str(&format!("\n### {}\n\n{}\n\n", block.title, block.meaning));
        let head: Vec<String> = std::iter::once(String::new()).chain(tables::columns(report)).collect();
        let rows = block.rows.iter().map(|row| {
            let cells = row.cells.iter().map(|c| {
                let range = c.range.as_ref().map(|r| format!(" {r}")).unwrap_or_default();
                let sign = if c.flag == Flag::Plain { String::new() } else { format!(" {}", c.flag.sign()) };
                format!("{}{range}{sign}", c.text)
            });
            std::iter::once(row.label.clone()).chain(cells).collect()
        });
        push_table(out, &head, rows);
    }
}

fn push_checks(out: &mut String, verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        return;
    }
    out.push_str(&format!("\n## Checks: {}\n\n", words::score(verdicts)));
    let rows = verdicts.iter().map(|v| {
        let result = match v.passed {
            Some(true) => "✓ passed",
            Some(false) => "✗ failed",
            None if v.undecided => "? undecided",
            None => "– not judged",
        };
        vec![result.into(), v.name.clone(), v.expected.clone(), v.measured.clone(), v.note.clone()]
    });
    push_table(out, &["result", "check", "wanted", "measured", "each step"].map(String::from), rows);
}

fn push_remarks(out: &mut String, remarks: &[String]) {
    if remarks.is_empty() {
        return;
    }
    out.push_str("\n## Remarks\n\n");
    for remark in remarks {
        out.push_str(&format!("- {}\n", text(remark)));
    }
}

/// The first column is text, the others are numbers unless the heads say words.
fn push_table(out: &mut String, head: &[String], rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: &[String]| format!("| {} |\n", cells.iter().map(|c| text(c)).collect::<Vec<_>>().join(" | "));
    let numbers = head.first().is_some_and(|h| h.is_empty() || h == "step");
    out.push_str(&line(head));
    let rules: Vec<&str> = (0..head.len()).map(|i| if i > 0 && numbers { "---:" } else { "---" }).collect();
    out.push_str(&format!("| {} |\n", rules.join(" | ")));
    for row in rows {
        out.push_str(&line(&row));
    }
}

/// Escaped, in one line.
fn text(raw: &str) -> String {
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
