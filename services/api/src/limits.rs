//! Bounds of the query parameter `limit`, the number of items in an answer.

pub use lists::MAX_ITEMS as MAX_LIMIT;

pub const DEFAULT_LIMIT: usize = 20;
