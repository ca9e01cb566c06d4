//! The Redis sets of users that the filters do not hold yet.
//!
//! A sign-up adds the user to the current set. Rotation puts the current set aside as the previous one and begins a new one, so
//! that filters can be rebuilt without the set growing for ever; a filter is good for the generation that it was built under and
//! the one that follows. Why an "absent" can then be believed: a user who is not in the filter was written after the filter's
//! generation was claimed, hence announced (again) after it, to the set that then carried the generation's mark or to the one
//! that follows it; if both still carry their marks, neither has lost a member.
//!
//! Two rotations make a filter worthless: it can call nobody absent. So each replica has a lease on the generation of its filter, and a
//! rotation is refused while a lease on an earlier generation lives. The lease of a replica that died, or cannot rebuild, ends by itself.
//!
//! Redis must not bring back an old state of these sets (a snapshot from before a restart): such a set carries its mark and
//! lacks members. The stack runs Redis without persistence.

use contract::{UserId, keys};
use redis::Script;
use stores::redis::Redis;

/// What one round trip told of an id and a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// In one of the sets.
    Newcomer,
    /// In none, and both can be trusted.
    Absent,
    /// The sets may have lost members.
    Unsure,
}

/// Membership in the current set (generation, follows, id), then in the previous one (generation, id).
type Membership = ([bool; 3], [bool; 2]);

pub fn verdict((current, previous): Membership) -> Verdict {
    let [is_current, follows, in_current] = current;
    let [is_previous, in_previous] = previous;
    if in_current || in_previous {
        Verdict::Newcomer
    } else if is_current || (follows && is_previous) {
        Verdict::Absent
    } else {
        Verdict::Unsure
    }
}

/// The current set is read first: a rotation in between then shows as a previous set of a later generation, which is unsure.
pub async fn ask(user_id: &UserId, generation: &str, redis: &mut Redis) -> redis::RedisResult<Verdict> {
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
        .query_async::<Membership>(redis)
        .await
        .map(verdict)
}

/// How a generation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub is_current: bool,
    /// An "absent" of a filter built under it can be believed.
    pub is_valid: bool,
    /// Size of the current set.
    pub newcomers: u64,
}

pub async fn standing(generation: &str, redis: &mut Redis) -> redis::RedisResult<Standing> {
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
    Ok(Standing { is_current, is_valid: is_current || (follows && is_previous), newcomers })
}

/// Tells all replicas that the users exist; to be done before they are written, and after.
///
/// # Errors
/// Redis did not take it: the users must not be created then.
pub async fn announce(user_ids: &[&UserId], redis: &mut Redis) -> redis::RedisResult<()> {
    let mut command = redis::cmd("SADD");
    command.arg(keys::NEWCOMERS);
    for user_id in user_ids {
        command.arg(user_id.as_str());
    }
    command.query_async(redis).await
}

/// The generation of the current set: the one that it carries, or a new one, added to it. A set may carry several: each says
/// that nothing was lost since it was added. The lease on it begins here: building the filter takes
/// time.
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

/// Begins a new set if the current one is still of the expected generation and no lease on another generation lives; 1 if so.
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

/// The generation of the filter that this replica builds now, with a lease of `for_ms` on it.
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

/// Takes or renews the replica's lease: for `for_ms` from now on no second rotation makes a filter of this generation worthless.
pub async fn lease(generation: &str, replica: &str, for_ms: u64, redis: &mut Redis) -> redis::RedisResult<()> {
    Script::new(LEASE)
        .key(keys::NEWCOMERS_FILTERS)
        .arg(format!("{generation}:{replica}"))
        .arg(for_ms)
        .invoke_async(redis)
        .await
}

/// Ends the lease: the replica has replaced that filter.
pub async fn release(generation: &str, replica: &str, redis: &mut Redis) -> redis::RedisResult<()> {
    redis::cmd("ZREM").arg(keys::NEWCOMERS_FILTERS).arg(format!("{generation}:{replica}")).query_async(redis).await
}

/// True: this call rotated. False: another replica had done so, a replica has not followed the last rotation yet, or the set is gone.
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

/// Never used twice: a mark that comes back would vouch for a set that it has not seen.
fn new_generation() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_believed_only_where_no_member_can_be_missing() {
        let (no, yes) = (false, true);
        for (membership, expected) in [
            // The filter's own generation is the current one.
            (([yes, no, no], [no, no]), Verdict::Absent),
            (([yes, no, yes], [no, no]), Verdict::Newcomer),
            // Rotated once since; both halves are there.
            (([no, yes, no], [yes, no]), Verdict::Absent),
            (([no, yes, no], [yes, yes]), Verdict::Newcomer),
            (([no, yes, yes], [yes, no]), Verdict::Newcomer),
            // One half was lost, or rotation went on.
            (([no, yes, no], [no, no]), Verdict::Unsure),
            (([no, no, no], [yes, no]), Verdict::Unsure),
            (([no, no, no], [no, no]), Verdict::Unsure),
            // A member of whatever is left exists.
            (([no, no, yes], [no, no]), Verdict::Newcomer),
            (([no, no, no], [no, yes]), Verdict::Newcomer),
        ] {
            assert_eq!(verdict(membership), expected, "{membership:?}");
        }
    }
}
