//! Exemplars: from a histogram's bucket to the trace of a request that fell into it.
//!
//! The prometheus crate has none (tikv/rust-prometheus issue 393), and prometheus-client, which has, locks its histogram for every
//! observation. So they lie beside the histogram and are touched for recorded requests only, and OpenMetrics, the format that
//! carries them, is made from the text format when it is asked for.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What `/metrics` answers to whoever asks for OpenMetrics, as Prometheus does.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Its name in an `Accept` header.
pub const MEDIA_TYPE: &str = "application/openmetrics-text";

/// An exemplar stays for so long, which is longer than Prometheus takes to come by. Its trace must be kept for as long as somebody may
/// follow it, so there must not be many.
const STAYS: Duration = Duration::from_secs(15);

/// All series of a process that have exemplars. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Exemplars(Arc<Mutex<Vec<Arc<Series>>>>);

/// One recorded request of each bucket of one series.
#[derive(Debug)]
pub struct Series {
    /// What the lines of its buckets begin with: `name_bucket{labels,`
    start: String,
    /// Upper bounds, ascending; the last bucket has none.
    bounds: Vec<f64>,
    of_bucket: Vec<Mutex<Option<Exemplar>>>,
}

#[derive(Debug, Clone, Copy)]
struct Exemplar {
    trace_id: u128,
    took: Duration,
    at: Instant,
    /// The same by the wall clock.
    shown_at: SystemTime,
}

impl Exemplars {
    /// The series of the histogram `name` with these labels (ascending by their names, as the registry has them) and these upper
    /// bounds.
    pub fn series(&self, name: &str, labels: &[(&str, &str)], bounds: &[f64]) -> Arc<Series> {
        let mut start = format!("{name}_bucket{{");
        for (label, value) in labels {
            // Writing to a string cannot fail.
            let _ = write!(start, "{label}=\"{value}\",");
        }
        let of_bucket = (0..=bounds.len()).map(|_| Mutex::default()).collect();
        let series = Arc::new(Series { start, bounds: bounds.to_vec(), of_bucket });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&series));
        series
    }

    /// Prometheus's text as OpenMetrics, with exemplars behind the lines of their buckets.
    pub(crate) fn openmetrics(&self, text: &str) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of_line: HashMap<String, Exemplar> = all.iter().flat_map(|series| series.lines()).collect();
        let mut out = String::with_capacity(text.len() + 128 * of_line.len());
        for line in text.lines() {
            if let Some((kind, rest)) = line.strip_prefix("# ").and_then(|rest| rest.split_once(' ')) {
                push_head(&mut out, kind, rest);
            } else {
                out.push_str(line);
                if let Some(exemplar) = line.rsplit_once(' ').and_then(|(series, _)| of_line.get(series)) {
                    let Exemplar { trace_id, took, shown_at, .. } = exemplar;
                    let at = shown_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                    let _ = write!(out, " # {{trace_id=\"{trace_id:032x}\"}} {} {at:.3}", took.as_secs_f64());
                }
            }
            out.push('\n');
        }
        out.push_str("# EOF\n");
        out
    }
}

impl Series {
    /// True: the request is its bucket's exemplar from now on, and its trace is to be kept.
    pub fn offer(&self, took: Duration, trace_id: u128, now: Instant) -> bool {
        let value = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let mut present = self.of_bucket[bucket].lock().unwrap_or_else(PoisonError::into_inner);
        let stays = present.is_some_and(|present| now.saturating_duration_since(present.at) < STAYS);
        if !stays {
            *present = Some(Exemplar { trace_id, took, at: now, shown_at: SystemTime::now() });
        }
        !stays
    }

    /// By the beginning of the bucket's line, up to its value.
    fn lines(&self) -> impl Iterator<Item = (String, Exemplar)> {
        self.of_bucket.iter().enumerate().filter_map(|(n, present)| {
            let exemplar = (*present.lock().unwrap_or_else(PoisonError::into_inner))?;
            let bound = self.bounds.get(n).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            Some((format!("{}le=\"{bound}\"}}", self.start), exemplar))
        })
    }
}

/// A counter's family is called as its series without `_total`; texts have their quotation marks escaped.
fn push_head(out: &mut String, kind: &str, rest: &str) {
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let family = name.strip_suffix("_total").unwrap_or(name);
    let rest = if kind == "HELP" { rest.replace('"', "\\\"") } else { rest.to_owned() };
    let _ = write!(out, "# {kind} {family} {rest}");
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounter, Registry, TextEncoder};

    use super::*;

    #[test]
    fn exemplars_are_behind_the_lines_of_their_buckets() {
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
            let took = Duration::from_millis(ms);
            histograms.with_label_values(&["/a", "2xx"]).observe(took.as_secs_f64());
            assert_eq!(series.offer(took, id, now), taken, "{ms}");
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
    fn an_exemplar_stays_until_prometheus_has_come_by() {
        let series = Exemplars::default().series("x", &[], &[1.0]);
        let (now, took) = (Instant::now(), Duration::from_millis(1));
        assert!(series.offer(took, 1, now) && !series.offer(took, 2, now + STAYS / 2));
        assert!(series.offer(took, 3, now + STAYS));
        let (line, exemplar) = series.lines().next().unwrap();
        assert_eq!((line.as_str(), exemplar.trace_id), ("x_bucket{le=\"1\"}", 3));
    }
}
