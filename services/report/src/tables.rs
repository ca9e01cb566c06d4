//! The figures of the steps as blocks, the same for terminal, Markdown and HTML: a block per figure, a column per step, a row per source
//! (article, model, each profile).

use std::collections::{BTreeMap, BTreeSet};

use statistics::has_percentile;

use super::{
    analysis::{HELD_MAX_ERROR_PCT, HELD_MIN_ANSWERED_PCT, Spread, StepState, counted, over_repeats, step_state},
    corrected,
    findings::Findings,
    foreign,
    numbers::{NO_FIGURE, count, ms, pct, per_request},
    retries,
    schema::{ArticleFigures, ModelFigures, Report, Step},
    section::Table,
    traces, words,
};

/// One figure.
pub(super) struct Block {
    pub(super) title: &'static str,
    /// What it means, in a sentence.
    pub(super) meaning: &'static str,
    pub(super) rows: Vec<Row>,
    pub(super) rank: Rank,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    Main,
    Why,
    Detail,
}

pub(super) struct Row {
    pub(super) label: String,
    /// Measured here; otherwise quoted or computed.
    pub(super) measured: bool,
    /// One per column.
    pub(super) cells: Vec<Cell>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    pub(super) text: String,
    /// With repeats that differ: the interval of the mean, "[93, 99]", or of two repeats both, "93…99".
    pub(super) range: Option<String>,
    pub(super) flag: Flag,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag {
    Plain,
    /// Past the limit for a step that is held.
    Bad,
    /// The step is invalid.
    Invalid,
}

impl Flag {
    /// Readable without colour; one column wide.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Plain => " ",
            Self::Bad => "✗",
            Self::Invalid => "!",
        }
    }
}

/// What the signs mean.
pub(super) fn legend(report: &Report) -> String {
    let mut text = format!(
        "✗ step not held: more than {HELD_MAX_ERROR_PCT} % errors, or less than {HELD_MIN_ANSWERED_PCT} % of the offer answered"
    );
    if report.steps.iter().any(|s| !s.valid) {
        text.push_str(" · ! step invalid: machine or load generator at its limit");
    }
    text
}

/// Heads of the columns: requests per second offered, and where the steps differ in it, the share of unknown ids.
pub(super) fn columns(report: &Report) -> Vec<String> {
    let shares = &report.scenario.unknown_share;
    let share = |users: u32| {
        let step = report.scenario.steps.iter().position(|&step| step == users)?;
        shares.get(step).filter(|_| shares_differ(report)).map(|share| format!("·{:.0}%", 100.0 * share))
    };
    let head = |&users: &u32| format!("{:.0}{}", report.offered_per_s(users), share(users).unwrap_or_default());
    report.user_steps().iter().map(head).collect()
}

/// Whether the steps differ in their share of unknown ids.
pub(super) fn shares_differ(report: &Report) -> bool {
    report.scenario.unknown_share.windows(2).any(|pair| pair[0] != pair[1])
}

type Figure = fn(&Step) -> Option<f64>;
type FromArticle = fn(&ArticleFigures) -> Option<f64>;
type FromModel = fn(&ModelFigures) -> Option<f64>;

struct Spec {
    title: &'static str,
    meaning: &'static str,
    rank: Rank,
    show: fn(f64) -> String,
    figure: Figure,
    article: FromArticle,
    model: FromModel,
    /// `(value, offered)`: past the limit for a step that is held.
    bad: fn(f64, f64) -> bool,
    /// A percentile, in percent: without enough requests for it, the longest request is shown.
    percentile: Option<f64>,
}

const PLAIN: Spec = Spec {
    title: "",
    meaning: "",
    rank: Rank::Detail,
    show: count,
    figure: |_| None,
    article: |_| None,
    model: |_| None,
    bad: |_, _| false,
    percentile: None,
};

