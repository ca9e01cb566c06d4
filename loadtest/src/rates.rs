//! Rates by second as CSV: a load of one's own, or a recorded one.

use std::{fs::File, io::Read as _, path::Path};

use anyhow::{Result, anyhow, ensure};

use crate::curve::MAX_USERS;

/// Largest rate of a second.
pub const MAX_RATE: u32 = MAX_USERS;
const HEAD: &str = "second,rate";
/// A line is shorter, unless its rate has dozens of digits.
const MAX_LINE_BYTES: u64 = 64;

/// As [`parse`], from a file.
///
/// # Errors
/// The file cannot be read, has more bytes than `max_seconds` lines need, or is not of this form.
pub fn read(path: &Path, max_seconds: usize) -> Result<Vec<f64>> {
    // Opening a pipe would wait for its other end.
    ensure!(std::fs::metadata(path)?.is_file(), "is not a file");
    let longest = MAX_LINE_BYTES * (max_seconds as u64 + 1);
    let mut text = String::new();
    File::open(path)?.take(longest + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= longest, "is longer than {longest} bytes");
    parse(&text, max_seconds)
}

/// Reads CSV with the head `second,rate` and one line for each second from 0, without gaps. Rates are 0..=20,000.
///
/// # Errors
/// Names the first line that is not of this form, or says that all rates are 0.
pub fn parse(text: &str, max_seconds: usize) -> Result<Vec<f64>> {
    let mut lines = text.lines().map(str::trim);
    let head = lines.next().unwrap_or_default();
    ensure!(head == HEAD, "line 1: the head must be {HEAD}");
    let mut rates = Vec::new();
    for (second, line) in lines.enumerate() {
        ensure!(second < max_seconds, "line {}: a curve must have at most {max_seconds} seconds", line_of(second));
        rates.push(rate(line, second).map_err(|reason| anyhow!("line {}: {reason}", line_of(second)))?);
    }
    ensure!(!rates.is_empty(), "line {}: second 0 is missing: a curve must have at least one second", line_of(0));
    check(&rates)?;
    Ok(rates)
}

/// # Errors
/// A rate is not 0..=20,000, or all are 0.
pub fn check(rates: &[f64]) -> Result<()> {
    for (second, rate) in rates.iter().enumerate() {
        ensure!(is_rate(*rate), "the rate of second {second} must be 0..={MAX_RATE}, is {rate}");
    }
    ensure!(rates.iter().any(|rate| *rate > 0.0), "a curve must have a rate above 0 in at least one second");
    Ok(())
}

/// Line of a second in the file: line 1 is the head.
pub fn line_of(second: usize) -> usize {
    second + 2
}

/// A range contains neither NaN nor infinity.
fn is_rate(rate: f64) -> bool {
    (0.0..=f64::from(MAX_RATE)).contains(&rate)
}

fn rate(line: &str, expected: usize) -> Result<f64, String> {
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
    let number = rate.parse::<f64>().ok().filter(|rate| is_rate(*rate));
    number.ok_or_else(|| format!("the rate must be 0..={MAX_RATE}, is {rate:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_line_for_each_second() {
        assert_eq!(parse("second,rate\r\n0,0.5\r\n1, 2\n2,0\n", 3).unwrap(), [0.5, 2.0, 0.0]);
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line() {
        for (text, reason) in [
            ("", "line 1: the head must be second,rate"),
            ("time,rate\n0,1\n", "line 1: the head must be second,rate"),
            ("second,rate\n", "line 2: second 0 is missing: a curve must have at least one second"),
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
            ("second,rate\n0,1\n1,1\n2,1\n3,1\n", "line 5: a curve must have at most 3 seconds"),
        ] {
            let error = parse(text, 3).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_file_is_not_read_without_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("long.csv");
        std::fs::write(&file, "0".repeat(300)).unwrap();
        assert_eq!(read(&file, 3).unwrap_err().to_string(), "is longer than 256 bytes");
        assert_eq!(read(folder.path(), 3).unwrap_err().to_string(), "is not a file");
    }
}
