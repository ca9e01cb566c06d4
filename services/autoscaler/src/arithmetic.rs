//! Conversions as the controller's compiled code does them. Where a number does not fit, Kubernetes continues with a wrong one; so do we,
//! because the planner says what Kubernetes would do. `wrapping_*` elsewhere has the same reason.

/// Toward zero. A value outside of int32, and NaN, give -2147483648: the conversion instruction of amd64.
pub fn to_i32(value: f64) -> i32 {
    let truncated = value.trunc();
    if truncated >= f64::from(i32::MIN) && truncated <= f64::from(i32::MAX) { truncated as i32 } else { i32::MIN }
}

/// `ratio` × `count`, rounded up.
pub fn scaled_up(ratio: f64, count: usize) -> i32 {
    to_i32((ratio * count as f64).ceil())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_becomes_the_smallest_number() {
        assert_eq!(to_i32(2.9), 2);
        assert_eq!(to_i32(-2.9), -2);
        assert_eq!(to_i32(2_147_483_647.9), i32::MAX);
        for value in [2_147_483_648.0, -3e9, f64::INFINITY, f64::NAN] {
            assert_eq!(to_i32(value), i32::MIN, "{value}");
        }
    }
}
