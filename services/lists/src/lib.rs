//! Lists of recommendations: the model that ranks them, their encoding, and their way into Redis. The API makes a list when a request
//! misses, the worker after events of the user.
//!
//! Depends on `model` (ranking, features), `segments` (files of the model), `stores` (catalogue, Redis) and `contract` (ids, keys). Begin
//! reading with `rank.rs`; `ranked_list.rs` is the encoding, `write.rs` the commands for Redis. `segment_reader.rs` fetches the model from
//! the workers and switches its version; `store_log.rs` folds it from the logs.

mod current_model;
mod model_view;
mod rank;
mod ranked_list;
mod segment_reader;
mod store_log;
mod write;

pub use current_model::Model;
pub use model_view::{MAX_ITEMS, ModelView};
pub use rank::{rank_history, rank_window};
pub use ranked_list::{RankedList, push_json_string};
pub use segment_reader::{ModelMetrics, SegmentReader};
pub use store_log::{LogError, advance, fold_log};
pub use write::{Replaces, Written, arrivals, set_list, set_lists};
