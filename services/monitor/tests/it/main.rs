//! Monitors as they run, in this process, with a real etcd, real sockets and workers that do what they are told.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod registry;
mod support;
mod watching;
