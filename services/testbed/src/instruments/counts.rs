//! What load generator, nginx, replicas and faultproxy count over a whole step, read while all of them are idle.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use report::counts::{Counts, GatewayCounts, ReplicaCounts, RequestCounts};

use super::{
    access_log::{AccessLog, Line},
    scrape::Reading,
    target::{Target, unix_ms},
};

/// nginx writes its log up to a second late; a query whose user went away ends within the store's time limit.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
const ROUTE: &str = "http_route=\"/recommendations\"";

/// The counters when a step begins.
pub struct Counting {
    log: AccessLog,
    /// Lines of earlier requests may still come: nginx buffers them.
    began_s: f64,
    before: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    replicas: BTreeMap<String, Reading>,
    proxy: Reading,
}

impl Counting {
    /// `None`: the stack is elsewhere, and its access log is out of reach.
    ///
    /// # Errors
    /// A process does not answer, or the log cannot be read.
    pub async fn begin(target: &Target) -> anyhow::Result<Option<Self>> {
        let Some(log) = &target.access_log else { return Ok(None) };
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let mut before = Counters::read(target).await?;
        while !before.are_idle() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
            before = Counters::read(target).await?;
        }
        Ok(Some(Self { log: AccessLog::from_end_of(log)?, began_s: unix_ms() as f64 / 1000.0, before }))
    }

    /// The growth since the begin, as soon as it adds up; at the latest after ten seconds. What cannot be read is a doubt in the result.
    pub async fn end(mut self, target: &Target, generator: RequestCounts) -> Counts {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let mut gateway = GatewayCounts::default();
        loop {
            let read = self.log.read(|line| {
                if line.at_s >= self.began_s {
                    count(&mut gateway, line);
                }
            });
            let (after, failed) = match Counters::read(target).await {
                Ok(after) => (after, None),
                Err(error) => (Counters::default(), Some(error)),
            };
            let mut counts = growth(&self.before, &after);
            (counts.generator, counts.gateway) = (generator, gateway.clone());
            counts.doubts.extend(read.err().into_iter().chain(failed).map(|error| format!("{error:#}")));
            if counts.add_up() {
                return counts;
            }
            if Instant::now() > deadline {
                if !after.are_idle() {
                    counts.doubts.push("requests or queries were still in flight when the counters were read".into());
                }
                return counts;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Counters {
    async fn read(target: &Target) -> anyhow::Result<Self> {
        let (replicas, proxy) = target.readings().await?;
        let numbered = replicas.into_iter().enumerate().map(|(n, replica)| (format!("replica-{n:02}"), replica));
        Ok(Self { replicas: numbered.collect(), proxy })
    }

    fn are_idle(&self) -> bool {
        let idle = |replica: &Reading| {
            replica.sum("http_server_active_requests", &[]) == 0.0
                && replica.sum("db_client_connection_count", &["state=\"used\""]) == 0.0
        };
        self.replicas.values().all(idle) && self.proxy.sum("faultproxy_commands_in_flight", &[]) == 0.0
    }
}

fn count(gateway: &mut GatewayCounts, line: &Line) {
    if !line.is_recommendations {
        return;
    }
    *(if line.is_generator { &mut gateway.generator } else { &mut gateway.others }) += 1;
    gateway.attempts += line.attempts;
    match line.status {
        _ if line.attempts == 0 => gateway.not_passed_on += 1,
        499 => gateway.closed_by_client += 1,
        502 => gateway.bad_gateway += 1,
        _ => {}
    }
}

/// A process that has begun anew is a doubt, and counts from its begin.
fn growth(before: &Counters, after: &Counters) -> Counts {
    let started = |reading: &Reading| reading.sum("process_start_time_seconds", &[]);
    let mut counts = Counts::default();
    let none = Reading::default();
    for (name, now) in &after.replicas {
        let then = before.replicas.get(name).unwrap_or(&none);
        if started(then) != started(now) {
            counts.doubts.push(format!("{name} restarted: its counters began anew"));
        }
        counts.replicas.insert(name.clone(), replica(then, now));
    }
    if started(&before.proxy) != started(&after.proxy) {
        counts.doubts.push("faultproxy restarted: its counters began anew".into());
    }
    counts.proxied_commands = grown(&before.proxy, &after.proxy, "faultproxy_commands_total", &[]);
    counts
}

fn grown(before: &Reading, after: &Reading, name: &str, labels: &[&str]) -> u64 {
    after.since(before, name, labels).max(0.0) as u64
}

fn replica(before: &Reading, after: &Reading) -> ReplicaCounts {
    let of = |name: &str, labels: &[&str]| grown(before, after, name, labels);
    let ended = |labels: &[&str]| of("http_server_request_duration_seconds_count", labels);
    let path = |path: &str| of("recommendation_paths_total", &[&format!("path=\"{path}\"")]);
    let load = |result: &str| of("loads_total", &[&format!("result=\"{result}\"")]);
    let refreshes = |result: &str| of("cache_refreshes_total", &[&format!("result=\"{result}\"")]);
    let failed = |reason: &str| of("store_errors_total", &[&format!("reason=\"{reason}\"")]);
    let given = |labels: &[&str]| of("db_client_connection_wait_time_seconds_count", labels);
    let model_reads = given(&["pool_name=\"catalogue\""]);
    ReplicaCounts {
        ended: ended(&[ROUTE]),
        abandoned: of("http_server_requests_abandoned_total", &[ROUTE]),
        client_errors: ended(&[ROUTE, "status_class=\"4xx\""]),
        server_errors: ended(&[ROUTE, "status_class=\"5xx\""]),
        other_routes: ended(&[]).saturating_sub(ended(&[ROUTE])),
        invalid: path("invalid"),
        refused: path("refused"),
        memory: path("memory"),
        filter: path("filter"),
        redis: path("redis"),
        no_behaviour: path("no_behaviour"),
        store: path("store"),
        undecided: path("undecided"),
        redis_hits: of("cache_requests_total", &["result=\"hit\""]),
        refreshes: refreshes("ok") + refreshes("failed"),
        repeated: of("loads_repeated_total", &[]),
        joined: load("joined"),
        led: load("led"),
        unverified_refused: of("guard_unsure_refused_total", &[]),
        second_reads: of("load_second_reads_total", &[]),
        rebuilds: of("guard_rebuilds_total", &[]) + of("guard_rebuild_failures_total", &[]),
        checkouts: of("store_shard_checkouts_total", &[]),
        checkout_timeouts: failed("checkout_timeout"),
        queue_full: failed("line_full"),
        connections_given: given(&[]).saturating_sub(model_reads),
        model_reads,
        down: failed("down"),
        unavailable: failed("unavailable"),
        retries: of("store_retries_total", &[]),
        queries: of("store_queries_total", &[]),
        connects: of("store_connects_total", &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(started: u32, ended: u32) -> Counters {
        let text = format!(
            "process_start_time_seconds {started}\nhttp_server_active_requests 0\n\
             http_server_request_duration_seconds_count{{http_route=\"/recommendations\",status_class=\"2xx\"}} {ended}\n\
             http_server_request_duration_seconds_count{{http_route=\"/items/popular\",status_class=\"2xx\"}} 3\n\
             recommendation_paths_total{{path=\"redis\"}} {ended}\n\
             db_client_connection_count{{db_client_connection_pool_name=\"mysql-00\",db_client_connection_state=\"used\"}} 0\n"
        );
        let replicas = [("replica-00".to_owned(), Reading::of([text.as_str()]))].into();
        Counters { replicas, proxy: Reading::of(["process_start_time_seconds 1\nfaultproxy_commands_in_flight 0\n"]) }
    }

    #[test]
    fn counters_grow_and_a_restart_is_named() {
        let counts = growth(&counters(1, 10), &counters(1, 25));
        let replica = &counts.replicas["replica-00"];
        assert_eq!((replica.ended, replica.redis, replica.other_routes), (15, 15, 0));
        assert!(counts.doubts.is_empty() && counters(1, 1).are_idle());
        let restarted = growth(&counters(1, 10), &counters(2, 4));
        assert_eq!(restarted.replicas["replica-00"].ended, 0);
        assert_eq!(restarted.doubts, ["replica-00 restarted: its counters began anew"]);
        assert!(!restarted.add_up());
    }

    #[test]
    fn lines_are_counted_by_client_and_by_how_far_they_came() {
        let mut gateway = GatewayCounts::default();
        for line in [
            "1.0 200 0.1 /recommendations loadgen 0.1 | 0.0",
            "1.0 499 3.0 /recommendations loadgen 3.0 | 0.0",
            "1.0 499 3.0 /recommendations loadgen - | -",
            "1.0 502 0.0 /recommendations loadgen 0.0 | 0.0",
            "1.0 200 0.1 /recommendations other 0.0, 0.1 | 0.0, 0.0",
            "1.0 200 0.1 other other 0.1 | 0.0",
        ] {
            count(&mut gateway, &Line::parse(line).unwrap());
        }
        let expected = GatewayCounts {
            generator: 4,
            others: 1,
            not_passed_on: 1,
            attempts: 5,
            closed_by_client: 1,
            bad_gateway: 1,
        };
        assert_eq!(gateway, expected);
    }
}
