//! The table for the terminal: at most [`WIDTH`] columns, readable without colour.

use std::ops::Range;

use super::{
    attempts,
    findings::Findings,
    schema::Report,
    section::{Section, Verdict},
    tables::{self, Block, Cell, Flag, Rank, Row},
    words,
};

pub const WIDTH: usize = 120;
const INDENT: &str = "  ";
/// Between two blocks side by side.
const GAP: usize = 4;

/// Escape sequences, or nothing at all.
struct Paint(bool);

impl Paint {
    fn dress(&self, code: &str, text: &str) -> String {
        if self.0 && !text.trim().is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
    fn bold(&self, text: &str) -> String {
        self.dress("1", text)
    }
    fn dim(&self, text: &str) -> String {
        self.dress("2", text)
    }
    fn good(&self, text: &str) -> String {
        self.dress("32", text)
    }
    fn bad(&self, text: &str) -> String {
        self.dress("31", text)
    }
    fn warn(&self, text: &str) -> String {
        self.dress("33", text)
    }
}

/// The report as text that ends in a line break. `colour`: with ANSI colours.
pub fn render(report: &Report, colour: bool) -> String {
    let paint = Paint(colour);
    let mut out =
        vec![String::new(), title(&format!("Evaluation · scenario {}", report.scenario.name), report.quick, &paint)];
    out.extend(wrap(&words::opening(report), INDENT));
    out.extend(steps(report, &paint));
    out.extend(checks(&report.verdicts, &paint));
    out.extend(remarks(&report.remarks, &paint));
    joined(&out)
}

/// As [`render`], of an experiment.
pub fn render_findings(findings: &Findings, colour: bool) -> String {
    let paint = Paint(colour);
    let mut out = vec![String::new(), title(&format!("Experiment · {}", findings.experiment), findings.quick, &paint)];
    out.extend(wrap(&findings.what, INDENT));
    match findings.steps_report() {
        Some(report) => {
            out.extend(wrap(&words::opening(&report), INDENT));
            out.extend(steps(&report, &paint));
        }
        None => {
            out.push(String::new());
            out.extend(sections(&findings.sections, &paint));
        }
    }
    out.extend(checks(&findings.verdicts, &paint));
    out.extend(remarks(&findings.remarks, &paint));
    joined(&out)
}

fn title(text: &str, quick: bool, paint: &Paint) -> String {
    paint.bold(&format!("{text}{}", if quick { " · QUICK RUN" } else { "" }))
}

/// Steps of load and what was measured with them.
fn steps(report: &Report, paint: &Paint) -> Vec<String> {
    let delay = words::store_delay(report).map(|delay| format!("Store delay: {delay}."));
    let mut out: Vec<String> = delay.iter().flat_map(|delay| wrap(delay, INDENT)).collect();
    out.push(String::new());
    for headline in words::headlines(report) {
        let meaning = headline.meaning.map(|m| format!(" ({m})")).unwrap_or_default();
        let title = format!("{}{meaning} {}", headline.profile, headline.title);
        out.push(match headline.held {
            Some(true) => paint.good(&format!("✓ {title}")),
            Some(false) => paint.bad(&format!("✗ {title}")),
            None => paint.warn(&format!("? {title}")),
        });
        out.extend(wrap(&headline.text, INDENT));
    }
    out.push(String::new());

    let blocks = tables::blocks(report);
    for (rank, title) in [(Rank::Main, "What users get"), (Rank::Why, "Why")] {
        let part: Vec<&Block> = blocks.iter().filter(|b| b.rank == rank).collect();
        out.push(format!("{}{}", paint.bold(title), paint.dim("   (columns: requests offered per second)")));
        out.extend(table(&part, &tables::columns(report), paint));
    }
    out.extend(wrap(&tables::legend(report), INDENT).into_iter().map(|line| paint.dim(&line)));
    let again = attempts::count_in_words(report);
    if !again.is_empty() {
        out.extend(wrap(&again, INDENT).into_iter().map(|line| paint.dim(&line)));
    }
    out.push(String::new());
    out.extend(sections(&report.sections, paint));
    out
}

fn sections(sections: &[Section], paint: &Paint) -> Vec<String> {
    let mut out = Vec::new();
    let dim = |text: &str| wrap(text, INDENT).into_iter().map(|line| paint.dim(&line)).collect::<Vec<_>>();
    for section in sections {
        out.push(paint.bold(&section.title));
        if !section.meaning.is_empty() {
            out.extend(dim(&section.meaning));
        }
        out.push(String::new());
        for table in section.tables.iter().filter(|table| !table.pages_only) {
            if table.title != section.title {
                out.push(paint.bold(&table.title));
            }
            out.extend(dim(&table.meaning));
            out.extend(plain_table(&table.head, &table.rows, paint));
            out.push(String::new());
        }
    }
    out
}

fn checks(all: &[Verdict], paint: &Paint) -> Vec<String> {
    if all.is_empty() {
        return Vec::new();
    }
    let head = paint.bold(&format!("Checks: {}", words::score(all)));
    std::iter::once(head).chain(verdicts(all, paint)).chain([String::new()]).collect()
}

fn remarks(all: &[String], paint: &Paint) -> Vec<String> {
    if all.is_empty() {
        return Vec::new();
    }
    let bullets = all.iter().flat_map(|remark| bullet("·", remark));
    std::iter::once(paint.bold("Remarks")).chain(bullets).chain([String::new()]).collect()
}

fn joined(out: &[String]) -> String {
    let mut text = out.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}

fn verdicts(all: &[Verdict], paint: &Paint) -> Vec<String> {
    let name_width = all.iter().map(|v| columns_of(&v.name)).max().unwrap_or(0);
    let mut lines = Vec::new();
    for v in all {
        let figures = format!("{}  (wanted: {})", v.measured, v.expected);
        let line = |sign: &str| format!("{INDENT}{sign} {}  {figures}", pad_right(&v.name, name_width));
        lines.extend(match v.passed {
            Some(true) => wrap_hanging(&line("✓"), 6 + name_width)
                .into_iter()
                .map(|l| l.replacen('✓', &paint.good("✓"), 1))
                .collect(),
            Some(false) => {
                wrap_hanging(&line("✗"), 6 + name_width).into_iter().map(|l| paint.bad(&l)).collect::<Vec<_>>()
            }
            None if v.undecided => {
                wrap_hanging(&line("?"), 6 + name_width).into_iter().map(|l| paint.warn(&l)).collect::<Vec<_>>()
            }
            None => wrap_hanging(&line("–"), 6 + name_width).into_iter().map(|l| paint.dim(&l)).collect(),
        });
        if v.passed != Some(true) && !v.note.is_empty() {
            lines.extend(wrap(&v.note, &" ".repeat(6 + name_width)).into_iter().map(|l| paint.dim(&l)));
        }
    }
    lines
}

/// Blocks two by two where they fit, one below the other where not, cut into bands of columns where even that is too wide.
fn table(blocks: &[&Block], columns: &[String], paint: &Paint) -> Vec<String> {
    let rows = || blocks.iter().flat_map(|b| &b.rows);
    let labels = rows().map(|r| columns_of(&r.label)).chain(blocks.iter().map(|b| columns_of(b.title)));
    let label = labels.max().unwrap_or(0).min(40);
    let figures = rows().flat_map(|r| &r.cells).flat_map(|c| [&c.text, c.range.as_ref().unwrap_or(&c.text)]);
    let widest = figures.chain(columns).map(|text| columns_of(text)).max().unwrap_or(0);
    // A blank before each figure, its sign after it.
    let grid = Layout { label, cell: (widest + 2).max(8) };
    let per_band = ((WIDTH - INDENT.len() - label) / grid.cell).max(1);
    let bands: Vec<Range<usize>> =
        (0..columns.len()).step_by(per_band).map(|from| from..(from + per_band).min(columns.len())).collect();
    let width = label + grid.cell * columns.len();
    let side_by_side = INDENT.len() + 2 * width + GAP <= WIDTH;
    let mut out = Vec::new();
    for pair in blocks.chunks(if side_by_side { 2 } else { 1 }) {
        for band in &bands {
            let drawn: Vec<Vec<String>> =
                pair.iter().map(|b| draw(b, &columns[band.clone()], band, &grid, paint)).collect();
            for line in 0..drawn.iter().map(Vec::len).max().unwrap_or(0) {
                // Every line of a block is `width` wide on screen, with any colours.
                let pieces: Vec<String> =
                    drawn.iter().map(|d| d.get(line).cloned().unwrap_or_else(|| " ".repeat(width))).collect();
                out.push(format!("{INDENT}{}", pieces.join(&" ".repeat(GAP))));
            }
            out.push(String::new());
        }
    }
    out
}

/// Names on the left, figures on the right.
fn plain_table(head: &Vec<String>, rows: &[Vec<String>], paint: &Paint) -> Vec<String> {
    let lines = || std::iter::once(head).chain(rows);
    let width = |column: usize| lines().filter_map(|line| line.get(column)).map(|cell| columns_of(cell)).max();
    let label = width(0).unwrap_or(0).min(40);
    let line = |cells: &Vec<String>| {
        let figures = cells.iter().enumerate().skip(1);
        let figures = figures.map(|(n, cell)| pad_left(cell, width(n).unwrap_or(0) + 2));
        format!("{INDENT}{}{}", pad_right(cells.first().map_or("", String::as_str), label), figures.collect::<String>())
    };
    lines().enumerate().map(|(n, cells)| if n == 0 { paint.dim(&line(cells)) } else { line(cells) }).collect()
}

/// Widths on screen.
struct Layout {
    label: usize,
    cell: usize,
}

/// Lines of one block, all of the same width.
fn draw(block: &Block, heads: &[String], band: &Range<usize>, grid: &Layout, paint: &Paint) -> Vec<String> {
    let heads: String = heads.iter().map(|c| format!("{} ", pad_left(c, grid.cell - 1))).collect();
    let mut lines = vec![format!("{}{}", paint.bold(&pad_right(block.title, grid.label)), paint.dim(&heads))];
    for row in &block.rows {
        lines.extend(draw_row(row, &row.cells[band.clone()], grid, paint));
    }
    lines
}

/// The figures and, where repeats differ, the interval below them.
fn draw_row(row: &Row, cells: &[Cell], grid: &Layout, paint: &Paint) -> Vec<String> {
    let name = pad_right(&row.label, grid.label);
    let mut line = if row.measured { name } else { paint.dim(&name) };
    for cell in cells {
        // Every cell ends in its sign or a blank, so that the digits stay aligned.
        let text = format!("{}{}", pad_left(&cell.text, grid.cell - 1), cell.flag.sign());
        line.push_str(&match cell.flag {
            Flag::Bad if row.measured => paint.bad(&text),
            Flag::Invalid => paint.warn(&text),
            _ if !row.measured => paint.dim(&text),
            _ => text,
        });
    }
    let mut lines = vec![line];
    if cells.iter().any(|c| c.range.is_some()) {
        let ranges = cells.iter().map(|c| format!("{} ", pad_left(c.range.as_deref().unwrap_or(""), grid.cell - 1)));
        lines.push(paint.dim(&format!("{}{}", " ".repeat(grid.label), ranges.collect::<String>())));
    }
    lines
}

/// Every character used here is one column wide.
fn columns_of(text: &str) -> usize {
    text.chars().count()
}

fn pad_left(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(columns_of(text))))
}

