//! Which nodes a monitor would suspect, though none of them failed. Pure.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use heartbeat::Nanos;
use serde::Serialize;
use statistics::percentile;

use super::Over;

/// The article's limits: silence until a node is suspected, and until it is offline.
const SUSPECTED: Nanos = 3_000_000_000;
const OFFLINE: Nanos = 5_000_000_000;

/// A heartbeat at the monitor, by one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub over: Over,
    pub node: u64,
    pub sent: Nanos,
    pub received: Nanos,
}

/// One transport under one condition.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Heartbeats in the schedule.
    pub due: u64,
    pub arrived: u64,
    /// From the first time it was sent.
    pub delay_p50_ms: f64,
    pub delay_p99_ms: f64,
    pub delay_max_ms: f64,
    /// Longest time without a beat of any node.
    pub silence_max_s: f64,
    /// Nodes that were silent for 3 s; none had failed.
    pub suspected: u64,
    /// For 5 s.
    pub offline: u64,
    /// UDP: datagrams sent, repetitions included.
    pub datagrams: Option<u64>,
    /// TCP: connections.
    pub given_up: Option<u64>,
}

/// Of the heartbeats sent within `during`, and of the silences that overlap it.
pub fn figures<'a>(
    arrivals: impl Iterator<Item = &'a Arrival>,
    nodes: u64,
    during: Range<Nanos>,
    interval: Duration,
) -> Figures {
    let mut delays = Vec::new();
    let mut by_node: BTreeMap<u64, Vec<Nanos>> = (0..nodes).map(|node| (node, Vec::new())).collect();
    for arrival in arrivals {
        if during.contains(&arrival.sent) {
            delays.push(arrival.received.saturating_sub(arrival.sent) as f64 / 1e6);
        }
        by_node.entry(arrival.node).or_default().push(arrival.received);
    }
    // NaN without arrivals.
    let delay_ms = |percent| percentile(&delays, percent).unwrap_or(f64::NAN);
    let silences: Vec<Nanos> = by_node.values_mut().map(|received| longest_silence(received, &during)).collect();
    let longer_than = |limit| silences.iter().filter(|&&silence| silence > limit).count() as u64;
    let length = Duration::from_nanos(during.end.saturating_sub(during.start));
    Figures {
        due: nodes * (length.as_secs_f64() / interval.as_secs_f64()).round() as u64,
        arrived: delays.len() as u64,
        delay_p50_ms: delay_ms(50.0),
        delay_p99_ms: delay_ms(99.0),
        delay_max_ms: delay_ms(100.0),
        silence_max_s: silences.iter().max().map_or(0.0, |&longest| longest as f64 / 1e9),
        suspected: longer_than(SUSPECTED),
        offline: longer_than(OFFLINE),
        datagrams: None,
        given_up: None,
    }
}

/// Between two arrivals of which the second is not before `during` and the first not after it.
fn longest_silence(received: &mut [Nanos], during: &Range<Nanos>) -> Nanos {
    received.sort_unstable();
    let before = received.iter().copied().rfind(|&at| at < during.start).unwrap_or(during.start);
    let within = received.iter().copied().filter(|at| during.contains(at));
    let after = received.iter().copied().find(|&at| at >= during.end).unwrap_or(during.end);
    let all: Vec<Nanos> = std::iter::once(before).chain(within).chain([after]).collect();
    all.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn silences_and_delays_of_nodes_that_live() {
        let arrival = |node, sent_ms, late_ms| Arrival {
            over: Over::Tcp,
            node,
            sent: sent_ms * MS,
            received: (sent_ms + late_ms) * MS,
        };
        // Node 0 misses nothing, node 1 is silent from 1 s to 5 s, node 2 is never heard.
        let mut all: Vec<Arrival> = (0..12).map(|second| arrival(0, second * 1000, 10)).collect();
        all.extend([0, 1000, 5000, 6000, 7000, 8000, 9000, 10_000].map(|sent| arrival(1, sent, 20)));
        let found = figures(all.iter(), 3, 1000 * MS..9000 * MS, Duration::from_secs(1));
        assert_eq!((found.due, found.arrived), (24, 8 + 5));
        assert_eq!((found.delay_p50_ms, found.delay_max_ms), (10.0, 20.0));
        assert_eq!((found.suspected, found.offline, found.silence_max_s), (2, 1, 8.0));
        let nothing = figures(std::iter::empty(), 1, 0..MS, Duration::from_secs(1));
        assert!(nothing.delay_p99_ms.is_nan() && nothing.arrived == 0);
    }
}
