//! Charts as inline SVG: axes, lines, areas and bars. Colours come from the page's style sheet, by class. Nothing here knows a report.

mod heat;

use super::numbers::plain;
pub(super) use heat::{Cell, heat};

/// Units of the drawing; the page scales it.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 290.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 42.0;

/// Safe as text and inside a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Values, and the marks on their axis.
pub(super) struct Axis {
    pub(super) label: String,
    /// Ascending; the first and the last tick or value bound the axis.
    ticks: Vec<(f64, String)>,
    from: f64,
    to: f64,
    log: bool,
}

impl Axis {
    /// From 0 to at least `max`, about five round ticks.
    pub(super) fn from_zero(label: &str, max: f64, show: fn(f64) -> String) -> Self {
        let max = if max.is_finite() && max > 0.0 { max } else { 1.0 };
        let rough = max / 4.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .map(|m| m * power)
            .into_iter()
            .find(|s| *s >= rough * 0.999)
            .unwrap_or(power * 10.0);
        let number = (max / step - 1e-9).ceil().max(1.0);
        // At most a handful: `step` is at least a quarter of `max` or close to it.
        let ticks = (0..=number as u32).map(|i| f64::from(i) * step).map(|v| (v, show(v))).collect();
        Self { label: label.into(), ticks, from: 0.0, to: number * step, log: false }
    }

    /// Given values as ticks, with some room around them.
    pub(super) fn at_values(label: &str, values: &[f64], show: fn(f64) -> String) -> Self {
        let (low, high) = bounds(values.iter().copied()).unwrap_or((0.0, 1.0));
        let room = if high > low { (high - low) * 0.05 } else { high.abs().max(1.0) * 0.5 };
        let ticks = values.iter().map(|v| (*v, show(*v))).collect();
        Self { label: label.into(), ticks, from: low - room, to: high + room, log: false }
    }

    /// Whole decades around the values, which are > 0.
    pub(super) fn decades(label: &str, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = bounds(values.filter(|v| *v > 0.0)).unwrap_or((1.0, 10.0));
        let (first, last) = (low.log10().floor().max(-6.0) as i32, high.log10().ceil().min(9.0) as i32);
        let last = last.max(first + 1);
        let ticks = (first..=last).map(|e| 10_f64.powi(e)).map(|v| (v, plain_tick(v))).collect();
        Self { label: label.into(), ticks, from: 10_f64.powi(first), to: 10_f64.powi(last), log: true }
    }

    /// Given ticks on a plain scale that ends with them.
    pub(super) fn ticks(label: &str, ticks: Vec<(f64, String)>) -> Self {
        let (from, to) = bounds(ticks.iter().map(|t| t.0)).filter(|(a, b)| a < b).unwrap_or((0.0, 1.0));
        Self { label: label.into(), ticks, from, to, log: false }
    }

    /// 0..=1 along the axis.
    fn place(&self, value: f64) -> f64 {
        let place = if self.log {
            (value.max(self.from).log10() - self.from.log10()) / (self.to.log10() - self.from.log10())
        } else {
            (value - self.from) / (self.to - self.from)
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .filter(|v| v.is_finite())
        .fold(None, |b, v| Some(b.map_or((v, v), |(l, h): (f64, f64)| (l.min(v), h.max(v)))))
}

fn plain_tick(value: f64) -> String {
    if value >= 1.0 { super::numbers::count(value) } else { format!("{value}") }
}

/// The title of a chart, and its description for screen readers.
pub(super) struct Caption<'a> {
    /// Unique in the page, `[a-z0-9-]+`.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) description: &'a str,
}

#[derive(Default)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    /// Shown when pointed at.
    pub(super) hint: String,
    /// Drawn with an exclamation mark.
    pub(super) doubtful: bool,
    /// Ends of a vertical line through the point.
    pub(super) whisker: Option<(f64, f64)>,
}

