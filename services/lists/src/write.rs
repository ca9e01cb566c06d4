//! Writes lists to Redis, key `rec_<id>`.

use std::sync::LazyLock;

use contract::{UserId, keys};
use redis::{Cmd, ErrorKind, Pipeline, RedisResult, Script, ServerErrorKind, aio::ConnectionLike};
use stores::redis::Redis;

use crate::ranked_list::{ARRIVAL_AT, FORMAT, HEADER_BYTES, RankedList};

/// Which lists in Redis a new one replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaces {
    /// Any list. For lists without arrival numbers.
    Any,
    /// Lists whose arrival number is not greater, and lists in another format: a list that was ranked from older features never replaces a
    /// newer one, in any order of the writes of replicas and workers.
    NotNewer,
}

/// The result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Set,
    /// Redis has a list with a greater arrival number, and keeps it.
    KeptNewer,
}

/// Numbers of Lua have 53 bits, so the halves of an arrival number are compared separately. Text is not compared: its order depends on the
/// locale of the server.
static SET_UNLESS_NEWER: LazyLock<Script> = LazyLock::new(|| {
    let (at, end) = (ARRIVAL_AT + 1, HEADER_BYTES);
    Script::new(&format!(
        r"
    local old = redis.call('GETRANGE', KEYS[1], 0, {end} - 1)
    if #old == {end} and string.byte(old) == {FORMAT} then
        local old_low, old_high = struct.unpack('<I4I4', old, {at})
        local low, high = struct.unpack('<I4I4', ARGV[1], {at})
        if old_high > high or old_high == high and old_low > low then return 0 end
    end
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 1"
    ))
});

/// Writes the user's list, which Redis keeps for `stale_ms` after it has expired. One round trip, and two more after a restart of Redis.
///
/// # Errors
/// Redis failed. The list may have been written.
pub async fn set_list(
    user_id: &UserId,
    list: &RankedList,
    replaces: Replaces,
    (now_ms, stale_ms): (u64, u64),
    redis: &mut Redis,
) -> RedisResult<Written> {
    let command = command(user_id, list, replaces, now_ms, stale_ms);
    match replaces {
        Replaces::Any => command.query_async::<()>(redis).await.map(|()| Written::Set),
        Replaces::NotNewer => match command.query_async::<bool>(redis).await {
            Err(error) if is_unknown_script(&error) => {
                load_script(redis).await?;
                command.query_async::<bool>(redis).await.map(Written::of)
            }
            answer => answer.map(Written::of),
        },
    }
}

/// As `set_list`, for many lists in one round trip. The results are in the order of `lists`.
///
/// # Errors
/// Redis failed. Some lists may have been written.
pub async fn set_lists(
    lists: &[(UserId, RankedList)],
    replaces: Replaces,
    (now_ms, stale_ms): (u64, u64),
    redis: &mut Redis,
) -> RedisResult<Vec<Written>> {
    if lists.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = Pipeline::with_capacity(lists.len());
    for (user_id, list) in lists {
        pipeline.add_command(command(user_id, list, replaces, now_ms, stale_ms));
    }
    match replaces {
        Replaces::Any => {
            pipeline.query_async::<Vec<redis::Value>>(redis).await?;
            Ok(vec![Written::Set; lists.len()])
        }
        Replaces::NotNewer => {
            let written = match pipeline.query_async::<Vec<bool>>(redis).await {
                Err(error) if is_unknown_script(&error) => {
                    load_script(redis).await?;
                    pipeline.query_async::<Vec<bool>>(redis).await?
                }
                answer => answer?,
            };
            Ok(written.into_iter().map(Written::of).collect())
        }
    }
}

/// Arrival numbers of the users' lists in Redis; `None`: no list, or one in another format. One round trip, which reads no items.
///
/// # Errors
/// Redis failed.
pub async fn arrivals(user_ids: &[&UserId], redis: &mut impl ConnectionLike) -> RedisResult<Vec<Option<u64>>> {
    let mut pipeline = Pipeline::with_capacity(user_ids.len());
    for user_id in user_ids {
        pipeline.cmd("GETRANGE").arg(keys::recommendations(user_id.as_str())).arg(0).arg(HEADER_BYTES - 1);
    }
    let heads: Vec<Vec<u8>> = pipeline.query_async(redis).await?;
    Ok(heads.iter().map(|head| arrival_in(head)).collect())
}

fn arrival_in(head: &[u8]) -> Option<u64> {
    let bytes = head.get(ARRIVAL_AT..HEADER_BYTES).filter(|_| head[0] == FORMAT)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

impl Written {
    fn of(set: bool) -> Self {
        if set { Self::Set } else { Self::KeptNewer }
    }
}

/// Redis forgets scripts when it restarts.
fn is_unknown_script(error: &redis::RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

async fn load_script(redis: &mut Redis) -> RedisResult<()> {
    SET_UNLESS_NEWER.load_async(redis).await.map(drop)
}

fn command(user_id: &UserId, list: &RankedList, replaces: Replaces, now_ms: u64, stale_ms: u64) -> Cmd {
    let keep_ms = (list.fresh_until_ms().saturating_sub(now_ms) + stale_ms).max(1);
    let (key, bytes) = (keys::recommendations(user_id.as_str()), list.bytes().as_ref());
    match replaces {
        Replaces::Any => {
            let mut command = redis::cmd("SET");
            command.arg(key).arg(bytes).arg("PX").arg(keep_ms);
            command
        }
        Replaces::NotNewer => {
            let mut command = redis::cmd("EVALSHA");
            command.arg(SET_UNLESS_NEWER.get_hash()).arg(1).arg(key).arg(bytes).arg(keep_ms);
            command
        }
    }
}
