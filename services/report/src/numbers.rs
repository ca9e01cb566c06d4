//! Numbers as people read them: as many digits as mean something, without a unit unless the name says so.

/// Shown where there is no figure.
pub const NO_FIGURE: &str = "–";

/// Milliseconds: "0.42", "7.3", "89", "1,240".
pub fn ms(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => NO_FIGURE.into(),
        v if v < 0.995 => format!("{value:.2}"),
        v if v < 9.95 => format!("{value:.1}"),
        _ => count(value),
    }
}

/// Name of a curve of [`tail`]s.
pub const TAIL: &str = "p99, ms (max of fewer than 1,000 requests)";

/// A 99th percentile in milliseconds; without one, the maximum by its name: "89", "max 240".
pub fn tail(p99_ms: Option<f64>, max_ms: Option<f64>) -> String {
    match (p99_ms, max_ms) {
        (Some(p99), _) => ms(p99),
        (None, Some(max)) => format!("max {}", ms(max)),
        (None, None) => NO_FIGURE.into(),
    }
}

/// Percent: "0.0", "0.03", "4.7".
pub fn pct(value: f64) -> String {
    if !value.is_finite() {
        NO_FIGURE.into()
    } else if value.abs() >= 0.005 && value.abs() < 0.095 {
        format!("{value:.2}")
    } else {
        // Adding zero turns −0.0 into 0.0.
        format!("{:.1}", (value * 10.0).round() / 10.0 + 0.0)
    }
}

/// Whole things: "3,480".
pub fn count(value: f64) -> String {
    if !value.is_finite() {
        return NO_FIGURE.into();
    }
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    if value < 0.0 && digits != "0" {
        out.push('−');
    }
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A few per request: "0.00", "0.0006", "1.02".
pub fn per_request(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => NO_FIGURE.into(),
        v if (0.00005..0.00995).contains(&v) => format!("{value:.4}"),
        _ => format!("{value:.2}"),
    }
}

/// A difference: "+0.3", "−2.1".
pub fn signed(value: f64) -> String {
    let text = pct(value.abs());
    match value {
        _ if !value.is_finite() || text == "0.0" => text,
        v if v < 0.0 => format!("−{text}"),
        _ => format!("+{text}"),
    }
}

/// A setting, with no more digits than it was given: "74", "0.2".
pub fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// A value on an axis: as it is below 1000, then with separators.
pub fn tick(value: f64) -> String {
    if value < 1000.0 { plain(value) } else { count(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_follow_the_size() {
        assert_eq!([0.4163, 7.26, 9.97, 89.4, 1240.2].map(ms), ["0.42", "7.3", "10", "89", "1,240"]);
        assert_eq!([0.0, -0.001, 0.034, 0.096, 4.71, 100.0].map(pct), ["0.0", "0.0", "0.03", "0.1", "4.7", "100.0"]);
        assert_eq!([0.0, 999.0, 1000.0, 1_234_567.0, -4100.0].map(count), ["0", "999", "1,000", "1,234,567", "−4,100"]);
        assert_eq!([0.0, 0.0006, 0.02, 1.017].map(per_request), ["0.00", "0.0006", "0.02", "1.02"]);
        assert_eq!([0.0, 0.31, -2.06].map(signed), ["0.0", "+0.3", "−2.1"]);
        assert_eq!([74.0, 0.2, 70.125, 100.0].map(plain), ["74", "0.2", "70.125", "100"]);
        assert_eq!([0.0, 0.5, 2.5, 999.0, 1500.0].map(tick), ["0", "0.5", "2.5", "999", "1,500"]);
    }

    #[test]
    fn a_maximum_is_named() {
        let shown = [(Some(89.4), Some(240.0)), (None, Some(240.0)), (None, None)].map(|(p99, max)| tail(p99, max));
        assert_eq!(shown, ["89", "max 240", "–"]);
    }

    #[test]
    fn no_number_is_a_dash() {
        assert_eq!([f64::NAN, f64::INFINITY].map(ms), ["–", "–"]);
        assert_eq!(pct(f64::NAN), "–");
        assert_eq!(count(f64::NEG_INFINITY), "–");
        assert_eq!(signed(f64::NAN), "–");
    }
}
