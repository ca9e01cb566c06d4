//! The upper tail of the normal distribution, also for probabilities of 10^-3000.

use std::f64::consts::{LN_10, PI};

/// ln P(Z > z) of the standard normal distribution. Relative error below 1e-10 for |z| ≤ 10^7.
pub(super) fn ln_upper(z: f64) -> f64 {
    if z < 0.0 {
        // 1 - P(Z > |z|): no cancellation, since the probability is at least a half.
        return (-ln_upper(-z).exp()).ln_1p();
    }
    let ln_density = -0.5 * z * z - 0.5 * (2.0 * PI).ln();
    if z < 2.5 {
        // P(0 < Z < z) = density × (z + z³/3 + z⁵/15 + …).
        let (mut term, mut sum, mut k) = (z, z, 1.0);
        while term > sum * 1e-17 {
            k += 2.0;
            term *= z * z / k;
            sum += term;
        }
        return (0.5 - ln_density.exp() * sum).ln();
    }
    // Mills' ratio as Laplace's continued fraction 1/(z + 1/(z + 2/(z + 3/(z + …)))), evaluated from its end.
    let mut fraction = z;
    for k in (1..=120).rev() {
        fraction = z + f64::from(k) / fraction;
    }
    ln_density - fraction.ln()
}

/// The z with P(Z > z) = 10^-phi, for phi ≥ 0 (0 gives -8, the lower limit).
pub(super) fn upper_quantile(phi: f64) -> f64 {
    let wanted = -phi * LN_10;
    // ln P(Z > z) ≤ -z²/2 for z ≥ 0, which bounds it from above.
    let (mut low, mut high) = (-8.0, (2.0 * phi * LN_10).sqrt() + 1.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if ln_upper(middle) > wanted { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference values: mpmath, `log(erfc(z/sqrt(2))/2)` at 50 digits.
    #[test]
    fn the_far_tail_is_right() {
        let known = [
            (-3.0, -0.001_350_809_964_748_202_6),
            (0.0, -std::f64::consts::LN_2),
            (1.0, -1.841_021_645_009_264),
            (2.5, -5.081_648_277_278_69),
            (5.0, -15.064_998_393_988_727),
            (10.0, -53.231_285_150_512_47),
            (40.0, -804.608_442_013_754),
        ];
        for (z, ln) in known {
            assert!((ln_upper(z) - ln).abs() < 1e-9 * f64::abs(ln), "{z}: {} instead of {ln}", ln_upper(z));
        }
        assert!((ln_upper(2.499_999) - ln_upper(2.500_001)).abs() < 1e-5, "the two ways meet");
    }

    #[test]
    fn quantiles_invert_it() {
        for phi in [0.5, 1.0, 8.0, 12.0, 150.0, 3_000.0] {
            let z = upper_quantile(phi);
            assert!((-ln_upper(z) / LN_10 - phi).abs() < 1e-9 * phi, "{phi}");
        }
    }
}
