//! What follows from the figures: how far each profile goes, and whether the tolerances are met. Pure.

use loadtest::figures::Tolerances;
use statistics::{Interval, has_percentile, mean, mean_interval, median};

use super::{
    numbers::{NO_FIGURE, count, ms, pct, signed},
    schema::{DataSource, Knee, Law, Report, Step},
    section::Verdict,
};

/// A step is held up to this share of errors …
pub const HELD_MAX_ERROR_PCT: f64 = 1.0;
/// … and from this share of the offer answered.
pub const HELD_MIN_ANSWERED_PCT: f64 = 99.0;

/// A figure over the repeats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub mean: f64,
    /// One wild repeat hardly moves it; `diff` compares it.
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// Of the mean, at 95 %; `None` with fewer than three repeats. Always computed from the steps, never stored.
    pub interval: Option<Interval>,
}

impl Spread {
    /// The interval, or the figure alone where there is none.
    fn ends(&self) -> Interval {
        self.interval.unwrap_or(Interval { low: self.mean, high: self.mean })
    }
}

impl Report {
    /// Repeats of one step.
    pub fn runs<'a>(&'a self, profile: &'a str, users: u32) -> impl Iterator<Item = &'a Step> {
        self.steps.iter().filter(move |s| s.profile == profile && s.users == users)
    }

    /// Users of all steps that were run, ascending.
    pub fn user_steps(&self) -> Vec<u32> {
        let mut users: Vec<u32> = self.steps.iter().map(|s| s.users).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Planned requests per second of a step.
    pub fn offered_per_s(&self, users: u32) -> f64 {
        self.steps.iter().find(|s| s.users == users).map_or(f64::from(users), |s| s.offered_per_s)
    }
}

/// Mean, median, least and greatest of a figure over the valid repeats; over all of them when none is valid. None: no figure.
pub fn over_repeats(
    report: &Report,
    profile: &str,
    users: u32,
    figure: impl Fn(&Step) -> Option<f64>,
) -> Option<Spread> {
    let values: Vec<f64> = counted(report, profile, users).filter_map(figure).filter(|v| v.is_finite()).collect();
    let min = values.iter().copied().min_by(f64::total_cmp)?;
    let max = values.iter().copied().max_by(f64::total_cmp)?;
    Some(Spread { mean: mean(&values)?, median: median(&values)?, min, max, interval: mean_interval(&values) })
}

/// The valid repeats; all of them when none is valid.
pub(super) fn counted<'a>(report: &'a Report, profile: &'a str, users: u32) -> impl Iterator<Item = &'a Step> {
    let any_valid = report.runs(profile, users).any(|s| s.valid);
    report.runs(profile, users).filter(move |s| s.valid || !any_valid)
}

/// The repeat to draw: the valid one in the middle by mean latency.
pub fn typical<'a>(report: &'a Report, profile: &'a str, users: u32) -> Option<&'a Step> {
    let mut runs: Vec<&Step> = counted(report, profile, users).collect();
    runs.sort_by(|a, b| a.mean_ms.total_cmp(&b.mean_ms));
    runs.get(runs.len().saturating_sub(1) / 2).copied()
}

/// Whether a step can be judged at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// Not run.
    Missing,
    /// No repeat of it is valid.
    Invalid,
    Held,
    NotHeld,
}

pub fn step_state(report: &Report, profile: &str, users: u32) -> StepState {
    let mut runs = report.runs(profile, users).peekable();
    if runs.peek().is_none() {
        return StepState::Missing;
    }
    if !runs.any(|s| s.valid) {
        return StepState::Invalid;
    }
    let mean = |figure: fn(&Step) -> f64| over_repeats(report, profile, users, |s| Some(figure(s))).map(|s| s.mean);
    let few_errors = mean(|s| s.error_pct).is_some_and(|v| v <= HELD_MAX_ERROR_PCT);
    let answered = mean(answered_pct).is_some_and(|v| v >= HELD_MIN_ANSWERED_PCT);
    if few_errors && answered { StepState::Held } else { StepState::NotHeld }
}

