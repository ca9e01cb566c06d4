//! Redis keys.

/// The cached list of a user (article A1). Its value is `api`'s `RankedList`.
pub fn recommendations(user_id: &str) -> String {
    format!("rec_{user_id}")
}

/// Set of the users that were created since the last rotation, and of the marks below. A mark is a member, not a separate key: a restart or an
/// eviction that loses members also loses the mark. So an incomplete set never looks complete.
pub const NEWCOMERS: &str = "users:newcomers";
/// The set `NEWCOMERS` before the last rotation.
pub const NEWCOMERS_PREVIOUS: &str = "users:newcomers:previous";
/// The generation for the next filter, shared by the replicas. Only a hint: losing it costs no correctness.
pub const NEWCOMERS_GENERATION: &str = "users:newcomers:generation";

/// Leases on the generations of the filters in use. A sorted set with the members `<generation>:<replica>`; the score is the end of the
/// lease in Unix ms. A rotation waits for the leases on earlier generations.
pub const NEWCOMERS_FILTERS: &str = "users:newcomers:filters";

/// Member of a set that has lost no member since this generation was claimed. User ids contain no control characters, so no user has this
/// name.
pub fn generation_mark(generation: &str) -> String {
    format!("\u{1}gen:{generation}")
}

/// Member of the set that follows the set of this generation.
pub fn follows_mark(generation: &str) -> String {
    format!("\u{1}follows:{generation}")
}

/// Lease of the replica that refreshes a list before it expires.
pub fn refresh_lease(user_id: &str) -> String {
    format!("refresh_{user_id}")
}

/// Lease on a unit of warm-up work, and then the mark that it is done. `fill`: the name of the work that replicas share.
pub fn warmup_unit(fill: &str, shard: usize) -> String {
    format!("warmup:{fill}:{shard:02}")
}

/// Number of a unit's users that are done, where another replica continues.
pub fn warmup_cursor(fill: &str, shard: usize) -> String {
    format!("warmup:{fill}:{shard:02}:cursor")
}
