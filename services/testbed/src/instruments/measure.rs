//! One step of load and its figures.

pub mod foreign;
pub mod k6;

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use faultproxy::{Client, Fault};
use loadtest::{
    plan::{Progress, StepOutcome, StepPlan},
    scenario::{Fault as PlannedFault, FaultKind},
};
use report::{RetryFigures, Step, Validity};
use tokio::task::JoinSet;

use super::{
    access_log::Line,
    counts::Counting,
    generator::{self, HasStack, Moment, measured_ms},
    target::{Snapshot, Target},
};

/// Runs the step and returns its figures; the caller fills in `article`, `model`, `profile` and `hdr_log`. `faults` are added on time and
/// lifted at the end.
///
/// # Errors
/// A process fails, or a fault could not be set: figures without it would be those of another step.
pub async fn step<S: HasStack>(
    stack: &mut S,
    target: &Target,
    plan: &StepPlan,
    faults: Vec<PlannedFault>,
    mut progress: impl FnMut(&Progress),
) -> anyhow::Result<(Step, StepOutcome)> {
    let access_log = target.access_log.as_ref();
    let log_offset = access_log.and_then(|log| std::fs::metadata(log).ok()).map_or(0, |meta| meta.len());
    let counting = Counting::begin(target).await?;
    let client = Client::new(target.faultproxy()?)?;
    let mut fault_tasks = JoinSet::new();
    let mut begun = false;
    let window = generator::drive(stack, target, plan, async |_, moment| {
        let Moment::Second(now) = moment else { return Ok(None) };
        if let Some(since_ms) = measured_ms(plan, now).filter(|_| !begun) {
            begun = true;
            for fault in &faults {
                fault_tasks.spawn(inject(client.clone(), *fault, since_ms));
            }
        }
        progress(now);
        Ok(None)
    })
    .await?;
    let rss = target.resources().rss_mb;
    let mut set = 0;
    let mut injected = Ok(());
    while let Some(done) = fault_tasks.try_join_next() {
        injected = injected.and(done?);
        set += 1;
    }
    fault_tasks.shutdown().await;
    if !faults.is_empty() {
        client.clear().await?;
    }
    injected.context("a planned fault could not be set")?;
    ensure!(
        set == faults.len(),
        "{} of {} planned faults were not set within the step",
        faults.len() - set,
        faults.len()
    );
    let outcome = &window.outcome;
    let gateway_mean_ms = match access_log {
        Some(log) => gateway_mean_ms(log, log_offset, outcome.started_ms, outcome.ended_ms).await?,
        None => None,
    };
    let counts = match counting.zip(outcome.requests) {
        Some((counting, requests)) => Some(counting.end(target, requests).await),
        None => None,
    };
    let step = Step {
        seed: Some(plan.seed),
        gateway_mean_ms,
        rss_mb: rss,
        scheduling: Some(window.scheduling),
        counts,
        ..figures(outcome, &window.before, &window.after, &window.validity)
    };
    Ok((step, window.outcome))
}

/// `since_ms`: how long the measured part has run.
async fn inject(client: Client, fault: PlannedFault, since_ms: u64) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs_f64(fault.at_s).saturating_sub(Duration::from_millis(since_ms))).await;
    let kind = match fault.kind {
        FaultKind::Latency { ms } => Fault::Latency { ms: ms as f64, jitter_ms: 0.0 },
        FaultKind::Loss { pct, seed } => Fault::Loss { pct, seed },
        FaultKind::Stall => Fault::Stall,
        FaultKind::Reset => Fault::Reset,
        FaultKind::Refuse => Fault::Refuse,
    };
    client.add_fault(kind.for_ms((fault.for_s * 1000.0) as u64)).await?;
    Ok(())
}

