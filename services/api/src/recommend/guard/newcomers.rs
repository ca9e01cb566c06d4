//! Newcomers: users that signed up after the bloom filters were built. They are in two Redis sets, the current and the previous one.
//!
//! A sign-up adds the user to the current set. A rotation makes the current set the previous one and starts an empty set of the next
//! generation, so that the sets stay small. A filter is valid for the generation under which it was built and the next one.
//!
//! Why absence is certain: a user that is not in the filter was written after the filter's generation was claimed. So it was announced
//! (again) after the claim, in the set with that generation's mark or in the next one. If both sets still have their marks, neither has
//! lost a member.
//!
//! Two rotations invalidate a filter. Therefore each replica has a lease on the generation of its filter, and a rotation is refused while
//! a lease on an earlier generation is valid. The lease of a replica that stopped or cannot rebuild expires.
//!
//! Redis must not restore an old state of these sets, such as a snapshot after a restart: it would have the marks and lack members. The
//! stack runs Redis without persistence.

use contract::{UserId, keys};
use redis::Script;
use stores::redis::Redis;

/// Whether a user is in the sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    Member,
    /// In neither set, and both are complete.
    NotMember,
    /// In neither set, but they may have lost members.
    Unknown,
}

/// Which of these the current set has (generation's mark, follows mark, id), then the previous set (generation's mark, id).
type Reply = ([bool; 3], [bool; 2]);

fn membership((current, previous): Reply) -> Membership {
    let [is_current, follows, in_current] = current;
    let [is_previous, in_previous] = previous;
    if in_current || in_previous {
        Membership::Member
    } else if is_current || (follows && is_previous) {
        Membership::NotMember
    } else {
        Membership::Unknown
    }
}

/// One round trip. It reads the current set first: after a rotation in between, the previous set is of a later generation, and the result
/// is `Unknown`.
pub async fn membership_of(user_id: &UserId, generation: &str, redis: &mut Redis) -> redis::RedisResult<Membership> {
    let mark = keys::generation_mark(generation);
    redis::pipe()
        .cmd("SMISMEMBER")
        .arg(keys::NEWCOMERS)
        .arg(&mark)
        .arg(keys::follows_mark(generation))
        .arg(user_id.as_str())
        .cmd("SMISMEMBER")
        .arg(keys::NEWCOMERS_PREVIOUS)
        .arg(&mark)
        .arg(user_id.as_str())
        .query_async::<Reply>(redis)
        .await
        .map(membership)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationStatus {
    pub is_current: bool,
    /// A filter of this generation can prove that a user is absent.
    pub is_valid: bool,
    /// Size of the current set.
    pub newcomers: u64,
}

pub async fn generation_status(generation: &str, redis: &mut Redis) -> redis::RedisResult<GenerationStatus> {
    let mark = keys::generation_mark(generation);
    let ([is_current, follows], [is_previous], newcomers) = redis::pipe()
        .cmd("SMISMEMBER")
        .arg(keys::NEWCOMERS)
        .arg(&mark)
        .arg(keys::follows_mark(generation))
        .cmd("SMISMEMBER")
        .arg(keys::NEWCOMERS_PREVIOUS)
        .arg(&mark)
        .cmd("SCARD")
        .arg(keys::NEWCOMERS)
        .query_async::<([bool; 2], [bool; 1], u64)>(redis)
        .await?;
    Ok(GenerationStatus { is_current, is_valid: is_current || (follows && is_previous), newcomers })
}

/// Returns the generation of the current set, and takes a lease on it. If the set has no valid mark, it adds that of a new generation. A set
/// may have several marks: each proves that no member was lost since the mark was added.
const CLAIM: &str = r"
    local generation = redis.call('GET', KEYS[2])
    if not generation or redis.call('SISMEMBER', KEYS[1], '\1gen:' .. generation) == 0 then
        generation = ARGV[1]
        redis.call('SADD', KEYS[1], '\1gen:' .. generation)
        redis.call('SET', KEYS[2], generation)
    end
    local now = redis.call('TIME')
    redis.call('ZADD', KEYS[3], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[3], generation .. ':' .. ARGV[2])
    return generation";

const LEASE: &str = r"
    local now = redis.call('TIME')
    redis.call('ZADD', KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2], ARGV[1])";

