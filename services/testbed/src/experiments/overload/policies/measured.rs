//! Runs the windows of a policy on its replicas.

use faultproxy::Fault;
use loadtest::plan::StepPlan;
use report::Validity;

use super::{
    figures::{ChangeFigures, Cost, LoadFigures, PolicyFigures},
    windows::{CALM, LOADS, Lengths, Windows, adapted_per_s, halving_ms},
};
use crate::{
    evaluation::{self, AfterSteps},
    instruments::{
        generator::{self, Moment, Window, measured_ms},
        target::{Snapshot, Target},
    },
    stack::service::ServiceStack,
};

/// A virtual CPU that carries 50 requests/s: less than a replica's share of the load, 60/s.
const SLOW: &[&str] = &["http.work_us=5000", "http.cpu_quota=0.25"];
/// Lists stay in Redis.
const HITS: &[&str] = &["cache.fresh_ms=3600000", "cache.stale_ms=3600000"];
/// They stay in the replicas' memory as well.
const MEMORY: &[&str] = &["cache.fresh_ms=3600000", "cache.stale_ms=3600000", "cache.local_ms=600000"];
/// One request is admitted, and none waits. It takes as long as a query.
const REJECTIONS: &[&str] = &["http.admission=fixed", "http.admission_limit=1", "http.admission_waiting=0"];
/// Of the requests whose cost is measured.
const MIN_SHARE: f64 = 0.95;
const REJECTED: &str = "http_admission_rejected_total";
const NO_CONNECTION: &str = "db_client_connection_timeouts_total";

/// # Errors
/// A process or the load generator fails.
pub async fn policy(after: &mut AfterSteps<'_>, lengths: Lengths) -> anyhow::Result<PolicyFigures> {
    let mut figures = PolicyFigures { policy: after.variant.name.clone(), repeat: after.repeat, ..Default::default() };
    for (n, load) in LOADS.into_iter().enumerate() {
        let plan = windows(after, lengths).load(n)?;
        figures.loads.push(load_figures(load, &drive(after, None, &plan).await?));
    }
    figures.changes = changes(after, lengths).await?;
    let target = restart(after, |n| if n == 0 { SLOW } else { &[] }).await?;
    let plan = windows(after, lengths).slow_replica()?;
    figures.slow_replica = load_figures(CALM, &drive(after, Some(&target), &plan).await?);
    Ok(figures)
}

/// CPU time of hits and of a rejection, of replicas that do nothing else.
///
/// # Errors
/// A process or the load generator fails.
pub async fn cost(after: &mut AfterSteps<'_>, lengths: Lengths) -> anyhow::Result<(Cost, Validity)> {
    let (hits, rejections) = (windows(after, lengths).hits(), windows(after, lengths).rejections());
    let target = restart(after, |_| HITS).await?;
    let hits = drive(after, Some(&target), &hits).await?;
    let target = restart(after, |_| MEMORY).await?;
    let memory = drive(after, Some(&target), &windows(after, lengths).hits()).await?;
    let target = restart(after, |_| REJECTIONS).await?;
    let rejections = drive(after, Some(&target), &rejections).await?;
    let cost = Cost { hit_us: cpu_us(&hits), memory_us: cpu_us(&memory), rejection_us: cpu_us(&rejections) };
    let local = memory.after.replicas.since(&memory.before.replicas, "cache_local_hits_total", &[]);
    let local = local / requests(&memory).max(1.0);
    let hit = hits.outcome.sources().cache as f64 / hits.outcome.answered.max(1) as f64;
    let refused = rejections.after.replicas.since(&rejections.before.replicas, REJECTED, &[]);
    let refused = refused / requests(&rejections).max(1.0);
    let mut validity = hits.validity;
    validity.reasons.extend(memory.validity.reasons.into_iter().chain(rejections.validity.reasons));
    for (what, share) in [("hits", hit), ("hits in memory", local), ("rejections", refused)] {
        if share < MIN_SHARE {
            validity.reasons.push(format!("only {:.0} % of the requests were {what}", 100.0 * share));
        }
    }
    Ok((cost, validity))
}

