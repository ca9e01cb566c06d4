//! The rate of open arrivals over the measured part of a step, as a factor for each second. Pure.

use anyhow::{Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use crate::curve::MAX_USERS;

/// Most planned requests per second of a step with open arrivals, and the largest factor of a curve.
pub const MAX_RATE: u32 = MAX_USERS;
/// Four hours, as long as the longest measured part. Bounds the memory.
const MAX_SECONDS: usize = 14_400;
const HEAD: &str = "second,rate";

/// A factor for each second of the measured part, from second 0. The rate is constant within a second: the step's rate times the factor.
/// With a step of 1 request/s the factors are requests/s, as in a recorded load. Before the measured part the first factor holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>")]
pub struct RateCurve(Vec<f64>);

impl RateCurve {
    /// # Errors
    /// There are no factors or more than 14,400, one is not 0..=20,000, or all are 0.
    pub fn new(factors: Vec<f64>) -> Result<Self> {
        ensure!(
            (1..=MAX_SECONDS).contains(&factors.len()),
            "a curve must have 1..={MAX_SECONDS} seconds, has {}",
            factors.len()
        );
        for (second, factor) in factors.iter().enumerate() {
            // A range contains neither NaN nor infinity.
            let within = (0.0..=f64::from(MAX_RATE)).contains(factor);
            ensure!(within, "the rate of second {second} must be 0..={MAX_RATE}, is {factor}");
        }
        ensure!(factors.iter().any(|factor| *factor > 0.0), "a curve must have a rate above 0 in at least one second");
        Ok(Self(factors))
    }

    /// Reads a CSV file with the head `second,rate` and one line for each second from 0, without gaps.
    ///
    /// # Errors
    /// Names the first line that is not of this form, or what is wrong with the whole.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().map(str::trim);
        let head = lines.next().unwrap_or_default();
        ensure!(head == HEAD, "line 1: the head must be {HEAD}");
        let mut factors = Vec::new();
        for (second, line) in lines.enumerate() {
            ensure!(second < MAX_SECONDS, "line {}: a curve must have at most {MAX_SECONDS} seconds", line_of(second));
            let factor = factor(line, second).map_err(|reason| anyhow!("line {}: {reason}", line_of(second)))?;
            factors.push(factor);
        }
        Self::new(factors)
    }

    /// Number of seconds.
    pub fn seconds(&self) -> usize {
        self.0.len()
    }

    /// The first second whose factor is above this limit, and its line in the file.
    pub fn first_above(&self, limit: f64) -> Option<(usize, usize)> {
        let second = self.0.iter().position(|factor| *factor > limit)?;
        Some((second, line_of(second)))
    }

    /// Factor of a second of the measured part; after the last second, 0.
    pub(crate) fn factor(&self, second: u64) -> f64 {
        usize::try_from(second).ok().and_then(|second| self.0.get(second)).copied().unwrap_or_default()
    }

    /// Largest factor.
    pub(crate) fn peak(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    /// Mean factor over a measured part of this length.
    pub(crate) fn mean(&self, measure_ms: u64) -> f64 {
        let within = |second: u64| measure_ms.saturating_sub(second * 1000).min(1000) as f64;
        let sum: f64 = (0..measure_ms.div_ceil(1000)).map(|second| self.factor(second) * within(second)).sum();
        sum / measure_ms.max(1) as f64
    }
}

impl TryFrom<Vec<f64>> for RateCurve {
    type Error = anyhow::Error;

    fn try_from(factors: Vec<f64>) -> Result<Self> {
        Self::new(factors)
    }
}

/// Line 1 is the head.
fn line_of(second: usize) -> usize {
    second + 2
}

fn factor(line: &str, expected: usize) -> Result<f64, String> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [second, rate] = fields[..] else {
        return Err(format!("must be {HEAD}, has {} fields", if line.is_empty() { 0 } else { fields.len() }));
    };
    let second: usize = second.parse().map_err(|_| format!("the second must be a whole number, is {second:?}"))?;
    if second < expected {
        return Err(format!("second {second} goes back in time: second {expected} is next"));
    }
    if second > expected {
        return Err(format!("second {expected} is missing before second {second}: a curve must not have gaps"));
    }
    match rate.parse::<f64>() {
        Ok(rate) if (0.0..=f64::from(MAX_RATE)).contains(&rate) => Ok(rate),
        _ => Err(format!("the rate must be 0..={MAX_RATE}, is {rate:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_line_for_each_second() {
        let curve = RateCurve::parse("second,rate\r\n0,0.5\r\n1, 2\n2,0\n").unwrap();
        assert_eq!((curve.seconds(), curve.peak()), (3, 2.0));
        assert_eq!([0, 1, 2, 3, u64::MAX].map(|second| curve.factor(second)), [0.5, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!((curve.mean(3000), curve.mean(1500)), (2.5 / 3.0, 1.0));
        assert_eq!((curve.first_above(1.0), curve.first_above(2.0)), (Some((1, 3)), None));
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line() {
        for (text, reason) in [
            ("", "line 1: the head must be second,rate"),
            ("time,rate\n0,1\n", "line 1: the head must be second,rate"),
            ("second,rate\n", "1..=14400 seconds, has 0"),
            ("second,rate\n0,1\n2,1\n", "line 3: second 1 is missing before second 2: a curve must not have gaps"),
            ("second,rate\n1,1\n", "line 2: second 0 is missing"),
            ("second,rate\n0,1\n1,1\n0,1\n", "line 4: second 0 goes back in time: second 2 is next"),
            ("second,rate\n0,1\n0,1\n", "line 3: second 0 goes back in time"),
            ("second,rate\n0,-1\n", "line 2: the rate must be 0..=20000, is \"-1\""),
            ("second,rate\n0,NaN\n", "line 2: the rate must be 0..=20000, is \"NaN\""),
            ("second,rate\n0,inf\n", "is \"inf\""),
            ("second,rate\n0,1e400\n", "is \"1e400\""),
            ("second,rate\n0,20001\n", "is \"20001\""),
            ("second,rate\n0,\n", "is \"\""),
            ("second,rate\n0.5,1\n", "line 2: the second must be a whole number, is \"0.5\""),
            ("second,rate\n-1,1\n", "line 2: the second must be a whole number"),
            ("second,rate\n0\n", "line 2: must be second,rate, has 1 fields"),
            ("second,rate\n0,1,1\n", "line 2: must be second,rate, has 3 fields"),
            ("second,rate\n0,1\n\n1,1\n", "line 3: must be second,rate, has 0 fields"),
            ("second,rate\n0,0\n1,0\n", "a rate above 0"),
        ] {
            let error = RateCurve::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        let long: String = (0..=MAX_SECONDS).map(|second| format!("{second},1\n")).collect();
        let error = RateCurve::parse(&format!("{HEAD}\n{long}")).unwrap_err().to_string();
        assert!(error.contains("line 14402: a curve must have at most 14400 seconds"), "{error}");
    }

    #[test]
    fn json_is_checked_too() {
        let curve = RateCurve::new(vec![0.5, 2.0]).unwrap();
        assert_eq!(serde_json::to_string(&curve).unwrap(), "[0.5,2.0]");
        assert_eq!(serde_json::from_str::<RateCurve>("[0.5,2.0]").unwrap(), curve);
        for bad in ["[]", "[-1.0]", "[0.0]", "[20000.1]"] {
            assert!(serde_json::from_str::<RateCurve>(bad).is_err(), "{bad}");
        }
    }
}
