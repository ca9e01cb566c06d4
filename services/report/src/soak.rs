//! Whether anything grows within hours of one load: a section of the report, and a verdict. Pure.

use std::collections::{BTreeMap, BTreeSet};

use loadtest::figures::Tail;
use serde::{Deserialize, Serialize};
use statistics::median;

use super::{
    numbers::{count, plain},
    schema::{Second, Step},
    section::{Chart, Curve, Drawing, Section, Table, Verdict},
    trend::{least_squares, typical_tail},
    validity::{mean_cpu_pct, not_judged},
};

const TITLE: &str = "Soak";
/// Caches and allocators fill at first; that is no leak.
const LEFT_OUT_SHARE: f64 = 0.1;
/// Of the mean over the whole run; a smaller change is noise, even with a small standard error.
const MATERIAL_PCT: f64 = 1.0;

/// `measured` of the section.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Soak {
    pub minutes: Vec<SoakMinute>,
    pub slopes: Vec<Slope>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SoakMinute {
    /// Since the measured part began, from 0.
    pub minute: u32,
    /// Median of the seconds' p99; null when too few requests ended in a second.
    pub p99_ms: Option<f64>,
    /// Instead of it, the median of the seconds' longest requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<f64>,
    /// Resident memory in MiB at the minute's end, by kind of process (replicas summed).
    pub rss_mb: BTreeMap<String, f64>,
    /// Open file descriptors at the minute's end, by kind of process.
    pub open_files: BTreeMap<String, f64>,
}

/// A least-squares line through one figure over the minutes; the first tenth of them is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// With its unit: `api memory, MiB`.
    pub figure: String,
    pub mean: f64,
    pub per_hour: f64,
    /// Of `per_hour`.
    pub standard_error: f64,
    /// More than noise: steeper than two standard errors, and more than 1 % of the mean over the run.
    pub grows: bool,
}

/// Memory and open files of one instant, by kind of process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    pub rss_mb: BTreeMap<String, f64>,
    pub open_files: BTreeMap<String, f64>,
}

/// Joins the samples, taken at the end of each minute, with the latency of the same minutes.
pub fn minutes(samples: Vec<Sample>, series: &[Second]) -> Vec<SoakMinute> {
    let minute = |(minute, sample): (usize, Sample)| {
        let minute = minute as u32;
        let seconds = series.iter().filter(|second| second.second / 60 == minute);
        let (p99_ms, max_ms) = p99_or_max(typical_tail(seconds));
        SoakMinute { minute, p99_ms, max_ms, rss_mb: sample.rss_mb, open_files: sample.open_files }
    };
    samples.into_iter().enumerate().map(minute).collect()
}

fn p99_or_max(tail: Option<Tail>) -> (Option<f64>, Option<f64>) {
    match tail {
        Some(Tail::P99(ms)) => (Some(ms), None),
        Some(Tail::Max(ms)) => (None, Some(ms)),
        None => (None, None),
    }
}

/// One entry a minute instead of one a second: averages, and the tail of a typical second. Hours of seconds make no readable chart.
pub fn by_minute(series: &[Second]) -> Vec<Second> {
    let minutes = series.chunks(60).map(|seconds| {
        let mean = |value: fn(&Second) -> u64| {
            (seconds.iter().map(value).sum::<u64>() as f64 / seconds.len() as f64).round() as u64
        };
        let (p99_ms, max_ms) = p99_or_max(typical_tail(seconds));
        Second {
            second: seconds.first().map_or(0, |second| second.second),
            sent: mean(|s| s.sent),
            good: mean(|s| s.good),
            errors: mean(|s| s.errors),
            beyond_slo: seconds
                .iter()
                .any(|s| s.beyond_slo.is_some())
                .then(|| mean(|s| s.beyond_slo.unwrap_or_default())),
            retries: seconds.iter().any(|s| s.retries.is_some()).then(|| mean(|s| s.retries.unwrap_or_default())),
            p99_ms,
            max_ms,
            mean_ms: median(&seconds.iter().filter_map(|second| second.mean_ms).collect::<Vec<_>>()),
            p50_ms: median(&seconds.iter().filter_map(|second| second.p50_ms).collect::<Vec<_>>()),
            latency_counts: mean_counts(seconds),
            late: seconds.iter().any(|s| s.late.is_some()).then(|| mean(|s| s.late.unwrap_or_default())),
            send_lag_max_ms: seconds.iter().filter_map(|second| second.send_lag_max_ms).max_by(f64::total_cmp),
            cpu_pct: mean_cpu_pct(seconds),
        }
    });
    minutes.collect()
}

