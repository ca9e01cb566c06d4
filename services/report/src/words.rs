//! What the figures say, in sentences.

use loadtest::{arrivals::Arrivals, figures::Tolerances};
use statistics::has_percentile;

use super::{
    analysis::{StepState, over_repeats, step_state, timeout_share_pct, typical},
    foreign,
    numbers::{count, ms, pct, per_request, plain},
    schema::{DataSource, Knee, Law, Machine, Report, Revision, Step},
    section::Verdict,
};

/// What was measured, for a reader who has not seen a report before.
pub(super) fn opening(report: &Report) -> String {
    let s = &report.scenario;
    if let Some(target) = &s.target {
        return foreign::opening(report, target, &arrivals(report));
    }
    let offered: Vec<f64> =
        report.user_steps().iter().map(|&u| f64::from(u) * 1000.0 / s.interval_ms.max(1) as f64).collect();
    let range = match (offered.first(), offered.last()) {
        (Some(low), Some(high)) if low < high => {
            format!("{} to {} requests per second in {} steps", count(*low), count(*high), offered.len())
        }
        (Some(only), _) => format!("{} requests per second", count(*only)),
        _ => "no requests".into(),
    };
    let repeats = if report.repeats > 1 {
        format!(", {} times; figures are means over the repeats", report.repeats)
    } else {
        String::new()
    };
    let together = match s.arrival_grid_ms {
        0 => String::new(),
        grid => format!(" Requests are sent at multiples of {grid} ms, several at a time."),
    };
    let arrivals = arrivals(report);
    let again: u64 = report.steps.iter().map(|step| step.repeated_ids).sum();
    let known = match s.known.as_str() {
        "once" if again == 0 => "no known user is asked for twice in a step".into(),
        "once" => {
            format!("known users are asked for in turn, but {} requests asked for a user again", count(again as f64))
        }
        other => format!("known users are picked by: {other}"),
    };
    format!(
        "The service was offered {range}, {} s each after {} s of warm-up{repeats}. Arrivals are {arrivals}.{together} {} of the requests ask for users that do \
         not exist; {known}. A request unanswered after {} s is an error. {}",
        plain(s.measure_s),
        plain(s.warm_up_s),
        unknown_share(&s.unknown_share),
        plain(s.timeout_ms as f64 / 1000.0),
        intervals(report.repeats),
    )
}

/// How requests arrived. Older reports do not say it: all of them have closed arrivals.
pub(super) fn arrivals(report: &Report) -> String {
    let said = &report.scenario.arrivals;
    if said.is_empty() { Arrivals::Closed.describe() } else { said.clone() }
}

/// What the intervals are, or why there are none.
fn intervals(repeats: u32) -> String {
    match repeats {
        0 | 1 => "One run: no interval.".into(),
        2 => "Two repeats: no interval, but both figures where they differ (a…b).".into(),
        _ => "[a, b]: interval of the mean over the repeats (bootstrap, 95 %).".into(),
    }
}

/// What an interval of so few repeats is worth.
fn worth_of_intervals(repeats: u32) -> Option<String> {
    (3..10).contains(&repeats).then(|| {
        format!(
            "{repeats} repeats are few: their bootstrap would be too narrow, and is widened by a factor of {:.2} (Student's t). An interval contains the \
             true mean in 95 % of all runs if the figures scatter like a normal distribution. It says nothing about what all repeats of this run \
             share, such as the machine.",
            statistics::bootstrap::widening(repeats as usize)
        )
    })
}

/// "1: protected, baseline · 2: baseline, protected"; `None` of a single round.
pub(super) fn order_of_rounds(report: &Report) -> Option<String> {
    let round = |repeat: u32| {
        let mut names: Vec<&str> =
            report.steps.iter().filter(|s| s.repeat == repeat).map(|s| s.profile.as_str()).collect();
        names.dedup();
        format!("{repeat}: {}", names.join(", "))
    };
    (report.repeats > 1 && !report.steps.is_empty())
        .then(|| (1..=report.repeats).map(round).collect::<Vec<_>>().join(" · "))
}

/// "50 %", "10 % to 90 %".
fn unknown_share(per_step: &[f64]) -> String {
    let low = per_step.iter().copied().fold(f64::INFINITY, f64::min);
    let high = per_step.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match (per_step.is_empty(), low < high) {
        (true, _) => "None".into(),
        (false, true) => format!("{} % to {} % (by step)", plain(100.0 * low), plain(100.0 * high)),
        (false, false) => format!("{} %", plain(100.0 * low)),
    }
}

/// The law of a report, as a sentence for its reader; `None` of somebody else's endpoint.
pub(super) fn store_delay(report: &Report) -> Option<String> {
    report.scenario.target.is_none().then(|| law(&report.law))
}

