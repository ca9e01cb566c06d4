//! All metrics of the API. Handles are resolved once. Buckets are fine below 5 ms, the range of a cache hit.

mod paths;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use contract::{http::Source, spans::attribute};
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    Result,
};
use runtime::{Exemplars, exemplars::Series, telemetry::Span};

use crate::{config::Profile, rebuild_reason::RebuildReason, routes};

pub use self::paths::{Path, PathMetrics, Undecided};

#[derive(Clone)]
pub struct Metrics {
    pub http: HttpMetrics,
    pub answers: AnswerMetrics,
    pub paths: PathMetrics,
    pub cache: CacheMetrics,
    pub guard: GuardMetrics,
    pub loads: LoadMetrics,
    pub memory: MemoryMetrics,
    pub admission: AdmissionMetrics,
    pub writes: AdmissionMetrics,
    pub warmup: WarmupMetrics,
    pub unrecorded_refusals: IntCounter,
    pub events: IntCounter,
    pub produce: ProduceMetrics,
    /// `http.replicas`.
    pub replicas_expected: Gauge,
}

/// Requests by matched route and status class.
#[derive(Clone)]
pub struct HttpMetrics {
    /// A linear search: with this few routes it is faster than hashing.
    routes: Vec<(&'static str, [RequestDurations; CLASSES.len()])>,
    unmatched: [RequestDurations; CLASSES.len()],
    /// Successful recommendations, for responses from memory: a search is a considerable part of their time.
    pub recommended: RequestDurations,
    active: IntGauge,
    /// By route, in the order of `routes`; the last one is of unmatched requests.
    abandoned: Vec<IntCounter>,
}

/// Durations of the requests of one route and status class, with exemplars.
#[derive(Clone)]
pub struct RequestDurations {
    seconds: Histogram,
    exemplars: Arc<Series>,
}

/// A request in flight, until it is dropped. One that is dropped before it has ended was abandoned by its client.
pub struct ActiveRequest<'a> {
    active: &'a IntGauge,
    abandoned: &'a IntCounter,
    has_ended: bool,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const SUCCESS: usize = 1;

#[derive(Clone)]
pub struct AnswerMetrics([IntCounter; Source::ALL.len()]);

#[derive(Clone)]
pub struct CacheMetrics {
    pub hit: IntCounter,
    pub miss: IntCounter,
    pub expired: IntCounter,
    pub error: IntCounter,
    pub fill_ok: IntCounter,
    pub fill_failed: IntCounter,
    pub fill_dropped: IntCounter,
    pub fill_outdated: IntCounter,
}

#[derive(Clone)]
pub struct GuardMetrics {
    pub present: IntCounter,
    pub absent: IntCounter,
    pub newcomer: IntCounter,
    pub unverified: IntCounter,
    pub bloom_users: Gauge,
    pub bloom_bytes: Gauge,
    pub bloom_fpr: Gauge,
    pub unverified_refused: IntCounter,
    /// Indexed by `RebuildReason`.
    pub rebuilds: [IntCounter; RebuildReason::ALL.len()],
    pub rebuild_failures: IntCounter,
    pub generation_valid: Gauge,
    pub generation_current: Gauge,
    pub newcomers: Gauge,
}

#[derive(Clone)]
pub struct LoadMetrics {
    pub led: IntCounter,
    pub joined: IntCounter,
    pub repeated: IntCounter,
    pub abandoned: IntCounter,
    pub second_reads: IntCounter,
    pub found: IntCounter,
    pub empty: IntCounter,
    pub failed: IntCounter,
    pub rank_seconds: Histogram,
    pub refresh_ok: IntCounter,
    pub refresh_failed: IntCounter,
    pub refresh_taken: IntCounter,
    pub refresh_dropped: IntCounter,
}

#[derive(Clone)]
pub struct MemoryMetrics {
    pub local_hits: IntCounter,
    pub negative_hits: IntCounter,
}

#[derive(Clone)]
pub struct AdmissionMetrics {
    pub limit: Gauge,
    pub in_flight: Gauge,
    /// Only of requests that had to wait, admitted or refused.
    pub wait_seconds: Histogram,
    pub queue_full: IntCounter,
    pub wait_timeout: IntCounter,
}

/// Event requests that are sent to Kafka.
#[derive(Clone)]
pub struct ProduceMetrics {
    pub seconds: Histogram,
    pub queue_full: IntCounter,
    pub unavailable: IntCounter,
    pub topics: IntCounter,
}

#[derive(Clone)]
pub struct WarmupMetrics {
    pub users: IntCounter,
    pub failed: IntCounter,
    pub resumed: IntCounter,
    pub again: IntCounter,
    pub progress: Gauge,
}

impl Metrics {
    /// # Errors
    /// The registry has one of these names already.
    pub fn new(registry: &Registry, exemplars: &Exemplars, routes: &[&'static str]) -> Result<Self> {
        let answers = counters(
            registry,
            "recommendations_total",
            "Answers to requests for recommendations, by source",
            "source",
        )?;
        let cache = counters(
            registry,
            "cache_requests_total",
            "Reads of a user's list from Redis, by result: hit, miss, expired (no longer fresh), error (Redis failed)",
            "result",
        )?;
        let fills = counters(
            registry,
            "cache_fills_total",
            "Writes of lists to Redis, warm-up included, by result: ok, failed, dropped (too many in flight), outdated (Redis had a list of later events)",
            "result",
        )?;
        let answer = |source: Source| answers.get_metric_with_label_values(&[source.as_str()]);
        let [cache_answers, store_answers, popular_answers, stale_answers] = Source::ALL;
        Ok(Self {
            http: HttpMetrics::new(registry, exemplars, routes)?,
            answers: AnswerMetrics([
                answer(cache_answers)?,
                answer(store_answers)?,
                answer(popular_answers)?,
                answer(stale_answers)?,
            ]),
            paths: PathMetrics::new(registry)?,
            cache: CacheMetrics {
                hit: cache.get_metric_with_label_values(&["hit"])?,
                miss: cache.get_metric_with_label_values(&["miss"])?,
                expired: cache.get_metric_with_label_values(&["expired"])?,
                error: cache.get_metric_with_label_values(&["error"])?,
                fill_ok: fills.get_metric_with_label_values(&["ok"])?,
                fill_failed: fills.get_metric_with_label_values(&["failed"])?,
                fill_dropped: fills.get_metric_with_label_values(&["dropped"])?,
                fill_outdated: fills.get_metric_with_label_values(&["outdated"])?,
            },
            guard: GuardMetrics::new(registry)?,
            loads: LoadMetrics::new(registry)?,
            memory: MemoryMetrics {
                local_hits: counter(
                    registry,
                    "cache_local_hits_total",
                    "Answers from the replica's memory, without a read from Redis",
                )?,
                negative_hits: counter(
                    registry,
                    "cache_negative_hits_total",
                    "Loads avoided because a recent load found no behaviour of the user",
                )?,
            },
            admission: AdmissionMetrics::reads(registry)?,
            writes: AdmissionMetrics::writes(registry)?,
            produce: ProduceMetrics::new(registry)?,
            warmup: WarmupMetrics {
                users: counter(
                    registry,
                    "warmup_users_total",
                    "Users whose list this replica wrote to Redis during warm-up",
                )?,
                failed: counter(
                    registry,
                    "warmup_failures_total",
                    "Failures of warm-up units (one per shard); each is retried",
                )?,
                resumed: counter(
                    registry,
                    "warmup_resumed_total",
                    "Warm-up units that this replica continued after another replica had stopped",
                )?,
                again: counter(
                    registry,
                    "warmup_again_total",
                    "Times that this replica warmed up again because the cache had lost its lists",
                )?,
                progress: gauge(
                    registry,
                    "warmup_progress_ratio",
                    "Share of the warm-up that all replicas together have done",
                )?,
            },
            unrecorded_refusals: counter(
                registry,
                "http_refusals_unrecorded_total",
                "Unsampled requests that admission refused without a span and a log line: beyond ten in their second",
            )?,
            events: counter(registry, "events_accepted_total", "Events written to the behaviour log or to Kafka")?,
            replicas_expected: gauge(
                registry,
                "api_replicas_expected",
                "Number of replicas that should run (http.replicas)",
            )?,
        })
    }
}

impl GuardMetrics {
    fn new(registry: &Registry) -> Result<Self> {
        let checks = counters(
            registry,
            "guard_checks_total",
            "Checks whether a user may exist, by result: present (in the filter), absent (answered without the store), newcomer (created after the filter was built), unsure (the set of newcomers may be incomplete)",
            "result",
        )?;
        let rebuilds = counters(
            registry,
            "guard_rebuilds_total",
            "Rebuilds of the bloom filter, by reason: schedule, size (many sign-ups), rotation (another replica has rotated the sets of newcomers), generation (the set of newcomers was lost)",
            "reason",
        )?;
        let [schedule, size, rotation, generation] =
            RebuildReason::ALL.map(|reason| rebuilds.get_metric_with_label_values(&[reason.as_str()]));
        Ok(Self {
            present: checks.get_metric_with_label_values(&["present"])?,
            absent: checks.get_metric_with_label_values(&["absent"])?,
            newcomer: checks.get_metric_with_label_values(&["newcomer"])?,
            unverified: checks.get_metric_with_label_values(&["unsure"])?,
            bloom_users: gauge(registry, "guard_bloom_users", "Users in the bloom filter when it was built")?,
            bloom_bytes: gauge(registry, "guard_bloom_bytes", "Size of the bloom filter's bit vector")?,
            bloom_fpr: gauge(
                registry,
                "guard_bloom_false_positive_ratio",
                "False-positive rate of the bloom filter, measured with 100,000 unknown ids when it was built",
            )?,
            unverified_refused: counter(
                registry,
                "guard_unsure_refused_total",
                "Loads of unverified users that were refused because guards.unsure_loads was reached",
            )?,
            rebuilds: [schedule?, size?, rotation?, generation?],
            rebuild_failures: counter(registry, "guard_rebuild_failures_total", "Failed rebuilds of the bloom filter")?,
            generation_valid: gauge(
                registry,
                "guard_generation_valid",
                "1 if the filter can prove that a user is absent, 0 if the set of newcomers may have lost members",
            )?,
            generation_current: gauge(
                registry,
                "guard_generation_current",
                "1 if the filter is of the current generation of newcomers, 0 if a rebuild after a rotation is due",
            )?,
            newcomers: gauge(registry, "guard_newcomers", "Members of the current set of newcomers")?,
        })
    }
}

impl ProduceMetrics {
    fn new(registry: &Registry) -> Result<Self> {
        let failures = counters(
            registry,
            "api_event_produce_failures_total",
            "Event requests that Kafka did not acknowledge, by reason: queue_full (too many events wait), unavailable (no acknowledgement in time), topics (the topics are not usable)",
            "reason",
        )?;
        Ok(Self {
            seconds: histogram(
                registry,
                "api_event_produce_seconds",
                "Time from sending the events of a request to Kafka until all are acknowledged, or given up",
                // From one event without linger to the deadline of a request.
                &[0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0],
            )?,
            queue_full: failures.get_metric_with_label_values(&["queue_full"])?,
            unavailable: failures.get_metric_with_label_values(&["unavailable"])?,
            topics: failures.get_metric_with_label_values(&["topics"])?,
        })
    }
}

impl LoadMetrics {
    fn new(registry: &Registry) -> Result<Self> {
        let loads = counters(
            registry,
            "loads_total",
            "Misses, by result: led (loaded from the store), joined (shared a load in flight)",
            "result",
        )?;
        let results = counters(
            registry,
            "load_results_total",
            "Loads, by result: found (the user has behaviour), empty (no behaviour; cache penetration if the user does not exist), failed",
            "result",
        )?;
        let refreshes = counters(
            registry,
            "cache_refreshes_total",
            "Refreshes of lists shortly before their expiry, by result: ok, failed, taken (another replica refreshes it), dropped (too many in flight)",
            "result",
        )?;
        Ok(Self {
            led: loads.get_metric_with_label_values(&["led"])?,
            joined: loads.get_metric_with_label_values(&["joined"])?,
            repeated: counter(
                registry,
                "loads_repeated_total",
                "Further loads of requests that the load they had shared did not serve: its list was too short, or its deadline exceeded",
            )?,
            abandoned: counter(
                registry,
                "loads_abandoned_total",
                "Shared loads from the store that succeeded when no request waited for them any more: all clients had gone away, or the requests had exceeded their deadlines",
            )?,
            second_reads: counter(
                registry,
                "load_second_reads_total",
                "Loads that read the log of behaviour because the user had no row of features",
            )?,
            found: results.get_metric_with_label_values(&["found"])?,
            empty: results.get_metric_with_label_values(&["empty"])?,
            failed: results.get_metric_with_label_values(&["failed"])?,
            rank_seconds: histogram(
                registry,
                "rank_duration_seconds",
                "Time to rank a history, warm-up included",
                // A history of one event takes a few microseconds, the longest of 100 a millisecond.
                &[
                    0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.000_75, 0.001,
                    0.002, 0.005, 0.01, 0.05,
                ],
            )?,
            refresh_ok: refreshes.get_metric_with_label_values(&["ok"])?,
            refresh_failed: refreshes.get_metric_with_label_values(&["failed"])?,
            refresh_taken: refreshes.get_metric_with_label_values(&["taken"])?,
            refresh_dropped: refreshes.get_metric_with_label_values(&["dropped"])?,
        })
    }
}

impl AdmissionMetrics {
    /// For requests for recommendations.
    ///
    /// # Errors
    /// The registry has one of these names already.
    pub fn reads(registry: &Registry) -> Result<Self> {
        Self::new(registry, "http_admission", "Requests for recommendations")
    }