/// Rotates the sets and returns 1, if the current set is of the expected generation and there is no lease on another generation.
const ROTATE: &str = r"
    if redis.call('SISMEMBER', KEYS[1], '\1gen:' .. ARGV[1]) == 0 then return 0 end
    local now = redis.call('TIME')
    redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now[1] * 1000 + math.floor(now[2] / 1000))
    for _, lease in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
        if string.sub(lease, 1, #ARGV[1] + 1) ~= ARGV[1] .. ':' then return 0 end
    end
    redis.call('UNLINK', KEYS[2])
    redis.call('RENAME', KEYS[1], KEYS[2])
    redis.call('SADD', KEYS[1], '\1gen:' .. ARGV[2], '\1follows:' .. ARGV[1])
    redis.call('SET', KEYS[3], ARGV[2])
    return 1";

/// The generation for the filter that this replica builds now, with a lease of `for_ms` on it.
pub async fn claim(replica: &str, for_ms: u64, redis: &mut Redis) -> redis::RedisResult<String> {
    Script::new(CLAIM)
        .key(keys::NEWCOMERS)
        .key(keys::NEWCOMERS_GENERATION)
        .key(keys::NEWCOMERS_FILTERS)
        .arg(new_generation())
        .arg(replica)
        .arg(for_ms)
        .invoke_async(redis)
        .await
}

/// Takes or renews the replica's lease: for `for_ms` from now on no second rotation invalidates a filter of this generation.
pub async fn lease(generation: &str, replica: &str, for_ms: u64, redis: &mut Redis) -> redis::RedisResult<()> {
    Script::new(LEASE)
        .key(keys::NEWCOMERS_FILTERS)
        .arg(format!("{generation}:{replica}"))
        .arg(for_ms)
        .invoke_async(redis)
        .await
}

/// Ends the replica's lease on the generation of a filter that it has replaced.
pub async fn release(generation: &str, replica: &str, redis: &mut Redis) -> redis::RedisResult<()> {
    redis::cmd("ZREM").arg(keys::NEWCOMERS_FILTERS).arg(format!("{generation}:{replica}")).query_async(redis).await
}

/// False: not rotated. Another replica has rotated, some replica has not rebuilt its filter since the last rotation, or the set is lost.
pub async fn rotate(expected: &str, redis: &mut Redis) -> redis::RedisResult<bool> {
    Script::new(ROTATE)
        .key(keys::NEWCOMERS)
        .key(keys::NEWCOMERS_PREVIOUS)
        .key(keys::NEWCOMERS_GENERATION)
        .key(keys::NEWCOMERS_FILTERS)
        .arg(expected)
        .arg(new_generation())
        .invoke_async(redis)
        .await
}

/// Never used twice: an old mark must not appear in a new set.
fn new_generation() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_certain_only_if_no_member_can_be_missing() {
        let (no, yes) = (false, true);
        for (reply, expected) in [
            // The filter's own generation is the current one.
            (([yes, no, no], [no, no]), Membership::NotMember),
            (([yes, no, yes], [no, no]), Membership::Member),
            // Rotated once since, and both sets are complete.
            (([no, yes, no], [yes, no]), Membership::NotMember),
            (([no, yes, no], [yes, yes]), Membership::Member),
            (([no, yes, yes], [yes, no]), Membership::Member),
            // One set was lost, or there was a second rotation.
            (([no, yes, no], [no, no]), Membership::Unknown),
            (([no, no, no], [yes, no]), Membership::Unknown),
            (([no, no, no], [no, no]), Membership::Unknown),
            // A member of any set exists.
            (([no, no, yes], [no, no]), Membership::Member),
            (([no, no, no], [no, yes]), Membership::Member),
        ] {
            assert_eq!(membership(reply), expected, "{reply:?}");
        }
    }
}