/// The law in force, in words.
pub(super) fn law(law: &Law) -> String {
    match law {
        Law::None => "none: the store's real speed".into(),
        Law::Modelled { base_ms_scenario, slope_ms, crosstalk_ms, spread, .. } => format!(
            "modelled: {} ms + {} ms × commands in flight{} (log-normal spread {})",
            plain(*base_ms_scenario),
            plain(*slope_ms),
            crosstalk(*crosstalk_ms),
            plain(*spread),
        ),
    }
}

/// The last term of a law; empty without crosstalk.
pub(super) fn crosstalk(crosstalk_ms: f64) -> String {
    if crosstalk_ms == 0.0 {
        return String::new();
    }
    format!(" + {crosstalk_ms} ms × commands in flight × (commands in flight − 1)")
}

/// What a built-in profile is.
pub(super) fn meaning(profile: &str) -> Option<String> {
    match profile {
        "baseline" => Some("passive cache, no guards".into()),
        "protected" => Some("bloom filter and warmed cache in front of the store".into()),
        _ => match profile.split_once(' ') {
            Some(("protected", change)) => Some(match change.strip_prefix('-') {
                Some(guard) => format!("its guard {guard} off"),
                None => format!("with {change}"),
            }),
            _ => None,
        },
    }
}

/// The result of one profile.
pub(super) struct Headline {
    pub(super) profile: String,
    /// `None` for a profile that is not built in.
    pub(super) meaning: Option<String>,
    /// "holds 5000 requests/s", "breaks at 4000 requests/s".
    pub(super) title: String,
    /// Why, with the figures.
    pub(super) text: String,
    /// `None`: not decided.
    pub(super) held: Option<bool>,
}

pub(super) fn headlines(report: &Report) -> Vec<Headline> {
    report.knees.iter().map(|knee| headline(report, knee)).collect()
}

fn headline(report: &Report, knee: &Knee) -> Headline {
    let profile = knee.profile.clone();
    let rate = |users: u32| {
        count(over_repeats(report, &profile, users, |s| Some(s.offered_per_s)).map_or(f64::NAN, |s| s.mean))
    };
    let step = |users: u32| typical(report, &profile, users);
    let (title, text, held) = match (knee.held_users, knee.broke_at_users) {
        (None, None) => ("was not run".into(), String::new(), None),
        (Some(top), None) => (
            format!("holds every step, up to {} requests/s", rate(top)),
            step(top).map(|s| format!("At {} requests/s {}.", rate(top), state(s))).unwrap_or_default(),
            Some(true),
        ),
        (before, Some(at)) if step_state(report, &profile, at) == StepState::Invalid => {
            let held =
                before.map_or("no step can be judged".into(), |u| format!("holds at least {} requests/s", rate(u)));
            (held, format!("The step of {} requests/s cannot be judged: {}.", rate(at), knee.why), None)
        }
        (before, Some(at)) => (
            format!("breaks at {} requests/s", rate(at)),
            format!(
                "At {} requests/s {}.{}{}",
                rate(at),
                step(at).map_or_else(|| knee.why.clone(), state),
                step(at).map(because).unwrap_or_default(),
                before.map_or(String::new(), |u| format!(" {} requests/s are still held.", rate(u))),
            ),
            Some(false),
        ),
    };
    Headline { meaning: meaning(&profile), profile, title, text, held }
}

/// A step in half a sentence.
fn state(s: &Step) -> String {
    let errors = if s.error_pct == 0.0 {
        "no request fails".to_string()
    } else {
        format!("{} % of the requests fail", pct(s.error_pct))
    };
    let slowest = if has_percentile(99.0, s.samples()) {
        format!("{} ms at the 99th percentile", ms(s.p99_ms))
    } else {
        format!("{} ms at most", ms(s.max_ms))
    };
    format!(
        "{errors}, an answer takes {} ms on average and {slowest}{}{}",
        ms(s.mean_ms),
        s.own(s.store_queries_per_request).map_or_else(String::new, |queries| {
            format!(", and the store gets {} queries per request", per_request(queries))
        }),
        guards(s),
    )
}

fn guards(s: &Step) -> String {
    let mut guards = Vec::new();
    if s.bloom_rejections > 0 {
        guards.push(format!(
            "the bloom filter turns {} % of the requests away",
            pct(100.0 * s.bloom_rejections_per_request)
        ));
    }
    if let Some(hits) = s.hit_ratio.filter(|h| *h > 0.005) {
        guards.push(format!("{} % of the cache look-ups hit", pct(100.0 * hits)));
    }
    if guards.is_empty() { String::new() } else { format!(": {}", guards.join(" and ")) }
}

