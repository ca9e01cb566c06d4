//! How the requests of a step arrive. Plain data with its checks.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::rate_curve::{MAX_RATE, RateCurve};

/// Most requests in flight. Each is a connection, and so an open file.
pub const MAX_IN_FLIGHT: u32 = 20_000;
/// Requests in flight unless the scenario says otherwise.
pub const DEFAULT_MAX_IN_FLIGHT: u32 = 10_000;

/// How the requests of a step arrive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Arrivals {
    /// Each user sends once per interval and waits for the answer: a slow service is sent less.
    #[default]
    Closed,
    /// Requests are sent at planned instants, whether or not earlier ones were answered.
    Open(Open),
}

/// Arrivals that do not depend on the answers. The steps are planned requests per second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// Time between two planned requests: `constant` or `poisson` (random and independent).
    pub spacing: Spacing,
    /// Most requests in flight. An arrival that finds as many is dropped and counted, never sent late.
    pub max_in_flight: u32,
    /// CSV file with the head `second,rate` and one line for each measured second; the step's rate is multiplied by `rate`. The path is
    /// relative to the scenario's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve: Option<RateCurve>,
}

/// Time between two planned requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// Always the same.
    Constant,
    /// Exponential: a Poisson process, the sum of many independent users.
    Poisson,
}

impl Arrivals {
    /// Whether users wait for their answers.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// The open arrivals, if they are open.
    pub fn open(&self) -> Option<&Open> {
        match self {
            Self::Closed => None,
            Self::Open(open) => Some(open),
        }
    }

    /// The same arrivals without a curve: a step of another length, such as a calibration, has the step's rate all the time.
    #[must_use]
    pub fn at_constant_rate(self) -> Self {
        match self {
            Self::Closed => Self::Closed,
            Self::Open(open) => Self::Open(Open { curve: None, ..open }),
        }
    }

    /// The label that reports show.
    pub fn describe(&self) -> String {
        let Self::Open(open) = self else {
            return "closed: each of the users waits for its answer before it sends again".into();
        };
        let spacing = match open.spacing {
            Spacing::Constant => "constant spacing",
            Spacing::Poisson => "Poisson",
        };
        let curve = if open.curve.is_some() { ", rate over time from a curve" } else { "" };
        format!(
            "open, {spacing}{curve}: requests are sent at planned instants without waiting for answers, at most {} in flight",
            open.max_in_flight
        )
    }
}

impl Open {
    /// Checks the ranges for a step of `per_s` requests/s whose measured part lasts `measure_ms`.
    ///
    /// # Errors
    /// `max_in_flight` is not 1..=20,000, the curve ends before the measured part, or a second has more than 20,000 requests.
    pub fn check(&self, per_s: u32, measure_ms: u64) -> Result<()> {
        let most = self.max_in_flight;
        ensure!((1..=MAX_IN_FLIGHT).contains(&most), "max_in_flight must be 1..={MAX_IN_FLIGHT}, is {most}");
        let Some(curve) = &self.curve else { return Ok(()) };
        let (seconds, needed) = (curve.seconds() as u64, measure_ms.div_ceil(1000));
        ensure!(seconds >= needed, "the curve has {seconds} seconds, but the measured part has {needed}");
        if let Some((second, line)) = curve.first_above(f64::from(MAX_RATE) / f64::from(per_s.max(1))) {
            let rate = curve.factor(second as u64) * f64::from(per_s);
            anyhow::bail!(
                "line {line}: second {second} of the step of {per_s} requests/s would have {rate} requests/s, more than {MAX_RATE}"
            );
        }
        Ok(())
    }

    /// Slots that send the requests of a step of `per_s` requests/s: twice as many as are in flight when every request at the highest rate
    /// runs into its timeout, so that more would never be used, but at most `max_in_flight`.
    pub(crate) fn slots(&self, per_s: u32, timeout_ms: u64) -> u32 {
        let useful = 2.0 * self.peak_per_s(per_s) * timeout_ms as f64 / 1000.0 + 100.0;
        self.max_in_flight.min(useful as u32)
    }

    /// Most planned requests per second of a step of `per_s` requests/s.
    pub(crate) fn peak_per_s(&self, per_s: u32) -> f64 {
        f64::from(per_s) * self.curve.as_ref().map_or(1.0, RateCurve::peak)
    }

    /// Planned requests per second of a step of `per_s` requests/s: the mean over the measured part.
    pub(crate) fn mean_per_s(&self, per_s: u32, measure_ms: u64) -> f64 {
        f64::from(per_s) * self.curve.as_ref().map_or(1.0, |curve| curve.mean(measure_ms))
    }

    /// Planned requests per second in a second of the measured part.
    pub(crate) fn per_s_at(&self, per_s: u32, second: u64) -> f64 {
        f64::from(per_s) * self.curve.as_ref().map_or(1.0, |curve| curve.factor(second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(max_in_flight: u32, factors: Option<&[f64]>) -> Open {
        let curve = factors.map(|factors| RateCurve::new(factors.to_vec()).unwrap());
        Open { spacing: Spacing::Poisson, max_in_flight, curve }
    }

    #[test]
    fn ranges_are_checked_for_the_step() {
        open(1, None).check(20_000, 1).unwrap();
        open(20_000, Some(&[1.0, 2.0])).check(10_000, 2000).unwrap();
        for (open, per_s, measure_ms, reason) in [
            (open(0, None), 1, 1000, "max_in_flight must be 1..=20000, is 0"),
            (open(20_001, None), 1, 1000, "is 20001"),
            (open(1, Some(&[1.0])), 1, 1001, "the curve has 1 seconds, but the measured part has 2"),
            (
                open(1, Some(&[1.0, 2.5])),
                10_000,
                2000,
                "line 3: second 1 of the step of 10000 requests/s would have 25000",
            ),
        ] {
            let error = open.check(per_s, measure_ms).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn as_many_slots_as_are_useful() {
        assert_eq!(open(10_000, None).slots(200, 3000), 1300);
        assert_eq!(open(10_000, Some(&[0.1, 3.0])).slots(200, 3000), 3700);
        assert_eq!(open(10_000, None).slots(5000, 3000), 10_000);
        assert_eq!(open(1, None).slots(5000, 3000), 1);
    }

    #[test]
    fn json_names_the_kind_and_refuses_a_misspelt_field() {
        let closed = serde_json::to_string(&Arrivals::Closed).unwrap();
        assert_eq!(closed, r#"{"kind":"closed"}"#);
        let arrivals = Arrivals::Open(open(7, Some(&[1.0])));
        let text = serde_json::to_string(&arrivals).unwrap();
        assert_eq!(serde_json::from_str::<Arrivals>(&text).unwrap(), arrivals);
        assert!(serde_json::from_str::<Arrivals>(&text.replace("max_in_flight", "in_flight")).is_err());
    }
}
