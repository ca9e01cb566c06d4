//! The transports over real sockets, and every decoder under mutated bytes.
#![expect(clippy::unwrap_used, reason = "clippy spares test functions only, not their helpers")]

mod fuzz;
mod http;
mod senders;
mod support;
mod tcp;
mod udp;