const SPECS: &[Spec] = &[
    Spec {
        title: "Mean latency, ms",
        meaning: "From the instant a request was planned to its end, over all that were answered, failed ones included.",
        rank: Rank::Main,
        show: ms,
        figure: |s| Some(s.mean_ms),
        article: |a| a.mean_ms,
        model: |m| Some(m.mean_ms),
        ..PLAIN
    },
    Spec {
        title: "Errors, %",
        meaning: "Share of the answered requests that failed: an error status, no answer within the timeout, a broken connection.",
        rank: Rank::Main,
        show: pct,
        figure: |s| Some(s.error_pct),
        article: |a| Some(a.error_pct),
        model: |m| Some(m.error_pct),
        bad: |value, _| value > HELD_MAX_ERROR_PCT,
        ..PLAIN
    },
    Spec {
        title: "Answered/s",
        meaning: "Requests per second that came to an end, good or not. The article calls it QPS. A user who waits sends nothing, so slow answers \
                  lower it.",
        rank: Rank::Main,
        figure: |s| Some(s.answered_per_s),
        article: |a| Some(a.qps),
        model: |m| Some(m.answered_per_s),
        bad: |value, offered| value < offered * HELD_MIN_ANSWERED_PCT / 100.0,
        ..PLAIN
    },
    Spec {
        title: "Good answers/s",
        meaning: "Requests per second with a good answer: status 2xx and a body that could be read.",
        rank: Rank::Main,
        figure: |s| Some(s.good_per_s),
        model: |m| Some(m.good_per_s),
        ..PLAIN
    },
    Spec {
        title: "Good of offered, %",
        meaning: "Good answers as a share of the plan. What was skipped because a user waited, dropped or failed is missing from it.",
        rank: Rank::Main,
        show: pct,
        figure: |s| (s.offered_per_s > 0.0).then(|| 100.0 * s.good_per_s / s.offered_per_s),
        ..PLAIN
    },
    Spec {
        title: "Latency p50, ms",
        meaning: "50 % of the requests were at most as long.",
        rank: Rank::Why,
        show: ms,
        figure: |s| Some(s.p50_ms),
        ..PLAIN
    },
    Spec {
        title: "Latency p99, ms",
        meaning: "99 % of the requests were at most as long. max: of fewer than 1,000 requests, the longest.",
        rank: Rank::Why,
        show: ms,
        figure: |s| Some(s.p99_ms),
        percentile: Some(99.0),
        ..PLAIN
    },
    Spec {
        title: "Store queries/req",
        meaning: "Commands sent to MySQL per answered request. The guards lower it.",
        rank: Rank::Why,
        show: per_request,
        figure: |s| s.own(s.store_queries_per_request),
        ..PLAIN
    },
    Spec {
        title: "Cache hits, %",
        meaning: "Share of the look-ups in Redis that found a list.",
        rank: Rank::Why,
        show: pct,
        figure: |s| s.hit_ratio.map(|h| 100.0 * h),
        ..PLAIN
    },
    Spec {
        title: "Checkout timeouts",
        meaning: "Requests that failed because no connection to the store came free in time; number in the step.",
        rank: Rank::Why,
        figure: |s| s.own(s.store_timeouts as f64),
        ..PLAIN
    },
    Spec {
        title: "Bloom rejected, %",
        meaning: "Share of the requests that the bloom filter answered (\"no such user\") without cache or store.",
        rank: Rank::Why,
        show: pct,
        figure: |s| s.own(100.0 * s.bloom_rejections_per_request),
        ..PLAIN
    },
    Spec {
        title: "Latency p90, ms",
        meaning: "90 % of the requests were at most as long.",
        show: ms,
        figure: |s| Some(s.p90_ms),
        ..PLAIN
    },
    Spec {
        title: "Latency p99.9, ms",
        meaning: "99.9 % of the requests were at most as long. max: of fewer than 10,000 requests, the longest.",
        show: ms,
        figure: |s| Some(s.p999_ms),
        percentile: Some(99.9),
        ..PLAIN
    },
    Spec {
        title: "Longest request, ms",
        meaning: "The longest latency of the step.",
        show: ms,
        figure: |s| Some(s.max_ms),
        ..PLAIN
    },
    Spec {
        title: "Known users answered personally, %",
        meaning: "Requests of known users that got their own list (from cache or store), not the popular items or an error.",
        show: pct,
        figure: |s| s.known_personal_pct,
        ..PLAIN
    },
    Spec {
        title: "Good answers to real users/s",
        meaning: "Good answers to users that exist.",
        figure: |s| s.known_good_per_s,
        ..PLAIN
    },
    Spec {
        title: "Requests that need the store, %",
        meaning: "Share of the requests that neither filter nor cache could answer.",
        show: pct,
        figure: |s| s.own(100.0 * s.store_share),
        ..PLAIN
    },
    Spec {
        title: "Skipped requests",
        meaning: "Planned requests that were not sent because the user still waited for an answer; number in the step.",
        figure: |s| Some(s.skipped as f64),
        ..PLAIN
    },
    Spec {
        title: "Dropped arrivals",
        meaning: "Open arrivals that were not sent because as many requests as allowed were in flight; number in the step. Closed arrivals \
                  are skipped instead.",
        figure: |s| Some(s.dropped as f64),
        ..PLAIN
    },
    Spec {
        title: "Send lag p99, ms",
        meaning: "How late the load generator sent its requests; above 10 ms the step is invalid.",
        show: ms,
        figure: |s| Some(s.send_lag_p99_ms),
        ..PLAIN
    },
    Spec {
        title: "Gateway, ms",
        meaning: "Mean time nginx adds to a request.",
        show: ms,
        figure: |s| s.gateway_mean_ms,
        ..PLAIN
    },
    Spec {
        title: "Real store time, ms",
        meaning: "Mean duration of a command in MySQL, without the modelled delay.",
        show: ms,
        figure: |s| s.store_upstream_mean_ms,
        ..PLAIN
    },
    Spec {
        title: "CPU, % of the machine",
        meaning: "Of all cores, the load generator included; above 90 % the step is invalid.",
        show: pct,
        figure: |s| Some(s.cpu_total_pct),
        ..PLAIN
    },
    Spec {
        title: "CPU stolen, % of the machine",
        meaning: "Processor time that the hypervisor gave to other machines; part of the figure above.",
        show: pct,
        figure: |s| s.cpu_stolen_pct,
        ..PLAIN
    },
];

