//! What one replica is told at its start.

use std::{net::SocketAddr, str::FromStr};

use runtime::{Endpoint, config::Validate, telemetry::TelemetryConfig};
use serde::{Deserialize, Serialize};
use stores::{StoreConfig, redis::RedisConfig};

/// A named set of guards; each guard can still be switched by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Passive cache only: lists are cached after they were asked for.
    Baseline,
    /// All guards.
    Protected,
}

impl Profile {
    /// Switches of `protected`, as in `guards.<name>=off`.
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
            other => Err(format!("'{other}' is no profile: baseline or protected")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    pub profile: Profile,
    pub http: HttpConfig,
    pub guards: GuardsConfig,
    pub cache: CacheConfig,
    pub redis: RedisConfig,
    pub store: StoreConfig,
    pub telemetry: TelemetryConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// `address:port` or `unix:/path`.
    pub listen: Endpoint,
    /// `/healthz`, `/readyz`, `/metrics`.
    pub admin: SocketAddr,
    /// Threads of the async runtime.
    pub worker_threads: usize,
    /// How many replicas there are to be, this one included. It changes nothing but a metric, by which Prometheus misses those that are gone.
    pub replicas: u32,
    /// A request that took this long is answered 504.
    pub deadline_ms: u64,
    /// Longest body of a POST.
    pub max_body_bytes: usize,
    /// How long requests in flight may take after SIGTERM.
    pub drain_ms: u64,
    /// Whether the requests for recommendations that are worked on at the same time are limited, and by what.
    pub admission: AdmissionMode,
    /// That limit; with `adaptive` the highest it may get.
    pub admission_limit: usize,
    /// Length of the line of those who wait to be admitted.
    pub admission_waiting: usize,
    /// How long one waits in it.
    pub admission_wait_ms: u64,
    /// How many sign-ups and requests with events are worked on at the same time, whatever `admission` says. `admission_waiting` and
    /// `admission_wait_ms` apply to them too, in a line of their own.
    pub writes_limit: usize,
    /// What nine of ten answers shall take at most; only `adaptive` looks at it.
    pub admission_target_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdmissionMode {
    Off,
    Fixed,
    /// Additive increase, multiplicative decrease by latency.
    Adaptive,
}

/// One switch a guard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardsConfig {
    /// Unknown users are recognised by a bloom filter and never cost a store query.
    pub bloom: bool,
    /// The most active users' lists are in Redis before the replica is ready.
    pub warmup: bool,
    /// Requests that miss the same user's list at the same time share one load.
    pub coalesce: bool,
    /// That a user has no behaviour is remembered for `cache.negative_ms`.
    pub negative: bool,
    /// A list that is asked for is computed anew shortly before it expires (`cache.refresh_ahead_ms`).
    pub refresh_ahead: bool,
    /// False-positive rate of the bloom filter at the number of users it is built with.
    pub bloom_fpr: f64,
    /// The filter is built anew this often, ±10 %.
    pub bloom_rebuild_ms: u64,
    /// It is also built anew when this many have signed up since.
    pub bloom_rebuild_newcomers: u64,
    /// Loads at the same time of ids that neither the filter nor Redis can tell anything of; beyond it 503.
    pub unsure_loads: usize,
    /// How many users are warmed up, over all shards.
    pub warmup_users: u32,
    /// The replica gets ready without the rest after this long.
    pub warmup_deadline_ms: u64,
    /// Users that one replica warms up in a second; 0: as many as it can.
    pub warmup_rate: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// How long a list counts as fresh; each list's time is varied by ±10 %, so that they do not expire together.
    pub fresh_ms: u64,
    /// How much longer it is kept for the case that the store fails.
    pub stale_ms: u64,
    /// Items of a cached list; whoever asks for more causes a longer list to be computed and cached.
    pub items: usize,
    /// Fills on their way to Redis at the same time; further ones are dropped and counted.
    pub max_fills: usize,
    /// A hit with less freshness left is refreshed in the background; 0: off.
    pub refresh_ahead_ms: u64,
    /// How long it is remembered that a user has no behaviour; 0: not at all.
    pub negative_ms: u64,
    /// How long a list is answered from the process's own memory, without a look into Redis: by as much an answer may be
    /// older than Redis has it. 0: off.
    pub local_ms: u64,
    /// Lists in the process's memory, two kilobytes each.
    pub local_items: usize,
}

impl ApiConfig {
    pub fn new(profile: Profile, store: StoreConfig, redis_url: &str) -> Self {
        let guarded = profile == Profile::Protected;
        Self {
            profile,
            http: HttpConfig::new(guarded),
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
            max_body_bytes: 1 << 20,
            drain_ms: 5_000,
            admission: if guarded { AdmissionMode::Fixed } else { AdmissionMode::Off },
            admission_limit: 1_500,
            admission_waiting: 100,
            admission_wait_ms: 50,
            writes_limit: 256,
            admission_target_ms: 500,
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
            ("http.drain_ms", self.http.drain_ms, 0..=600_000),
            ("http.admission_limit", self.http.admission_limit as u64, 1..=1_000_000),
            ("http.admission_waiting", self.http.admission_waiting as u64, 0..=1_000_000),
            ("http.admission_wait_ms", self.http.admission_wait_ms, 0..=600_000),
            ("http.writes_limit", self.http.writes_limit as u64, 1..=1_000_000),
            ("http.admission_target_ms", self.http.admission_target_ms, 1..=600_000),
            ("guards.bloom_rebuild_ms", self.guards.bloom_rebuild_ms, 1..=31_536_000_000),
            ("guards.bloom_rebuild_newcomers", self.guards.bloom_rebuild_newcomers, 1..=100_000_000),
            ("guards.unsure_loads", self.guards.unsure_loads as u64, 0..=100_000),
            ("guards.warmup_deadline_ms", self.guards.warmup_deadline_ms, 1..=86_400_000),
            ("cache.fresh_ms", self.cache.fresh_ms, 1..=31_536_000_000),
            ("cache.stale_ms", self.cache.stale_ms, 0..=31_536_000_000),
            ("cache.items", self.cache.items as u64, 1..=crate::recommend::MAX_LIMIT as u64),
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
        if self.http.listen == self.http.admin.into() && !self.http.listen.is_unspecified() {
            problems.push(format!("http.admin: {} is also http.listen", self.http.admin));
        }
        self.redis.validate(problems);
        self.store.validate(problems);
        self.telemetry.validate(problems);
    }
}
