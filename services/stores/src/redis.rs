//! One multiplexed connection to Redis: commands of all requests share it and are pipelined by it.

use std::time::Duration;

use redis::{Client, aio::ConnectionManager, aio::ConnectionManagerConfig};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://host:port`.
    pub url: String,
    /// Longest wait for an answer.
    pub response_timeout_ms: u64,
    /// Longest wait for a connection.
    pub connect_timeout_ms: u64,
}

impl RedisConfig {
    pub fn validate(&self, problems: &mut Vec<String>) {
        if let Err(error) = Client::open(self.url.as_str()) {
            problems.push(format!("redis.url: '{}' is not a Redis address: {error}", self.url));
        }
        for (key, value) in
            [("response_timeout_ms", self.response_timeout_ms), ("connect_timeout_ms", self.connect_timeout_ms)]
        {
            if !(1..=60_000).contains(&value) {
                problems.push(format!("redis.{key}: {value} is not in 1..=60000"));
            }
        }
    }

    /// A connection that connects when first used and again after it broke; every command has a deadline.
    ///
    /// # Errors
    /// The address is not valid.
    pub fn open(&self) -> redis::RedisResult<ConnectionManager> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(Duration::from_millis(self.response_timeout_ms)))
            .set_connection_timeout(Some(Duration::from_millis(self.connect_timeout_ms)))
            // One attempt: requests wait for the reconnect, and the next request makes the next attempt.
            .set_number_of_retries(0)
            // The default of 50 lets a burst of requests wait for the channel before it waits for Redis.
            .set_pipeline_buffer_size(1024);
        Client::open(self.url.as_str())?.get_connection_manager_lazy(config)
    }
}