/// Answered of the offer, in percent.
pub fn answered_pct(step: &Step) -> f64 {
    100.0 * step.answered_per_s / step.offered_per_s
}

/// How far a profile goes.
pub fn knee(report: &Report, profile: &str) -> Knee {
    let mut knee = Knee {
        profile: profile.to_string(),
        held_users: None,
        held_per_s: None,
        broke_at_users: None,
        why: String::new(),
        peak_good_per_s: report
            .steps
            .iter()
            .filter(|s| s.profile == profile && s.valid)
            .map(|s| s.good_per_s)
            .max_by(f64::total_cmp),
    };
    for users in report.user_steps() {
        let mean = |figure: fn(&Step) -> f64| {
            over_repeats(report, profile, users, |s| Some(figure(s))).map_or(f64::NAN, |s| s.mean)
        };
        match step_state(report, profile, users) {
            StepState::Missing => continue,
            StepState::Held => {
                knee.held_users = Some(users);
                knee.held_per_s = Some(mean(|s| s.offered_per_s));
                continue;
            }
            StepState::Invalid => {
                let why = report.runs(profile, users).flat_map(|s| &s.invalid_reasons).next();
                knee.why = format!("the step is invalid: {}", why.map_or("no reason given", String::as_str));
            }
            StepState::NotHeld => {
                knee.why = format!(
                    "{} % errors, {} of {} requests/s answered ({} %)",
                    pct(mean(|s| s.error_pct)),
                    count(mean(|s| s.answered_per_s)),
                    count(mean(|s| s.offered_per_s)),
                    pct(mean(answered_pct)),
                );
            }
        }
        knee.broke_at_users = Some(users);
        break;
    }
    knee
}

/// Why no tolerance applies to this report, if so.
pub fn not_judged_because(report: &Report) -> Option<String> {
    if report.quick {
        Some("quick run: the steps are too short to be judged".into())
    } else if report.law == Law::None {
        Some("law none: the store runs at its real speed, which neither the article nor the model describes".into())
    } else if report.data.source == DataSource::File {
        Some("real behaviour data: the tolerances are for the generated data".into())
    } else if !report.changed.is_empty() {
        Some(format!("{}: the tolerances are for the scenario without", report.changed.join(", ")))
    } else {
        None
    }
}

type Figure = fn(&Step) -> Option<f64>;

/// One criterion: a figure of each step and its limit.
struct Criterion<'a> {
    name: &'static str,
    expected: String,
    profile: &'a str,
    /// None: every step that was run.
    only_users: Option<&'a [u32]>,
    /// Distance from what is expected, and its limit; the verdict names the step where it comes closest to, or goes furthest
    /// past, its limit. None: the step has no such figure.
    figure: Figure,
    limit: Limit,
    unit: &'static str,
    show: fn(f64) -> String,
}

/// Rounding of the arithmetic must not fail a limit that is met exactly.
const ROUNDING: f64 = 1e-9;

#[derive(Clone, Copy)]
enum Limit {
    /// At most this far from zero, either way.
    Within(f64),
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    /// ≤ 0: met. The greater the worse.
    fn excess(self, value: f64) -> f64 {
        match self {
            Self::Within(limit) => value.abs() - limit,
            Self::AtMost(limit) => value - limit,
            Self::AtLeast(limit) => limit - value,
        }
    }

    /// Whether a figure meets the limit; `None`: its interval has values that do and values that do not.
    fn met(self, figure: &Spread) -> Option<bool> {
        let Interval { low, high } = figure.ends();
        let within = |value: f64| self.excess(value) <= ROUNDING;
        if within(low) && within(high) {
            return Some(true);
        }
        // The value that is furthest within; the limit may lie on both sides of an interval around zero.
        let best = match self {
            Self::Within(_) => 0.0_f64.clamp(low, high),
            Self::AtMost(_) => low,
            Self::AtLeast(_) => high,
        };
        if within(best) { None } else { Some(false) }
    }
}

