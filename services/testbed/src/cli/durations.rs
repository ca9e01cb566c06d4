//! Value parsers of durations: `5s`, `100ms`, `1.5s`, `2m`, `1h 30m`.

use std::{ops::RangeInclusive, time::Duration};

const DAY: Duration = Duration::from_secs(86_400);
const MIN_SOAK: Duration = Duration::from_secs(180);
/// Longest measured part of a scenario.
const MAX_LOAD_S: u64 = 3_600;

/// A duration from 1 ms to a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    within(parse(text)?, Duration::from_millis(1)..=DAY).ok_or_else(|| "must be 1ms to 1d".into())
}

/// A duration from 0 to a day, in milliseconds.
pub fn milliseconds(text: &str) -> Result<f64, String> {
    let duration = within(parse(text)?, Duration::ZERO..=DAY).ok_or("must be 0ms to 1d")?;
    Ok(duration.as_secs_f64() * 1e3)
}

/// A duration for `load --for`.
pub fn whole_seconds(text: &str) -> Result<u32, String> {
    let duration = parse(text)?;
    let seconds = Some(duration.as_secs()).filter(|_| duration.subsec_nanos() == 0);
    let allowed = seconds.filter(|seconds| (1..=MAX_LOAD_S).contains(seconds));
    allowed.and_then(|seconds| u32::try_from(seconds).ok()).ok_or_else(|| "must be whole seconds, 1s to 1h".into())
}

/// A duration for `evaluate --soak`.
pub fn soak(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(u64::from(loadtest::plan::MAX_MEASURE_S));
    within(parse(text)?, MIN_SOAK..=longest)
        .ok_or_else(|| "must be 3m to 4h: fewer minutes are too few for a slope".into())
}

fn within(duration: Duration, range: RangeInclusive<Duration>) -> Option<Duration> {
    range.contains(&duration).then_some(duration)
}

/// humantime, and a single number with a fraction such as `0.2ms`, which humantime does not read.
fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .or_else(|| fraction(text))
        .ok_or_else(|| format!("'{text}' is not a duration; write a number with a unit, e.g. 5s, 100ms or 2m"))
}

fn fraction(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
    let unit = humantime::parse_duration(&format!("1{unit}")).ok()?;
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit.as_secs_f64()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_a_range() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["soon", "0s", "5", "-1s", "25h", "1.2.3s", ".s", ""] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn milliseconds_may_be_0_and_fractions() {
        assert_eq!(milliseconds("74ms"), Ok(74.0));
        assert_eq!(milliseconds("0.2ms"), Ok(0.2));
        assert_eq!(milliseconds("0ms"), Ok(0.0));
        assert!(milliseconds("74").is_err());
    }

    #[test]
    fn a_load_lasts_whole_seconds() {
        assert_eq!(whole_seconds("2m"), Ok(120));
        assert_eq!(whole_seconds("1h"), Ok(3600));
        for bad in ["500ms", "1500ms", "61m", "0s"] {
            assert!(whole_seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_soak_is_long_enough_for_a_slope() {
        assert_eq!(soak("30m"), Ok(Duration::from_secs(1800)));
        assert!(soak("2h").is_ok() && soak("4h").is_ok());
        assert!(soak("2m").is_err() && soak("5h").is_err() && soak("long").is_err());
    }
}