fn figures(outcome: &StepOutcome, before: &Snapshot, after: &Snapshot, validity: &Validity) -> Step {
    let grew = |name: &str, labels: &[&str]| after.replicas.since(&before.replicas, name, labels);
    let ratio = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
    // Counted by the replicas between the same instants as the other counters.
    let requests = grew("http_server_request_duration_seconds_count", &["http_route=\"/recommendations\""]);
    let hits = grew("cache_requests_total", &["result=\"hit\""]);
    let lookups = grew("cache_requests_total", &[]);
    let rejections = grew("guard_checks_total", &["result=\"absent\""]);
    let queries = grew("store_queries_total", &[]);
    let timeouts = grew("store_errors_total", &["reason=\"checkout_timeout\""]);
    let retries = grew("store_retries_total", &[]);
    // A load that requests share goes on without them, and its read is not abandoned.
    let abandoned = grew("store_reads_abandoned_total", &[]) + grew("loads_abandoned_total", &[]);
    let upstream =
        |what: &str| after.faultproxy.since(&before.faultproxy, &format!("faultproxy_upstream_seconds_{what}"), &[]);
    let seconds = (after.at - before.at).as_secs_f64();
    let cpu =
        after.cpu.iter().map(|(kind, used)| (kind.clone(), (used - before.cpu.get(kind).unwrap_or(&0.0)) / seconds));
    let machine = after.machine.zip(before.machine);
    let cpu_stolen_pct = machine.map(|(after, before)| 100.0 * after.stolen_share_since(before));
    let latency = &outcome.latency;
    let known = &outcome.known_sources;
    let known_good = known.cache + known.store + known.popular + known.stale;
    Step {
        users: outcome.users,
        repeat: 1,
        valid: validity.is_valid(),
        invalid_reasons: validity.reasons.clone(),
        offered_per_s: outcome.offered_per_s,
        sent_per_s: outcome.sent_per_s,
        answered_per_s: outcome.answered_per_s,
        good_per_s: outcome.good_per_s,
        known_good_per_s: Some(known_good as f64 / outcome.measured_s),
        retries: outcome.retries.map(|retries| RetryFigures {
            zombie_share: (queries > 0.0).then(|| (abandoned / queries).min(1.0)),
            ..retries
        }),
        skipped: outcome.skipped,
        dropped: outcome.dropped,
        corrected: outcome.corrected,
        mean_ms: latency.mean_ms,
        p50_ms: latency.p50_ms,
        p90_ms: latency.p90_ms,
        p99_ms: latency.p99_ms,
        p999_ms: latency.p999_ms,
        max_ms: latency.max_ms,
        samples: Some(outcome.answered),
        error_pct: outcome.error_pct,
        store_timeouts: outcome.errors.get("store-checkout-timeout").copied().unwrap_or(0),
        errors: outcome.errors.clone(),
        store_queries_per_request: ratio(queries, requests),
        // A request that timed out in the queue needed the store as well.
        store_share: ratio(queries - retries + timeouts, requests).min(1.0),
        hit_ratio: (lookups > 0.0).then(|| hits / lookups),
        bloom_rejections: rejections as u64,
        bloom_rejections_per_request: ratio(rejections, requests),
        known_personal_pct: outcome.known_personal_pct,
        sources: outcome.sources(),
        repeated_ids: outcome.repeated_ids,
        send_lag_p50_ms: outcome.send_lag.p50_ms,
        send_lag_p99_ms: outcome.send_lag.p99_ms,
        store_upstream_mean_ms: (upstream("count") > 0.0).then(|| 1000.0 * upstream("sum") / upstream("count")),
        cpu_total_pct: validity.cpu_pct,
        cpu_stolen_pct,
        cpu: cpu.collect(),
        series: outcome.series.clone(),
        latency_curve: outcome.latency_curve.clone(),
        ..Step::default()
    }
}

/// Mean of `$request_time − $upstream_response_time` over the requests that ended in the measured part, in ms. nginx
/// writes its log up to a second late.
async fn gateway_mean_ms(log: &Path, offset: u64, from_ms: u64, to_ms: u64) -> anyhow::Result<Option<f64>> {
    let (from, to) = (from_ms as f64 / 1000.0, to_ms as f64 / 1000.0);
    let late = Instant::now() + Duration::from_millis(1500);
    let Ok(mut file) = File::open(log) else { return Ok(None) };
    file.seek(SeekFrom::Start(offset))?;
    let (mut file, mut line) = (BufReader::new(file), String::new());
    let (mut count, mut sum, mut last) = (0_u64, 0.0, 0.0);
    loop {
        // Line by line, as an hour's log is large. One that nginx has not written to its end yet is gone on with.
        while file.read_line(&mut line).with_context(|| format!("cannot read {}", log.display()))? > 0 {
            if !line.ends_with('\n') {
                continue;
            }
            last = line.split(' ').next().and_then(|at| at.parse().ok()).unwrap_or(last);
            if let Some(ms) = gateway_ms(&line, from..to) {
                (count, sum) = (count + 1, sum + ms);
            }
            line.clear();
        }
        if last > to || Instant::now() > late {
            return Ok((count > 0).then(|| sum / count as f64));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// `None`: it ended outside the window, or not after exactly one attempt.
fn gateway_ms(line: &str, window: std::ops::Range<f64>) -> Option<f64> {
    let line = Line::parse(line)?;
    let upstream_s = line.upstream_s?;
    window.contains(&line.at_s).then(|| ((line.request_s - upstream_s) * 1000.0).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_time_is_what_the_upstream_did_not_take() {
        let window = 100.0..200.0;
        let ms = gateway_ms("150.123 200 0.090 /recommendations loadgen 0.085 | 0.000", window.clone()).unwrap();
        assert!((ms - 5.0).abs() < 1e-9);
        assert_eq!(gateway_ms("99.9 200 0.090 /recommendations loadgen 0.085 | 0.000", window.clone()), None);
        assert_eq!(gateway_ms("150.0 499 3.000 /recommendations loadgen - | -", window.clone()), None);
        assert_eq!(gateway_ms("", window), None);
    }

    #[tokio::test]
    async fn the_gateways_mean_is_over_the_measured_part_of_what_came_after_the_offset() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        let line = |at: u32, request: f64, upstream: f64| {
            format!("{at}.000 200 {request} /recommendations loadgen {upstream} | 0.000\n")
        };
        let old = line(150, 9.0, 0.001);
        let new =
            [line(99, 0.5, 0.001), line(120, 0.09, 0.085), line(130, 0.012, 0.009), line(201, 7.0, 0.001)].concat();
        std::fs::write(&log, format!("{old}{new}")).unwrap();
        let mean = gateway_mean_ms(&log, old.len() as u64, 100_000, 200_000).await.unwrap().unwrap();
        assert!((mean - 4.0).abs() < 1e-6, "{mean}");
        assert_eq!(gateway_mean_ms(&folder.path().join("none"), 0, 0, 1).await.unwrap(), None);
    }
}
