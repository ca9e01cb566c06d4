//! What changed from one report to another, for people and for CI. Pure.

use std::str::FromStr;

use serde::Serialize;

use super::{
    analysis::{StepState, over_repeats, step_state},
    noise::{self, Basis, Noise, Resampled, Sums},
    numbers::{NO_FIGURE, count, ms, pct, per_request, signed},
    schema::{Report, Second, Step},
    words,
};

/// A figure of a step that can be compared.
pub struct Key {
    pub name: &'static str,
    /// A rate gets worse by falling, a latency by rising.
    lower_is_worse: bool,
    figure: fn(&Step) -> Option<f64>,
    /// The same from sums over seconds; `None`: seconds do not have it.
    of_seconds: fn(&Sums) -> Option<f64>,
    show: fn(f64) -> String,
    /// Shown whether or not a condition asks for it.
    main: bool,
}

const KEY: Key = Key { name: "", lower_is_worse: false, figure: |_| None, of_seconds: |_| None, show: ms, main: false };
const RATE: Key = Key { lower_is_worse: true, show: count, ..KEY };

/// Every figure that a condition may name.
pub const KEYS: &[Key] = &[
    Key { name: "mean_ms", figure: |s| Some(s.mean_ms), of_seconds: Sums::mean_ms, main: true, ..KEY },
    Key { name: "p50_ms", figure: |s| Some(s.p50_ms), of_seconds: |s| s.quantile_ms(0.5), ..KEY },
    Key { name: "p90_ms", figure: |s| Some(s.p90_ms), of_seconds: |s| s.quantile_ms(0.9), ..KEY },
    Key { name: "p99_ms", figure: |s| Some(s.p99_ms), of_seconds: |s| s.quantile_ms(0.99), main: true, ..KEY },
    Key { name: "p999_ms", figure: |s| Some(s.p999_ms), of_seconds: |s| s.quantile_ms(0.999), ..KEY },
    Key { name: "max_ms", figure: |s| Some(s.max_ms), ..KEY },
    Key { name: "error_pct", figure: |s| Some(s.error_pct), of_seconds: Sums::error_pct, show: pct, main: true, ..KEY },
    Key { name: "answered_per_s", figure: |s| Some(s.answered_per_s), of_seconds: Sums::answered_per_s, ..RATE },
    Key { name: "good_per_s", figure: |s| Some(s.good_per_s), of_seconds: Sums::good_per_s, main: true, ..RATE },
    Key { name: "known_good_per_s", figure: |s| s.known_good_per_s, ..RATE },
    Key { name: "known_personal_pct", figure: |s| s.known_personal_pct, show: pct, ..RATE },
    Key { name: "hit_ratio", figure: |s| s.hit_ratio, show: per_request, ..RATE },
    Key {
        name: "store_queries_per_request",
        figure: |s| s.own(s.store_queries_per_request),
        show: per_request,
        main: true,
        ..KEY
    },
    Key { name: "store_timeouts", figure: |s| s.own(s.store_timeouts as f64), show: count, ..KEY },
    Key { name: "skipped", figure: |s| Some(s.skipped as f64), show: count, ..KEY },
    Key { name: "send_lag_p99_ms", figure: |s| Some(s.send_lag_p99_ms), ..KEY },
    Key { name: "cpu_total_pct", figure: |s| Some(s.cpu_total_pct), show: pct, ..KEY },
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    /// Worse than before by more than this percentage.
    WorseByPct(f64),
    Above(f64),
    Below(f64),
}

/// `p99_ms>10%`, `good_per_s>5%` (5 % lower), `error_pct>1`, `good_per_s<900`.
#[derive(Clone)]
pub struct Condition {
    text: String,
    key: &'static Key,
    limit: Limit,
}

impl FromStr for Condition {
    type Err = String;