/// Every verdict on the report; none when there is nothing to be judged (no step has the article's or the model's figures).
pub fn judge(report: &Report, t: &Tolerances) -> Vec<Verdict> {
    if report.steps.iter().all(|s| s.article.is_none() && s.model.is_none()) {
        return Vec::new();
    }
    let mut verdicts = vec![
        all_valid(report, "Baseline steps are valid", |s| s.profile == t.baseline),
        all_valid(report, "Protected steps are valid", |s| s.profile == t.protected),
    ];
    verdicts.extend(criteria(t).iter().map(|c| verdict(report, c)));
    if let Some(reason) = not_judged_because(report) {
        for v in &mut verdicts {
            v.passed = None;
            v.undecided = false;
            v.note = if v.note.is_empty() { reason.clone() } else { format!("{reason}; {}", v.note) };
        }
    }
    verdicts
}

fn criteria(t: &Tolerances) -> Vec<Criterion<'_>> {
    let baseline_like = |name, of: &str, limit: f64, unit, figure| Criterion {
        name,
        expected: format!("within {limit}{unit} of the {of}'s"),
        profile: &t.baseline,
        only_users: None,
        figure,
        limit: Limit::Within(limit),
        unit,
        show: signed,
    };
    let (model, article) = ("model", "article");
    let mut all = vec![
        baseline_like("Baseline answered/s like the model", model, t.model_rate_pct, " %", |s| {
            Some(percent_above(s.answered_per_s, s.model.as_ref()?.answered_per_s))
        }),
        baseline_like("Baseline good/s like the model", model, t.model_rate_pct, " %", |s| {
            Some(percent_above(s.good_per_s, s.model.as_ref()?.good_per_s))
        }),
        baseline_like("Baseline errors like the model", model, t.model_error_points, " points", |s| {
            Some(s.error_pct - s.model.as_ref()?.error_pct)
        }),
        baseline_like("Baseline mean latency like the model", model, t.model_mean_pct, " %", |s| {
            Some(percent_above(s.mean_ms, s.model.as_ref()?.mean_ms))
        }),
        baseline_like("Baseline errors like the article", article, t.article_error_points, " points", |s| {
            Some(s.error_pct - s.article.as_ref()?.error_pct)
        }),
        baseline_like("Baseline mean latency like the article", article, t.article_mean_pct, " %", |s| {
            Some(percent_above(s.mean_ms, s.article.as_ref()?.mean_ms?))
        }),
    ];
    all.extend(overload_criteria(t));
    all
}

fn overload_criteria(t: &Tolerances) -> [Criterion<'_>; 5] {
    let protected = |name, expected, limit, figure| Criterion {
        name,
        expected,
        profile: &t.protected,
        only_users: Some(&t.overload_users),
        figure,
        limit,
        unit: " %",
        show: pct,
    };
    let (errors, answered) = (t.protected_max_error_pct, t.protected_min_answered_pct);
    let (p99, personal) = (t.protected_max_p99_ms, t.protected_min_personal_pct);
    [
        Criterion {
            profile: &t.baseline,
            ..protected(
                "Baseline breaks by its connection pools",
                format!("≥ {} % of the errors are checkout timeouts", t.min_timeout_share_pct),
                Limit::AtLeast(t.min_timeout_share_pct),
                timeout_share_pct,
            )
        },
        protected(
            "Protected: few errors under overload",
            format!("≤ {errors} % errors"),
            Limit::AtMost(errors),
            |s| Some(s.error_pct),
        ),
        protected(
            "Protected: the offer is answered",
            format!("≥ {answered} % of the offer"),
            Limit::AtLeast(answered),
            |s| Some(answered_pct(s)),
        ),
        Criterion {
            unit: " ms",
            show: ms,
            ..protected("Protected: fast under overload", format!("p99 ≤ {p99} ms"), Limit::AtMost(p99), |s| {
                has_percentile(99.0, s.samples()).then_some(s.p99_ms)
            })
        },
        protected(
            "Protected: known users get their own list",
            format!("≥ {personal} % of the known users"),
            Limit::AtLeast(personal),
            |s| s.known_personal_pct,
        ),
    ]
}

