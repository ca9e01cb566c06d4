//! Reads the table `[retry]`.

use super::read::Table;
use crate::retry::{
    Backoff, Budget, DEFAULT_ADAPTIVE_K, DEFAULT_BUDGET_MIN_PER_S, DEFAULT_BUDGET_PCT, MAX_ATTEMPTS, MAX_BACKOFF_MS,
    MAX_RESERVE_PER_S, Retry,
};

#[derive(Clone, Copy, PartialEq)]
enum BackoffKind {
    None,
    Fixed,
    Exponential,
}

#[derive(Clone, Copy, PartialEq)]
enum BudgetKind {
    None,
    Tokens,
    Adaptive,
}

/// `timeout_ms` is that of the scenario; 0 if it is not valid.
pub(super) fn read(table: Table<'_>, timeout_ms: u64) -> Retry {
    let attempts = table.required("attempts", |t, key| t.integer(key, 1..=MAX_ATTEMPTS.into())) as u32;
    let per_try_timeout_ms = table.integer("per_try_timeout_ms", 10..=60_000).unwrap_or(timeout_ms);
    let (backoff, budget) = (read_backoff(&table), read_budget(&table));
    let retry = Retry { attempts, per_try_timeout_ms, backoff, budget };
    // An error in one of the two would only be repeated in other words.
    if attempts > 0
        && timeout_ms > 0
        && let Err(error) = retry.check(timeout_ms)
    {
        let message = error.to_string();
        let (key, reason) = message.split_once(' ').unwrap_or(("attempts", &message));
        table.error(key, reason);
    }
    table.finish();
    retry
}

fn read_backoff(table: &Table<'_>) -> Backoff {
    let kinds = [("none", BackoffKind::None), ("fixed", BackoffKind::Fixed), ("exponential", BackoffKind::Exponential)];
    let kind = table.choice("backoff", &kinds).unwrap_or(BackoffKind::None);
    let backoff_ms = table.integer("backoff_ms", 1..=MAX_BACKOFF_MS);
    let jitter = table.number("jitter", 0.0..=1.0).unwrap_or_default();
    if kind == BackoffKind::None {
        for key in ["backoff_ms", "jitter"].into_iter().filter(|key| table.has(key)) {
            table.error(key, "needs backoff = \"fixed\" or \"exponential\"");
        }
        return Backoff::None;
    }
    if !table.has("backoff_ms") {
        table.error("backoff_ms", "is missing");
    }
    let backoff_ms = backoff_ms.unwrap_or(1);
    match kind {
        BackoffKind::Exponential => Backoff::Exponential { backoff_ms, jitter },
        _ => Backoff::Fixed { backoff_ms, jitter },
    }
}