    /// # Errors
    /// What is wrong with the expression, and the allowed forms.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = "say KEY>N% (worse by more than N percent), KEY>N or KEY<N, e.g. p99_ms>10% or error_pct>1";
        let at = text.find(['>', '<']).ok_or_else(|| format!("'{text}' has neither > nor <: {form}"))?;
        let (name, rest) = (text[..at].trim(), text[at..].trim());
        let key = KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
            let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
            format!("'{name}' is not a figure that can be judged; choose one of {}", names.join(", "))
        })?;
        // Both signs are one byte long.
        let (sign, number) = rest.split_at(1);
        let (number, percent) = match number.trim().strip_suffix('%') {
            Some(number) => (number.trim(), true),
            None => (number.trim(), false),
        };
        let value: f64 = number.parse().map_err(|_| format!("'{number}' in '{text}' is no number: {form}"))?;
        if !value.is_finite() || value < 0.0 {
            return Err(format!("'{number}' in '{text}' must be a number from 0 up"));
        }
        let limit = match (sign, percent) {
            (">", true) => Limit::WorseByPct(value),
            (_, true) => {
                return Err(format!(
                    "'{text}': a percentage is how much worse it may get, for rates too; say {name}>{number}%"
                ));
            }
            (">", false) => Limit::Above(value),
            _ => Limit::Below(value),
        };
        Ok(Self { text: text.trim().to_owned(), key, limit })
    }
}

/// By how many percent `after` is worse; below 0: better. Infinite where nothing became something.
fn worse_pct(key: &Key, before: f64, after: f64) -> f64 {
    let worse_by = if key.lower_is_worse { before - after } else { after - before };
    if worse_by == 0.0 { 0.0 } else { 100.0 * worse_by / before.abs() }
}