/// Every block that has a figure.
pub(super) fn blocks(report: &Report) -> Vec<Block> {
    let users = report.user_steps();
    let mut blocks: Vec<Block> = SPECS.iter().map(|spec| block(report, &users, spec)).collect();
    if shares_differ(report) {
        // With a flood of unknown ids, the good answers to real users are the main figure.
        blocks.iter_mut().filter(|b| b.title == "Good answers to real users/s").for_each(|b| b.rank = Rank::Main);
    }
    let optional = |rank| rank == Rank::Detail || report.scenario.target.is_some();
    blocks.retain(|b| !optional(b.rank) || b.rows.iter().any(|r| r.cells.iter().any(|c| c.text != NO_FIGURE)));
    blocks
}

fn block(report: &Report, users: &[u32], spec: &Spec) -> Block {
    let mut rows = Vec::new();
    for (i, profile) in report.profiles.iter().enumerate() {
        let label = |name: &str| if i == 0 { name.to_string() } else { format!("{name}/{profile}") };
        type Quoted<'a> = (&'static str, Box<dyn Fn(&Step) -> Option<f64> + 'a>);
        let quoted: [Quoted<'_>; 2] = [
            ("article", Box::new(|s: &Step| s.article.as_ref().and_then(spec.article))),
            ("model", Box::new(|s: &Step| s.model.as_ref().and_then(spec.model))),
        ];
        for (name, figure) in quoted {
            let cells: Vec<Cell> = users
                .iter()
                .map(|&u| {
                    let value = report.runs(profile, u).find_map(&figure);
                    quoted_cell(value, report.offered_per_s(u), spec)
                })
                .collect();
            if cells.iter().any(|c| c.text != NO_FIGURE) {
                rows.push(Row { label: label(name), measured: false, cells });
            }
        }
        let cells = users.iter().map(|&u| measured_cell(report, profile, u, spec)).collect();
        rows.push(Row { label: profile.clone(), measured: true, cells });
    }
    Block { title: spec.title, meaning: spec.meaning, rows, rank: spec.rank }
}

fn quoted_cell(value: Option<f64>, offered: f64, spec: &Spec) -> Cell {
    let flag = if value.is_some_and(|v| (spec.bad)(v, offered)) { Flag::Bad } else { Flag::Plain };
    Cell { text: value.map_or_else(|| NO_FIGURE.into(), spec.show), range: None, flag }
}

fn measured_cell(report: &Report, profile: &str, users: u32, spec: &Spec) -> Cell {
    let lacks = |percent: f64| counted(report, profile, users).any(|step| !has_percentile(percent, step.samples()));
    let is_maximum = spec.percentile.is_some_and(lacks);
    let figure: Figure = if is_maximum { |s| Some(s.max_ms) } else { spec.figure };
    let Some(spread) = over_repeats(report, profile, users, figure) else {
        return Cell { text: NO_FIGURE.into(), range: None, flag: Flag::Plain };
    };
    let flag = match step_state(report, profile, users) {
        StepState::Invalid => Flag::Invalid,
        _ if (spec.bad)(spread.mean, report.offered_per_s(users)) => Flag::Bad,
        _ => Flag::Plain,
    };
    let name = if is_maximum { "max " } else { "" };
    Cell { text: format!("{name}{}", (spec.show)(spread.mean)), range: range(&spread, spec.show), flag }
}

/// `None` if the ends look alike.
fn range(spread: &Spread, show: fn(f64) -> String) -> Option<String> {
    let (low, high) = spread.interval.map_or((spread.min, spread.max), |interval| (interval.low, interval.high));
    let (low, high) = (show(low), show(high));
    let text = if spread.interval.is_some() { format!("[{low}, {high}]") } else { format!("{low}…{high}") };
    (low != high).then_some(text)
}

