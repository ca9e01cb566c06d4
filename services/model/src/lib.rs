//! The item-neighbour model: reads or generates behaviour data, builds the model, encodes it for the store, ranks with it, and measures its
//! quality. No I/O except the reader and writer that a caller passes in.
//!
//! Depends on `contract` (ids, event kinds). Begin reading with `neighbours.rs`, the model; `fold.rs` builds
//! it, `rank.rs` uses it for a request.
//!
//! ```text
//! parse | generate → dataset → fold (build) → neighbours → encode → [store] → encode (decode) → rank
//!                        └───→ quality (leave-last-out)
//! events of a user → features (fold) → [store] → rank
//! events of all users, by log → fold → 16 published segments → neighbours → rank
//! ```

mod dataset;
mod encode;
mod features;
mod fold;
mod generate;
mod neighbours;
mod parse;
mod quality;
mod rank;
mod records;

pub use dataset::{Dataset, DatasetBuilder, Interaction};
pub use encode::DecodeError;
pub use features::{BadFeatures, Features};
pub use fold::{Assembly, DecayedCount, Fold, ModelItems, Overlap, PublishedRow, PublishedSegment};
pub use generate::{GenerateError, GenerateParams, generate};
pub use neighbours::{NEIGHBOURS_KEPT, NeighbourModel, Params, Scored};
pub use parse::{BadRows, ParseError, ParseReport, parse, write_csv};
pub use quality::{JudgedUser, QualityError, QualityReport, leave_last_out, leave_last_out_each};
pub use rank::{HistoryItem, Scratch};
pub use records::RecordError;
