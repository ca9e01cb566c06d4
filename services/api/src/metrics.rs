//! All series of the API, resolved once. Buckets are fine below 5 ms, where a cache hit lies.

use std::{collections::HashMap, time::Duration};

use contract::http::Source;
use prometheus::{Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, Result};

#[derive(Clone)]
pub struct Metrics {
    pub http: HttpMetrics,
    pub answers: AnswerMetrics,
    pub cache: CacheMetrics,
    pub guard: GuardMetrics,
    pub warmup: WarmupMetrics,
    pub events: IntCounter,
}

/// Requests by matched route and status class.
#[derive(Clone)]
pub struct HttpMetrics {
    routes: HashMap<&'static str, [Histogram; CLASSES.len()]>,
    unmatched: [Histogram; CLASSES.len()],
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

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
}

#[derive(Clone)]
pub struct GuardMetrics {
    pub present: IntCounter,
    pub absent: IntCounter,
    pub newcomer: IntCounter,
    pub unsure: IntCounter,
    pub bloom_users: Gauge,
    pub bloom_bytes: Gauge,
    pub bloom_fpr: Gauge,
}

#[derive(Clone)]
pub struct WarmupMetrics {
    pub users: IntCounter,
    pub failed: IntCounter,
    pub progress: Gauge,
}

impl Metrics {
    /// # Errors
    /// The registry has one of these names already.
    pub fn new(registry: &Registry, routes: &[&'static str]) -> Result<Self> {
        let answers =
            counters(registry, "recommendations_total", "Recommendation answers by where they came from", "source")?;
        let cache = counters(
            registry,
            "cache_requests_total",
            "Look-ups of a user's list in Redis: hit, miss, expired (found, but no longer fresh), error (Redis failed)",
            "result",
        )?;
        let fills = counters(
            registry,
            "cache_fills_total",
            "Lists written to Redis, warm-up included: ok, failed, dropped (too many on their way)",
            "result",
        )?;
        let guard = counters(
            registry,
            "guard_checks_total",
            "Checks whether a user may exist: present (filter), absent (answered without the store), newcomer (created since the filter was built), unsure (the set of newcomers could not be trusted)",
            "result",
        )?;
        let answer = |source: Source| answers.get_metric_with_label_values(&[source.as_str()]);
        let [cache_answers, store_answers, popular_answers, stale_answers] = Source::ALL;
        Ok(Self {
            http: HttpMetrics::new(registry, routes)?,
            answers: AnswerMetrics([
                answer(cache_answers)?,
                answer(store_answers)?,
                answer(popular_answers)?,
                answer(stale_answers)?,
            ]),
            cache: CacheMetrics {
                hit: cache.get_metric_with_label_values(&["hit"])?,
                miss: cache.get_metric_with_label_values(&["miss"])?,
                expired: cache.get_metric_with_label_values(&["expired"])?,
                error: cache.get_metric_with_label_values(&["error"])?,
                fill_ok: fills.get_metric_with_label_values(&["ok"])?,
                fill_failed: fills.get_metric_with_label_values(&["failed"])?,
                fill_dropped: fills.get_metric_with_label_values(&["dropped"])?,
            },
            guard: GuardMetrics {
                present: guard.get_metric_with_label_values(&["present"])?,
                absent: guard.get_metric_with_label_values(&["absent"])?,
                newcomer: guard.get_metric_with_label_values(&["newcomer"])?,
                unsure: guard.get_metric_with_label_values(&["unsure"])?,
                bloom_users: gauge(registry, "guard_bloom_users", "Users the bloom filter was built from")?,
                bloom_bytes: gauge(registry, "guard_bloom_bytes", "Size of the bloom filter's bit vector")?,
                bloom_fpr: gauge(
                    registry,
                    "guard_bloom_false_positive_ratio",
                    "Share of 100,000 ids nobody has that the filter took for present, measured when it was built",
                )?,
            },
            warmup: WarmupMetrics {
                users: counter(
                    registry,
                    "warmup_users_total",
                    "Users whose list this replica wrote before it was ready",
                )?,
                failed: counter(
                    registry,
                    "warmup_failures_total",
                    "Units of warm-up work that failed and were tried again",
                )?,
                progress: gauge(
                    registry,
                    "warmup_progress_ratio",
                    "Share of the warm-up that is done, by whichever replica",
                )?,
            },
            events: counter(registry, "events_accepted_total", "Events written to the behaviour log")?,
        })
    }
}

impl HttpMetrics {
    fn new(registry: &Registry, routes: &[&'static str]) -> Result<Self> {
        let buckets = vec![
            0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
            0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 10.0,
        ];
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "http_server_request_duration_seconds",
                "Time from a request's arrival in the service to its answer",
            )
            .buckets(buckets),
            &["http_route", "status_class"],
        )?;
        registry.register(Box::new(durations.clone()))?;
        let of_route = |route: &str| -> Result<[Histogram; CLASSES.len()]> {
            let [a, b, c, d, e] = CLASSES.map(|class| durations.get_metric_with_label_values(&[route, class]));
            Ok([a?, b?, c?, d?, e?])
        };
        let routes = routes.iter().map(|route| Ok((*route, of_route(route)?))).collect::<Result<_>>()?;
        Ok(Self { routes, unmatched: of_route("unmatched")? })
    }

    pub fn observe(&self, route: Option<&str>, status: u16, took: Duration) {
        let of_route = route.and_then(|route| self.routes.get(route)).unwrap_or(&self.unmatched);
        let class = usize::from(status / 100).saturating_sub(1).min(CLASSES.len() - 1);
        of_route[class].observe(took.as_secs_f64());
    }
}

impl AnswerMetrics {
    pub fn of(&self, source: Source) -> &IntCounter {
        &self.0[source as usize]
    }
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
