//! One step of load: the generator in a process of its own, and what all other processes did meanwhile.

pub mod k6;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use faultproxy::{Client, Fault, FaultSpec};
use launcher::{ChildId, Description, Spec, Stack, cpu};
use loadtest::{
    child::ChildMessage,
    plan::{Progress, StepOutcome, StepPlan},
    scenario::{Fault as PlannedFault, FaultKind},
};
use report::{Step, soak::Sample};

use crate::{instruments::scrape::Reading, stack::endpoints, stack::service::own_program};

/// The processes under load, from what their stack says of itself: the same for a stack of ours and for one of `up`.
pub struct Target {
    pub gateway: String,
    replicas: Vec<String>,
    faultproxy: String,
    /// nginx's; none of a stack elsewhere.
    access_log: Option<PathBuf>,
    /// Kind and pid: `api`, `mysql`, `redis`, `nginx`, `faultproxy`.
    processes: Vec<(String, u32)>,
    http: reqwest::Client,
}

impl Target {
    pub fn of(dir: Option<&Path>, stack: &Description) -> anyhow::Result<Self> {
        let endpoint =
            |name: &str| stack.endpoints.get(name).cloned().with_context(|| format!("the stack has no {name}"));
        let kind = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
        Ok(Self {
            gateway: endpoint("gateway")?,
            faultproxy: endpoint("faultproxy")?,
            replicas: endpoints::replicas(stack)?,
            access_log: dir.map(|dir| dir.join("nginx/access.log")),
            processes: stack.children.iter().map(|child| (kind(&child.name), child.process.pid)).collect(),
            http: runtime::http::plain().timeout(Duration::from_secs(10)).build()?,
        })
    }

    /// Memory and open files by kind of process. One that has ended counts as nothing.
    pub fn resources(&self) -> Sample {
        let mut sample = Sample::default();
        for (kind, pid) in &self.processes {
            let mib = cpu::rss_bytes(*pid).unwrap_or(0) as f64 / f64::from(1 << 20);
            *sample.rss_mb.entry(kind.clone()).or_default() += mib;
            *sample.open_files.entry(kind.clone()).or_default() += cpu::open_fds(*pid).unwrap_or(0) as f64;
        }
        sample
    }

    /// Which profile the replicas say that they run: `baseline + protected` where they differ.
    pub async fn profile(&self) -> anyhow::Result<String> {
        let (replicas, _) = self.reading().await?;
        Ok(replicas.labels("api_profile_info", "profile").into_iter().collect::<Vec<_>>().join(" + "))
    }

    pub async fn reading(&self) -> anyhow::Result<(Reading, Reading)> {
        let text = async |admin: &String| -> anyhow::Result<String> {
            let url = format!("{admin}/metrics");
            let answer = self.http.get(&url).send().await.with_context(|| format!("cannot read {url}"))?;
            Ok(answer.error_for_status()?.text().await?)
        };
        let replicas = futures::future::try_join_all(self.replicas.iter().map(text)).await?;
        Ok((Reading::of(replicas.iter().map(String::as_str)), Reading::of([text(&self.faultproxy).await?.as_str()])))
    }
}

/// Counters at one instant.
struct Snapshot {
    at: Instant,
    replicas: Reading,
    faultproxy: Reading,
    /// CPU seconds by kind of process.
    cpu: BTreeMap<String, f64>,
    machine: Option<cpu::MachineCpu>,
}

impl Snapshot {
    async fn take(target: &Target, loadgen: u32) -> anyhow::Result<Self> {
        let mut seconds = BTreeMap::new();
        let ourselves = [("load".to_owned(), loadgen), ("testbed".to_owned(), std::process::id())];
        for (kind, pid) in target.processes.iter().chain(&ourselves) {
            // The tree of this process would hold all the others.
            let used = if kind == "testbed" { cpu::process_seconds(*pid) } else { cpu::process_tree_seconds(*pid) };
            *seconds.entry(kind.clone()).or_default() += used.unwrap_or(0.0);
        }
        let (replicas, faultproxy) = target.reading().await?;
        Ok(Self { at: Instant::now(), replicas, faultproxy, cpu: seconds, machine: cpu::machine() })
    }
}