/// Per second, band by band.
fn mean_counts(seconds: &[Second]) -> Vec<u64> {
    let bands = seconds.iter().map(|second| second.latency_counts.len()).max().unwrap_or(0);
    let sum = |band| seconds.iter().filter_map(|second: &Second| second.latency_counts.get(band)).sum::<u64>();
    (0..bands).map(|band| (sum(band) as f64 / seconds.len() as f64).round() as u64).collect()
}

/// The lines through the minutes.
pub fn conclude(minutes: Vec<SoakMinute>) -> Soak {
    let skipped = (minutes.len() as f64 * LEFT_OUT_SHARE).ceil() as usize;
    let counted = minutes.get(skipped..).unwrap_or_default();
    let mut slopes = Vec::new();
    slopes.extend(slope("latency p99, ms".into(), counted, |minute| minute.p99_ms));
    slopes.extend(slope("longest latency of a second, ms".into(), counted, |minute| minute.max_ms));
    for name in names(counted, |minute| &minute.rss_mb) {
        slopes.extend(slope(format!("{name} memory, MiB"), counted, |minute| minute.rss_mb.get(&name).copied()));
    }
    for name in names(counted, |minute| &minute.open_files) {
        slopes.extend(slope(format!("{name} open files"), counted, |minute| minute.open_files.get(&name).copied()));
    }
    Soak { minutes, slopes }
}

/// # Errors
/// The figures have no JSON form.
pub fn section(soak: &Soak) -> serde_json::Result<Section> {
    let row = |s: &Slope| {
        let grows = if s.grows { "grows" } else { "no" };
        vec![s.figure.clone(), shown(s.mean), shown(s.per_hour), shown(s.standard_error), grows.into()]
    };
    let table = Table::new(
        "Slopes",
        "Least-squares lines through the minutes without their first tenth. A figure grows when its slope is above two standard errors and \
         above 1 % of the mean.",
        &["", "mean", "change per hour", "its standard error", "grows"],
        soak.slopes.iter().map(row).collect(),
    );
    let names: BTreeSet<&String> = soak.minutes.iter().flat_map(|minute| minute.rss_mb.keys()).collect();
    let curve = |name: &String| {
        let point = |minute: &SoakMinute| Some((f64::from(minute.minute), *minute.rss_mb.get(name)?));
        Curve { name: name.clone(), points: soak.minutes.iter().filter_map(point).collect() }
    };
    let memory = Drawing::OverTime {
        x_label: "minute".into(),
        y_label: "resident memory, MiB".into(),
        curves: names.into_iter().map(curve).collect(),
    };
    let chart = Chart::new("Memory over the soak", "Replicas are summed. The lines should be level.", memory);
    let charts = if soak.minutes.len() > 1 { vec![chart] } else { Vec::new() };
    let meaning = "One load for a long time: does memory, the number of open files or the latency grow?";
    Ok(Section::new(TITLE, meaning, serde_json::to_value(soak)?).with_tables(vec![table]).with_charts(charts))
}

/// The soak in the sections of a report.
pub fn of(sections: &[Section]) -> Option<Soak> {
    let section = sections.iter().find(|section| section.title == TITLE)?;
    serde_json::from_value(section.measured.clone()).ok()
}

/// A slope may be far smaller than the figure itself.
fn shown(value: f64) -> String {
    if value.abs() >= 1000.0 { count(value) } else { plain(value) }
}

/// Judged only where all of its steps are valid.
pub fn verdict(soak: &Soak, steps: &[Step]) -> Verdict {
    let invalid: Vec<String> = steps.iter().flat_map(|step| step.invalid_reasons.clone()).collect();
    let growing: Vec<&str> = soak.slopes.iter().filter(|slope| slope.grows).map(|s| s.figure.as_str()).collect();
    let minutes = format!("{} minutes", soak.minutes.len());
    let note = if invalid.is_empty() { minutes } else { format!("{}; {minutes}", not_judged(&invalid)) };
    let valid = !soak.slopes.is_empty() && steps.iter().all(|step| step.valid);
    Verdict {
        name: "Soak: nothing grows beyond noise".into(),
        expected: "no slope above two standard errors and 1 % of the mean".into(),
        measured: if growing.is_empty() { "none".into() } else { growing.join(", ") },
        passed: valid.then_some(growing.is_empty()),
        undecided: !valid,
        note,
    }
}

