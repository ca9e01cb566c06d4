//! Request and response bodies of the HTTP API, as documented in `/openapi.json`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::EventKind;

/// The source of a list of recommendations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The user's list was in Redis.
    Cache,
    /// Computed from the user's behaviour log in MySQL.
    Store,
    /// Popular items: the user is unknown, or has no behaviour to rank from.
    Popular,
    /// An expired list, because the store failed.
    Stale,
}

impl Source {
    pub const ALL: [Source; 4] = [Self::Cache, Self::Store, Self::Popular, Self::Stale];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Store => "store",
            Self::Popular => "popular",
            Self::Stale => "stale",
        }
    }
}

/// Id of a user or an item. At most 64 **bytes** of UTF-8: `maxLength` counts characters, so an id with non-ASCII characters may be refused
/// (400) with fewer than 64 of them. The pattern excludes control characters (Unicode's category Cc).
// Describes `contract::Id`, which serialises as its text.
#[derive(Debug, ToSchema)]
#[schema(as = Id, min_length = 1, max_length = 64, pattern = r"^[^\x00-\x1F\x7F-\x9F]+$", example = "u000042")]
pub struct IdText(pub String);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScoredItem {
    #[schema(value_type = IdText)]
    pub item_id: String,
    /// Higher is better. Comparable only within one response.
    pub score: f32,
}

/// `source` and `model_version` come first in the JSON document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Recommendations {
    pub source: Source,
    pub model_version: u64,
    #[schema(value_type = IdText)]
    pub user_id: String,
    pub items: Vec<ScoredItem>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ItemList {
    pub model_version: u64,
    pub items: Vec<ScoredItem>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    #[schema(value_type = IdText)]
    pub user_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UserCreated {
    #[schema(value_type = IdText)]
    pub user_id: String,
    /// False: the user existed already (status 200 instead of 201).
    pub created: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    #[schema(value_type = IdText)]
    pub user_id: String,
    #[schema(value_type = IdText)]
    pub item_id: String,
    pub event: EventKind,
    /// Unix time in seconds, with optional fraction, at most 300 s ahead of the server; default: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub timestamp: Option<f64>,
    /// Default: depends on `event`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.000001, maximum = 1000000)]
    pub weight: Option<f64>,
}

/// One event, or an array of 1 to 1000 of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum NewEvents {
    One(NewEvent),
    Many(EventBatch),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(min_items = 1, max_items = 1000)]
pub struct EventBatch(pub Vec<NewEvent>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventsAccepted {
    pub accepted: usize,
    /// Where the events are in Kafka, in the order of the request. Absent if the service runs without Kafka.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub positions: Vec<EventPosition>,
}

/// The place of an event in the topic `behaviour`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventPosition {
    /// The shard of the event's user.
    #[schema(maximum = 15)]
    pub partition: u8,
    pub offset: u64,
}

/// Header of a request to a worker: names of workers that the client had no success with for this partition, separated by commas; at most
/// four. The worker reports them to the monitors.
pub const UNSERVED_BY: &str = "x-unserved-by";

/// Header of a request for recommendations: the instant at which the client stops waiting, as Unix time in milliseconds. A replica ends its
/// work for the request by then if `http.honour_deadline` is on.
pub const REQUEST_DEADLINE: &str = "x-request-deadline-ms";

/// Header of a request for recommendations: its criticality, see [`Criticality`]. Without it: `default`.
pub const CRITICALITY: &str = "x-criticality";

/// How much a request matters. Under overload a replica serves the most critical ones. After the Site Reliability Engineering book (2016), chapter
/// 21, with three levels instead of four.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Criticality {
    /// A user would notice a failure at once.
    Critical,
    #[default]
    Default,
    /// A failure is expected at times, as of prefetching and batches.
    Sheddable,
}

impl Criticality {
    /// The most critical first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Default, Self::Sheddable];

    /// The value of the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Default => "default",
            Self::Sheddable => "sheddable",
        }
    }
}

/// A worker's response after a write to a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    pub partition: usize,
    /// The epoch of the write.
    pub epoch: u64,
    pub counter: u64,
    /// The worker that did the write.
    pub worker: String,
}

/// RFC 9457 problem details, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `/problems/<name>`: what failed.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// The invalid parameter or field, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// The values of `type`. The load test counts errors by them.
pub mod problem {
    pub const INVALID_REQUEST: &str = "/problems/invalid-request";
    pub const NOT_FOUND: &str = "/problems/not-found";
    pub const METHOD_NOT_ALLOWED: &str = "/problems/method-not-allowed";
    pub const TOO_LARGE: &str = "/problems/too-large";
    pub const UNSUPPORTED_MEDIA_TYPE: &str = "/problems/unsupported-media-type";
    /// No connection to the store came free in time: the pool is exhausted.
    pub const STORE_CHECKOUT_TIMEOUT: &str = "/problems/store-checkout-timeout";
    /// The queue for connections to the store is full, or too many unverified users are being looked up.
    pub const STORE_OVERLOADED: &str = "/problems/store-overloaded";
    /// The store is down or failed the query.
    pub const STORE_UNAVAILABLE: &str = "/problems/store-unavailable";
    /// Too many events wait for Kafka.
    pub const EVENT_LOG_OVERLOADED: &str = "/problems/event-log-overloaded";
    /// Kafka did not acknowledge the events in time, or its topics are not usable.
    pub const EVENT_LOG_UNAVAILABLE: &str = "/problems/event-log-unavailable";
    pub const CACHE_UNAVAILABLE: &str = "/problems/cache-unavailable";
    /// The replica is at its concurrency limit, and its queue is full or the wait timed out.
    pub const OVERLOADED: &str = "/problems/overloaded";
    pub const DEADLINE_EXCEEDED: &str = "/problems/deadline-exceeded";
    /// Another worker owns the partition, or none does. `detail` names the owner, and `Location` its address if it is known.
    pub const NOT_THE_PRIMARY: &str = "/problems/not-the-primary";
    /// The write has an epoch that is no longer current.
    pub const OLD_EPOCH: &str = "/problems/old-epoch";
    /// This worker owns the partition, but does not serve it yet.
    pub const TAKING_OVER: &str = "/problems/taking-over";
    /// A block of a segment, or its manifest, is damaged on this worker's disk.
    pub const DAMAGED_BLOCK: &str = "/problems/damaged-block";
    /// The worker has no version of the segment yet.
    pub const NO_VERSION: &str = "/problems/no-version";
    pub const INTERNAL: &str = "/problems/internal";
}
