//! All detectors by name, with their parameters. Spans are given in intervals of the beats, so that one setting means the same at
//! every beat rate.

use thiserror::Error;

use super::{
    Adaptive, Backoff, Bertier, Chen, Chitchat, Consecutive, Detector, Ewma, Fixed, GapDistribution, Phi, Status,
    to_nanos,
};
use crate::Nanos;

/// One detector, whichever it is.
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
    /// With its unit.
    pub meaning: &'static str,
}

/// A kind of detector.
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
    #[error("there is no detector '{0}'; there are {list}", list = names())]
    NoSuchDetector(String),
    #[error("'{0}' has no parameter '{1}'; it has {list}", list = params(.0))]
    NoSuchParam(&'static str, String),
    #[error("{name}={value} is out of range: {least} to {most}, {meaning}")]
    OutOfRange { name: &'static str, value: f64, least: f64, most: f64, meaning: &'static str },
}

const fn param(name: &'static str, default: f64, least: f64, most: f64, meaning: &'static str) -> Param {
    Param { name, default, least, most, meaning }
}

/// The longest to_nanos that a parameter may ask for, in intervals.
const LONGEST: f64 = 1e5;

pub const KINDS: [DetectorKind; 10] = [
    DetectorKind {
        name: "fixed",
        description: "a fixed timeout, found by a scan",
        params: &[
            param("suspect", 3.0, 0.0, LONGEST, "intervals of silence until suspected"),
            param("offline", 5.0, 0.0, LONGEST, "intervals of silence until off-line"),
            param("scan", 2.0, 0.0, LONGEST, "intervals between scans; 0: found at once"),
        ],
        make: |interval, p| {
            AnyDetector::Fixed(Fixed::new(to_nanos(interval, p[0]), to_nanos(interval, p[1]), to_nanos(interval, p[2])))
        },
    },
    DetectorKind {
        name: "backoff",
        description: "probes with exponential back-off after a missed beat",
        params: &[
            param("base", 0.5, 0.0, 1e3, "intervals that the first probe is given"),
            param("probes", 3.0, 0.0, 16.0, "probes unanswered until suspected"),
        ],
        make: |interval, p| AnyDetector::Backoff(Backoff::new(interval, to_nanos(interval, p[0]), p[1] as u32)),
    },
    DetectorKind {
        name: "consecutive",
        description: "failures in a row; from the threshold on a partition",
        params: &[
            param("patience", 0.1, 0.0, LONGEST, "intervals that a beat may be late"),
            param("threshold", 3.0, 1.0, 1e3, "failures in a row that are a partition"),
        ],
        make: |interval, p| AnyDetector::Consecutive(Consecutive::new(interval, p[0], p[1] as u32)),
    },
    DetectorKind {
        name: "ewma",
        description: "the expected beat + k × an EWMA of how far arrivals are off",
        params: &[param("k", 3.0, 0.0, 1e6, "times the mean distance")],
        make: |interval, p| AnyDetector::Ewma(Ewma::new(interval, p[0])),
    },
    DetectorKind {
        name: "nfd-e",
        description: "Chen et al.: the estimated next arrival + a constant",
        params: &[
            param("alpha", 1.0, 0.0, LONGEST, "intervals after the estimated arrival"),
            param("window", 1000.0, 1.0, 1000.0, "arrivals that the estimate goes by"),
        ],
        make: |interval, p| AnyDetector::Chen(Chen::new(interval, to_nanos(interval, p[0]), p[1] as usize)),
    },
    DetectorKind {
        name: "bertier",
        description: "Bertier et al.: the estimated next arrival + Jacobson's margin",
        params: &[param("phi", 4.0, 0.0, 1e6, "times the mean distance of errors from their mean")],
        make: |interval, p| AnyDetector::Bertier(Bertier::new(interval, p[0])),
    },
    DetectorKind {
        name: "phi-normal",
        description: "phi accrual, gaps taken for normal (Hayashibara et al., Akka)",
        params: &[
            param("threshold", 8.0, 0.0, 1e6, "phi from which a node is suspected"),
            param("pause", 0.0, 0.0, LONGEST, "intervals added to the mean (Akka: 3)"),
        ],
        make: |interval, p| AnyDetector::Phi(Phi::new(interval, GapDistribution::Normal { pause: p[1] }, p[0])),
    },
    DetectorKind {
        name: "phi-exponential",
        description: "phi accrual, gaps taken for exponential (Cassandra)",
        params: &[param("threshold", 8.0, 0.0, 1e6, "phi from which a node is suspected")],
        make: |interval, p| AnyDetector::Phi(Phi::new(interval, GapDistribution::Exponential, p[0])),
    },
    DetectorKind {
        name: "chitchat",
        description: "a multiple of the mean gap, which begins with a prior",
        params: &[param("threshold", 8.0, 0.0, 1e6, "times the mean gap")],
        make: |interval, p| AnyDetector::Chitchat(Chitchat::new(interval, p[0])),
    },
    DetectorKind {
        name: "adaptive",
        description: "the longest run of losses and the latest beat that the link will show once in `days`",
        params: &[
            param("days", 2.5, 0.01, 1e4, "days between mistakes that are aimed at"),
            param("careful", 30.0, 1.0, LONGEST, "intervals of silence until suspected while little is known"),
        ],
        make: |interval, p| AnyDetector::Adaptive(Box::new(Adaptive::new(interval, p[0], p[1]))),
    },
];

impl AnyDetector {
    /// The detector of that name for beats sent every `interval`; parameters that are not given have their defaults.
    ///
    /// # Errors
    /// There is no such detector or parameter, or a value is out of its range.
    pub fn named(name: &str, interval: Nanos, params: &[(String, f64)]) -> Result<Self, BadParam> {
        let kind = DetectorKind::named(name)?;
        let mut values = [0.0; 3];
        for (value, param) in values.iter_mut().zip(kind.params) {
            *value = param.default;
        }
        for (name, given) in params {
            let at = kind.params.iter().position(|param| param.name == name);
            let at = at.ok_or_else(|| BadParam::NoSuchParam(kind.name, name.clone()))?;
            let Param { name, least, most, meaning, .. } = kind.params[at];
            // Not a number is out of range, too.
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
    /// There is none of that name.
    pub fn named(name: &str) -> Result<&'static Self, BadParam> {
        KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| BadParam::NoSuchDetector(name.to_owned()))
    }

    /// With every parameter at its default.
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

/// The same call of whichever it is.
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

    fn status(&self, now: Nanos) -> Status {
        each!(self, detector => detector.status(now))
    }
}