/// The errors' main cause.
fn because(s: &Step) -> String {
    if let Some(share) = timeout_share_pct(s).filter(|share| *share >= 50.0) {
        return format!(
            " {} % of the errors are store checkout timeouts: all connections to the store are in use, and none becomes free in time.",
            pct(share)
        );
    }
    let total: u64 = s.errors.values().sum();
    match s.errors.iter().max_by_key(|(_, n)| **n) {
        Some((class, n)) if total > 0 => {
            format!(" Most frequent error: {class}, {} % of them.", pct(100.0 * *n as f64 / total as f64))
        }
        _ => String::new(),
    }
}

/// "11 of 12 passed, 1 failed", "10 of 12 passed, 2 undecided".
pub fn score(verdicts: &[Verdict]) -> String {
    let number = |wanted: Option<bool>| verdicts.iter().filter(|v| v.passed == wanted).count();
    let (passed, failed) = (number(Some(true)), number(Some(false)));
    let undecided = verdicts.iter().filter(|v| v.passed.is_none() && v.undecided).count();
    let open = number(None) - undecided;
    let mut text = format!("{passed} of {} passed", verdicts.len());
    if failed > 0 {
        text.push_str(&format!(", {failed} failed"));
    }
    if undecided > 0 {
        text.push_str(&format!(", {undecided} undecided"));
    }
    if open > 0 {
        text.push_str(&format!(", {open} not judged"));
    }
    text
}

pub(super) fn machine(m: &Machine) -> String {
    let latency = m.memory_latency_ns.map_or_else(String::new, |ns| format!(" read in {} ns", plain(ns)));
    format!("{}, {} cores, {} GiB memory{latency}, {}, Linux {}", m.cpu, m.cores, plain(m.memory_gb), m.os, m.kernel)
}

pub(super) fn data(report: &Report) -> String {
    let d = &report.data;
    let kind = match d.source {
        DataSource::Generator => "generated",
        DataSource::File => "file",
    };
    let bad = if d.bad_rows > 0 { format!(", {} bad rows left out", count(d.bad_rows as f64)) } else { String::new() };
    format!(
        "{kind} ({}): {} users, {} items, {} events{bad}; model version {}",
        d.name,
        count(d.users as f64),
        count(d.items as f64),
        count(d.events as f64),
        report.model_version
    )
}

pub(super) fn revision(r: &Revision) -> String {
    match (r.git.is_empty(), r.dirty) {
        (true, _) => "not known (no git clone)".into(),
        (false, true) => format!("{} with changes that are not committed", r.git),
        (false, false) => r.git.clone(),
    }
}

/// Remarks that follow from the figures.
pub(super) fn remarks(report: &Report, tolerances: Option<&Tolerances>) -> Vec<String> {
    let mut out = Vec::new();
    let above = report
        .steps
        .iter()
        .filter_map(|s| s.article.as_ref().map(|a| (a.qps, s)))
        .find(|(qps, s)| *qps > s.offered_per_s);
    if let Some((qps, s)) = above {
        out.push(format!(
            "The article states {} QPS at {} requests/s offered ({}), which is more than is offered. It does not say whether failed requests \
             count. This report shows answered and good requests separately; answered requests cannot exceed the offer for long.",
            qps, s.offered_per_s, s.profile,
        ));
    }
    if let Law::Modelled { base_ms, base_ms_scenario, overhead_ms, .. } = &report.law
        && base_ms != base_ms_scenario
    {
        out.push(format!(
            "The law's base of {} ms includes the {} ms that the real stack needs around the store, measured without the law. The proxy adds \
             the remaining {} ms, which include the real store's own time.",
            plain(*base_ms_scenario),
            plain(*overhead_ms),
            plain(*base_ms),
        ));
    }
    if report.quick {
        out.push("This was a quick run with short steps: figures scatter, and no tolerance is judged.".into());
    }
    let again: Vec<String> = report
        .steps
        .iter()
        .filter(|s| !s.discarded.is_empty())
        .map(|s| {
            let reasons: Vec<String> = s.discarded.iter().map(|attempt| attempt.invalid_reasons.join("; ")).collect();
            format!("{} at {} requests/s ({})", s.profile, count(s.offered_per_s), reasons.join(", then "))
        })
        .collect();
    if !again.is_empty() {
        out.push(format!(
            "Measured again because the machine or the load generator was the limit; the figures are those of the last measurement, and the \
             earlier ones are listed under 'Attempts': {}.",
            again.join("; ")
        ));
    }
    if report.repeats > 1 && report.steps.iter().any(|s| !s.valid) {
        out.push(
            "Means are over the valid repeats; a step with no valid repeat shows all of them and is marked.".into(),
        );
    }
    out.extend(worth_of_intervals(report.repeats));
    let repeated = |t: &Tolerances| report.steps.iter().any(|s| s.profile == t.baseline && s.repeated_ids > 0);
    if report.scenario.known == "once" && tolerances.is_some_and(repeated) {
        out.push(
            "Some baseline steps asked for an id more than once: such requests may have been answered from the cache."
                .into(),
        );
    }
    out
}
