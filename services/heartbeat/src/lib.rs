//! Heartbeats as a library: pure cores that take `now` and return transitions, and thin transports around them.
//! Nothing in the cores reads a clock; an instant is a number of nanoseconds on the observer's own monotonic clock.

pub mod detector;

/// An instant on the observer's monotonic clock, or a span of it, in nanoseconds.
pub type Nanos = u64;