impl Condition {
    /// Whether the limit is exceeded.
    fn holds(&self, before: f64, after: f64) -> bool {
        // Rounding of the arithmetic must not fail a limit that is met exactly.
        const SLACK: f64 = 1e-9;
        match self.limit {
            Limit::WorseByPct(pct) => worse_pct(self.key, before, after) > pct + SLACK,
            Limit::Above(limit) => after > limit + SLACK,
            Limit::Below(limit) => after < limit - SLACK,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    pub profile: String,
    pub users: u32,
    pub key: &'static str,
    /// Median of the repeats; null where there is no such figure.
    pub before: Option<f64>,
    pub after: Option<f64>,
    /// Below 0: better. Null where there is no percentage, as from 0 to another value.
    pub worse_pct: Option<f64>,
    /// after − before, of the means of the repeats; null where one has no such figure.
    pub difference: Option<f64>,
    /// Of the difference; null where it is unknown.
    pub noise: Option<Noise>,
    /// Whether the interval of the noise excludes zero; null where it is unknown.
    pub exceeds_noise: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Diff {
    /// By step, then by figure.
    pub changes: Vec<Change>,
    /// Conditions that hold, in words; not empty: CI is to fail.
    pub failures: Vec<String>,
    /// What keeps the two from being compared, or a step from being judged.
    pub remarks: Vec<String>,
}

/// Joins the steps by profile and users. A condition is judged on every step that both have and that is valid in both; where it
/// can be judged on none, or a step is gone, that is a failure too: CI must not pass because nothing was measured.
pub fn diff(before: &Report, after: &Report, conditions: &[Condition]) -> Diff {
    let mut diff = Diff { remarks: unlike(before, after), ..Diff::default() };
    let mut judged = 0;
    for (profile, users) in steps(before, after) {
        let name = format!("{profile} at {users} users");
        match [before, after].map(|report| step_state(report, &profile, users)) {
            [StepState::Missing, _] => {
                diff.remarks.push(format!("{name} is new: the first report has no such step"));
                continue;
            }
            [_, StepState::Missing] => {
                let text = format!("{name} is missing in the second report");
                (if conditions.is_empty() { &mut diff.remarks } else { &mut diff.failures }).push(text);
                continue;
            }
            [StepState::Invalid, _] | [_, StepState::Invalid] => {
                diff.remarks.push(format!("{name} is invalid in one of the reports and not judged"));
            }
            _ => {
                judged += 1;
                diff.failures.extend(failures(before, after, &profile, users, conditions));
            }
        }
        let shown = KEYS.iter().filter(|key| key.main || conditions.iter().any(|c| c.key.name == key.name));
        let sides = [(before, 1), (after, 2)].map(|(report, seed)| Side::of(report, &profile, users, seed));
        diff.changes.extend(shown.map(|key| sides_differ(change(before, after, &profile, users, key), key, &sides)));
    }
    if judged == 0 && !conditions.is_empty() {
        diff.failures.push("no step could be judged: the reports have no valid step in common".into());
    }
    diff
}

fn failures(before: &Report, after: &Report, profile: &str, users: u32, conditions: &[Condition]) -> Vec<String> {
    let mut failures = Vec::new();
    for condition in conditions {
        let change = change(before, after, profile, users, condition.key);
        // A figure that neither has is none of the profile's, such as hits without a cache.
        let (Some(old), new) = (change.before, change.after) else { continue };
        let shown = |value: Option<f64>| value.map_or_else(|| NO_FIGURE.into(), condition.key.show);
        if new.is_none_or(|new| condition.holds(old, new)) {
            let (old, new) = (shown(Some(old)), shown(new));
            failures.push(format!("{}: {profile} at {users} users, {old} → {new}", condition.text));
        }
    }
    failures
}

fn change(before: &Report, after: &Report, profile: &str, users: u32, key: &'static Key) -> Change {
    let median = |report: &Report| over_repeats(report, profile, users, key.figure).map(|spread| spread.median);
    let (before, after) = (median(before), median(after));
    let worse_pct = before.zip(after).map(|(old, new)| worse_pct(key, old, new)).filter(|pct| pct.is_finite());
    let profile = profile.to_owned();
    let (difference, noise, exceeds_noise) = (None, None, None);
    Change { profile, users, key: key.name, before, after, worse_pct, difference, noise, exceeds_noise }
}

/// The valid repeats of a step in one report, and their seconds.
struct Side<'a> {
    runs: Vec<&'a Step>,
    seconds: Option<Resampled>,
}

impl<'a> Side<'a> {
    fn of(report: &'a Report, profile: &'a str, users: u32, seed: u64) -> Self {
        let runs: Vec<&Step> = report.runs(profile, users).filter(|step| step.valid).collect();
        let seconds: Vec<&Second> = runs.iter().flat_map(|step| &step.series).collect();
        Self { seconds: Resampled::of(&seconds, seed), runs }
    }

    fn values(&self, key: &Key) -> Vec<f64> {
        self.runs.iter().filter_map(|step| (key.figure)(step)).filter(|value| value.is_finite()).collect()
    }
}

/// Adds the difference and its noise.
fn sides_differ(change: Change, key: &Key, [before, after]: &[Side; 2]) -> Change {
    let (old, new) = (before.values(key), after.values(key));
    if old.is_empty() || new.is_empty() {
        return change;
    }
    let means = [&old, &new].map(|values| values.iter().sum::<f64>() / values.len() as f64);
    let noise = noise::of_repeats(&old, &new)
        .or_else(|| noise::of_seconds(before.seconds.as_ref()?, after.seconds.as_ref()?, means, key.of_seconds));
    let exceeds_noise = noise.map(|noise| noise.is_exceeded());
    Change { difference: Some(means[1] - means[0]), noise, exceeds_noise, ..change }
}

/// Profiles in the order of the reports, users ascending.
fn steps(before: &Report, after: &Report) -> Vec<(String, u32)> {
    let mut profiles: Vec<&String> = before.profiles.iter().collect();
    profiles.extend(after.profiles.iter().filter(|profile| !before.profiles.contains(profile)));
    let mut users = [before.user_steps(), after.user_steps()].concat();
    users.sort_unstable();
    users.dedup();
    let all = profiles.into_iter().flat_map(|profile| users.iter().map(|&users| (profile.clone(), users)));
    all.filter(|(profile, users)| [before, after].iter().any(|report| report.runs(profile, *users).next().is_some()))
        .collect()
}

/// Conditions that differ: then a change may be theirs.
fn unlike(before: &Report, after: &Report) -> Vec<String> {
    let law = |report: &Report| words::law(&report.law);
    let target = |report: &Report| {
        report.scenario.target.as_ref().map_or_else(|| "our own stack".into(), |target| target.url.clone())
    };
    let length = |report: &Report| format!("{} s + {} s", report.scenario.warm_up_s, report.scenario.measure_s);
    let pairs = [
        ("scenario", before.scenario.name.clone(), after.scenario.name.clone()),
        ("target", target(before), target(after)),
        ("law", law(before), law(after)),
        ("length of a step", length(before), length(after)),
        ("machine", words::machine(&before.machine), words::machine(&after.machine)),
        ("data", before.data.name.clone(), after.data.name.clone()),
    ];
    let different = pairs.into_iter().filter(|(_, old, new)| old != new);
    different.map(|(what, old, new)| format!("the {what} differs: {old} / {new}")).collect()
}

/// The changes as a table, then what fails; ends in a line break.
pub fn render(diff: &Diff) -> String {
    let mut out = String::new();
    let mut step = None;
    for change in &diff.changes {
        if step != Some((&change.profile, change.users)) {
            step = Some((&change.profile, change.users));
            let name = format!("{} at {} users", change.profile, change.users);
            out.push_str(&format!(
                "{name:<30}{:>10}{:>10}{:>12}{:>22}  {:<20}\n",
                "before", "after", "difference", "95 % interval", "change"
            ));
        }
        out.push_str(line(change).trim_end());
        out.push('\n');
    }
    let of = |basis| diff.changes.iter().any(|change| change.noise.is_some_and(|noise| noise.basis == basis));
    if of(Basis::Repeats) {
        out.push_str(
            "· differences and intervals are those of the means of the repeats; before and after are medians\n",
        );
    }
    if of(Basis::Seconds) {
        out.push_str(&format!(
            "· ≥: fewer than {} valid repeats in one of the reports, so the interval is from the spread between the seconds of the steps.\n  It \
             does not contain what changes from run to run: the noise is at least this. Measure with --repeat {0} or more\n",
            statistics::MIN_VALUES
        ));
    }
    if diff.changes.iter().any(|change| change.difference.is_some() && change.noise.is_none()) {
        out.push_str(
            "· noise unknown: fewer than 3 valid repeats, and the seconds of the steps are fewer than 20 or do not have the figure\n",
        );
    }
    for remark in &diff.remarks {
        out.push_str(&format!("· {remark}\n"));
    }
    for failure in &diff.failures {
        out.push_str(&format!("✗ {failure}\n"));
    }
    out
}

/// A figure: before, after, difference, interval, percentage, and whether the difference exceeds the noise.
fn line(change: &Change) -> String {
    let show = KEYS.iter().find(|key| key.name == change.key).map_or(ms as fn(f64) -> String, |key| key.show);
    let shown = |value: Option<f64>| value.map_or_else(|| NO_FIGURE.into(), show);
    let with_sign = |value: f64| match show(value.abs()) {
        text if text.chars().all(|c| !('1'..='9').contains(&c)) => text,
        text if value < 0.0 => format!("−{text}"),
        text => format!("+{text}"),
    };
    let difference = change.difference.map_or_else(|| NO_FIGURE.into(), with_sign);
    let interval = change.noise.map_or_else(
        || NO_FIGURE.into(),
        |noise| {
            let at_least = if noise.basis == Basis::Seconds { "≥ " } else { "" };
            format!("{at_least}{}…{}", with_sign(noise.low), with_sign(noise.high))
        },
    );
    let percent = match (change.before, change.after) {
        (Some(old), Some(new)) if old != 0.0 => format!("{} %", signed(100.0 * (new - old) / old.abs())),
        (Some(old), Some(new)) if old == new => "0.0 %".into(),
        _ => NO_FIGURE.into(),
    };
    let sign = match change.worse_pct {
        Some(worse) if worse >= 0.05 => " worse",
        Some(worse) if worse <= -0.05 => " better",
        _ => "",
    };
    let verdict = match change.exceeds_noise {
        Some(true) if change.noise.is_some_and(|noise| noise.basis == Basis::Seconds) => "exceeds the known noise",
        Some(true) => "exceeds the noise",
        Some(false) => "within the noise",
        None => "noise unknown",
    };
    let [before, after] = [change.before, change.after].map(shown);
    let percent = format!("{percent}{sign}");
    format!("  {:<28}{before:>10}{after:>10}{difference:>12}{interval:>22}  {percent:<20}{verdict}", change.key)
}