fn percent_above(measured: f64, expected: f64) -> f64 {
    100.0 * (measured / expected - 1.0)
}

/// Share of a step's errors that are checkout timeouts; None without errors.
pub fn timeout_share_pct(step: &Step) -> Option<f64> {
    let errors: u64 = step.errors.values().sum();
    (errors > 0).then(|| 100.0 * step.store_timeouts as f64 / errors as f64)
}

/// Undecided with an invalid step: what it would have shown is unknown. Not judged without steps.
pub fn all_valid(report: &Report, name: &str, counts: impl Fn(&Step) -> bool) -> Verdict {
    let runs: Vec<&Step> = report.steps.iter().filter(|s| counts(s)).collect();
    let bad: Vec<String> = runs
        .iter()
        .filter(|s| !s.valid)
        .map(|s| format!("{} {} (repeat {}): {}", s.profile, s.users, s.repeat, s.invalid_reasons.join(", ")))
        .collect();
    Verdict {
        name: name.into(),
        expected: "every one".into(),
        measured: format!("{} of {}", runs.len() - bad.len(), runs.len()),
        passed: (!runs.is_empty() && bad.is_empty()).then_some(true),
        undecided: !bad.is_empty(),
        note: bad.join("; "),
    }
}

/// Passed if the interval of every step is within the limit, failed if that of one step is outside it as a whole, else undecided. A step with
/// fewer than three repeats has no interval, and its figure decides.
fn verdict(report: &Report, c: &Criterion) -> Verdict {
    let mut notes = Vec::new();
    let (mut unjudged, mut undecided, mut failed) = (false, false, false);
    let mut worst: Option<(u32, Spread)> = None;
    let steps: Vec<u32> =
        report.user_steps().into_iter().filter(|users| c.only_users.is_none_or(|only| only.contains(users))).collect();
    let shown = |f: &Spread| match f.interval {
        Some(i) if i.low < i.high => {
            format!("{}{} [{}, {}]", (c.show)(f.mean), c.unit, (c.show)(i.low), (c.show)(i.high))
        }
        None if f.min < f.max => format!("{}{} ({}…{})", (c.show)(f.mean), c.unit, (c.show)(f.min), (c.show)(f.max)),
        _ => format!("{}{}", (c.show)(f.mean), c.unit),
    };
    for &users in &steps {
        let figure = over_repeats(report, c.profile, users, c.figure);
        let state = step_state(report, c.profile, users);
        undecided |= state == StepState::Invalid;
        let problem = match (state, figure) {
            (StepState::Missing, _) => "not run",
            (StepState::Invalid, _) => "invalid, not judged",
            (_, None) => "no such figure",
            (_, Some(f)) => {
                let met = c.limit.met(&f);
                failed |= met == Some(false);
                undecided |= met.is_none();
                unjudged |= met.is_none();
                let open = if met.is_none() { ": the limit is within the interval" } else { "" };
                notes.push(format!("{users}: {}{open}", shown(&f)));
                if worst.is_none_or(|(_, w)| c.limit.excess(f.mean) > c.limit.excess(w.mean)) {
                    worst = Some((users, f));
                }
                continue;
            }
        };
        unjudged = true;
        notes.push(format!("{users}: {problem}"));
    }
    if steps.is_empty() {
        notes.push("none of its steps was run".into());
        unjudged = true;
    }
    Verdict {
        name: c.name.into(),
        expected: c.expected.clone(),
        measured: worst.map_or_else(|| NO_FIGURE.into(), |(users, f)| format!("{} at {users}", shown(&f))),
        // A pass needs every step; a single failure is enough to fail.
        passed: if failed { Some(false) } else { (!unjudged).then_some(true) },
        undecided: !failed && undecided,
        note: notes.join(" · "),
    }
}
