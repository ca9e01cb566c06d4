//! Real monitors in this process, with a real etcd, real sockets and scripted workers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod holders;
mod registry;
mod reports;
mod segments;
mod support;
mod unsealed;
mod watching;
