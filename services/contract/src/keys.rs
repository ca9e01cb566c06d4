//! Redis keys.

/// The cached list of a user (article A1). Value: `api`'s `CachedList`.
pub fn recommendations(user_id: &str) -> String {
    format!("rec_{user_id}")
}

/// Set of users created since the bloom filters were built.
pub const NEWCOMERS: &str = "users:newcomers";
/// Names the life of `NEWCOMERS`: gone or another value = the set may have lost members, so "absent" means "maybe".
pub const NEWCOMERS_GENERATION: &str = "users:newcomers:generation";

/// Lease on, then proof of, one unit of warm-up work; `fill` names the data and model the lists come from.
pub fn warmup_unit(fill: &str, shard: usize) -> String {
    format!("warmup:{fill}:{shard:02}")
}
