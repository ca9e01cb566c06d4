//! Why the bloom filter is rebuilt.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RebuildReason {
    /// A regular rebuild: it removes deleted users and empties the set of newcomers.
    Schedule,
    /// The set of newcomers is large.
    Size,
    /// Another replica has rotated the sets. The filter is still valid, but a second rotation would invalidate it, and waits for this
    /// rebuild.
    Rotation,
    /// The filter's generation is lost: Redis was restarted or evicted the set, or the sets were rotated twice.
    Generation,
}

impl RebuildReason {
    pub const ALL: [Self; 4] = [Self::Schedule, Self::Size, Self::Rotation, Self::Generation];

    /// The value of the metric label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Size => "size",
            Self::Rotation => "rotation",
            Self::Generation => "generation",
        }
    }
}
