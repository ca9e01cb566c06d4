//! Heartbeats as a library: pure cores that take `now` and return transitions, and thin transports around them.
//! Nothing in the cores reads a clock; an instant is a number of nanoseconds on the observer's own monotonic clock.

pub mod assign;
pub mod auth;
#[cfg(feature = "bench")]
pub mod bench;
pub mod clock;
pub mod codec;
pub mod decide;
pub mod detector;
pub mod frame;
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

/// An instant on the observer's monotonic clock, or a span of it, in nanoseconds.
pub type Nanos = u64;