/// Tables whose columns differ between reports: errors by class, sources of answers, CPU and memory by process.
pub(super) fn details(report: &Report) -> Vec<Table> {
    let sources = |s: &Step| -> BTreeMap<String, f64> {
        if s.foreign {
            return BTreeMap::new();
        }
        let n = &s.sources;
        [("cache", n.cache), ("store", n.store), ("popular", n.popular), ("stale", n.stale)]
            .map(|(name, n)| (name.to_string(), n as f64))
            .into()
    };
    let tables = [
        by_name(report, "Errors by class", "Number in the step.", count, |s| {
            s.errors.iter().map(|(class, n)| (class.clone(), *n as f64)).collect()
        }),
        by_name(
            report,
            "Answers by source",
            "Good answers in the step: from the cache, ranked from the store, popular items for unknown or cold users, expired lists.",
            count,
            sources,
        ),
        by_name(report, "CPU by process, cores", "Cores used on average; replicas summed.", per_request, |s| {
            s.cpu.clone()
        }),
        by_name(report, "Memory by process, MiB", "Resident at the end of the step; replicas summed.", count, |s| {
            s.rss_mb.clone()
        }),
    ];
    let by_name = tables.into_iter().filter(|table| table.head.len() > 1);
    retries::table(report).into_iter().chain(corrected::table(report)).chain(by_name).collect()
}

fn by_name(
    report: &Report,
    title: &str,
    meaning: &str,
    show: fn(f64) -> String,
    figures: impl Fn(&Step) -> BTreeMap<String, f64>,
) -> Table {
    let names: BTreeSet<String> = report.steps.iter().flat_map(|s| figures(s).into_keys()).collect();
    let mut rows = Vec::new();
    for profile in &report.profiles {
        for users in report.user_steps().into_iter().filter(|&u| report.runs(profile, u).next().is_some()) {
            let mut row = vec![format!("{profile} {:.0}", report.offered_per_s(users))];
            // A class that did not occur is zero, not unknown.
            row.extend(names.iter().map(|name| {
                let value = |s: &Step| Some(figures(s).get(name).copied().unwrap_or(0.0));
                over_repeats(report, profile, users, value).map_or_else(|| NO_FIGURE.into(), |v| show(v.mean))
            }));
            rows.push(row);
        }
    }
    let head: Vec<&str> = std::iter::once("step").chain(names.iter().map(String::as_str)).collect();
    Table::new(title, meaning, &head, rows)
}

/// The conditions of the run, in words.
pub(super) fn conditions(report: &Report) -> Vec<(String, String)> {
    let mut all = vec![
        ("Scenario".into(), format!("{}: {}", report.scenario.name, report.scenario.description)),
        ("Arrivals".into(), words::arrivals(report)),
        ("Machine".into(), words::machine(&report.machine)),
        ("Source code".into(), words::revision(&report.revision)),
        ("Begun".into(), report.created.clone()),
    ];
    if !report.scenario.retries.is_empty() {
        all.insert(2, ("Retries".into(), report.scenario.retries.clone()));
    }
    match &report.scenario.target {
        Some(target) => all.extend(foreign::conditions(target)),
        None => {
            all.insert(2, ("Law of the store's delay".into(), words::law(&report.law)));
            all.insert(4, ("Data".into(), words::data(report)));
        }
    }
    all.extend(report.seed.map(|seed| ("Seed".into(), seed.to_string())));
    all.extend(words::order_of_rounds(report).map(|words| ("Order of the rounds".into(), words)));
    all.extend(traces::conditions(report).map(|words| ("Recorded requests".into(), words)));
    all.extend(report.versions.iter().map(|(name, version)| (format!("Version: {name}"), version.clone())));
    all
}

/// The conditions of an experiment, in words, and whether its windows of load that are not steps are valid.
pub(super) fn conditions_of_findings(findings: &Findings) -> Vec<(String, String)> {
    let mut all = match findings.report_of_conditions() {
        Some(report) => conditions(&report),
        None => {
            let mut all = vec![
                ("Machine".into(), words::machine(&findings.machine)),
                ("Source code".into(), words::revision(&findings.revision)),
                ("Begun".into(), findings.created.clone()),
            ];
            let versions = findings.versions.iter();
            all.extend(versions.map(|(name, version)| (format!("Version: {name}"), version.clone())));
            all
        }
    };
    all.extend(findings.validity.iter().map(|(window, validity)| {
        let figures = format!("send lag p99 {} ms, {} % CPU", ms(validity.send_lag_p99_ms), pct(validity.cpu_pct));
        let words = if validity.is_valid() {
            format!("yes: {figures}")
        } else {
            format!("no: {}", validity.reasons.join("; "))
        };
        let words = [words, validity.seconds_note()].into_iter().filter(|part| !part.is_empty());
        let words = words.collect::<Vec<_>>().join("; ");
        (format!("Valid: {window}"), words)
    }));
    all
}