fn pad_right(text: &str, width: usize) -> String {
    let kept: String = text.chars().take(width).collect();
    let missing = width - columns_of(&kept);
    kept + &" ".repeat(missing)
}

fn wrap(text: &str, indent: &str) -> Vec<String> {
    // As the lines after the first.
    let indent = &indent[..indent.len().min(WIDTH / 2)];
    wrap_hanging(&format!("{indent}{text}"), indent.len())
}

fn bullet(sign: &str, text: &str) -> Vec<String> {
    wrap_hanging(&format!("{INDENT}{sign} {text}"), 4)
}

/// Breaks at blanks (hard where a word is too long); lines after the first are indented by `hang` columns.
fn wrap_hanging(text: &str, hang: usize) -> Vec<String> {
    let hang = hang.min(WIDTH / 2);
    let mut rest: Vec<char> = text.chars().filter(|c| !c.is_control()).collect();
    let mut lines = Vec::new();
    while rest.len() > WIDTH {
        // A break inside the leading blanks would make an empty line.
        let first_word = rest.iter().position(|c| *c != ' ').unwrap_or(0);
        let cut = rest[..=WIDTH].iter().rposition(|c| *c == ' ').filter(|at| *at > first_word).unwrap_or(WIDTH);
        lines.push(rest[..cut].iter().collect());
        let next = rest[cut..].iter().skip_while(|c| **c == ' ').copied();
        rest = std::iter::repeat_n(' ', hang).chain(next).collect();
    }
    lines.push(rest.into_iter().collect());
    lines
}
