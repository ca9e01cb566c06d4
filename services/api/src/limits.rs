//! Bounds of the query parameter `limit`, the number of items in an answer.

pub const MAX_LIMIT: usize = 100;
pub const DEFAULT_LIMIT: usize = 20;
