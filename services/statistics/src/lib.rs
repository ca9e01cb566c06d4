//! The statistics of all figures: median, percentile, the number of samples that a percentile needs, confidence intervals, seeds. Pure; no
//! I/O.
//!
//! Depends on no crate. Begin reading with `order.rs`.

pub mod bootstrap;
pub mod order;
pub mod seed;

pub use bootstrap::{Interval, MIN_VALUES, mean, mean_interval};
pub use order::{has_percentile, median, percentile};
