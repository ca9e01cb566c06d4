//! Failure detection by heartbeats: detectors, authenticated transports, votes of several monitors, and partition assignment.
//!
//! Depends on no other crate of the project. The features `http`, `tcp` and `udp` (transports), `zstd` (a codec) and `bench` are on
//! by default.
//!
//! Begin with [`detector`] (when is silence too long?) or with a heartbeat's path: 1. [`transport`] receives it, 2. a caller passes
//! it on (in this repository `monitor/src/control_loop.rs`), 3. [`observer`] decides, with [`node_state`], [`vote`], [`decide`] and
//! [`assign`], 4. the caller acts on its effects.
//!
//! All decisions are pure: they take `now` and return what to do. Nothing in them reads a clock.
//!
//! ```
//! use heartbeat::detector::{AnyDetector, Detector};
//!
//! const SECOND: heartbeat::Nanos = 1_000_000_000;
//! let mut detector = AnyDetector::named("adaptive", SECOND, &[])?;
//! for beat in 1..=700 {
//!     detector.heard(beat * SECOND, beat);
//! }
//! let last = 700 * SECOND;
//! assert!(!detector.suspects(last + SECOND));
//! assert!(detector.suspects(last + 30 * SECOND));
//! # Ok::<(), heartbeat::detector::BadParam>(())
//! ```

pub mod assign;
pub mod auth;
#[cfg(feature = "bench")]
pub mod bench;
pub mod clock;
pub mod codec;
pub mod decide;
pub mod detector;
pub mod frame;
pub mod history;
pub mod id;
pub mod message;
pub mod node_state;
pub mod observer;
pub mod ownership;
pub mod quality;
pub mod reconnect;
pub mod registry;
pub mod sender;
pub mod table;
pub mod trace;
pub mod transport;
pub mod vote;

/// A time on the observer's monotonic clock, or a duration, in nanoseconds.
pub type Nanos = u64;

/// Runs the examples of the README as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
