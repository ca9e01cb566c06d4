//! Redis keys.

/// The cached list of a user (article A1). Value: `api`'s `CachedList`.
pub fn recommendations(user_id: &str) -> String {
    format!("rec_{user_id}")
}

/// Set of users created since the bloom filters were built, and of the marks below. A mark is a member, not a key of its own:
/// whatever loses the set's members (a restart, an eviction) loses the mark with them, so a set never looks complete that is not.
pub const NEWCOMERS: &str = "users:newcomers";
/// What `NEWCOMERS` was before the last rotation.
pub const NEWCOMERS_PREVIOUS: &str = "users:newcomers:previous";
/// The generation that the next filter may join. A hint: it saves the replicas from having one each, nothing is believed for it.
pub const NEWCOMERS_GENERATION: &str = "users:newcomers:generation";

/// Leases on the generations of the filters in use. A sorted set: members are `<generation>:<replica>`, scores the Unix ms at which the
/// lease ends. A rotation waits for the leases on earlier generations.
pub const NEWCOMERS_FILTERS: &str = "users:newcomers:filters";

/// Member of a set that has lost nothing since this generation was named. Ids hold no control characters, so no user is called so.
pub fn generation_mark(generation: &str) -> String {
    format!("\u{1}gen:{generation}")
}

/// Member of a set that began when the set of this generation was put aside.
pub fn follows_mark(generation: &str) -> String {
    format!("\u{1}follows:{generation}")
}

/// Lease of the one replica that refreshes a list before it expires.
pub fn refresh_lease(user_id: &str) -> String {
    format!("refresh_{user_id}")
}

/// Lease on, then proof of, one unit of warm-up work; `fill` names the data and model the lists come from.
pub fn warmup_unit(fill: &str, shard: usize) -> String {
    format!("warmup:{fill}:{shard:02}")
}

/// How many of a unit's users are warm: where its next holder goes on.
pub fn warmup_cursor(fill: &str, shard: usize) -> String {
    format!("warmup:{fill}:{shard:02}:cursor")
}