fn read_budget(table: &Table<'_>) -> Budget {
    let kinds = [("none", BudgetKind::None), ("tokens", BudgetKind::Tokens), ("adaptive", BudgetKind::Adaptive)];
    let kind = table.choice("budget", &kinds).unwrap_or(BudgetKind::None);
    let most_pct = 100.0 * f64::from(MAX_ATTEMPTS - 1);
    let budget_pct = table.number("budget_pct", 0.0..=most_pct);
    let budget_min_per_s = table.number("budget_min_per_s", 0.0..=MAX_RESERVE_PER_S);
    let adaptive_k = table.number("adaptive_k", 1.0..=100.0).unwrap_or(DEFAULT_ADAPTIVE_K);
    let owners = [
        ("budget_pct", BudgetKind::Tokens, "tokens"),
        ("budget_min_per_s", BudgetKind::Tokens, "tokens"),
        ("adaptive_k", BudgetKind::Adaptive, "adaptive"),
    ];
    for (key, _, name) in owners.into_iter().filter(|(key, owner, _)| *owner != kind && table.has(key)) {
        table.error(key, &format!("belongs to budget = \"{name}\""));
    }
    match kind {
        BudgetKind::None => Budget::None,
        BudgetKind::Adaptive => Budget::Adaptive { adaptive_k },
        BudgetKind::Tokens => Budget::Tokens {
            budget_pct: budget_pct.unwrap_or(DEFAULT_BUDGET_PCT),
            budget_min_per_s: budget_min_per_s.unwrap_or(DEFAULT_BUDGET_MIN_PER_S),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{
        model,
        plan::StepPlan,
        retry::{Backoff, Budget, Retry},
        scenario::Scenario,
    };

    /// The scenario `article`, whose `timeout_ms` is 3000, with this table.
    fn with(retry: &str) -> anyhow::Result<Scenario> {
        let article = include_str!("../../scenarios/article.toml");
        Scenario::parse("test", &format!("{article}\n[retry]\n{retry}"))
    }

    #[test]
    fn the_table_is_read_with_its_defaults() {
        let read = |text: &str| with(text).unwrap().retry.unwrap();
        let plain = Retry { attempts: 2, per_try_timeout_ms: 3000, backoff: Backoff::None, budget: Budget::None };
        assert_eq!(read("attempts = 2"), plain);
        let all = "attempts = 4\nper_try_timeout_ms = 1000\nbackoff = \"exponential\"\nbackoff_ms = 50\njitter = 1\nbudget = \"tokens\"";
        let expected = Retry {
            attempts: 4,
            per_try_timeout_ms: 1000,
            backoff: Backoff::Exponential { backoff_ms: 50, jitter: 1.0 },
            budget: Budget::Tokens { budget_pct: 20.0, budget_min_per_s: 10.0 },
        };
        assert_eq!(read(all), expected);
        let tokens = read(&format!("{all}\nbudget_pct = 10\nbudget_min_per_s = 0"));
        assert_eq!(tokens.budget, Budget::Tokens { budget_pct: 10.0, budget_min_per_s: 0.0 });
        let adaptive = read("attempts = 1\nbudget = \"adaptive\"");
        assert_eq!(adaptive.budget, Budget::Adaptive { adaptive_k: 2.0 });
        let fixed = read("attempts = 3\nbackoff = \"fixed\"\nbackoff_ms = 5");
        assert_eq!(fixed.backoff, Backoff::Fixed { backoff_ms: 5, jitter: 0.0 });
    }

    #[test]
    fn a_plan_has_the_scenarios_retries_and_the_model_of_closed_users_does_not_apply() {
        let scenario = with("attempts = 3").unwrap();
        let plan = StepPlan::of(&scenario, 1000, 0, Path::new("-"), "http://127.0.0.1:80");
        plan.check().unwrap();
        assert_eq!(plan.retry, scenario.retry);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<StepPlan>(&text).unwrap(), plan);
        assert_eq!(model::step(&scenario, 1000, 1), None);
        let error = StepPlan { timeout_ms: 2999, ..plan }.check().unwrap_err();
        assert!(format!("{error:#}").starts_with("retry: per_try_timeout_ms must be 10..=2999"), "{error:#}");
    }

    #[test]
    fn bad_settings_are_errors_with_line_and_key() {
        for (text, expected) in [
            ("", "retry.attempts is missing"),
            ("attempts = 0", "retry.attempts must be 1..=10, is 0"),
            ("attempts = 1000000", "retry.attempts must be 1..=10, is 1000000"),
            (
                "attempts = 2\nper_try_timeout_ms = 3001",
                "retry.per_try_timeout_ms must be 10..=3000, as no try outlives",
            ),
            ("attempts = 2\nbackoff = \"linear\"", "retry.backoff must be \"none\" or \"fixed\" or \"exponential\""),
            ("attempts = 2\nbackoff = \"fixed\"", "retry.backoff_ms is missing"),
            ("attempts = 2\nbackoff_ms = 5", "retry.backoff_ms needs backoff = \"fixed\" or \"exponential\""),
            ("attempts = 2\njitter = 0.5", "retry.jitter needs backoff"),
            (
                "attempts = 2\nbackoff = \"fixed\"\nbackoff_ms = 3000",
                "retry.backoff_ms must be below timeout_ms (3000)",
            ),
            (
                "attempts = 2\nbudget = \"tokens\"\nbudget_pct = 150",
                "retry.budget_pct must be 0..=100, as attempts = 2",
            ),
            (
                "attempts = 2\nbudget = \"tokens\"\nbudget_pct = 0\nbudget_min_per_s = 0",
                "retry.budget_pct and budget_min_per_s contradict",
            ),
            ("attempts = 1\nbudget = \"tokens\"", "retry.budget contradicts attempts = 1"),
            ("attempts = 1\nbackoff = \"fixed\"\nbackoff_ms = 5", "retry.backoff contradicts attempts = 1"),
            ("attempts = 2\nbudget_pct = 10", "retry.budget_pct belongs to budget = \"tokens\""),
            ("attempts = 2\nbudget = \"tokens\"\nadaptive_k = 2", "retry.adaptive_k belongs to budget = \"adaptive\""),
            ("attempts = 2\nbudget = \"adaptive\"\nadaptive_k = 0.5", "retry.adaptive_k must be 1..=100, is 0.5"),
            ("attempts = 2\nretries = 1", "retry.retries is unknown; known here: adaptive_k, attempts, backoff"),
        ] {
            let error = with(text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("has 1 error:"), "{text}: {error}");
            assert!(error.contains("line "), "{error}");
        }
    }
}
