//! Quantities as Kubernetes writes them: `2`, `100m`, `1500Mi`, `1e3`, `0.35`.

use thiserror::Error;

/// A number of at most 18 digits and a power of ten, exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    /// No trailing zeros, unless it is 0.
    digits: i128,
    exponent: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadQuantity {
    #[error("{0:?} is not a quantity such as 2, 100m or 1500Mi")]
    Malformed(String),
    #[error("{0:?} is too large or has too many digits")]
    OutOfRange(String),
}

/// Kubernetes rounds what is finer up to this power of ten.
const FINEST: i32 = -9;
const MOST_DIGITS: i128 = 1_000_000_000_000_000_000;

impl Quantity {
    /// # Errors
    ///
    /// The text is no quantity, or one that Kubernetes would cut or keep with less than its digits.
    pub fn parse(text: &str) -> Result<Self, BadQuantity> {
        let malformed = || BadQuantity::Malformed(text.to_owned());
        let out_of_range = || BadQuantity::OutOfRange(text.to_owned());
        let (negative, unsigned) = match text.strip_prefix(['-', '+']) {
            Some(rest) => (text.starts_with('-'), rest),
            None => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(malformed());
        }
        let (factor, exponent) = unit(suffix).ok_or_else(malformed)?;
        let mut digits = 0_i128;
        for digit in whole.bytes().chain(fraction.bytes()) {
            digits = digits
                .checked_mul(10)
                .and_then(|sum| sum.checked_add(i128::from(digit - b'0')))
                .ok_or_else(out_of_range)?;
        }
        digits = digits.checked_mul(factor).ok_or_else(out_of_range)?;
        let fraction_digits = i32::try_from(fraction.len()).map_err(|_| out_of_range())?;
        let exponent = exponent.checked_sub(fraction_digits).ok_or_else(out_of_range)?;
        let quantity = Self { digits: if negative { -digits } else { digits }, exponent }.rounded().canonical();
        if quantity.digits.abs() >= MOST_DIGITS || quantity.exponent > 18 {
            return Err(out_of_range());
        }
        Ok(quantity)
    }

    /// The number that the shortest decimal form of `value` means. `None`: not a finite number, or out of range.
    pub fn of(value: f64) -> Option<Self> {
        value.is_finite().then(|| Self::parse(&value.to_string()).ok()).flatten()
    }

    /// Thousandths, rounded up (`MilliValue`). `None`: they exceed 2^63 − 1.
    pub fn milli(self) -> Option<i64> {
        let exponent = self.exponent + 3;
        let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
        let milli = if exponent >= 0 { self.digits.checked_mul(power)? } else { divide_up(self.digits, power) };
        i64::try_from(milli).ok()
    }

    /// The double nearest to it.
    pub fn to_f64(self) -> f64 {
        format!("{}e{}", self.digits, self.exponent).parse().unwrap_or(f64::NAN)
    }

    /// The double that the controller calculates with (`AsApproximateFloat64`), after the API server has written the quantity in its
    /// canonical form, with a power of 1000: 0.35 becomes 350m, and that 0.35000000000000003.
    pub fn approximate(self) -> f64 {
        let finer = self.exponent.rem_euclid(3);
        let digits = self.digits * 10_i128.pow(finer.unsigned_abs());
        let exponent = self.exponent - finer;
        if exponent == 0 { digits as f64 } else { digits as f64 * power_of_ten(exponent) }
    }

    pub fn is_negative(self) -> bool {
        self.digits < 0
    }

    fn canonical(mut self) -> Self {
        if self.digits == 0 {
            return Self { digits: 0, exponent: 0 };
        }
        while self.digits % 10 == 0 {
            self.digits /= 10;
            self.exponent = self.exponent.saturating_add(1);
        }
        self
    }

    /// Away from zero.
    fn rounded(self) -> Self {
        let Some(finer) = FINEST.checked_sub(self.exponent).filter(|finer| *finer > 0) else { return self };
        // Beyond the powers that fit, any number is less than one of the finest units.
        let up = |digits| {
            10_i128.checked_pow(finer.unsigned_abs()).map_or(i128::from(digits > 0), |power| divide_up(digits, power))
        };
        let digits = if self.digits < 0 { -up(-self.digits) } else { up(self.digits) };
        Self { digits, exponent: FINEST }
    }
}

/// A factor and a power of ten.
fn unit(suffix: &str) -> Option<(i128, i32)> {
    let decimal = |exponent| Some((1, exponent));
    let binary = |power: u32| Some((1_i128 << power, 0));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => decimal(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    }
}

fn divide_up(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)
}

/// As a constant in a source would be, without the error of repeated multiplication.
fn power_of_ten(exponent: i32) -> f64 {
    format!("1e{exponent}").parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        for (text, milli) in [
            ("2", 2_000_i128),
            ("100m", 100),
            ("1500Mi", 1_572_864_000_000),
            ("1.5", 1_500),
            (".5", 500),
            ("1.", 1_000),
            ("+1k", 1_000_000),
            ("1e3", 1_000_000),
            ("12E-1", 1_200),
            ("1E", 1_000_000_000_000_000_000_000),
            ("1n", 1),
            ("0.0000000001", 1),
            ("1u", 1),
            ("0.5Ki", 512_000),
            ("0", 0),
            ("-1500m", -1_500),
            ("-0.1m", 0),
        ] {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!(quantity.milli(), i64::try_from(milli).ok(), "{text}");
        }
        for text in ["", "-", ".", "1.2.3", "m", "1x", "1e", "1 ", "١", "1Mii", "1KI", "0x10", "1e99999999999", "NaN"]
        {
            assert!(matches!(Quantity::parse(text), Err(BadQuantity::Malformed(_))), "{text}");
        }
        for text in
            ["9223372036854775807123456789", "1e2147483647", "999999999999999999999999999999999999999999999", "64Ei"]
        {
            assert!(matches!(Quantity::parse(text), Err(BadQuantity::OutOfRange(_))), "{text}");
        }
        assert!(Quantity::parse("1e-2147483648").unwrap().milli() == Some(1));
    }

    #[test]
    fn a_fraction_keeps_the_error_of_the_apis_arithmetic() {
        let of = |value: f64| Quantity::of(value).unwrap().approximate();
        assert_eq!(of(0.35), 0.350_000_000_000_000_03);
        assert_eq!(of(0.1), 0.1);
        assert_eq!(of(0.3), 0.3);
        assert_eq!(of(0.0), 0.0);
        assert_eq!(of(1.5), 1.5);
        assert_eq!(of(3000.0), 3000.0);
        assert_eq!(Quantity::parse("50m").unwrap().to_f64(), 0.05);
        assert!(Quantity::of(f64::NAN).is_none() && Quantity::of(1e300).is_none());
    }
}