/// Runs the step and returns its figures; `article`, `model`, `profile` and `hdr_log` are the caller's to fill in.
/// `faults` are added on time and lifted at the end.
///
/// # Errors
/// A process fails, or a fault could not be set: figures without it would be another step's.
pub async fn step(
    stack: &mut Stack,
    target: &Target,
    plan: &StepPlan,
    faults: Vec<PlannedFault>,
    mut progress: impl FnMut(&Progress),
) -> anyhow::Result<(Step, StepOutcome)> {
    let access_log = target.access_log.as_ref();
    let log_offset = access_log.and_then(|log| std::fs::metadata(log).ok()).map_or(0, |meta| meta.len());
    let mut generator = Generator::start(stack, plan)?;
    let pid = generator.pid;

    let (mut before, mut after, mut outcome) = (None, None, None);
    if plan.warm_up_ms == 0 {
        // No line says that the measured part begins; nobody else loads the stack while the generator starts.
        before = Some(Snapshot::take(target, pid).await?);
    }
    let client = Client::new(&target.faultproxy)?;
    let mut fault_tasks = tokio::task::JoinSet::new();
    let mut begun = false;
    while outcome.is_none() {
        for line in generator.told(stack).await? {
            match line {
                ChildMessage::Progress(now) => {
                    // A line comes when its second is over: the last one of the warm-up when the measured part begins.
                    let since_ms = (u64::from(now.elapsed_s) * 1000).checked_sub(plan.warm_up_ms).filter(|_| !begun);
                    if let Some(since_ms) = since_ms {
                        begun = true;
                        for fault in &faults {
                            fault_tasks.spawn(inject(client.clone(), *fault, since_ms));
                        }
                        if before.is_none() {
                            before = Some(Snapshot::take(target, pid).await?);
                        }
                    }
                    if now.elapsed_s == now.total_s && after.is_none() {
                        after = Some(Snapshot::take(target, pid).await?);
                    }
                    progress(&now);
                }
                ChildMessage::Outcome(done) => {
                    if after.is_none() {
                        after = Some(Snapshot::take(target, pid).await?);
                    }
                    outcome = Some(*done);
                }
                ChildMessage::Error(error) => bail!("the load generator failed: {error}"),
            }
        }
    }
    let (Some(before), Some(after), Some(outcome)) = (before, after, outcome) else {
        bail!("the load generator reported no measured part");
    };
    let rss = target.resources().rss_mb;
    generator.stop(stack).await?;
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
    let gateway_mean_ms = match access_log {
        Some(log) => gateway_mean_ms(log, log_offset, outcome.started_ms, outcome.ended_ms).await?,
        None => None,
    };
    let step = Step { gateway_mean_ms, rss_mb: rss, ..figures(&outcome, &before, &after) };
    Ok((step, outcome))
}

/// `since_ms`: how long the measured part has run.
async fn inject(client: Client, fault: PlannedFault, since_ms: u64) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs_f64(fault.at_s).saturating_sub(Duration::from_millis(since_ms))).await;
    let spec = FaultSpec {
        fault: match fault.kind {
            FaultKind::Latency { ms } => Fault::Latency { ms: ms as f64, jitter_ms: 0.0 },
            FaultKind::Loss { pct, seed } => Fault::Loss { pct, seed },
            FaultKind::Stall => Fault::Stall,
            FaultKind::Reset => Fault::Reset,
            FaultKind::Refuse => Fault::Refuse,
        },
        for_ms: Some((fault.for_s * 1000.0) as u64),
    };
    client.add_fault(spec).await?;
    Ok(())
}

/// Send-lag above which a step says more about the load generator than about the service.
const MAX_SEND_LAG_P99_MS: f64 = 10.0;
/// Above it, waiting for a core is part of every latency.
const MAX_CPU_PCT: f64 = 90.0;

