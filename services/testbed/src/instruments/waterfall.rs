//! Traces as text: a line per span with a bar for its time within the trace.

use std::time::{Duration, UNIX_EPOCH};

use tracestore::{Event, Reason, Span, Summary, Trace, waterfall};

#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Columns; a line is cut there.
    pub width: usize,
    pub colour: bool,
}

/// Columns below which bars cannot be told apart.
const MIN_WIDTH: usize = 60;
const SERVICE_WIDTH: usize = 14;
const DURATION_WIDTH: usize = 8;

impl Style {
    fn dress(self, code: &str, text: &str) -> String {
        if self.colour && !text.trim().is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Ends in a line break.
pub fn render(trace: &Trace, style: Style) -> String {
    let rows = waterfall::rows(trace);
    let extent_ns = waterfall::extent_ns(trace);
    let labels: Vec<String> = rows.iter().map(label).collect();
    let widest = |lengths: &mut dyn Iterator<Item = usize>, most: usize| lengths.max().unwrap_or(0).min(most);
    let width = style.width.max(MIN_WIDTH);
    let service_width = widest(&mut rows.iter().map(|row| process(row.span).chars().count()), SERVICE_WIDTH);
    let label_width = widest(&mut labels.iter().map(|label| label.chars().count()), width * 3 / 10);
    let rest = width.saturating_sub(service_width + label_width + DURATION_WIDTH + 5);
    // Half of what is left for the picture, the other half for words.
    let bar_width = (rest / 2).clamp(12, 60);

    let mut out = head(trace, extent_ns, style);
    for (row, label) in rows.iter().zip(&labels) {
        let span = row.span;
        let bar = bar(row.offset_ns, span.duration_ns, extent_ns, bar_width);
        let mark = if span.failed { "✗" } else { " " };
        let left = width.saturating_sub(service_width + label_width + bar_width + DURATION_WIDTH + 6);
        let colour = if span.failed { "31" } else { "36" };
        let line = [
            style.dress("2", &fit(&process(span), service_width)),
            " ".into(),
            if span.failed { style.dress("31", &fit(label, label_width)) } else { fit(label, label_width) },
            " ".into(),
            style.dress(colour, &bar),
            format!(" {:>DURATION_WIDTH$} ", duration(span.duration_ns)),
            style.dress("31", mark),
            " ".into(),
            style.dress("2", &cut(&details(span, row.offset_ns), left)),
        ];
        out.push_str(line.concat().trim_end());
        out.push('\n');
        for event in span.events.iter().filter(|event| is_sentence(event)) {
            let line = format!("{:>indent$}{}", "", event.name, indent = service_width + 1 + 2 * row.depth);
            out.push_str(&style.dress("2", &cut(&line, width)));
            out.push('\n');
        }
    }
    if trace.dropped_spans > 0 {
        out.push_str(&format!("({} more spans were dropped)\n", trace.dropped_spans));
    }
    out
}

/// A line per trace; ends in a line break.
pub fn list(traces: &[Summary], style: Style) -> String {
    let mut out = String::new();
    for trace in traces {
        let mark = if trace.failed { "✗" } else { " " };
        let line = format!(
            "{}  {}  {:>DURATION_WIDTH$} {} {:>3} spans  {:<14} {}: {}",
            trace.id,
            time(trace.start_ns),
            duration(trace.duration_ns),
            style.dress("31", mark),
            trace.spans,
            reasons(&trace.reasons),
            trace.service,
            trace.name,
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn head(trace: &Trace, extent_ns: u64, style: Style) -> String {
    let start = trace.spans.iter().map(|span| span.start_ns).min().unwrap_or_default();
    let failed = trace.spans.iter().any(|span| span.failed);
    let mut parts = vec![time(start), duration(extent_ns), format!("{} spans", trace.spans.len())];
    if !trace.reasons.is_empty() {
        parts.push(format!("kept: {}", reasons(&trace.reasons)));
    }
    let mut line = format!("{}  {}", style.dress("1", &format!("trace {}", trace.id)), parts.join(" · "));
    if failed {
        line.push_str(&style.dress("31", "  ✗ failed"));
    }
    line.push('\n');
    line
}

fn reasons(reasons: &[Reason]) -> String {
    let word = |reason: &Reason| match reason {
        Reason::Open => "still open",
        Reason::Slow => "slow",
        Reason::Failed => "failed",
        Reason::Exemplar => "exemplar",
        Reason::Sample => "sample",
    };
    reasons.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// `api`, or `api/3` of several.
fn process(span: &Span) -> String {
    match &span.instance {
        // Generated instance ids would only fill the line.
        Some(instance) if instance.len() <= 6 && !span.service.ends_with(&**instance) => {
            format!("{}/{instance}", span.service)
        }
        _ => span.service.to_string(),
    }
}

fn label(row: &waterfall::Row<'_>) -> String {
    match row.depth {
        0 => row.span.name.clone(),
        // Far down, a number shows the depth instead of blanks.
        depth @ 13.. => format!("{:>24}{} └ {}", "", depth, row.span.name),
        depth => format!("{}{} {}", "  ".repeat(depth - 1), if row.last { '└' } else { '├' }, row.span.name),
    }
}

/// `width` columns. Even the shortest span is visible.
fn bar(offset_ns: u64, duration_ns: u64, extent_ns: u64, width: usize) -> String {
    let at = |ns: u64| ns as f64 / extent_ns.max(1) as f64 * width as f64;
    let start = (at(offset_ns) as usize).min(width - 1);
    let length = (at(duration_ns).round() as usize).clamp(1, width - start);
    let short = at(duration_ns) < 0.5;
    let body = if short { "▏".to_owned() } else { "█".repeat(length) };
    format!("{}{body}{}", " ".repeat(start), " ".repeat(width - start - if short { 1 } else { length }))
}

/// Such events have a line of their own in a waterfall: the reasons of a decision.
fn is_sentence(event: &Event) -> bool {
    event.name.ends_with('.')
}

/// What a span says of itself that its name does not. Without sentences.
pub fn details(span: &Span, offset_ns: u64) -> String {
    let mut words = Vec::new();
    if !span.message.is_empty() {
        words.push(span.message.clone());
    }
    let (first, others): (Vec<_>, Vec<_>) = span
        .attributes
        .iter()
        .filter(|(key, _)| !NOISE.iter().any(|noise| key.starts_with(noise)))
        .partition(|(key, _)| FIRST.contains(&key.as_str()));
    for (key, value) in first.into_iter().chain(others) {
        let short = PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix)).unwrap_or(key);
        words.push(format!("{short}={value}"));
    }
    for event in span.events.iter().filter(|event| !is_sentence(event)) {
        let since = event.at_ns.saturating_sub(span.start_ns).saturating_add(offset_ns);
        words.push(format!("{}@{}", event.name, duration(since).trim_start()));
    }
    words.join(" ")
}

/// Attributes that say how it ended.
const FIRST: [&str; 3] = ["http.response.status_code", "error.type", "db.response.status_code"];
/// The same in every span of their kind, or about the program's text.
const NOISE: [&str; 11] = [
    "code.",
    "thread.",
    "busy_ns",
    "idle_ns",
    "target",
    "level",
    "url.scheme",
    "network.",
    "user_agent.",
    "db.system.name",
    "server.",
];
const PREFIXES: [&str; 4] = ["http.response.", "http.request.", "http.", "db."];

fn duration(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1000),
        1_000_000..100_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        100_000_000..10_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

fn time(unix_ns: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_nanos(unix_ns)).to_string()
}

/// Exactly `width` columns.
fn fit(text: &str, width: usize) -> String {
    format!("{:<width$}", cut(text, width))
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    if width == 0 { String::new() } else { format!("{kept}…") }
}

#[cfg(test)]
mod tests;
