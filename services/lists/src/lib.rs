//! Lists of recommendations: the model that ranks them, their encoding, and their way into Redis. The API makes a list when a request
//! misses, the worker after events of the user.
//!
//! Depends on `model` (ranking, features), `stores` (catalogue, Redis) and `contract` (ids, keys). Begin reading with `rank.rs`;
//! `ranked_list.rs` is the encoding, `write.rs` the commands for Redis.

mod model_view;
mod rank;
mod ranked_list;
mod write;

pub use model_view::{MAX_ITEMS, ModelView};
pub use rank::{rank_history, rank_window};
pub use ranked_list::{RankedList, push_json_string};
pub use write::{Replaces, Written, arrivals, set_list, set_lists};
