//! Conditions whose parameters are drawn from a seed, so that a detector can be judged on ones that it was not developed on. Times in
//! milliseconds.

use std::f64::consts::PI;

use super::{
    link::{Jitter, Link, Loss, Pauses},
    path::{Clock, DAY, HOUR, MINUTE, Path, SECOND},
    random::Random,
};

/// Kinds in the order of `seed % KINDS.len()`.
pub(super) const KINDS: [&str; 12] = [
    "loss",
    "bursts",
    "outages",
    "sender-pauses",
    "observer-pauses",
    "rare-pauses",
    "ramps",
    "phases",
    "drift",
    "pareto",
    "onset",
    "mixture",
];

/// Shortest and longest pause and outage.
const SHORTEST: f64 = 100.0;
const LONGEST: f64 = 60.0 * SECOND;

pub(super) fn kind(seed: u64) -> &'static str {
    KINDS[(seed % KINDS.len() as u64) as usize]
}

pub(super) fn description(seed: u64) -> &'static str {
    match kind(seed) {
        "loss" => "0.01 to 50 % lost independently",
        "bursts" => "Gilbert-Elliott: 0.1 to 25 % lost, in bursts of 1.3 to 12 beats on average",
        "outages" => "all is lost for 0.1 to 60 s, in groups of 1 to 6, every 2 minutes to 6 hours",
        "sender-pauses" => "the sender pauses for 0.1 to 60 s, in groups of 1 to 6, every 2 minutes to 6 hours",
        "observer-pauses" => "the observer pauses for 0.1 to 60 s, in groups of 1 to 6, every 2 minutes to 6 hours",
        "rare-pauses" => "sender and observer pause for 0.1 to 60 s, every 6 hours to 2 days",
        "ramps" => "delay rises by 0.02 to 2 s within 10 s to an hour and falls again, with up to 20 % lost",
        "phases" => "alternates between two networks, of which one loses up to 30 % independently or in bursts",
        "drift" => "the sender's clock is up to 350 ppm fast or slow; delay swings over the day",
        "pareto" => "Pareto delays: at least 0.3 to 20 ms, exponent 1.2 to 3",
        "onset" => {
            "calm for hours, then pauses or outages of 0.1 to 60 s every 2 minutes to an hour, then perhaps calm again"
        }
        _ => "pauses of sender and observer, outages, bursts of losses and clock drift together",
    }
}