    /// For sign-ups and event requests. They are in flight until they end, which may be after the response.
    ///
    /// # Errors
    /// The registry has one of these names already.
    pub fn writes(registry: &Registry) -> Result<Self> {
        Self::new(registry, "http_writes_admission", "Sign-ups and event requests")
    }

    fn new(registry: &Registry, name: &str, requests: &str) -> Result<Self> {
        let rejected = counters(
            registry,
            &format!("{name}_rejected_total"),
            &format!(
                "{requests} that were refused, by reason: line_full (the queue was full), waited (the wait timed out)"
            ),
            "reason",
        )?;
        Ok(Self {
            limit: gauge(
                registry,
                &format!("{name}_limit"),
                &format!("{requests} that may be in flight at a time; 0: no limit"),
            )?,
            in_flight: gauge(registry, &format!("{name}_in_flight"), &format!("{requests} in flight"))?,
            wait_seconds: histogram(
                registry,
                &format!("{name}_wait_seconds"),
                &format!("{requests}: time in the queue; only requests that had to wait, refused ones included"),
                &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0],
            )?,
            queue_full: rejected.get_metric_with_label_values(&["line_full"])?,
            wait_timeout: rejected.get_metric_with_label_values(&["waited"])?,
        })
    }
}

impl HttpMetrics {
    fn new(registry: &Registry, exemplars: &Exemplars, routes: &[&'static str]) -> Result<Self> {
        const NAME: &str = "http_server_request_duration_seconds";
        const LABELS: [&str; 2] = ["http_route", "status_class"];
        let buckets = [
            0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
            0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 10.0,
        ];
        let durations = HistogramVec::new(
            HistogramOpts::new(NAME, "Time from the arrival of a request to its response").buckets(buckets.to_vec()),
            &LABELS,
        )?;
        registry.register(Box::new(durations.clone()))?;
        let of = |route: &str, class: &str| {
            let seconds = durations.get_metric_with_label_values(&[route, class])?;
            let exemplars = exemplars.series(NAME, &[(LABELS[0], route), (LABELS[1], class)], &buckets);
            Result::Ok(RequestDurations { seconds, exemplars })
        };
        let of_route = |route: &str| {
            let [a, b, c, d, e] = CLASSES.map(|class| of(route, class));
            Result::Ok([a?, b?, c?, d?, e?])
        };
        let routes = routes.iter().map(|route| Ok((*route, of_route(route)?))).collect::<Result<Vec<_>>>()?;
        let unmatched = of_route("unmatched")?;
        let recommended = at(&routes, &unmatched, Some(routes::RECOMMENDATIONS))[SUCCESS].clone();
        let active =
            IntGauge::new("http_server_active_requests", "Requests in flight. Excludes answers from local memory")?;
        registry.register(Box::new(active.clone()))?;
        let by_route = counters(
            registry,
            "http_server_requests_abandoned_total",
            "Requests whose client closed the connection before the response. http_server_request_duration_seconds excludes them",
            LABELS[0],
        )?;
        let names = routes.iter().map(|(route, _)| *route).chain(["unmatched"]);
        let abandoned = names.map(|route| by_route.get_metric_with_label_values(&[route])).collect::<Result<_>>()?;
        Ok(Self { routes, unmatched, recommended, active, abandoned })
    }

    pub fn enter(&self, route: Option<&str>) -> ActiveRequest<'_> {
        self.active.inc();
        let at = self.routes.iter().position(|(known, _)| Some(*known) == route).unwrap_or(self.routes.len());
        ActiveRequest { active: &self.active, abandoned: &self.abandoned[at], has_ended: false }
    }

