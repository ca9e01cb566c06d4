//! A count that never changes.

use super::{Policy, Seen, stateless};

pub const POLICY: Policy =
    Policy { name: "fixed", about: "keeps the count of the begin", period_s: 3_600, start: |_| Ok(stateless(decide)) };

fn decide(seen: &Seen<'_>) -> u32 {
    seen.fleet.desired()
}
