//! The proxy in front of a real server (`server`), and of a scripted one for misbehaviour.
#![expect(clippy::unwrap_used, clippy::panic, reason = "clippy spares test functions only, not their helpers")]

mod admin;
mod commands;
mod directions;
mod faults;
mod lifecycle;
mod links;
mod malformed;
mod support;
mod writes;
