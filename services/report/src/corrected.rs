//! Skip-corrected latency beside the measured one, as a table.

use super::{
    analysis::over_repeats,
    numbers::{NO_FIGURE, ms},
    schema::{Latency, Report, Step},
    section::Table,
};

const TITLE: &str = "Skip-corrected latency, ms";
const MEANING: &str = "What users who do not wait would have seen: a request that was skipped because its user waited counts as well, from \
                       its planned instant to the end of that wait. Measured latency counts each wait once, so that it shows rare long \
                       stalls too seldom. Where most requests are slow, the corrected mean is the lower one.";

/// A figure in its two forms.
type Pair = (&'static str, fn(&Step) -> f64, fn(&Latency) -> f64);

const PAIRS: [Pair; 5] = [
    ("mean", |s| s.mean_ms, |l| l.mean_ms),
    ("p50", |s| s.p50_ms, |l| l.p50_ms),
    ("p90", |s| s.p90_ms, |l| l.p90_ms),
    ("p99", |s| s.p99_ms, |l| l.p99_ms),
    ("p99.9", |s| s.p999_ms, |l| l.p999_ms),
];

/// A row for each step that has such figures; `None` without any. The maximum is the same in both forms.
pub(super) fn table(report: &Report) -> Option<Table> {
    let mut rows = Vec::new();
    for profile in &report.profiles {
        for users in report.user_steps() {
            if !report.runs(profile, users).any(|step| step.corrected.is_some()) {
                continue;
            }
            let shown = |figure: &dyn Fn(&Step) -> Option<f64>| {
                over_repeats(report, profile, users, figure)
                    .map_or_else(|| NO_FIGURE.into(), |spread| ms(spread.median))
            };
            let mut row = vec![format!("{profile} {:.0}", report.offered_per_s(users))];
            for (_, measured, corrected) in PAIRS {
                row.push(shown(&|step| Some(measured(step))));
                row.push(shown(&|step| step.corrected.as_ref().map(corrected)));
            }
            rows.push(row);
        }
    }
    let mut head = vec!["step".to_owned()];
    head.extend(PAIRS.iter().flat_map(|(name, ..)| [(*name).to_owned(), format!("{name} corrected")]));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    (!rows.is_empty()).then(|| Table::new(TITLE, MEANING, &head, rows))
}
