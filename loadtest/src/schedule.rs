//! The instants at which a user sends: a fixed interval, one request at a time. Pure; times in µs since the common start.

use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};

/// The first planned instant at or after `answered`, and the number of skipped instants between `planned` and it.
///
/// `interval` must not be 0.
pub(crate) fn next_planned(planned: u64, answered: u64, interval: u64) -> (u64, u64) {
    let steps = answered.saturating_sub(planned).div_ceil(interval).max(1);
    (planned + steps * interval, steps - 1)
}

/// First planned instants of all users: evenly spread over the interval, in shuffled order. A grid above 0 rounds them down to its
/// multiples, so that users of one grid point send together.
pub(crate) fn phases(users: usize, interval: u64, grid: u64, seed: u64) -> Vec<u64> {
    let grid = grid.max(1);
    let mut phases: Vec<u64> = (0..users as u64).map(|user| user * interval / users as u64 / grid * grid).collect();
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
        let phases = phases(1000, 1_000_000, 0, 1);
        let mut sorted = phases.clone();
        sorted.sort_unstable();
        assert_ne!(phases, sorted);
        assert!(sorted.iter().copied().eq((0..1000).map(|user| user * 1000)));
    }

    #[test]
    fn on_a_grid_as_many_send_at_each_instant() {
        let mut phases = phases(1000, 1_000_000, 4000, 1);
        phases.sort_unstable();
        assert!(phases.iter().copied().eq((0..1000).map(|user| user / 4 * 4000)));
    }
}