/// Why such a step says more about machine and load generator than about the service; nothing if it does not.
pub fn invalid_reasons(send_lag_p99_ms: f64, cpu_pct: f64) -> Vec<String> {
    let mut reasons = Vec::new();
    if send_lag_p99_ms > MAX_SEND_LAG_P99_MS {
        reasons.push(format!("send lag p99 {send_lag_p99_ms:.1} ms is above {MAX_SEND_LAG_P99_MS} ms"));
    }
    if cpu_pct > MAX_CPU_PCT {
        reasons.push(format!("{cpu_pct:.0} % CPU is above {MAX_CPU_PCT} %"));
    }
    reasons
}

fn figures(outcome: &StepOutcome, before: &Snapshot, after: &Snapshot) -> Step {
    let grew = |name: &str, labels: &[&str]| after.replicas.since(&before.replicas, name, labels);
    let ratio = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
    // Counted by the replicas over the same instants as the counters they are set against.
    let requests = grew("http_server_request_duration_seconds_count", &["http_route=\"/recommendations\""]);
    let hits = grew("cache_requests_total", &["result=\"hit\""]);
    let lookups = grew("cache_requests_total", &[]);
    let rejections = grew("guard_checks_total", &["result=\"absent\""]);
    let queries = grew("store_queries_total", &[]);
    let timeouts = grew("store_errors_total", &["reason=\"checkout_timeout\""]);
    let retries = grew("store_retries_total", &[]);
    let upstream =
        |what: &str| after.faultproxy.since(&before.faultproxy, &format!("faultproxy_upstream_seconds_{what}"), &[]);
    let seconds = (after.at - before.at).as_secs_f64();
    let cpu =
        after.cpu.iter().map(|(kind, used)| (kind.clone(), (used - before.cpu.get(kind).unwrap_or(&0.0)) / seconds));
    let machine = after.machine.zip(before.machine);
    let cpu_total_pct = machine.map_or(0.0, |(after, before)| 100.0 * after.busy_share_since(before));
    let cpu_stolen_pct = machine.map(|(after, before)| 100.0 * after.stolen_share_since(before));
    let invalid_reasons = invalid_reasons(outcome.send_lag.p99_ms, cpu_total_pct);
    let latency = &outcome.latency;
    let known = &outcome.known_sources;
    let known_good = known.cache + known.store + known.popular + known.stale;
    Step {
        users: outcome.users,
        repeat: 1,
        valid: invalid_reasons.is_empty(),
        invalid_reasons,
        offered_per_s: outcome.offered_per_s,
        sent_per_s: outcome.sent_per_s,
        answered_per_s: outcome.answered_per_s,
        good_per_s: outcome.good_per_s,
        known_good_per_s: Some(known_good as f64 / outcome.measured_s),
        skipped: outcome.skipped,
        mean_ms: latency.mean_ms,
        p50_ms: latency.p50_ms,
        p90_ms: latency.p90_ms,
        p99_ms: latency.p99_ms,
        p999_ms: latency.p999_ms,
        max_ms: latency.max_ms,
        error_pct: outcome.error_pct,
        store_timeouts: outcome.errors.get("store-checkout-timeout").copied().unwrap_or(0),
        errors: outcome.errors.clone(),
        store_queries_per_request: ratio(queries, requests),
        // A request that gave up in the line needed the store as well.
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
        cpu_total_pct,
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

/// `$msec $status $request_time $upstream_response_time`; the last is `-` where no upstream was asked.
fn gateway_ms(line: &str, window: std::ops::Range<f64>) -> Option<f64> {
    let mut fields = line.split(' ');
    let at: f64 = fields.next()?.parse().ok()?;
    let request: f64 = fields.nth(1)?.parse().ok()?;
    let upstream: f64 = fields.next()?.trim_end().parse().ok()?;
    window.contains(&at).then(|| ((request - upstream) * 1000.0).max(0.0))
}

/// The load generator at its work.
pub struct Generator {
    child: ChildId,
    pid: u32,
    lines: Lines,
    patience: Duration,
    deadline: Instant,
}

impl Generator {
    pub fn start(stack: &mut Stack, plan: &StepPlan) -> anyhow::Result<Self> {
        let file = stack.child_dir("loadgen")?.join("plan.json");
        std::fs::write(&file, serde_json::to_vec(plan)?).with_context(|| format!("cannot write {}", file.display()))?;
        let lines = Lines::from_end_of(stack.log_path("loadgen"))?;
        // It stands for machines of its own: where the system permits it, it is not kept waiting by those whom it measures. `nice` says
        // when it is not permitted, and goes on.
        let spec = Spec::new("loadgen", "nice")
            .args(["-n", "-10"])
            .args([own_program()?])
            .args(["serve", "loadgen"])
            .args([file]);
        let child = stack.spawn(spec)?;
        let pid = stack.pid(child).context("the load generator ended at once")?;
        let length = Duration::from_millis(plan.warm_up_ms + plan.measure_ms + plan.timeout_ms);
        let patience = length + Duration::from_secs(60);
        Ok(Self { child, pid, lines, patience, deadline: Instant::now() + patience })
    }

    /// Waits for what it says next, a line at least. Can be dropped without losing any.
    ///
    /// # Errors
    /// It is not done in its time, or any child of the stack has ended by itself: figures without it would be another
    /// experiment's.
    pub async fn told(&mut self, stack: &Stack) -> anyhow::Result<Vec<ChildMessage>> {
        loop {
            ensure!(Instant::now() <= self.deadline, "the load generator was not done after {:?}", self.patience);
            let lines = self.lines.read()?;
            if !lines.is_empty() {
                return Ok(lines);
            }
            stack.check()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn stop(self, stack: &mut Stack) -> anyhow::Result<()> {
        stack.stop_child(self.child).await
    }
}

/// What a child prints, line by line, read from its log.
struct Lines {
    file: File,
    rest: String,
}

impl Lines {
    /// From here on, what the child's predecessors of the same name have printed is skipped.
    fn from_end_of(path: PathBuf) -> anyhow::Result<Self> {
        let open = File::options().read(true).append(true).create(true).open(&path);
        let mut file = open.with_context(|| format!("cannot open {}", path.display()))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, rest: String::new() })
    }

    fn read(&mut self) -> anyhow::Result<Vec<ChildMessage>> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        let Some(end) = self.rest.rfind('\n') else { return Ok(Vec::new()) };
        let whole: String = self.rest.drain(..=end).collect();
        // Anything else, such as a library's warning, stays in the log for whoever looks.
        whole.lines().filter_map(|line| ChildMessage::parse(line).transpose()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_time_is_what_the_upstream_did_not_take() {
        let window = 100.0..200.0;
        let ms = gateway_ms("150.123 200 0.090 0.085", window.clone()).unwrap();
        assert!((ms - 5.0).abs() < 1e-9);
        assert_eq!(gateway_ms("99.9 200 0.090 0.085", window.clone()), None);
        assert_eq!(gateway_ms("150.0 499 3.000 -", window.clone()), None);
        assert_eq!(gateway_ms("", window), None);
    }

    #[tokio::test]
    async fn the_gateways_mean_is_over_the_measured_part_of_what_came_after_the_offset() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        let old = "150.000 200 9.000 0.001\n";
        let new = "99.000 200 0.500 0.001\n120.000 200 0.090 0.085\n130.000 200 0.012 0.009\n201.000 200 7.000 0.001\n";
        std::fs::write(&log, format!("{old}{new}")).unwrap();
        let mean = gateway_mean_ms(&log, old.len() as u64, 100_000, 200_000).await.unwrap().unwrap();
        assert!((mean - 4.0).abs() < 1e-6, "{mean}");
        assert_eq!(gateway_mean_ms(&folder.path().join("none"), 0, 0, 1).await.unwrap(), None);
    }

    #[test]
    fn a_step_is_valid_up_to_its_limits() {
        assert_eq!(invalid_reasons(10.0, 90.0), Vec::<String>::new());
        assert_eq!(invalid_reasons(10.1, 91.0), ["send lag p99 10.1 ms is above 10 ms", "91 % CPU is above 90 %"]);
    }
}