/// CPU time of the replicas per request.
fn cpu_us(window: &Window) -> f64 {
    let seconds = |snapshot: &Snapshot| snapshot.cpu.get("api").copied().unwrap_or_default();
    1e6 * (seconds(&window.after) - seconds(&window.before)) / requests(window).max(1.0)
}

/// Requests for recommendations that the replicas ended.
fn requests(window: &Window) -> f64 {
    const ENDED: &str = "http_server_request_duration_seconds_count";
    window.after.replicas.since(&window.before.replicas, ENDED, &["http_route=\"/recommendations\""])
}

fn windows<'a>(after: &AfterSteps<'a>, lengths: Lengths) -> Windows<'a> {
    Windows { scenario: after.scenario, known_ids: after.known_ids, gateway: &after.target.gateway, lengths }
}

/// Fresh replicas, the n-th with these settings in addition to the variant's, and their processes.
async fn restart(
    after: &mut AfterSteps<'_>,
    sets: impl Fn(usize) -> &'static [&'static str],
) -> anyhow::Result<Target> {
    let (service, variant) = (&mut *after.service, after.variant);
    service.stop_replicas().await?;
    service.flush_cache().await?;
    for n in 0..after.scenario.replicas as usize {
        let own = sets(n).iter().map(|&set| set.to_owned());
        let sets: Vec<String> = variant.sets.iter().cloned().chain(own).collect();
        service.add_replica(n, variant.profile, &sets)?;
    }
    service.wait_replicas().await?;
    evaluation::target(service)
}

/// `target`: of restarted replicas.
async fn drive(after: &mut AfterSteps<'_>, target: Option<&Target>, plan: &StepPlan) -> anyhow::Result<Window> {
    let mut show = after.bar.follow(&format!("{}: {}", after.variant.name, plan.name));
    let target = target.unwrap_or(after.target);
    let window = generator::drive(after.service, target, plan, async |_, moment| {
        if let Moment::Second(now) = moment {
            show(now);
        }
        Ok(None)
    })
    .await?;
    after.bar.done((plan.warm_up_ms + plan.measure_ms) / 1000);
    Ok(window)
}

fn load_figures(load: f64, window: &Window) -> LoadFigures {
    let since = |name| window.after.replicas.since(&window.before.replicas, name, &[]);
    let rejected = since(REJECTED) + since(NO_CONNECTION);
    LoadFigures::of(load, &window.outcome, rejected, window.validity.clone())
}

async fn changes(after: &mut AfterSteps<'_>, lengths: Lengths) -> anyhow::Result<ChangeFigures> {
    let plan = windows(after, lengths).changes()?;
    let adapted_per_s = adapted_per_s(after.scenario)?;
    let halving = Fault::Latency { ms: halving_ms(after.scenario)?, jitter_ms: 0.0 };
    let halved_from_ms = u64::from(lengths.halved().start) * 1000;
    let mut show = after.bar.follow(&format!("{}: {}", after.variant.name, plan.name));
    let (target, replicas) = (after.target, f64::from(after.scenario.replicas));
    let mut limit = Vec::new();
    let window = generator::drive(after.service, target, &plan, async |service: &mut ServiceStack, moment| {
        let Moment::Second(now) = moment else { return Ok(None) };
        show(now);
        if let Some(ms) = measured_ms(&plan, now) {
            if ms == halved_from_ms {
                service.proxy.client.add_fault(halving).await?;
            }
            let (reading, _) = target.reading().await?;
            limit.push((ms as f64 / 1000.0, reading.sum("http_admission_limit", &[]) / replicas));
        }
        Ok(None)
    })
    .await;
    after.service.proxy.client.clear().await?;
    let window = window?;
    after.bar.done((plan.warm_up_ms + plan.measure_ms) / 1000);
    let (series, lag) = (window.outcome.series, window.outcome.send_lag);
    let validity =
        Validity::of_seconds(&series, 0..lengths.halved().end, lag.p99_ms).with_scheduling(&window.scheduling);
    Ok(ChangeFigures::of(&lengths, series, limit, adapted_per_s, validity))
}
