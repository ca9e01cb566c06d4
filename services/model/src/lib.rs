//! Recommendation without I/O: behaviour read from files or generated, the item-neighbour model built from it, encoded
//! for the store, ranked with, and its quality measured.
//!
//! ```text
//! parse | generate → dataset → neighbours (build) → encode → [store] → encode (decode) → rank
//!                        └───→ quality (leave-last-out)
//! ```

pub mod dataset;
mod encode;
pub mod generate;
pub mod neighbours;
pub mod parse;
pub mod quality;
pub mod rank;
mod records;
mod time;

pub use dataset::{Dataset, DatasetBuilder, Interaction};
pub use encode::DecodeError;
pub use generate::{GenerateError, GenerateParams, generate};
pub use neighbours::{NeighbourModel, Params, Scored};
pub use parse::{BadRows, ParseError, ParseReport, parse, write_csv};
pub use quality::{QualityError, QualityReport, leave_last_out};
pub use rank::{HistoryItem, Scratch};
pub use records::RecordError;
