//! Files of the model's 16 segments: their bytes, their manifests, their place on the disk, and what to do about copies that are damaged,
//! stale or gone. A **segment** is one sixteenth of the model, a **block** is 4096 bytes of a segment's file.
//!
//! Depends on `model` (what a file contains), `stores` (the logs) and `contract` (segments, version vectors). Only `store_log.rs`,
//! `directory.rs` and `verified.rs` do I/O. Begin reading with `manifest.rs`; `plan.rs` decides about repairs.
//!
//! ```text
//! logs of the store → model::Fold → PublishedSegment → file → manifest → directory → verified (each block, before it is returned)
//! copies' reports → plan → transfers and folds
//! ```

mod digest;
mod directory;
mod file;
mod input;
mod manifest;
mod plan;
mod report;
mod store_log;
mod verified;

pub use digest::Digest;
pub use directory::{Found, SegmentDirectory, WriteError};
pub use file::{FileError, decode, encode};
pub use manifest::{BLOCK_BYTES, MAX_BLOCKS, MAX_FILE_BYTES, Manifest, ManifestError, TooLong, Version};
pub use plan::{BLOCKS_PER_TRANSFER, MAX_REBUILDS, MAX_TRANSFERS, Plan, Rebuild, SegmentCopies, Transfer, plan};
pub use report::{BadReport, CopyReport, Reports, WorkerId, WorkerReport};
pub use store_log::{LogError, advance, fold_log};
pub use verified::{BlockError, MAX_RANGE_BYTES, VerifiedFile};
