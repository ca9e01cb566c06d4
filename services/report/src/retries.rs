//! What the client's retries did to the load, as a table. Only of steps with retries.

use super::{
    analysis::over_repeats,
    numbers::{NO_FIGURE, count, pct, per_request},
    schema::{Report, RetryFigures, Step},
    section::Table,
};

const TITLE: &str = "Retries";
const MEANING: &str = "First tries and retries are those that were sent. Tries per request: how much the client amplifies its load. Goodput: \
                       requests whose first try or a retry succeeded within the deadline of the request. Budget spent: requests that failed \
                       because the client's budget permitted no retry. Throttled: requests that the client did not send at all. Zombies: share \
                       of the store's queries whose result no request waited for any more. Numbers without a rate are those of the step.";

type Column = (&'static str, fn(f64) -> String, fn(&Step, &RetryFigures) -> Option<f64>);

const COLUMNS: [Column; 7] = [
    ("first tries/s", count, |step, _| Some(step.sent_per_s)),
    ("retries/s", count, retries_per_s),
    ("tries per request", per_request, |_, retries| retries.tries_per_request),
    ("goodput/s", count, |step, _| Some(step.good_per_s)),
    ("budget spent", count, |_, retries| Some(retries.budget_spent as f64)),
    ("throttled", count, |_, retries| Some(retries.throttled as f64)),
    ("zombies, %", pct, |_, retries| retries.zombie_share.map(|share| 100.0 * share)),
];

/// At the rate of the first tries: both were counted over the same time.
fn retries_per_s(step: &Step, retries: &RetryFigures) -> Option<f64> {
    (retries.first_tries > 0).then(|| step.sent_per_s * retries.retries as f64 / retries.first_tries as f64)
}

/// A row for each step with retries; `None` without any.
pub(super) fn table(report: &Report) -> Option<Table> {
    let mut rows = Vec::new();
    for profile in &report.profiles {
        for users in report.user_steps() {
            if !report.runs(profile, users).any(|step| step.retries.is_some()) {
                continue;
            }
            let mut row = vec![format!("{profile} {:.0}", report.offered_per_s(users))];
            row.extend(COLUMNS.iter().map(|(_, show, figure)| {
                let value = |step: &Step| figure(step, step.retries.as_ref()?);
                over_repeats(report, profile, users, value).map_or_else(|| NO_FIGURE.into(), |spread| show(spread.mean))
            }));
            rows.push(row);
        }
    }
    let head: Vec<&str> = std::iter::once("step").chain(COLUMNS.iter().map(|(name, ..)| *name)).collect();
    (!rows.is_empty()).then(|| Table::new(TITLE, MEANING, &head, rows))
}
