//! All detectors by name, with their parameters. Durations are in heartbeat intervals, so that a setting means the same at every rate.

use thiserror::Error;

use super::{
    Adaptive, Backoff, Bertier, Chen, Chitchat, Consecutive, Detector, Ewma, Fixed, GapDistribution, Phi, to_nanos,
};
use crate::Nanos;

/// Any of the detectors.
#[derive(Debug, Clone)]
pub enum AnyDetector {
    Fixed(Fixed),
    Backoff(Backoff),
    Consecutive(Consecutive),
    Ewma(Ewma),
    Chen(Chen),
    Bertier(Bertier),
    Phi(Phi),
    Chitchat(Chitchat),
    Adaptive(Box<Adaptive>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Param {
    pub name: &'static str,
    pub default: f64,
    pub least: f64,
    pub most: f64,
    /// Meaning, with unit.
    pub meaning: &'static str,
}

/// A detector's name, description and parameters.
#[derive(Debug, Clone, Copy)]
pub struct DetectorKind {
    pub name: &'static str,
    pub description: &'static str,
    pub params: &'static [Param],
    /// Values in the order of `params`.
    make: fn(Nanos, &[f64]) -> AnyDetector,
}

#[derive(Debug, Clone, PartialEq, Error)]
pub enum BadParam {
    #[error("unknown detector '{0}'; the detectors are {list}", list = names())]
    NoSuchDetector(String),
    #[error("'{0}' has no parameter '{1}'; its parameters are {list}", list = params(.0))]
    NoSuchParam(&'static str, String),
    #[error("{name}={value} is out of range: {least} to {most}, {meaning}")]
    OutOfRange { name: &'static str, value: f64, least: f64, most: f64, meaning: &'static str },
}

const fn param(name: &'static str, default: f64, least: f64, most: f64, meaning: &'static str) -> Param {
    Param { name, default, least, most, meaning }
}

/// Maximum duration of a parameter, in intervals.
const LONGEST: f64 = 1e5;

pub const KINDS: [DetectorKind; 10] = [
    DetectorKind {
        name: "fixed",
        description: "a fixed timeout, found by a scan",
        params: &[
            param("suspect", 3.0, 0.0, LONGEST, "intervals of silence until suspected"),
            param("scan", 2.0, 0.0, LONGEST, "intervals between scans; 0: immediately"),
        ],
        make: |interval, p| AnyDetector::Fixed(Fixed::new(to_nanos(interval, p[0]), to_nanos(interval, p[1]))),
    },
    DetectorKind {
        name: "backoff",
        description: "probes with exponential back-off after a missed beat",
        params: &[
            param("base", 0.5, 0.0, 1e3, "timeout of the first probe in intervals"),
            param("probes", 3.0, 0.0, 16.0, "unanswered probes until suspected"),
        ],
        make: |interval, p| AnyDetector::Backoff(Backoff::new(interval, to_nanos(interval, p[0]), p[1] as u32)),
    },
    DetectorKind {
        name: "consecutive",
        description: "the first heartbeat that fails to arrive",
        params: &[param("patience", 0.1, 0.0, LONGEST, "intervals that a beat may be late")],
        make: |interval, p| AnyDetector::Consecutive(Consecutive::new(interval, p[0])),
    },
    DetectorKind {
        name: "ewma",
        description: "the expected arrival + k × an EWMA of the deviation",
        params: &[param("k", 3.0, 0.0, 1e6, "factor on the mean deviation")],
        make: |interval, p| AnyDetector::Ewma(Ewma::new(interval, p[0])),
    },
    DetectorKind {
        name: "nfd-e",
        description: "Chen et al.: the estimated next arrival + a constant",
        params: &[
            param("alpha", 1.0, 0.0, LONGEST, "intervals after the estimated arrival"),
            param("window", 1000.0, 1.0, 1000.0, "arrivals in the estimate"),
        ],
        make: |interval, p| AnyDetector::Chen(Chen::new(interval, to_nanos(interval, p[0]), p[1] as usize)),
    },
    DetectorKind {
        name: "bertier",
        description: "Bertier et al.: the estimated next arrival + Jacobson's margin",
        params: &[param("phi", 4.0, 0.0, 1e6, "factor on the mean deviation of the errors")],
        make: |interval, p| AnyDetector::Bertier(Bertier::new(interval, p[0])),
    },
    DetectorKind {
        name: "phi-normal",
        description: "phi accrual, normal gaps (Hayashibara et al., Akka)",
        params: &[
            param("threshold", 8.0, 0.0, 1e6, "phi from which a node is suspected"),
            param("pause", 0.0, 0.0, LONGEST, "intervals added to the mean (Akka: 3)"),
        ],
        make: |interval, p| AnyDetector::Phi(Phi::new(interval, GapDistribution::Normal { pause: p[1] }, p[0])),
    },
    DetectorKind {
        name: "phi-exponential",
        description: "phi accrual, exponential gaps (Cassandra)",
        params: &[param("threshold", 8.0, 0.0, 1e6, "phi from which a node is suspected")],
        make: |interval, p| AnyDetector::Phi(Phi::new(interval, GapDistribution::Exponential, p[0])),
    },
    DetectorKind {
        name: "chitchat",
        description: "a multiple of the mean gap, which starts with a prior",
        params: &[param("threshold", 8.0, 0.0, 1e6, "factor on the mean gap")],
        make: |interval, p| AnyDetector::Chitchat(Chitchat::new(interval, p[0])),
    },
    DetectorKind {
        name: "adaptive",
        description: "the longest silence that the link will show once in `days`, from its losses and its late heartbeats",
        params: &[
            param("days", 2.5, 0.01, 1e4, "days between mistakes, as a goal"),
            param(
                "careful",
                30.0,
                1.0,
                LONGEST,
                "intervals of silence until suspected at the start and after a mistake",
            ),
        ],
        make: |interval, p| AnyDetector::Adaptive(Box::new(Adaptive::new(interval, p[0], p[1]))),
    },
];

impl AnyDetector {
    /// The detector with this name, for heartbeats sent every `interval`. Missing parameters have their defaults.
    ///
    /// # Errors
    /// Unknown detector or parameter, or a value out of range.
    pub fn named(name: &str, interval: Nanos, params: &[(String, f64)]) -> Result<Self, BadParam> {
        let kind = DetectorKind::named(name)?;
        let mut values = [0.0; 2];
        for (value, param) in values.iter_mut().zip(kind.params) {
            *value = param.default;
        }
        for (name, given) in params {
            let at = kind.params.iter().position(|param| param.name == name);
            let at = at.ok_or_else(|| BadParam::NoSuchParam(kind.name, name.clone()))?;
            let Param { name, least, most, meaning, .. } = kind.params[at];
            // NaN is out of range too.
            if !(least..=most).contains(given) {
                return Err(BadParam::OutOfRange { name, value: *given, least, most, meaning });
            }
            values[at] = *given;
        }
        Ok((kind.make)(interval, &values[..kind.params.len()]))
    }
}

impl DetectorKind {
    /// # Errors
    /// There is no detector with this name.
    pub fn named(name: &str) -> Result<&'static Self, BadParam> {
        KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| BadParam::NoSuchDetector(name.to_owned()))
    }

    /// The detector with default parameters.
    pub fn make(&self, interval: Nanos) -> AnyDetector {
        let defaults: Vec<f64> = self.params.iter().map(|param| param.default).collect();
        (self.make)(interval, &defaults)
    }
}

fn names() -> String {
    KINDS.map(|kind| kind.name).join(", ")
}

fn params(kind: &str) -> String {
    let kind = KINDS.iter().find(|known| known.name == kind);
    let said =
        kind.into_iter().flat_map(|kind| kind.params).map(|p| format!("{} ({}; {})", p.name, p.default, p.meaning));
    said.collect::<Vec<_>>().join(", ")
}

/// Calls the same method of any variant.
macro_rules! each {
    ($any:expr, $detector:ident => $call:expr) => {
        match $any {
            AnyDetector::Fixed($detector) => $call,
            AnyDetector::Backoff($detector) => $call,
            AnyDetector::Consecutive($detector) => $call,
            AnyDetector::Ewma($detector) => $call,
            AnyDetector::Chen($detector) => $call,
            AnyDetector::Bertier($detector) => $call,
            AnyDetector::Phi($detector) => $call,
            AnyDetector::Chitchat($detector) => $call,
            AnyDetector::Adaptive($detector) => $call,
        }
    };
}

impl Detector for AnyDetector {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        each!(self, detector => detector.heard(now, sequence));
    }

    fn deadline(&self) -> Option<Nanos> {
        each!(self, detector => detector.deadline())
    }
}