/// Its parameters depend on the seed alone; the times of its pauses and outages depend on `random` too.
pub(super) fn path(seed: u64, length: f64, random: &mut Random) -> Path {
    let mut params = Random::new(seed);
    let params = &mut params;
    let calm = calm_link(params);
    match kind(seed) {
        "loss" => {
            let loss = Loss::Independent(params.log_uniform(1e-4, 0.5));
            Path::new(move |_| Link { loss, ..calm })
        }
        "bursts" => {
            let loss = bursts(params);
            Path::new(move |_| Link { loss, ..calm })
        }
        "outages" => {
            let outages = Stops::draw(params, (2.0 * MINUTE, 6.0 * HOUR)).pauses(random, length);
            Path { outages, ..Path::new(move |_| calm) }
        }
        "sender-pauses" => {
            let sender = Stops::draw(params, (2.0 * MINUTE, 6.0 * HOUR)).pauses(random, length);
            Path { sender, skips_missed: params.chance(0.5), ..Path::new(move |_| calm) }
        }
        "observer-pauses" => {
            let observer = Stops::draw(params, (2.0 * MINUTE, 6.0 * HOUR)).pauses(random, length);
            Path { observer, ..Path::new(move |_| calm) }
        }
        "rare-pauses" => {
            let stops = Stops::draw(params, (6.0 * HOUR, 2.0 * DAY));
            let (sender, observer) = (stops.pauses(random, length), stops.pauses(random, length));
            Path { sender, observer, skips_missed: params.chance(0.5), ..Path::new(move |_| calm) }
        }
        "ramps" => {
            let (rise, stay) = (params.log_uniform(10.0 * SECOND, HOUR), params.log_uniform(MINUTE, HOUR));
            let period = (2.0 * rise + stay) * params.log_uniform(1.5, 20.0);
            let (delay, jitter) = (params.log_uniform(20.0, 2.0 * SECOND), params.log_uniform(1.0, 200.0));
            let loss = params.chance(0.5).then(|| params.log_uniform(0.001, 0.2)).unwrap_or_default();
            Path::new(move |at| {
                // 0 to 1 and back.
                let within = at % period - (period - 2.0 * rise - stay);
                let load = (within / rise).min((2.0 * rise + stay - within) / rise).clamp(0.0, 1.0);
                let median = calm.jitter.middle() + jitter * load * load;
                Link {
                    base: calm.base + delay * load,
                    jitter: Jitter::LogNormal { median, sigma: 0.5 },
                    loss: Loss::Independent(loss * load),
                }
            })
        }
        "phases" => {
            let period = params.log_uniform(HOUR, 12.0 * HOUR);
            let share = params.uniform(0.1, 0.6);
            let loss =
                if params.chance(0.5) { bursts(params) } else { Loss::Independent(params.log_uniform(0.01, 0.3)) };
            let other = Link { loss, ..calm_link(params) };
            let from = params.uniform(0.0, 1.0 - share);
            Path::new(move |at| {
                let within = at % period / period;
                if (from..from + share).contains(&within) { other } else { calm }
            })
        }
        "drift" => {
            let mean = params.uniform(-300e-6, 300e-6);
            let swing = params.uniform(0.0, 50e-6);
            let day = params.uniform(0.0, 0.5);
            let swung = move |at: f64| Link { base: calm.base * (1.0 + day * (2.0 * PI * at / DAY).sin()), ..calm };
            Path { clock: Clock { mean, swing }, ..Path::new(swung) }
        }
        "pareto" => {
            let jitter = Jitter::Pareto { least: params.log_uniform(0.3, 20.0), exponent: params.uniform(1.2, 3.0) };
            Path::new(move |_| Link { jitter, ..calm })
        }
        "onset" => {
            let from = length * params.uniform(0.05, 0.7);
            let until = from + (length - from) * params.uniform(0.1, 1.0);
            let stops = Stops::draw(params, (2.0 * MINUTE, HOUR)).pauses(random, until - from).later_by(from);
            let path = Path { skips_missed: params.chance(0.5), ..Path::new(move |_| calm) };
            match params.uniform(0.0, 3.0) {
                which if which < 1.0 => Path { sender: stops, ..path },
                which if which < 2.0 => Path { observer: stops, ..path },
                _ => Path { outages: stops, ..path },
            }
        }
        _ => {
            let loss = Loss::Bursts { share: params.log_uniform(0.001, 0.05), length: params.log_uniform(1.2, 6.0) };
            let stops = |params: &mut Random, random: &mut Random| {
                Stops::draw(params, (5.0 * MINUTE, 12.0 * HOUR)).pauses(random, length)
            };
            Path {
                sender: stops(params, random),
                observer: stops(params, random),
                outages: stops(params, random),
                clock: Clock { mean: params.uniform(-200e-6, 200e-6), swing: 50e-6 },
                ..Path::new(move |_| Link { loss, ..calm })
            }
        }
    }
}

/// A network without bursts or pauses: a LAN, a WAN or something in between.
fn calm_link(params: &mut Random) -> Link {
    let base = params.log_uniform(0.1, 150.0);
    let median = params.log_uniform(0.1, 2.0) * base.sqrt().max(1.0);
    let loss = if params.chance(0.5) { 0.0 } else { params.log_uniform(1e-6, 1e-3) };
    Link { base, jitter: Jitter::LogNormal { median, sigma: params.uniform(0.3, 1.0) }, loss: Loss::Independent(loss) }
}

fn bursts(params: &mut Random) -> Loss {
    Loss::Bursts { share: params.log_uniform(0.001, 0.25), length: params.log_uniform(1.3, 12.0) }
}

/// Pauses or outages, in groups.
struct Stops {
    apart: f64,
    number: f64,
    duration: Duration,
}

#[derive(Clone, Copy)]
enum Duration {
    LogNormal { median: f64, sigma: f64 },
    LogUniform { from: f64, to: f64 },
}

impl Duration {
    fn draw(params: &mut Random) -> Self {
        let middle = params.log_uniform(0.15 * SECOND, 10.0 * SECOND);
        if params.chance(0.7) {
            Self::LogNormal { median: middle, sigma: params.uniform(0.2, 1.2) }
        } else {
            let ratio = params.log_uniform(1.1, 20.0);
            Self::LogUniform { from: middle / ratio, to: middle * ratio }
        }
    }

    fn next(self, random: &mut Random) -> f64 {
        let duration = match self {
            Self::LogNormal { median, sigma } => random.log_normal(median, sigma),
            Self::LogUniform { from, to } => random.log_uniform(from, to),
        };
        duration.clamp(SHORTEST, LONGEST)
    }
}

impl Stops {
    /// `apart`: range of the mean distance of groups.
    fn draw(params: &mut Random, apart: (f64, f64)) -> Self {
        Self {
            apart: params.log_uniform(apart.0, apart.1),
            number: params.log_uniform(1.0, 6.0),
            duration: Duration::draw(params),
        }
    }

    fn pauses(&self, random: &mut Random, length: f64) -> Pauses {
        Pauses::bursts(random, length, self.apart, self.number, |random| self.duration.next(random))
    }
}
