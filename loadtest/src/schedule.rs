//! The instants at which a user sends: a fixed interval, one request at a time. Pure; times in µs since the common start.

use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};

/// The first planned instant at or after `answered`, and the number of skipped instants between `planned` and it.
///
/// `interval` must not be 0.
pub(crate) fn next_planned(planned: u64, answered: u64, interval: u64) -> (u64, u64) {
    let steps = answered.saturating_sub(planned).div_ceil(interval).max(1);
    (planned + steps * interval, steps - 1)
}

/// The golden ratio's fractional part, in 2⁻³² units: its multiples spread evenly over the unit interval, however many there are.
const GOLDEN: u64 = 0x9E37_79B9;

/// Phases of all users within the interval, by their number. The users from one of the ascending `levels` to the next are a group that is
/// evenly spread, so that the arrivals are, whenever as many users are there as a level says.
///
/// From the third group on, a group is shifted by a part of the distance between two of its users: otherwise the first users of many small
/// groups would send together. The second group is not shifted: a load and a surge on top of it are two even loads.
pub(crate) fn group_phases(levels: &[u32], interval: u64, grid: u64, seed: u64) -> Vec<u64> {
    let mut all = Vec::new();
    for (index, level) in levels.iter().enumerate() {
        let users = (*level as usize).saturating_sub(all.len());
        let share = (index as u64).saturating_sub(1) * GOLDEN % (1 << 32);
        let shift = (share * (interval / users.max(1) as u64)) >> 32;
        all.extend(phases(users, interval, grid, shift, seed));
    }
    all
}

/// Phases of one group: evenly spread over the interval, in shuffled order. A grid above 0 rounds them down to its multiples, so that users
/// of one grid point send together.
fn phases(users: usize, interval: u64, grid: u64, shift: u64, seed: u64) -> Vec<u64> {
    let (grid, count) = (grid.max(1), users as u64);
    let mut phases: Vec<u64> = (0..count).map(|user| (user * interval / count + shift) / grid * grid).collect();
    phases.shuffle(&mut SmallRng::seed_from_u64(seed));
    phases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_time_keeps_the_rhythm() {
        assert_eq!(next_planned(250, 251, 1000), (1250, 0));
        assert_eq!(next_planned(250, 250, 1000), (1250, 0));
        assert_eq!(next_planned(250, 1250, 1000), (1250, 0));
    }

    #[test]
    fn instants_missed_while_waiting_are_skipped() {
        assert_eq!(next_planned(250, 1251, 1000), (2250, 1));
        assert_eq!(next_planned(0, 3000, 1000), (3000, 2));
        assert_eq!(next_planned(0, 3001, 1000), (4000, 3));
    }

    #[test]
    fn phases_are_even_and_shuffled() {
        let phases = group_phases(&[1000], 1_000_000, 0, 1);
        let mut sorted = phases.clone();
        sorted.sort_unstable();
        assert_ne!(phases, sorted);
        assert!(sorted.iter().copied().eq((0..1000).map(|user| user * 1000)));
    }

    #[test]
    fn on_a_grid_as_many_send_at_each_instant() {
        let mut phases = group_phases(&[1000], 1_000_000, 4000, 1);
        phases.sort_unstable();
        assert!(phases.iter().copied().eq((0..1000).map(|user| user / 4 * 4000)));
    }

    #[test]
    fn at_each_level_the_phases_are_spread_evenly() {
        let even = |levels: &[u32]| {
            let phases = group_phases(levels, 1_000_000, 0, 1);
            assert!(phases.iter().all(|phase| *phase < 1_000_000));
            for (groups, level) in levels.iter().enumerate() {
                for tenth in 0..10 {
                    let within = |phase: &&u64| **phase / 100_000 == tenth;
                    let sent = phases[..*level as usize].iter().filter(within).count() as f64;
                    let expected = f64::from(*level) / 10.0;
                    // Each group has at most one user too many or too few in a tenth.
                    assert!((sent - expected).abs() <= (groups + 1) as f64, "{sent} of {expected}, level {level}");
                }
            }
            phases
        };
        even(&[600, 2130]);
        even(&[200, 600, 1000, 2130]);
        // A smooth curve: fifty groups of seven users.
        let mut smooth = even(&(1..=50).map(|group| group * 7).collect::<Vec<_>>());
        smooth.sort_unstable();
        let together = smooth.chunk_by(|a, b| a == b).map(<[u64]>::len).max();
        assert_eq!(together, Some(2), "only the first two groups are not shifted");
    }
}
