//! Where the time of recorded requests went: from traces to the figures and pictures of a report. Pure.

use std::collections::BTreeMap;

use contract::spans::{attribute, name, system};
use report::{Row, Stage, TimeSpent, Waterfall};
use statistics::median;
use tracestore::{Kind, Reason, Span, Trace, waterfall};

/// Of a waterfall in a report.
const MAX_ROWS: usize = 40;

/// Stages in the order a request meets them.
const STAGES: [&str; 8] = [GATEWAY, ADMISSION, REDIS, LOAD_WAIT, POOL_WAIT, MYSQL, RANKING, API];
/// What the user's span is longer than the replica's.
const GATEWAY: &str = "gateway";
const ADMISSION: &str = "admission";
const REDIS: &str = "Redis";
const LOAD_WAIT: &str = "another's load";
const POOL_WAIT: &str = "pool wait";
const MYSQL: &str = "MySQL";
const RANKING: &str = "ranking";
/// What no span below the replica's own covers.
const API: &str = "api itself";

/// What a report shows an example of, in the order it does.
const HIT: &str = "A hit";
const MISS: &str = "A miss";
const UNKNOWN: &str = "An unknown id, rejected";
const TIMEOUT: &str = "A timeout";
const KINDS: [&str; 4] = [HIT, MISS, UNKNOWN, TIMEOUT];

/// Of the complete traces that are a random sample, or not judged yet. The receiver also keeps the slowest and the failed traces; these
/// would raise every mean. `None` without traces.
pub fn time_spent(traces: &[Trace], sample_ratio: f64) -> Option<TimeSpent> {
    let mut by_stage: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut requests = 0_u64;
    let drawn = |trace: &&Trace| trace.reasons.iter().any(|reason| matches!(reason, Reason::Sample | Reason::Open));
    for trace in traces.iter().filter(|trace| is_whole(trace)).filter(drawn) {
        requests += 1;
        for (stage, ms) in stages(trace) {
            by_stage.entry(stage).or_default().push(ms);
        }
    }
    let stage = |name: &&str| {
        let times = by_stage.remove(*name).unwrap_or_default();
        Stage {
            name: (*name).to_owned(),
            // The empty sum would be -0.0, which is printed with its sign.
            mean_ms: times.iter().fold(0.0, |sum, ms| sum + ms) / requests as f64,
            requests: times.len() as u64,
            median_ms: median(&times),
        }
    };
    (requests > 0).then(|| TimeSpent { sample_ratio, requests, stages: STAGES.iter().map(stage).collect() })
}

/// An example of each kind that is there: the one in the middle by its length.
pub fn examples(traces: &[Trace], profile: &str, offered_per_s: f64) -> Vec<Waterfall> {
    let example = |kind: &&str| {
        let of_kind = |trace: &&Trace| is_whole(trace) && kind_of(trace) == Some(*kind);
        let mut those: Vec<&Trace> = traces.iter().filter(of_kind).collect();
        those.sort_by_key(|trace| (waterfall::extent_ns(trace), trace.id));
        let trace = those.get(those.len() / 2)?;
        Some(Waterfall {
            kind: (*kind).to_owned(),
            profile: profile.to_owned(),
            offered_per_s,
            trace_id: trace.id.to_string(),
            rows: waterfall::rows(trace).iter().take(MAX_ROWS).map(row).collect(),
        })
    };
    KINDS.iter().filter_map(example).collect()
}

/// Begun by a user, with the replica's side, and no parent missing.
fn is_whole(trace: &Trace) -> bool {
    let retrospective = |span: &Span| span.attributes.contains_key(attribute::RETROSPECTIVE);
    trace.root().is_some_and(|root| root.parent.is_none() && root.kind == Kind::Client)
        && trace.spans.iter().any(|span| span.kind == Kind::Server)
        && !trace.spans.iter().any(retrospective)
        && waterfall::rows(trace).iter().filter(|row| row.depth == 0).count() == 1
}

fn kind_of(trace: &Trace) -> Option<&'static str> {
    let server = trace.spans.iter().find(|span| span.kind == Kind::Server)?;
    let says = |key: &str| server.attributes.get(key).map(String::as_str);
    if trace.spans.iter().any(|span| span.failed) {
        let timed_out =
            |span: &Span| span.attributes.get(attribute::ERROR_TYPE).is_some_and(|word| word.contains("timeout"));
        return trace.spans.iter().any(timed_out).then_some(TIMEOUT);
    }
    match (says(attribute::ANSWER_SOURCE)?, says(attribute::GUARD_RESULT)) {
        ("cache", _) => Some(HIT),
        ("store", _) => Some(MISS),
        ("popular", Some("absent")) => Some(UNKNOWN),
        _ => None,
    }
}

/// Each moment of the request counts for its innermost span, so that the stages add up to the user's time. Work after the answer does not
/// count.
fn stages(trace: &Trace) -> BTreeMap<&'static str, f64> {
    struct Above {
        window: (u64, u64),
        /// `None`: behind the answer.
        stage: Option<&'static str>,
        own_ns: u64,
    }
    let mut path: Vec<Above> = Vec::new();
    let mut sums: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut close = |above: Above| {
        if let Some(stage) = above.stage {
            *sums.entry(stage).or_default() += above.own_ns;
        }
    };
    for row in waterfall::rows(trace) {
        while path.len() > row.depth {
            path.pop().into_iter().for_each(&mut close);
        }
        let (start, end) = (row.span.start_ns, row.span.end_ns());
        let above = path.last_mut();
        let behind = matches!(row.span.name.as_str(), name::CACHE_FILL | name::REFRESH_AHEAD);
        let counts = !behind && above.as_ref().map_or(row.depth == 0, |above| above.stage.is_some());
        let window = match &above {
            Some(above) => (start.clamp(above.window.0, above.window.1), end.clamp(above.window.0, above.window.1)),
            None => (start, end),
        };
        let own_ns = window.1 - window.0;
        let mut stage = None;
        if counts {
            stage = Some(stage_of(row.span));
            if let Some(above) = above {
                above.own_ns = above.own_ns.saturating_sub(own_ns);
            }
        }
        path.push(Above { window, stage, own_ns });
    }
    path.into_iter().rev().for_each(&mut close);
    sums.into_iter().map(|(stage, ns)| (stage, ns as f64 / 1e6)).collect()
}

fn stage_of(span: &Span) -> &'static str {
    let system = span.attributes.get(attribute::DB_SYSTEM_NAME).map(String::as_str);
    match (span.name.as_str(), system) {
        (name::ADMISSION_WAIT, _) => ADMISSION,
        (name::LOAD_WAIT, _) => LOAD_WAIT,
        (name::POOL_WAIT, _) => POOL_WAIT,
        (name::RANK, _) => RANKING,
        (_, Some(system::REDIS)) => REDIS,
        (_, Some(system::MYSQL)) => MYSQL,
        _ if span.kind == Kind::Client => GATEWAY,
        _ => API,
    }
}

fn row(row: &waterfall::Row<'_>) -> Row {
    let span = row.span;
    Row {
        depth: u32::try_from(row.depth).unwrap_or(u32::MAX),
        service: span.service.to_string(),
        name: span.name.clone(),
        offset_ms: row.offset_ns as f64 / 1e6,
        duration_ms: span.duration_ns as f64 / 1e6,
        failed: span.failed,
        detail: crate::instruments::waterfall::details(span, row.offset_ns),
    }
}

#[cfg(test)]
mod tests;
