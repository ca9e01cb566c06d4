//! The load of the experiment: users over time, each of whom plans a request per second. Pure.

use loadtest::curve::{Curve, Point};

/// Seconds of the nominal clock, and users at that second; straight lines between them. A step after two minutes, the ramp to the holiday
/// peak, and the fall. At the lowest load eight replicas are enough for the rule too, and the last part is longer than its window of five
/// minutes.
const DAY: [(u32, u32); 8] =
    [(0, 160), (120, 160), (120, 400), (600, 400), (720, 540), (1080, 540), (1200, 160), (1740, 160)];
/// Before the day begins. Here the gateway finds the replicas.
const WARM_UP_MS: u64 = 4_000;

#[derive(Debug, Clone)]
pub struct Load {
    pub curve: Curve,
    pub warm_up_ms: u64,
    pub measure_ms: u64,
}

impl Load {
    /// `hurry`: 1..=60.
    ///
    /// # Errors
    /// The day is not in order.
    pub fn new(hurry: u32) -> anyhow::Result<Self> {
        let at_ms = |second: u32| u64::from(second) * 1000 / u64::from(hurry);
        let points = DAY.iter().map(|&(second, users)| Point { at_ms: at_ms(second), users }).collect();
        let curve = Curve::new(points)?;
        Ok(Self { warm_up_ms: WARM_UP_MS, measure_ms: curve.end_ms(), curve })
    }

    /// The loads on which the curve stays for a while, in requests per second, ascending.
    pub fn levels(&self) -> Vec<u32> {
        let mut levels: Vec<u32> = DAY
            .windows(2)
            .filter(|pair| pair[0].1 == pair[1].1 && pair[0].0 < pair[1].0)
            .map(|pair| pair[0].1)
            .collect();
        levels.sort_unstable();
        levels.dedup();
        levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_fits_the_rule_at_every_hurry() {
        for hurry in [1, 10, 30, 60] {
            let load = Load::new(hurry).unwrap();
            assert_eq!(load.levels(), [160, 400, 540]);
            assert_eq!(load.measure_ms, 1_740_000 / u64::from(hurry));
            let at = |second: u64| load.curve.users_at(second * 1000 / u64::from(hurry));
            assert_eq!(
                [at(0), at(119), at(121), at(660), at(720), at(1079), at(1200), at(1739)],
                [160, 160, 400, 470, 540, 540, 160, 160]
            );
            // The rule needs two minutes to scale out, and five to scale in.
            assert!(at(120 + 135) == 400 && at(1740 - 300 - 135) == 160);
        }
    }
}