    pub fn of(&self, route: Option<&str>, status: u16) -> &RequestDurations {
        let class = usize::from(status / 100).saturating_sub(1).min(CLASSES.len() - 1);
        &at(&self.routes, &self.unmatched, route)[class]
    }
}

fn at<'a, T>(routes: &'a [(&'static str, T)], unmatched: &'a T, route: Option<&str>) -> &'a T {
    routes.iter().find(|(known, _)| Some(*known) == route).map_or(unmatched, |(_, found)| found)
}

impl RequestDurations {
    /// A recorded request may become an exemplar. Its span then has an attribute, so that its trace is kept.
    pub fn observe(&self, started: Instant, duration: Duration, span: &Span) {
        self.seconds.observe(duration.as_secs_f64());
        if let Some(context) = span.context()
            && self.exemplars.offer(duration, context, started + duration)
        {
            span.set(attribute::EXEMPLAR, true);
        }
    }
}

impl ActiveRequest<'_> {
    /// After its duration is recorded.
    pub fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for ActiveRequest<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.abandoned.inc();
        }
        self.active.dec();
    }
}

impl AnswerMetrics {
    pub fn of(&self, source: Source) -> &IntCounter {
        &self.0[source as usize]
    }
}

/// Registers a metric with the replica's profile. The command `load` reads it, because it has no access to the configuration.
///
/// # Errors
/// The registry has this name already.
pub fn register_profile(registry: &Registry, profile: Profile) -> Result<()> {
    let info = IntGaugeVec::new(
        Opts::new("api_profile_info", "Always 1; the label is the profile of the replica"),
        &["profile"],
    )?;
    registry.register(Box::new(info.clone()))?;
    info.get_metric_with_label_values(&[&profile.to_string()])?.set(1);
    Ok(())
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntCounterVec> {
    let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<Gauge> {
    let gauge = Gauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}
