//! Generated network conditions, deterministic by seed. Except for losses they are defined in time: at ten times the heartbeat rate the
//! same pauses, ramps and phases occur.

use std::{borrow::Cow, f64::consts::TAU};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    Trace, drawn,
    link::{Jitter, Link, Loss, Pauses},
    path::{Clock, DAY, HOUR, MINUTE, MS, Path},
    random::Random,
};
use crate::Nanos;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    Lan,
    Wan,
    Loss5,
    Loss50,
    Bursts5,
    Bursts20,
    Pauses,
    Shift,
    Drift,
    Pareto,
    Congestion,
    Stalls,
    Mixture,
    /// Parameters drawn from this seed; its kind is `seed % 12`.
    Drawn(u64),
}

impl Condition {
    pub const ALL: [Self; 13] = [
        Self::Lan,
        Self::Wan,
        Self::Drift,
        Self::Loss5,
        Self::Loss50,
        Self::Bursts5,
        Self::Bursts20,
        Self::Pauses,
        Self::Shift,
        Self::Pareto,
        Self::Congestion,
        Self::Stalls,
        Self::Mixture,
    ];

    pub fn name(self) -> Cow<'static, str> {
        let name = match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
            Self::Loss5 => "loss-5",
            Self::Loss50 => "loss-50",
            Self::Bursts5 => "bursts-5",
            Self::Bursts20 => "bursts-20",
            Self::Pauses => "pauses",
            Self::Shift => "shift",
            Self::Drift => "drift",
            Self::Pareto => "pareto",
            Self::Congestion => "congestion",
            Self::Stalls => "stalls",
            Self::Mixture => "mixture",
            Self::Drawn(seed) => return format!("drawn-{}-{:04x}", drawn::kind(seed), seed & 0xFFFF).into(),
        };
        name.into()
    }

    pub fn description(self) -> &'static str {
        match self {
            Self::Lan => "0.3 ms, nothing is lost",
            Self::Wan => "40 ms ± 20 ms over the day, log-normal jitter, 0.05 % lost",
            Self::Loss5 => "5 % lost independently; 10 ms, log-normal jitter",
            Self::Loss50 => "50 % lost independently; 10 ms, log-normal jitter",
            Self::Bursts5 => "Gilbert-Elliott: 5 % lost, in bursts of 4 beats on average",
            Self::Bursts20 => "Gilbert-Elliott: 20 % lost, in bursts of 5 beats on average",
            Self::Pauses => "the sender pauses for 0.1 to 2 s, 5 times within seconds, every 10 minutes",
            Self::Shift => "a LAN for 8 h, then 120 ms with 10 % lost for 8 h, then a LAN again",
            Self::Drift => "the sender's clock is 150 ± 50 ppm fast; a LAN",
            Self::Pareto => "Pareto delays: at least 5 ms, exponent 1.5",
            Self::Congestion => "every 3 h for 30 minutes: delay up to 400 ms, up to 8 % lost",
            Self::Stalls => "the observer pauses for 0.1 to 2 s every 10 minutes",
            Self::Mixture => "a WAN with pauses of sender and observer, 2 % lost in bursts, and clock drift",
            Self::Drawn(seed) => drawn::description(seed),
        }
    }

    pub fn is_drawn(self) -> bool {
        matches!(self, Self::Drawn(_))
    }

    /// Conditions under which a timeout fitted in hindsight is hard to beat.
    pub fn is_plain(self) -> bool {
        matches!(self, Self::Lan | Self::Wan | Self::Drift | Self::Loss5 | Self::Loss50)
    }

    /// A trace of `length` with a heartbeat every `interval`; deterministic by seed. The first is sent one interval after 0.
    pub fn trace(self, interval: Nanos, length: Nanos, seed: u64) -> Trace {
        let salt = match self {
            Self::Drawn(params) => params,
            _ => xxh3_64(self.name().as_bytes()),
        };
        let mut random = Random::new(seed ^ salt.wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ interval);
        self.path(length as f64 / MS, &mut random).trace(interval, length, &mut random)
    }

    fn path(self, length: f64, random: &mut Random) -> Path {
        let short = |random: &mut Random| random.log_normal(300.0, 0.6).clamp(100.0, 2_000.0);
        let clock = Clock { mean: 150e-6, swing: 50e-6 };
        let path = Path::new(move |at| self.link(at, length));
        match self {
            Self::Pauses => Path { sender: Pauses::bursts(random, length, 10.0 * MINUTE, 5.0, short), ..path },
            Self::Stalls => Path { observer: Pauses::bursts(random, length, 10.0 * MINUTE, 1.0, short), ..path },
            Self::Mixture => Path {
                sender: Pauses::bursts(random, length, 10.0 * MINUTE, 2.0, short),
                observer: Pauses::bursts(random, length, 20.0 * MINUTE, 1.0, short),
                clock,
                ..path
            },
            Self::Drift => Path { clock, ..path },
            Self::Drawn(seed) => drawn::path(seed, length, random),
            _ => path,
        }
    }

    fn link(self, at: f64, length: f64) -> Link {
        let near = Link { base: 10.0, jitter: Jitter::LogNormal { median: 2.0, sigma: 0.8 }, ..Link::LAN };
        let swing = 20.0 * (TAU * at / DAY).sin();
        match self {
            Self::Lan | Self::Drift | Self::Pauses | Self::Stalls | Self::Drawn(_) => Link::LAN,
            Self::Wan => Link { base: Link::WAN.base + swing, ..Link::WAN },
            Self::Loss5 => Link { loss: Loss::Independent(0.05), ..near },
            Self::Loss50 => Link { loss: Loss::Independent(0.5), ..near },
            Self::Bursts5 => Link { loss: Loss::Bursts { share: 0.05, length: 4.0 }, ..near },
            Self::Bursts20 => Link { loss: Loss::Bursts { share: 0.2, length: 5.0 }, ..near },
            Self::Pareto => Link { jitter: Jitter::Pareto { least: 5.0, exponent: 1.5 }, ..Link::LAN },
            Self::Shift if (length / 3.0..2.0 * length / 3.0).contains(&at) => Link {
                base: 100.0,
                jitter: Jitter::LogNormal { median: 20.0, sigma: 0.6 },
                loss: Loss::Independent(0.1),
            },
            Self::Shift => Link::LAN,
            Self::Congestion => {
                // Rises, stays and falls within half an hour: 0 to 1 and back.
                let within = (at % (3.0 * HOUR)) / (30.0 * MINUTE);
                let load = (3.0 * within).min(3.0 * (1.0 - within)).clamp(0.0, 1.0);
                let jitter = Jitter::LogNormal { median: 2.0 + 100.0 * load * load, sigma: 0.5 };
                Link { base: 10.0 + 200.0 * load, jitter, loss: Loss::Independent(0.08 * load) }
            }
            Self::Mixture => {
                Link { base: Link::WAN.base + swing, loss: Loss::Bursts { share: 0.02, length: 3.0 }, ..Link::WAN }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::SentBeat;

    const INTERVAL: Nanos = 1_000_000_000;

    fn hours(condition: Condition, hours: u64, seed: u64) -> Trace {
        condition.trace(INTERVAL, hours * 3_600 * INTERVAL, seed)
    }

    #[test]
    fn a_seed_is_a_trace() {
        for condition in Condition::ALL {
            let trace = hours(condition, 1, 7);
            assert_eq!(trace, hours(condition, 1, 7));
            assert_eq!(trace.beats.len(), 3_600);
            assert_ne!(trace, hours(condition, 1, 8), "{}", condition.name());
            assert!(trace.beats.is_sorted_by(|a, b| a.sequence < b.sequence && a.sent <= b.sent));
            assert!(trace.beats.iter().all(|beat| beat.received.is_none_or(|at| at > beat.sent)));
        }
    }

    #[test]
    fn as_much_is_lost_as_is_said() {
        for (condition, share) in [
            (Condition::Lan, 0.0),
            (Condition::Loss5, 0.05),
            (Condition::Loss50, 0.5),
            (Condition::Bursts5, 0.05),
            (Condition::Bursts20, 0.2),
            (Condition::Mixture, 0.02),
        ] {
            let loss = hours(condition, 24, 1).loss();
            assert!((loss - share).abs() <= share * 0.15, "{}: {loss}", condition.name());
        }
    }

    #[test]
    fn bursts_are_as_long_as_is_said() {
        let trace = hours(Condition::Bursts20, 24, 1);
        let lost = trace.beats.iter().filter(|beat| beat.received.is_none()).count();
        let begin = |pair: &&[SentBeat]| pair[0].received.is_some() && pair[1].received.is_none();
        let bursts = trace.beats.windows(2).filter(begin).count();
        let mean = lost as f64 / bursts as f64;
        assert!((4.5..5.5).contains(&mean), "{mean}");
    }

    #[test]
    fn who_stands_still_is_late_and_loses_nothing() {
        let sender = hours(Condition::Pauses, 6, 3);
        let late = |beat: &&SentBeat| beat.sent > beat.sequence * INTERVAL + 50_000_000;
        assert!(sender.beats.iter().filter(late).count() > 20 && sender.loss() == 0.0);
        let observer = hours(Condition::Stalls, 6, 3);
        let held = |beat: &&SentBeat| beat.received.is_some_and(|at| at > beat.sent + 50_000_000);
        assert!(observer.beats.iter().filter(held).count() > 3 && observer.loss() == 0.0);
    }
}
