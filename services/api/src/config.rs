//! The configuration of one replica: settings, defaults and their ranges.

mod model;

use std::{net::SocketAddr, str::FromStr};

use eventlog::KafkaConfig;
use runtime::{Endpoint, config::Validate, telemetry::TelemetryConfig};
use serde::{Deserialize, Serialize};
use stores::{StoreConfig, redis::RedisConfig};

pub use self::model::{ModelConfig, ModelSource};
use crate::{limits::MAX_LIMIT, policies};

/// With `protected`: longer than a query of a store that is not overloaded, and short for a user.
const STANDING_WAIT_MS: u64 = 200;

/// A named set of guards. Each guard can be switched on or off separately as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// No guards. A list is cached after a request has computed it.
    Baseline,
    /// All guards, and a limit on concurrent requests.
    Protected,
}

impl Profile {
    /// The guards that `protected` switches on, by their names in `guards.<name>=off`.
    pub const GUARDS: [&str; 5] = ["bloom", "warmup", "coalesce", "negative", "refresh_ahead"];
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Baseline => "baseline",
            Self::Protected => "protected",
        })
    }
}

impl FromStr for Profile {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "baseline" => Ok(Self::Baseline),
            "protected" => Ok(Self::Protected),
            other => Err(format!("'{other}' is not a profile: choose baseline or protected")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// The profile whose defaults apply: `baseline` or `protected`. The metric `api_profile_info` shows it.
    pub profile: Profile,
    /// Ports, deadlines and limits of the HTTP server.
    pub http: HttpConfig,
    /// What lists are ranked from: `inline`, the raw log, or `kafka`, the features that workers have prepared from the events in Kafka.
    pub features: FeaturesSource,
    /// The model that ranks, and where it comes from.
    pub model: ModelConfig,
    /// The guards between a request and the store.
    pub guards: GuardsConfig,
    /// Cached lists in Redis and in memory.
    pub cache: CacheConfig,
    /// The connection to Redis.
    pub redis: RedisConfig,
    /// The MySQL servers and the connections to them.
    pub store: StoreConfig,
    /// Kafka, which `POST /events` writes to. Without brokers events are appended to the store directly.
    pub kafka: KafkaConfig,
    /// Traces and logs that are exported by OTLP.
    pub telemetry: TelemetryConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeaturesSource {
    /// A load reads the user's newest events from the log.
    Inline,
    /// A load reads the row that a worker keeps for the user, and the log for a user without one. A list in Redis is replaced only by one
    /// of the same or later events.
    Kafka,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Where the API listens: `address:port` or `unix:/path`.
    pub listen: Endpoint,
    /// Where the admin port listens (`/healthz`, `/readyz`, `/metrics`): `address:port`.
    pub admin: SocketAddr,
    /// Threads of the async runtime.
    pub worker_threads: usize,
    /// The number of replicas that should run, this one included. It only sets the metric `api_replicas_expected`, by which an alert
    /// notices missing replicas.
    pub replicas: u32,
    /// Deadline of a request, in milliseconds after its arrival. A request that exceeds it is answered 504. The default is longer than
    /// `store.checkout_timeout_ms`, so that an exhausted pool is reported as 503.
    pub deadline_ms: u64,
    /// Whether a request for recommendations ends at the deadline that its client gives in the header `x-request-deadline-ms`, Unix time in
    /// milliseconds, if that is earlier. All waits end by then, also for the store, and the server aborts the statement. A request that arrives
    /// after its deadline is answered 504 at once, and a header that is no such time 400. Client and replica need the same time. Off, the
    /// default: the header is ignored.
    pub honour_deadline: bool,
    /// Largest request body of a POST, in bytes. The default, 1 MiB, holds 1000 events.
    pub max_body_bytes: usize,
    /// How long the replica answers on after SIGTERM, until its connections have ended, in milliseconds. The file of a Unix socket is
    /// removed first, and each answer carries `Connection: close`. It must be longer than the gateway keeps idle connections. At 0, the
    /// default, idle connections are closed at once: a request that has just been sent on one is lost.
    pub leave_ms: u64,
    /// How long requests in flight and background tasks may run after that, in milliseconds. The default is one request deadline.
    pub drain_ms: u64,
    /// Policy that limits the requests for recommendations in flight: `off` (no limit), `fixed` (the limit is `admission_limit`), `adaptive` (AIMD:
    /// the limit follows the 90th percentile of latency), `vegas`, `gradient2` (after Netflix's concurrency-limits; both expect requests of
    /// one cost), or `codel` (fixed, newest first, with short waits while the queue has not been empty for 100 ms). `protected` uses `fixed`, `baseline` uses `off`.
    pub admission: String,
    /// Requests for recommendations in flight at a time; with `adaptive`, `vegas` and `gradient2` the highest value of the limit.
    pub admission_limit: usize,
    /// Requests that may wait for admission. The most critical one (header `x-criticality`) is admitted first. If the queue is full, the one that
    /// would be last is answered 503 at once. The default is short: a long queue only delays requests.
    pub admission_waiting: usize,
    /// How long a request waits for admission, in milliseconds; with `codel` 100 ms, or 5 ms while the queue has not been
    /// empty for 100 ms.
    pub admission_wait_ms: u64,
    /// Sign-ups and event requests in flight at a time. It always applies, independent of `admission`. These requests have a separate
    /// queue with the bounds `admission_waiting` and `admission_wait_ms`.
    pub writes_limit: usize,
    /// Target for the 90th percentile of latency, in milliseconds, with `adaptive`. With `vegas` and `gradient2` a request that fails by
    /// overload counts as at least this long.
    pub admission_target_ms: u64,
    /// CPU time that each request for recommendations uses in addition, in microseconds, so that a replica runs out of CPU at a known rate; 0,
    /// the default, means none.
    pub work_us: u64,
    /// Models a CPU quota, as a fraction of a core: the time `work_us` is not used, but passes on a virtual CPU of this speed, and the request
    /// waits for it. For machines where the kernel cannot enforce a quota. 0, the default, means none; the least is 0.001.
    pub cpu_quota: f64,
    /// The file `cpu.stat` of this replica's cgroup, if the kernel enforces a CPU quota. The metric `api_cpu_throttled_seconds_total` shows its
    /// throttled time.
    pub cpu_stat: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardsConfig {
    /// Answers requests for unknown users with popular items, without a store query. A bloom filter recognises these users.
    pub bloom: bool,
    /// Writes the lists of the most active users to Redis before the replica is ready.
    pub warmup: bool,
    /// Lets concurrent misses of one user share one load from the store.
    pub coalesce: bool,
    /// Remembers for `cache.negative_ms` that a user has no behaviour.
    pub negative: bool,
    /// Recomputes a list in the background when it is read shortly before it expires (`cache.refresh_ahead_ms`).
    pub refresh_ahead: bool,
    /// False-positive rate of the bloom filter for the number of users it is built from, from 0.000001 to 0.5. At the default, 0.001, one
    /// in a thousand unknown ids reaches the store, and the filter takes 1.8 bytes per user.
    pub bloom_fpr: f64,
    /// Time between two scheduled rebuilds of the bloom filter, in milliseconds, varied by ±10 %.
    pub bloom_rebuild_ms: u64,
    /// Rebuilds the bloom filter when more users than this have signed up since the last rotation. Each of them costs a Redis round trip
    /// per request until then.
    pub bloom_rebuild_newcomers: u64,
    /// Concurrent loads of user ids that neither the filter nor Redis can verify. Further ones are answered 503. The default leaves most
    /// store connections to verified users.
    pub unsure_loads: usize,
    /// Users whose lists are warmed up, over all shards.
    pub warmup_users: u32,
    /// Time limit of the warm-up, in milliseconds. The replica then becomes ready without the remaining lists.
    pub warmup_deadline_ms: u64,
    /// Users per second that one replica warms up; 0 means no limit.
    pub warmup_rate: u32,
    /// With `guards.warmup`: warms up again, beside the requests, when in half a second with at least 20 lookups in Redis more than this share
    /// found no list, in percent, as after a flush. It is not repeated within `warmup_deadline_ms`, unless Redis has lost that mark too. 0, the
    /// default, means never.
    pub warmup_again_pct: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// How long a cached list is fresh, in milliseconds. Each list's time is varied by ±10 %, so that lists written together do not expire
    /// together.
    pub fresh_ms: u64,
    /// How much longer Redis keeps an expired list, in milliseconds. It is the answer if the store fails.
    pub stale_ms: u64,
    /// Items of a cached list, 1 to 100. A request with a higher `limit` causes a longer list to be computed and cached.
    pub items: usize,
    /// Concurrent background writes of lists to Redis. Further ones are dropped and counted.
    pub max_fills: usize,
    /// A hit whose list expires within this time, in milliseconds, is recomputed in the background; 0 means never.
    pub refresh_ahead_ms: u64,
    /// How long a replica remembers that a user has no behaviour, in milliseconds; 0 means not at all.
    pub negative_ms: u64,
    /// How long a list is answered from the replica's memory without asking Redis, in milliseconds; 0, the default, means never. An answer
    /// may be older than the list in Redis by this time.
    pub local_ms: u64,
    /// Lists in the replica's memory, about 2 kB each.
    pub local_items: usize,
}

impl ApiConfig {
    pub fn new(profile: Profile, mut store: StoreConfig, redis_url: &str) -> Self {
        let guarded = profile == Profile::Protected;
        if guarded {
            store.standing_wait_ms = STANDING_WAIT_MS;
        }
        Self {
            profile,
            http: HttpConfig::new(guarded),
            features: FeaturesSource::Inline,
            model: ModelConfig::default(),
            guards: GuardsConfig {
                bloom: guarded,
                warmup: guarded,
                coalesce: guarded,
                negative: guarded,
                refresh_ahead: guarded,
                bloom_fpr: 0.001,
                bloom_rebuild_ms: 600_000,
                bloom_rebuild_newcomers: 10_000,
                unsure_loads: 32,
                warmup_users: 1_000_000,
                warmup_deadline_ms: 300_000,
                warmup_rate: 0,
                warmup_again_pct: 0,
            },
            cache: CacheConfig {
                fresh_ms: 3_600_000,
                stale_ms: 3_600_000,
                items: 20,
                max_fills: 256,
                refresh_ahead_ms: 60_000,
                negative_ms: 1_000,
                local_ms: 0,
                local_items: 10_000,
            },
            redis: RedisConfig { url: redis_url.to_owned(), response_timeout_ms: 500, connect_timeout_ms: 500 },
            store,
            kafka: KafkaConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

impl HttpConfig {
    pub(crate) fn new(guarded: bool) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)).into(),
            admin: SocketAddr::from(([127, 0, 0, 1], 9080)),
            worker_threads: 2,
            replicas: 1,
            deadline_ms: 5_000,
            honour_deadline: false,
            max_body_bytes: 1 << 20,
            leave_ms: 0,
            drain_ms: 5_000,
            admission: if guarded { "fixed" } else { policies::OFF }.to_owned(),
            admission_limit: 1_500,
            admission_waiting: 100,
            admission_wait_ms: 50,
            writes_limit: 256,
            admission_target_ms: 500,
            work_us: 0,
            cpu_quota: 0.0,
            cpu_stat: String::new(),
        }
    }
}

impl HttpConfig {
    fn validate_admission(&self, problems: &mut Vec<String>) {
        let name = &self.admission;
        if name != policies::OFF && policies::find(name).is_none() {
            let names: Vec<&str> = policies::ALL.iter().map(|kind| kind.name).collect();
            problems.push(format!(
                "http.admission: '{name}' is no policy: choose {} or {}",
                policies::OFF,
                names.join(", ")
            ));
        }
    }

    fn validate_quota(&self, problems: &mut Vec<String>) {
        let quota = self.cpu_quota;
        if !(0.0..=1.0).contains(&quota) {
            problems.push(format!("http.cpu_quota: {quota} is not in 0..=1"));
        } else if quota > 0.0 && quota < 0.001 {
            problems.push(format!("http.cpu_quota: {quota} is below 0.001"));
        } else if quota > 0.0 && self.work_us == 0 {
            problems.push("http.cpu_quota: without http.work_us a request costs nothing".into());
        } else if quota > 0.0 && self.work_us as f64 / quota > self.deadline_ms as f64 * 1e3 {
            problems.push(format!(
                "http.cpu_quota: at {quota} cores each request takes {} ms, longer than http.deadline_ms",
                self.work_us as f64 / quota / 1e3
            ));
        }
        if quota > 0.0 && !self.cpu_stat.is_empty() {
            problems.push("http.cpu_stat: the quota is either modelled (http.cpu_quota) or in a cgroup".into());
        }
    }
}

impl Validate for ApiConfig {
    fn validate(&self, problems: &mut Vec<String>) {
        let ranges = [
            ("http.worker_threads", self.http.worker_threads as u64, 1..=256),
            ("http.replicas", self.http.replicas.into(), 1..=10_000),
            ("http.deadline_ms", self.http.deadline_ms, 1..=600_000),
            ("http.max_body_bytes", self.http.max_body_bytes as u64, 1..=1 << 30),
            ("http.leave_ms", self.http.leave_ms, 0..=600_000),
            ("http.drain_ms", self.http.drain_ms, 0..=600_000),
            ("http.admission_limit", self.http.admission_limit as u64, 1..=1_000_000),
            ("http.admission_waiting", self.http.admission_waiting as u64, 0..=1_000_000),
            ("http.admission_wait_ms", self.http.admission_wait_ms, 0..=600_000),
            ("http.writes_limit", self.http.writes_limit as u64, 1..=1_000_000),
            ("http.admission_target_ms", self.http.admission_target_ms, 1..=600_000),
            ("http.work_us", self.http.work_us, 0..=1_000_000),
            ("guards.bloom_rebuild_ms", self.guards.bloom_rebuild_ms, 1..=31_536_000_000),
            ("guards.bloom_rebuild_newcomers", self.guards.bloom_rebuild_newcomers, 1..=100_000_000),
            ("guards.unsure_loads", self.guards.unsure_loads as u64, 0..=100_000),
            ("guards.warmup_deadline_ms", self.guards.warmup_deadline_ms, 1..=86_400_000),
            ("guards.warmup_again_pct", self.guards.warmup_again_pct.into(), 0..=100),
            ("cache.fresh_ms", self.cache.fresh_ms, 1..=31_536_000_000),
            ("cache.stale_ms", self.cache.stale_ms, 0..=31_536_000_000),
            ("cache.items", self.cache.items as u64, 1..=MAX_LIMIT as u64),
            ("cache.max_fills", self.cache.max_fills as u64, 1..=100_000),
            ("cache.refresh_ahead_ms", self.cache.refresh_ahead_ms, 0..=31_536_000_000),
            ("cache.negative_ms", self.cache.negative_ms, 0..=60_000),
            ("cache.local_ms", self.cache.local_ms, 0..=600_000),
            ("cache.local_items", self.cache.local_items as u64, 1..=10_000_000),
        ];
        for (key, value, range) in ranges {
            if !range.contains(&value) {
                problems.push(format!("{key}: {value} is not in {}..={}", range.start(), range.end()));
            }
        }
        if !(self.guards.bloom_fpr >= 1e-6 && self.guards.bloom_fpr <= 0.5) {
            problems.push(format!("guards.bloom_fpr: {} is not in 0.000001..=0.5", self.guards.bloom_fpr));
        }
        self.http.validate_admission(problems);
        self.http.validate_quota(problems);
        if self.http.listen == self.http.admin.into() && !self.http.listen.is_unspecified() {
            problems.push(format!("http.admin: {} is also http.listen", self.http.admin));
        }
        self.model.validate(problems);
        self.redis.validate(problems);
        self.store.validate(problems);
        self.kafka.validate(problems);
        self.telemetry.validate(problems);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ApiConfig {
        let store = StoreConfig::spread_over(&["127.0.0.1:3306".to_owned()]);
        ApiConfig::new(Profile::Protected, store, "redis://127.0.0.1:6379")
    }

    #[test]
    fn every_policy_is_a_setting_and_another_name_is_an_error_that_lists_them() {
        let problems = |admission: &str| {
            let (mut config, mut problems) = (config(), Vec::new());
            config.http.admission = admission.to_owned();
            config.validate(&mut problems);
            problems.join("\n")
        };
        for kind in policies::ALL {
            assert_eq!(problems(kind.name), "");
        }
        assert_eq!(problems(policies::OFF), "");
        let names: Vec<&str> = policies::ALL.iter().map(|kind| kind.name).collect();
        let expected = format!("http.admission: 'auto' is no policy: choose off or {}", names.join(", "));
        assert_eq!(problems("auto"), expected);
    }

    #[test]
    fn only_protected_has_controlled_delay() {
        let mut store = config().store;
        assert_eq!(store.standing_wait_ms, STANDING_WAIT_MS);
        store.standing_wait_ms = 70;
        assert_eq!(ApiConfig::new(Profile::Baseline, store, "redis://127.0.0.1:6379").store.standing_wait_ms, 70);
    }

    #[test]
    fn shares_and_waits_out_of_range_are_named() {
        let problems = |again_pct, standing_wait_ms| {
            let (mut config, mut problems) = (config(), Vec::new());
            (config.guards.warmup_again_pct, config.store.standing_wait_ms) = (again_pct, standing_wait_ms);
            config.validate(&mut problems);
            problems.join("\n")
        };
        assert_eq!(problems(100, 600_000), "");
        assert_eq!(problems(101, 0), "guards.warmup_again_pct: 101 is not in 0..=100");
        assert_eq!(problems(0, 600_001), "store.standing_wait_ms: 600001 is not in 0..=600000");
    }

    fn problems(work_us: u64, cpu_quota: f64, cpu_stat: &str) -> String {
        let mut config = config();
        (config.http.work_us, config.http.cpu_quota, config.http.cpu_stat) = (work_us, cpu_quota, cpu_stat.to_owned());
        let mut problems = Vec::new();
        config.validate(&mut problems);
        problems.join("\n")
    }

    #[test]
    fn bad_costs_and_quotas_are_named() {
        for (work_us, quota, stat) in
            [(0, 0.0, ""), (1_000, 0.05, ""), (1_000_000, 1.0, ""), (1_000_000, 0.0, "/sys/fs/cgroup/cpu.stat")]
        {
            assert_eq!(problems(work_us, quota, stat), "");
        }
        for quota in [-0.05, 1.001, 2.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(problems(1_000, quota, ""), format!("http.cpu_quota: {quota} is not in 0..=1"));
        }
        assert_eq!(problems(1_000, 0.000_9, ""), "http.cpu_quota: 0.0009 is below 0.001");
        assert_eq!(problems(1_000_001, 0.0, ""), "http.work_us: 1000001 is not in 0..=1000000");
        assert!(problems(0, 0.05, "").starts_with("http.cpu_quota: without http.work_us"));
        assert!(problems(300_000, 0.05, "").contains("each request takes 6000 ms, longer than http.deadline_ms"));
        assert!(problems(1_000, 0.05, "/sys/fs/cgroup/cpu.stat").starts_with("http.cpu_stat: "));
    }
}
