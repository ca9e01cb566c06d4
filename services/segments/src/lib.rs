//! Files of the model's 16 segments: their bytes, their manifests, their place on the disk, and what to do about copies that are damaged,
//! stale or gone. A **segment** is one sixteenth of the model, a **block** is 4096 bytes of a segment's file.
//!
//! Depends on `model` (what a file contains) and `contract` (segments, version vectors). Only `directory.rs`,
//! `install.rs`, `incoming.rs` and `verified.rs` do I/O. Begin reading with `manifest.rs`; `plan.rs` decides about repairs.
//!
//! ```text
//! model::Fold → PublishedSegment → file → manifest → directory → verified (each block, before it is returned)
//! copies' reports → plan → transfers → incoming → directory; folds; drops
//! ```

mod digest;
mod directory;
#[cfg(test)]
mod examples;
mod file;
mod health;
mod incoming;
mod input;
mod install;
mod manifest;
mod plan;
mod report;
pub mod rpc;
#[cfg(test)]
mod simulation;
mod verified;

pub use digest::Digest;
pub use directory::{Found, SegmentDirectory};
pub use file::{FileError, decode, encode};
pub use health::Health;
pub use incoming::Incoming;
pub use install::WriteError;
pub use manifest::{
    BLOCK_BYTES, MAX_BLOCKS, MAX_FILE_BYTES, MAX_MANIFEST_BYTES, Manifest, ManifestError, TooLong, Version,
};
pub use plan::{
    BLOCKS_PER_TRANSFER, FailedPairs, MAX_REBUILDS, MAX_TRANSFERS, Plan, Rebuild, SegmentCopies, Transfer, plan,
};
pub use report::{BadReport, CopyReport, CopyState, Reports, WorkerId, WorkerReport};
pub use verified::{BlockError, MAX_RANGE_BYTES, VerifiedFile};
