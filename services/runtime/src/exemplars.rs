//! Exemplars: each bucket of a histogram has the trace id of one of its requests.
//!
//! The crate prometheus has no exemplars (tikv/rust-prometheus issue 393). prometheus-client has, but locks its histogram on every
//! observation. So exemplars are stored separately, for recorded requests only. OpenMetrics, the format with exemplars, is made from the text
//! format on request.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::telemetry::Context;

/// The content type of an OpenMetrics response. Prometheus requests this format.
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type in an `Accept` header.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text";

/// How long an exemplar stays: longer than a scrape interval of Prometheus. Traces of exemplars are kept, so there must be few.
const LIFETIME: Duration = Duration::from_secs(15);

/// The series with exemplars of a process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Exemplars(Arc<Mutex<Vec<Arc<Series>>>>);

/// One recorded request of each bucket of one series.
#[derive(Debug)]
pub struct Series {
    /// The start of its bucket lines: `name_bucket{labels,`
    line_start: String,
    /// Upper bounds, ascending; the last bucket has none.
    bounds: Vec<f64>,
    of_bucket: Vec<Mutex<Option<Exemplar>>>,
}

#[derive(Debug, Clone, Copy)]
struct Exemplar {
    context: Context,
    duration: Duration,
    at: Instant,
    /// The same time by the wall clock.
    timestamp: SystemTime,
}

impl Exemplars {
    /// Adds the series of the histogram `name` with these labels (in alphabetical order, as in the registry) and these upper bounds.
    pub fn series(&self, name: &str, labels: &[(&str, &str)], bounds: &[f64]) -> Arc<Series> {
        let mut line_start = format!("{name}_bucket{{");
        for (label, value) in labels {
            // Writing to a string cannot fail.
            let _ = write!(line_start, "{label}=\"{value}\",");
        }
        let of_bucket = (0..=bounds.len()).map(|_| Mutex::default()).collect();
        let series = Arc::new(Series { line_start, bounds: bounds.to_vec(), of_bucket });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&series));
        series
    }

    /// Converts Prometheus's text format to OpenMetrics, with exemplars in the lines of their buckets.
    pub(crate) fn openmetrics(&self, text: &str) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of_line: HashMap<String, Exemplar> = all.iter().flat_map(|series| series.lines()).collect();
        let mut out = String::with_capacity(text.len() + 128 * of_line.len());
        for line in text.lines() {
            if let Some((kind, rest)) = line.strip_prefix("# ").and_then(|rest| rest.split_once(' ')) {
                push_header(&mut out, kind, rest);
            } else {
                out.push_str(line);
                if let Some(exemplar) = line.rsplit_once(' ').and_then(|(series, _)| of_line.get(series)) {
                    let Exemplar { context, duration, timestamp, .. } = exemplar;
                    let (trace_id, value) = (context.trace_id_hex(), duration.as_secs_f64());
                    let at = timestamp.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                    let _ = write!(out, " # {{trace_id=\"{trace_id}\"}} {value} {at:.3}");
                }
            }
            out.push('\n');
        }
        out.push_str("# EOF\n");
        out
    }
}

impl Series {
    /// True: the request is now the exemplar of its bucket, and its trace must be kept.
    pub fn offer(&self, duration: Duration, context: Context, now: Instant) -> bool {
        let value = duration.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let mut present = self.of_bucket[bucket].lock().unwrap_or_else(PoisonError::into_inner);
        let stays = present.is_some_and(|present| now.saturating_duration_since(present.at) < LIFETIME);
        if !stays {
            *present = Some(Exemplar { context, duration, at: now, timestamp: SystemTime::now() });
        }
        !stays
    }

    /// Each exemplar with the start of its bucket's line, up to the value.
    fn lines(&self) -> impl Iterator<Item = (String, Exemplar)> {
        self.of_bucket.iter().enumerate().filter_map(|(n, present)| {
            let exemplar = (*present.lock().unwrap_or_else(PoisonError::into_inner))?;
            let bound = self.bounds.get(n).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            Some((format!("{}le=\"{bound}\"}}", self.line_start), exemplar))
        })
    }
}

/// Writes a `# HELP` or `# TYPE` line. In OpenMetrics a counter's family name has no `_total`, and quotation marks are escaped.
fn push_header(out: &mut String, kind: &str, rest: &str) {
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let family = name.strip_suffix("_total").unwrap_or(name);
    let rest = if kind == "HELP" { rest.replace('"', "\\\"") } else { rest.to_owned() };
    let _ = write!(out, "# {kind} {family} {rest}");
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounter, Registry, TextEncoder};

    use super::*;

    fn context(trace_id: u128) -> Context {
        Context { trace_id, span_id: 1, sampled: true }
    }

    #[test]
    fn exemplars_are_in_the_lines_of_their_buckets() {
        let (registry, bounds) = (Registry::new(), [0.001, 1.0, 2.5]);
        let options = HistogramOpts::new("took_seconds", "How \"long\"").buckets(bounds.to_vec());
        let histograms = HistogramVec::new(options, &["route", "class"]).unwrap();
        registry.register(Box::new(histograms.clone())).unwrap();
        let counter = IntCounter::new("done_total", "What was done").unwrap();
        registry.register(Box::new(counter)).unwrap();
        let exemplars = Exemplars::default();
        let series = exemplars.series("took_seconds", &[("class", "2xx"), ("route", "/a")], &bounds);
        let (now, from) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64());
        // In the third bucket the first one stays.
        for (ms, id, taken) in [(1, 1, true), (1000, 2, true), (1001, 3, true), (2500, 4, false), (60_000, 5, true)] {
            let duration = Duration::from_millis(ms);
            histograms.with_label_values(&["/a", "2xx"]).observe(duration.as_secs_f64());
            assert_eq!(series.offer(duration, context(id), now), taken, "{ms}");
        }
        histograms.with_label_values(&["/a", "5xx"]).observe(0.5);
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let text = exemplars.openmetrics(&text);
        let line = |start: &str| {
            text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"))
        };
        for (le, count, id, value) in
            [("0.001", 1, 1, "0.001"), ("1", 2, 2, "1"), ("2.5", 4, 3, "1.001"), ("+Inf", 5, 5, "60")]
        {
            let start = format!("took_seconds_bucket{{class=\"2xx\",route=\"/a\",le=\"{le}\"}} {count} # ");
            let exemplar = line(&start).strip_prefix(&start).unwrap();
            let at = exemplar.strip_prefix(&format!("{{trace_id=\"{id:032x}\"}} {value} ")).unwrap();
            assert!(at.parse::<f64>().unwrap() - from > -0.001, "{at} {from}");
        }
        assert!(!line("took_seconds_bucket{class=\"5xx\",route=\"/a\",le=\"1\"}").contains('#'));
        assert!(text.contains("# HELP took_seconds How \\\"long\\\"\n# TYPE took_seconds histogram\n"), "{text}");
        assert!(text.contains("# HELP done What was done\n# TYPE done counter\ndone_total 0\n"), "{text}");
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }

    #[test]
    fn an_exemplar_stays_for_its_lifetime() {
        let series = Exemplars::default().series("x", &[], &[1.0]);
        let (now, duration) = (Instant::now(), Duration::from_millis(1));
        assert!(series.offer(duration, context(1), now) && !series.offer(duration, context(2), now + LIFETIME / 2));
        assert!(series.offer(duration, context(3), now + LIFETIME));
        let (line, exemplar) = series.lines().next().unwrap();
        assert_eq!((line.as_str(), exemplar.context.trace_id), ("x_bucket{le=\"1\"}", 3));
    }
}
