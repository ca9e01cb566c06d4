//! The 16 shards, by user.

use xxhash_rust::xxh3::xxh3_64;

pub const SHARDS: u8 = 16;

/// 0..16, from `shard_of` or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(u8);

impl ShardId {
    pub fn all() -> impl Iterator<Item = ShardId> {
        (0..SHARDS).map(ShardId)
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Name of this shard's schema in MySQL.
    pub fn schema(self) -> String {
        format!("shard_{:02}", self.0)
    }
}

/// `xxh3_64(id bytes, seed 0)`: the same in every process.
pub fn hash_of(user_id: &str) -> u64 {
    xxh3_64(user_id.as_bytes())
}

/// `hash_of % 16`. It must never change, as the test with golden vectors checks: a change would move users to other shards.
pub fn shard_of(user_id: &str) -> ShardId {
    ShardId((hash_of(user_id) % u64::from(SHARDS)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_vectors() {
        let got: Vec<_> = ["1", "42", "196", "u-000001", "käse 🧀"].iter().map(|id| shard_of(id).index()).collect();
        assert_eq!(got, GOLDEN);
    }
    const GOLDEN: [usize; 5] = [8, 1, 4, 8, 6];

    #[test]
    fn shards_are_even() {
        let mut count = [0_u32; 16];
        for n in 0..160_000 {
            count[shard_of(&format!("u{n}")).index()] += 1;
        }
        assert!(count.iter().all(|&c| (9_500..10_500).contains(&c)), "{count:?}");
    }
}