pub(super) struct Line {
    /// Class that sets the colour.
    pub(super) class: String,
    /// Index of the marker's shape; None: no markers.
    pub(super) shape: Option<usize>,
    pub(super) points: Vec<Point>,
}

fn open(caption: &Caption, height: f64) -> String {
    let (id, title, description) = (caption.id, escape(caption.title), escape(caption.description));
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
         <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{description}</desc>"
    )
}

/// Where the axes put a point.
fn spot(x: &Axis, y: &Axis, px: f64, py: f64) -> (f64, f64) {
    (LEFT + x.place(px) * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y.place(py) * (HEIGHT - TOP - BOTTOM))
}

fn frame(x: &Axis, y: &Axis) -> String {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut out = String::new();
    for (value, label) in &y.ticks {
        let at = spot(x, y, x.from, *value).1;
        out.push_str(&format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"));
        out.push_str(&format!(
            "<text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            escape(label)
        ));
    }
    for (value, label) in &x.ticks {
        let at = spot(x, y, *value, y.from).0;
        out.push_str(&format!(
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{}\"/>",
            bottom + 4.0
        ));
        out.push_str(&format!(
            "<text class=\"tick\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            escape(label)
        ));
    }
    out.push_str(&format!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"));
    let middle = (LEFT + right) / 2.0;
    out.push_str(&format!(
        "<text class=\"label\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        HEIGHT - 6.0,
        escape(&x.label)
    ));
    let height = (TOP + bottom) / 2.0;
    out.push_str(&format!(
        "<text class=\"label\" transform=\"translate(10 {height}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escape(&y.label)
    ));
    out
}

/// Lines with markers. `rule`: a straight line without marker from the first point to the second, e.g. an ideal.
pub(super) fn lines(caption: &Caption, x: &Axis, y: &Axis, rule: Option<[(f64, f64); 2]>, lines: &[Line]) -> String {
    tagged_lines(caption, x, y, rule, lines, &[])
}

/// As [`lines`], with a short name beside the end of each line; an empty one is not drawn.
pub(super) fn tagged_lines(
    caption: &Caption,
    x: &Axis,
    y: &Axis,
    rule: Option<[(f64, f64); 2]>,
    lines: &[Line],
    tags: &[String],
) -> String {
    let mut out = open(caption, HEIGHT);
    out.push_str(&frame(x, y));
    if let Some([a, b]) = rule {
        let ((x1, y1), (x2, y2)) = (spot(x, y, a.0, a.1), spot(x, y, b.0, b.1));
        out.push_str(&format!("<line class=\"rule\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"));
    }
    out.push_str(&drawn_lines(x, y, lines));
    out.push_str(&drawn_tags(x, y, lines, tags));
    out + "</svg>"
}

fn drawn_lines(x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let mut out = String::new();
    for line in lines {
        let spots: Vec<(f64, f64)> = line.points.iter().map(|p| spot(x, y, p.x, p.y)).collect();
        out.push_str(&format!(
            "<g class=\"{}\"><polyline class=\"line\" points=\"{}\"/>",
            escape(&line.class),
            path(&spots)
        ));
        for ((px, py), point) in spots.iter().zip(&line.points) {
            if let Some(shape) = line.shape {
                let doubt = if point.doubtful {
                    format!("<text class=\"doubt\" x=\"{px:.1}\" y=\"{:.1}\" text-anchor=\"middle\">!</text>", py - 8.0)
                } else {
                    String::new()
                };
                let ends = point.whisker.map(|(low, high)| (spot(x, y, point.x, low).1, spot(x, y, point.x, high).1));
                out.push_str(&format!(
                    "<g>{}{}{doubt}<title>{}</title></g>",
                    ends.map_or_else(String::new, |(low, high)| whisker(*px, low, high)),
                    marker(shape, *px, *py),
                    escape(&point.hint)
                ));
            }
        }
        out.push_str("</g>");
    }
    out
}

/// Names at the right edge, at the height of their line's last point as far as they do not cover each other.
fn drawn_tags(x: &Axis, y: &Axis, lines: &[Line], tags: &[String]) -> String {
    const APART: f64 = 11.0;
    let named = lines.iter().zip(tags).filter(|(_, tag)| !tag.is_empty());
    let ends = named.filter_map(|(line, tag)| {
        let last = line.points.iter().rev().find(|point| point.y.is_finite())?;
        Some((spot(x, y, last.x, last.y).1, &line.class, tag))
    });
    let mut ends: Vec<(f64, &String, &String)> = ends.collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = HEIGHT - BOTTOM - (ends.len().saturating_sub(1)) as f64 * APART;
    let mut next = TOP;
    let mut out = String::new();
    for (at, class, tag) in ends {
        let at = at.max(next).min(lowest.max(next));
        (next, lowest) = (at + APART, lowest + APART);
        out.push_str(&format!(
            "<text class=\"tag {}\" x=\"{}\" y=\"{:.1}\">{}</text>",
            escape(class),
            WIDTH - RIGHT + 4.0,
            at + 4.0,
            escape(tag)
        ));
    }
    out
}

fn path(spots: &[(f64, f64)]) -> String {
    spots.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}

/// A vertical line with a short bar at each end.
fn whisker(x: f64, low: f64, high: f64) -> String {
    let (left, right) = (x - 4.0, x + 4.0);
    format!(
        "<path class=\"whisker\" d=\"M{x:.1} {low:.1}V{high:.1}M{left:.1} {low:.1}H{right:.1}M{left:.1} {high:.1}H{right:.1}\"/>"
    )
}

/// Six shapes, so that lines differ without colour.
pub(super) fn marker(shape: usize, x: f64, y: f64) -> String {
    let polygon = |corners: &[(f64, f64)]| {
        let corners: Vec<_> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        format!("<polygon class=\"mark\" points=\"{}\"/>", path(&corners))
    };
    match shape % 6 {
        0 => format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"),
        1 => polygon(&[(-3.6, -3.6), (3.6, -3.6), (3.6, 3.6), (-3.6, 3.6)]),
        2 => polygon(&[(0.0, -5.0), (4.6, 3.6), (-4.6, 3.6)]),
        3 => polygon(&[(0.0, -5.2), (5.2, 0.0), (0.0, 5.2), (-5.2, 0.0)]),
        4 => polygon(&[(0.0, 5.0), (4.6, -3.6), (-4.6, -3.6)]),
        _ => polygon(&[
            (-1.4, -4.6),
            (1.4, -4.6),
            (1.4, -1.4),
            (4.6, -1.4),
            (4.6, 1.4),
            (1.4, 1.4),
            (1.4, 4.6),
            (-1.4, 4.6),
            (-1.4, 1.4),
            (-4.6, 1.4),
            (-4.6, -1.4),
            (-1.4, -1.4),
        ]),
    }
}

/// One moment of a stacked area: `lower` with `upper` on top of it.
pub(super) struct Slice {
    pub(super) x: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) hint: String,
}

/// Two areas on top of each other over time; the upper one is hatched. `rule`: a level to compare with.
pub(super) fn areas(caption: &Caption, x: &Axis, y: &Axis, rule: f64, slices: &[Slice]) -> String {
    let mut out = open(caption, HEIGHT);
    let id = caption.id;
    out.push_str(&format!(
        "<defs><pattern id=\"{id}-h\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect class=\"hatch-ground\" width=\"5\" height=\"5\"/><line class=\"hatch\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"5\"/></pattern></defs>"
    ));
    out.push_str(&frame(x, y));
    let edge =
        |height: fn(&Slice) -> f64| -> Vec<(f64, f64)> { slices.iter().map(|s| spot(x, y, s.x, height(s))).collect() };
    let (ground, lower, upper) = (edge(|_| 0.0), edge(|s| s.lower), edge(|s| s.lower + s.upper));
    let between = |top: &[(f64, f64)], bottom: &[(f64, f64)]| {
        let around: Vec<_> = top.iter().chain(bottom.iter().rev()).copied().collect();
        path(&around)
    };
    out.push_str(&format!("<polygon class=\"area-good\" points=\"{}\"/>", between(&lower, &ground)));
    out.push_str(&format!(
        "<polygon class=\"area-bad\" fill=\"url(#{id}-h)\" points=\"{}\"/>",
        between(&upper, &lower)
    ));
    out.push_str(&format!("<polyline class=\"edge\" points=\"{}\"/>", path(&lower)));
    let level = spot(x, y, x.from, rule).1;
    out.push_str(&format!(
        "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{level:.1}\" y2=\"{level:.1}\"/>",
        WIDTH - RIGHT
    ));
    let wide = (WIDTH - LEFT - RIGHT) / slices.len().max(1) as f64;
    for (slice, (at, _)) in slices.iter().zip(&ground) {
        out.push_str(&format!(
            "<rect class=\"touch\" x=\"{:.1}\" y=\"{TOP}\" width=\"{wide:.1}\" height=\"{}\"><title>{}</title></rect>",
            (at - wide / 2.0).max(LEFT),
            HEIGHT - TOP - BOTTOM,
            escape(&slice.hint)
        ));
    }
    out + "</svg>"
}

/// One horizontal bar.
pub(super) struct Bar {
    pub(super) label: String,
    /// `(class, value, hint)`, left to right.
    pub(super) parts: Vec<(String, f64, String)>,
    /// A wider gap above it.
    pub(super) first_of_group: bool,
}

/// Stacked horizontal bars, the total behind each, and a line at `limit`.
pub(super) fn bars(caption: &Caption, unit: &str, limit: f64, bars: &[Bar]) -> String {
    const ROW: f64 = 20.0;
    let letters = bars.iter().map(|b| b.label.chars().count()).max().unwrap_or(0) as f64;
    let left = (letters * 7.3 + 10.0).clamp(60.0, 190.0);
    let total = |bar: &Bar| bar.parts.iter().map(|p| p.1).sum::<f64>();
    let axis = Axis::from_zero(unit, bars.iter().map(total).fold(limit, f64::max), plain);
    let (from, to) = (left, WIDTH - 44.0);
    let at = |value: f64| from + axis.place(value) * (to - from);
    let gaps = bars.iter().skip(1).filter(|b| b.first_of_group).count() as f64 * 8.0;
    let bottom = TOP + bars.len() as f64 * ROW + gaps;
    let mut out = open(caption, bottom + BOTTOM);
    for (value, label) in &axis.ticks {
        let x = at(*value);
        out.push_str(&format!("<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"));
        out.push_str(&format!(
            "<text class=\"tick\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            escape(label)
        ));
    }
    let mut y = TOP;
    for (i, bar) in bars.iter().enumerate() {
        if i > 0 && bar.first_of_group {
            y += 8.0;
        }
        out.push_str(&format!(
            "<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            y + 14.0,
            escape(&bar.label)
        ));
        let mut sum = 0.0;
        for (class, value, hint) in &bar.parts {
            let (x1, x2) = (at(sum), at(sum + value));
            sum += value;
            out.push_str(&format!(
                "<rect class=\"part {}\" x=\"{x1:.1}\" y=\"{}\" width=\"{:.1}\" height=\"{}\"><title>{}</title></rect>",
                escape(class),
                y + 2.0,
                x2 - x1,
                ROW - 4.0,
                escape(hint)
            ));
        }
        out.push_str(&format!("<text class=\"tick\" x=\"{:.1}\" y=\"{}\">{sum:.2}</text>", at(sum) + 5.0, y + 14.0));
        y += ROW;
    }
    let x = at(limit);
    out.push_str(&format!("<line class=\"rule\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"));
    out.push_str(&format!(
        "<text class=\"label\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        (from + to) / 2.0,
        bottom + BOTTOM - 8.0,
        escape(unit)
    ));
    out + "</svg>"
}
