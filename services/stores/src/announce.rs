//! Announces users in Redis, so that no filter of a replica calls them absent.

use contract::{UserId, keys};

use crate::redis::Redis;

/// Announces the users to all replicas. To be called before they are written, and again after.
///
/// # Errors
/// Redis failed. The users must not be created then.
pub async fn announce(user_ids: &[&UserId], redis: &mut Redis) -> redis::RedisResult<()> {
    let mut command = redis::cmd("SADD");
    command.arg(keys::NEWCOMERS);
    for user_id in user_ids {
        command.arg(user_id.as_str());
    }
    command.query_async(redis).await
}
