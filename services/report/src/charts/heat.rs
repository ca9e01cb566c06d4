//! Latencies second by second: how many requests of each second ended in which band of latency.

use loadtest::latency_bands::{BANDS, lower_edge_ms, upper_edge_ms};

use super::{Axis, Caption, Key, Line, Point, Swatch, count, figure, ms, over_time::ticks};
use crate::{
    analysis::typical,
    schema::{Report, Second, Step},
    svg::{Cell, Slice, heat},
};

/// More seconds share columns.
const MAX_COLUMNS: usize = 240;
/// Shades, by the least share of a column's requests.
const SHADES: [(f64, &str); 5] =
    [(0.0, "below 1 %"), (0.01, "1 to 5 %"), (0.05, "5 to 20 %"), (0.2, "20 to 50 %"), (0.5, "50 % and more")];

/// One per profile; those of reports whose seconds have no counts by latency are left out.
pub(crate) fn heat_maps(report: &Report, users: u32) -> String {
    let steps = report.profiles.iter().enumerate().filter_map(|(i, p)| Some((i, typical(report, p, users)?)));
    steps.map(|(i, step)| heat_map(step, &format!("heat-{users}-{i}"))).collect()
}

fn heat_map(step: &Step, id: &str) -> String {
    let columns = columns(&step.series);
    let mut cells = Vec::new();
    let mut hints = Vec::new();
    let mut edges = Vec::new();
    for column in &columns {
        let total: u64 = column.bands.iter().sum();
        for (band, count) in column.bands.iter().enumerate().filter(|(_, count)| **count > 0) {
            let y = edges_ms(band);
            let share = *count as f64 / total as f64;
            let shade = SHADES.iter().rposition(|(from, _)| share >= *from).unwrap_or(0);
            cells.push(Cell { x: column.x, y, shade });
            edges.extend([y.0, y.1]);
        }
        hints.push(Slice { x: column.x.0, lower: 0.0, upper: 0.0, hint: column.hint.clone() });
    }
    if cells.is_empty() {
        return String::new();
    }
    let line = |class: &str, value: fn(&Second) -> Option<f64>| {
        let at = step.series.iter().filter_map(|second| Some((f64::from(second.second) + 0.5, value(second)?)));
        let points = at.map(|(x, y)| Point { x, y, ..Point::default() }).collect();
        Line { class: class.into(), shape: None, points }
    };
    let lines = [line("q0", |second| second.p50_ms), line("q1", |second| second.p99_ms)];
    let title = format!("Latencies of {} at {} requests/s, second by second", step.profile, count(step.offered_per_s));
    let description =
        format!("Heat map of {} columns: the share of the requests in each band of latency.", columns.len());
    let caption = Caption { id, title: &title, description: &description };
    let last = columns.last().map_or(1.0, |column| column.x.1);
    let x = Axis::ticks("second of the step", ticks(last));
    let y = Axis::decades("latency, ms (log scale)", edges.into_iter());
    let key = |class: String, swatch, label: &str| Key { class, swatch, label: label.into() };
    let shades = SHADES.iter().enumerate().map(|(n, (_, label))| key(format!("heat h{n}"), Swatch::Box, label));
    let percentiles = [key("q0".into(), Swatch::Bare, "p50"), key("q1".into(), Swatch::Bare, "p99")];
    let keys: Vec<Key> = shades.chain(percentiles).collect();
    let lead = "The stronger the colour, the more of the requests that ended in a second took as long.";
    figure(&title, lead, &heat(&caption, &x, &y, &cells, &lines, &hints), &keys)
}

/// In ms. The first band begins at an octave below its end, and the last one ends an octave above its begin.
fn edges_ms(band: usize) -> (f64, f64) {
    let (lower, upper) = (lower_edge_ms(band), upper_edge_ms(band));
    let lower_shown = if lower > 0.0 { lower } else { upper / 2.0 };
    (lower_shown, if upper.is_finite() { upper } else { lower * 2.0 })
}

struct Column {
    /// Its seconds, from and to.
    x: (f64, f64),
    bands: [u64; BANDS],
    hint: String,
}

fn columns(series: &[Second]) -> Vec<Column> {
    let wide = series.len().div_ceil(MAX_COLUMNS).max(1);
    // Minutes have an entry each in a long step.
    let stride = series.windows(2).map(|pair| pair[1].second.saturating_sub(pair[0].second)).min().unwrap_or(1).max(1);
    let column = |seconds: &[Second]| {
        let (first, last) = (seconds.first()?, seconds.last()?);
        let mut bands = [0; BANDS];
        for second in seconds {
            for (sum, count) in bands.iter_mut().zip(&second.latency_counts) {
                *sum += count;
            }
        }
        let slowest = bands.iter().rposition(|count| *count > 0)?;
        let longest = match upper_edge_ms(slowest) {
            upper if upper.is_finite() => format!("none above {} ms", ms(upper)),
            _ => format!("some above {} ms", ms(lower_edge_ms(slowest))),
        };
        let told = |value: Option<f64>| ms(value.unwrap_or(f64::NAN));
        let hint = format!(
            "second {}: {} requests, p50 {} ms, p99 {} ms, {longest}",
            first.second,
            count(bands.iter().sum::<u64>() as f64),
            told(first.p50_ms),
            told(first.p99_ms)
        );
        Some(Column { x: (f64::from(first.second), f64::from(last.second + stride)), bands, hint })
    };
    series.chunks(wide).filter_map(column).collect()
}
