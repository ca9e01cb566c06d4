//! Loss by a seeded random sequence. Pure.
//!
//! Only datagrams are really lost. A proxy between two TCP connections cannot lose a segment of either, so for TCP (and MySQL's commands)
//! loss is modelled: the delay of the segment's retransmission is added. The model is that of a single segment, as heartbeats and short
//! commands are: Linux' minimum timeout, doubled each time, without fast retransmission (which needs later segments).

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::direction::Direction;

/// Linux' TCP_RTO_MIN.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// Timeout of the first SYN (RFC 6298).
const RETRANSMIT_SYN: Duration = Duration::from_secs(1);
/// Then the segment passes: even a loss of 100 % ends, after 204 s.
const MOST_IN_A_ROW: u32 = 10;

/// Loss in force, for each direction independently.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Loss {
    /// 0..=100.
    pub(crate) pct: f64,
    pub(crate) seed: u64,
}

/// Random sequence of one direction of one connection or flow. The same seed, flow and order of datagrams lose the same datagrams.
#[derive(Debug, Clone)]
pub(crate) struct LossSampler {
    flow: u64,
    direction: Direction,
    /// The loss that `random` was seeded for.
    loss: Option<Loss>,
    random: SmallRng,
}

impl LossSampler {
    /// `flow`: number of the connection or flow at its listener.
    pub(crate) fn new(flow: u64, direction: Direction) -> Self {
        Self { flow, direction, loss: None, random: SmallRng::seed_from_u64(0) }
    }

    /// Whether the next datagram is lost.
    pub(crate) fn lost(&mut self, loss: Option<Loss>) -> bool {
        if self.loss != loss {
            self.loss = loss;
            let seed = loss.map_or(0, |loss| loss.seed);
            let stream = (self.flow << 1) | self.direction as u64;
            self.random = SmallRng::seed_from_u64(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        loss.is_some_and(|loss| self.random.random_range(0.0..100.0) < loss.pct)
    }

    /// Delay of a segment, and how many transmissions were lost.
    pub(crate) fn retransmission(&mut self, loss: Option<Loss>) -> (Duration, u32) {
        self.until_it_passes(loss, RETRANSMIT)
    }

    /// As `retransmission`, for the first segment of a connection.
    pub(crate) fn retransmission_of_syn(&mut self, loss: Option<Loss>) -> (Duration, u32) {
        self.until_it_passes(loss, RETRANSMIT_SYN)
    }

    fn until_it_passes(&mut self, loss: Option<Loss>, first: Duration) -> (Duration, u32) {
        let (mut late, mut lost) = (Duration::ZERO, 0);
        while lost < MOST_IN_A_ROW && self.lost(loss) {
            late += first * (1 << lost);
            lost += 1;
        }
        (late, lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Option<Loss> = Some(Loss { pct: 50.0, seed: 7 });

    #[test]
    fn the_seed_decides_and_directions_and_flows_differ() {
        let draws = |flow, direction, loss| {
            let mut sampler = LossSampler::new(flow, direction);
            (0..64).map(|_| sampler.lost(loss)).collect::<Vec<_>>()
        };
        let first = draws(1, Direction::ToServer, HALF);
        assert_eq!(first, draws(1, Direction::ToServer, HALF));
        let others = [
            draws(1, Direction::ToClient, HALF),
            draws(2, Direction::ToServer, HALF),
            draws(1, Direction::ToServer, Some(Loss { pct: 50.0, seed: 8 })),
        ];
        assert!(others.iter().all(|other| *other != first));
        // A loss that is set again starts its sequence again.
        let mut sampler = LossSampler::new(1, Direction::ToServer);
        assert_eq!((0..64).map(|_| sampler.lost(HALF)).collect::<Vec<_>>(), first);
        assert!(!sampler.lost(None));
        assert_eq!((0..64).map(|_| sampler.lost(HALF)).collect::<Vec<_>>(), first);
    }

    #[test]
    fn as_many_as_asked_for_are_lost() {
        let mut sampler = LossSampler::new(0, Direction::ToServer);
        for (pct, least, most) in [(0.0, 0, 0), (20.0, 1_880, 2_120), (100.0, 10_000, 10_000)] {
            let lost = (0..10_000).filter(|_| sampler.lost(Some(Loss { pct, seed: 1 }))).count();
            assert!((least..=most).contains(&lost), "{pct} %: {lost} of 10000");
        }
    }

    #[test]
    fn a_segment_is_late_by_doubled_timeouts_and_arrives() {
        let mut sampler = LossSampler::new(0, Direction::ToServer);
        for _ in 0..1_000 {
            let (late, lost) = sampler.retransmission(HALF);
            assert_eq!(late, RETRANSMIT * ((1 << lost) - 1));
        }
        assert_eq!(sampler.retransmission(None), (Duration::ZERO, 0));
        let all = Some(Loss { pct: 100.0, seed: 1 });
        assert_eq!(sampler.retransmission(all), (Duration::from_millis(204_600), MOST_IN_A_ROW));
        assert_eq!(sampler.retransmission_of_syn(all).0, Duration::from_secs(1023));
    }
}