fn names(minutes: &[SoakMinute], of: fn(&SoakMinute) -> &BTreeMap<String, f64>) -> Vec<String> {
    minutes.first().map(|minute| of(minute).keys().cloned().collect()).unwrap_or_default()
}

fn slope(figure: String, minutes: &[SoakMinute], value: impl Fn(&SoakMinute) -> Option<f64>) -> Option<Slope> {
    let points: Vec<(f64, f64)> =
        minutes.iter().filter_map(|minute| Some((f64::from(minute.minute) / 60.0, value(minute)?))).collect();
    let line = least_squares(&points)?;
    let hours = points.last()?.0 - points.first()?.0;
    let material = line.slope * hours > line.mean.abs() * MATERIAL_PCT / 100.0;
    Some(Slope {
        figure,
        mean: line.mean,
        per_hour: line.slope,
        standard_error: line.standard_error,
        grows: material && line.slope > 2.0 * line.standard_error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rss: f64, files: f64) -> Sample {
        Sample { rss_mb: [("api".to_owned(), rss)].into(), open_files: [("api".to_owned(), files)].into() }
    }

    fn series(minutes: u32) -> Vec<Second> {
        let second = |second| Second { second, sent: 10, good: 10, p99_ms: Some(5.0), ..Second::default() };
        (0..minutes * 60).map(second).collect()
    }

    fn grows(rss: impl Fn(u32) -> f64) -> bool {
        let soak = conclude(minutes((0..60).map(|n| sample(rss(n), 100.0)).collect(), &series(60)));
        assert_eq!(soak.minutes.len(), 60);
        let figures: Vec<&str> = soak.slopes.iter().map(|slope| slope.figure.as_str()).collect();
        assert_eq!(figures, ["latency p99, ms", "api memory, MiB", "api open files"]);
        assert!(!soak.slopes[0].grows && !soak.slopes[2].grows, "{:?}", soak.slopes);
        soak.slopes[1].grows
    }

    #[test]
    fn a_leak_is_told_from_noise_and_from_filling() {
        let noise = |n: u32| f64::from(n * 37 % 23) / 23.0 - 0.5;
        assert!(grows(|n| 400.0 + 0.5 * f64::from(n) + noise(n)));
        assert!(!grows(|n| 400.0 + 10.0 * noise(n)));
        assert!(!grows(|n| 400.0 + 0.01 * f64::from(n)), "0.6 of 400 in an hour");
        assert!(!grows(|n| if n < 6 { 200.0 + 30.0 * f64::from(n) } else { 400.0 + noise(n) }), "caches fill at first");
        assert!(!grows(|n| 400.0 - f64::from(n)));
    }

    #[test]
    fn too_few_minutes_have_no_slope() {
        assert_eq!(conclude(Vec::new()).slopes, []);
        assert_eq!(conclude(minutes(vec![sample(1.0, 1.0); 3], &series(3))).slopes, []);
    }

    #[test]
    fn a_minute_of_the_series_is_an_average() {
        let mut seconds = series(2);
        seconds[60].errors = 60;
        seconds[60].beyond_slo = Some(120);
        let minutes = by_minute(&seconds);
        assert_eq!([minutes[0].beyond_slo, minutes[1].beyond_slo], [None, Some(2)]);
        assert_eq!(minutes.len(), 2);
        assert_eq!((minutes[1].second, minutes[1].errors, minutes[1].p99_ms), (60, 1, Some(5.0)));
    }

    #[test]
    fn a_soak_that_grows_fails() {
        let mut soak = conclude(minutes((0..60).map(|n| sample(400.0 + f64::from(n), 100.0)).collect(), &series(60)));
        assert_eq!(of(&[section(&soak).unwrap()]), Some(soak.clone()));
        let mut steps = [Step { valid: true, ..Step::default() }];
        let judged = verdict(&soak, &steps);
        assert_eq!((judged.measured.as_str(), judged.passed), ("api memory, MiB", Some(false)));
        soak.slopes.iter_mut().for_each(|slope| slope.grows = false);
        assert_eq!(verdict(&soak, &steps).passed, Some(true));
        (steps[0].valid, steps[0].invalid_reasons) = (false, vec!["97 % CPU is above 90 %".into()]);
        let judged = verdict(&soak, &steps);
        assert_eq!(judged.passed, None);
        assert!(judged.note.contains("invalid, not judged: 97 % CPU"), "{judged:?}");
    }
}
