//! Law and faults in force on one link. Pure.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::sync::watch;

use super::WriteError;
use crate::{direction::Direction, law::Law, loss::Loss};

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Conditions {
    pub(crate) law: Law,
    pub(crate) to_server: DirectionConditions,
    pub(crate) to_client: DirectionConditions,
    pub(crate) refuse: bool,
    pub(crate) reset_new: bool,
    pub(crate) drop_syn: bool,
    pub(crate) fail_writes: Option<WriteFailures>,
    pub(crate) stall_writes: bool,
    pub(super) resets: u64,
    /// Connections end when they have no command in flight.
    pub(crate) draining: bool,
    /// All connections end immediately.
    pub(crate) abort: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct DirectionConditions {
    /// (ms, jitter_ms)
    pub(super) latency: Option<(f64, f64)>,
    pub(crate) loss: Option<Loss>,
    pub(crate) stall: bool,
    pub(crate) blackhole: bool,
    pub(super) blackholes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct WriteFailures {
    /// Share of the writes, as a loss.
    pub(crate) share: Loss,
    pub(crate) error: WriteError,
}

/// Counts of resets and black holes when a connection was accepted. They affect each connection open at that moment; they are counted, so
/// that no connection misses a short one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventsAtAccept {
    resets: u64,
    blackholes: [u64; 2],
}

impl Conditions {
    pub(crate) fn at_accept(&self) -> EventsAtAccept {
        EventsAtAccept { resets: self.resets, blackholes: [self.to_server.blackholes, self.to_client.blackholes] }
    }

    pub(crate) fn toward(&self, direction: Direction) -> &DirectionConditions {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }

    /// Whether the connection must be closed with RST.
    pub(crate) fn resets(&self, then: EventsAtAccept) -> bool {
        self.resets != then.resets
    }

    /// Whether what the connection sends in this direction is lost, now or for ever.
    pub(crate) fn loses(&self, direction: Direction, then: EventsAtAccept) -> bool {
        let now = self.toward(direction);
        now.blackhole || now.blackholes != then.blackholes[direction as usize]
    }

    /// Whether the connection is in a black hole in both directions.
    pub(crate) fn is_in_blackhole(&self, then: EventsAtAccept) -> bool {
        self.loses(Direction::ToServer, then) && self.loses(Direction::ToClient, then)
    }

    /// Delay of a command and its response together.
    pub(crate) fn command_latency(&self, rng: &mut impl Rng) -> Duration {
        if self.to_server.latency.is_some() { self.to_server.latency(rng) } else { self.to_client.latency(rng) }
    }
}

impl DirectionConditions {
    pub(crate) fn latency(&self, rng: &mut impl Rng) -> Duration {
        self.latency.map_or(Duration::ZERO, |(ms, jitter_ms)| {
            let ms = ms + jitter_ms * rng.random_range(-1.0..=1.0);
            Duration::from_secs_f64(ms.max(0.0) / 1000.0)
        })
    }
}

/// Waits until the stall in this direction ends; returns immediately without one.
pub(crate) async fn unstalled(conditions: &watch::Receiver<Conditions>, direction: Direction) {
    if conditions.borrow().toward(direction).stall {
        // The sender outlives all connections: an error means that the proxy stops, which the caller's `select` notices too.
        conditions.clone().wait_for(|now| !now.toward(direction).stall).await.ok();
    }
}
