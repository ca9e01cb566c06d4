//! How well a count of replicas followed the demand: the elasticity metrics of SPEC's research group on cloud, as BUNGEE computes them. Pure.

use serde::Serialize;

/// What was needed and what was there, from this instant to the next one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Instant {
    /// Seconds since the beginning.
    pub at_s: f64,
    /// Replicas that the load needs, by calibration.
    pub demand: u32,
    /// Replicas that are ready.
    pub supply: u32,
}

/// Over one run. Times in seconds of the machine's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Elasticity {
    /// Mean number of replicas that are missing (accuracy of under-provisioning).
    pub accuracy_under: f64,
    /// Mean number of replicas beyond the demand (accuracy of over-provisioning).
    pub accuracy_over: f64,
    /// Share of the time with too few replicas, in percent.
    pub timeshare_under_pct: f64,
    /// Share of the time with too many, in percent.
    pub timeshare_over_pct: f64,
    /// Changes of the supply less changes of the demand, per minute: negative for one that misses changes.
    pub jitter_per_min: f64,
    /// The longest time from a rise of the demand until the supply covers it; null if it was always covered.
    pub reaction_s: Option<f64>,
}

/// `instants` are in order of time; the last one ends at `end_s`.
pub fn of(instants: &[Instant], end_s: f64) -> Elasticity {
    let mut measures = Elasticity::default();
    let (mut supply_changes, mut demand_changes, mut all_s, mut short_s) = (0_u32, 0_u32, 0.0, 0.0);
    let ends = instants.iter().skip(1).map(|next| next.at_s).chain([end_s]);
    for (n, (now, until_s)) in instants.iter().zip(ends).enumerate() {
        let lasting_s = (until_s - now.at_s).max(0.0);
        all_s += lasting_s;
        let (missing, surplus) = (now.demand.saturating_sub(now.supply), now.supply.saturating_sub(now.demand));
        measures.accuracy_under += f64::from(missing) * lasting_s;
        measures.accuracy_over += f64::from(surplus) * lasting_s;
        measures.timeshare_under_pct += if missing > 0 { 100.0 * lasting_s } else { 0.0 };
        measures.timeshare_over_pct += if surplus > 0 { 100.0 * lasting_s } else { 0.0 };
        short_s = if missing > 0 { short_s + lasting_s } else { 0.0 };
        if missing > 0 {
            measures.reaction_s = Some(measures.reaction_s.unwrap_or_default().max(short_s));
        }
        if let Some(before) = n.checked_sub(1).and_then(|before| instants.get(before)) {
            supply_changes += u32::from(before.supply != now.supply);
            demand_changes += u32::from(before.demand != now.demand);
        }
    }
    if all_s > 0.0 {
        measures.accuracy_under /= all_s;
        measures.accuracy_over /= all_s;
        measures.timeshare_under_pct /= all_s;
        measures.timeshare_over_pct /= all_s;
        measures.jitter_per_min = 60.0 * (f64::from(supply_changes) - f64::from(demand_changes)) / all_s;
    }
    measures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instants(all: &[(f64, u32, u32)]) -> Vec<Instant> {
        all.iter().map(|&(at_s, demand, supply)| Instant { at_s, demand, supply }).collect()
    }

    #[test]
    fn a_step_that_is_followed_late_and_left_late() {
        // A demand of 8, then 12 from 20 s to 60 s. The supply follows after 10 s and stays 20 s too long.
        let seen = [(0.0, 8, 8), (20.0, 12, 8), (30.0, 12, 12), (60.0, 8, 12), (80.0, 8, 8)];
        let found = of(&instants(&seen), 120.0);
        let expected = Elasticity {
            accuracy_under: 4.0 * 10.0 / 120.0,
            accuracy_over: 4.0 * 20.0 / 120.0,
            timeshare_under_pct: 100.0 * 10.0 / 120.0,
            timeshare_over_pct: 100.0 * 20.0 / 120.0,
            jitter_per_min: 0.0,
            reaction_s: Some(10.0),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_fixed_count_misses_the_changes_of_the_demand() {
        let seen = [(0.0, 8, 8), (30.0, 10, 8), (60.0, 12, 8), (90.0, 8, 8)];
        let found = of(&instants(&seen), 120.0);
        assert_eq!((found.jitter_per_min, found.reaction_s), (-1.5, Some(60.0)));
        assert_eq!((found.accuracy_under, found.accuracy_over), (1.5, 0.0));
    }

    #[test]
    fn nothing_seen_is_nothing_measured() {
        assert_eq!(of(&[], 10.0), Elasticity::default());
        assert_eq!(of(&instants(&[(1.0, 3, 2)]), 1.0).accuracy_under, 0.0);
    }
}
