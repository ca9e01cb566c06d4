//! The order of the variants in each round. Pure.

use super::{Plan, Variant};

/// Part of the seed that decides orders; a step's part is its repeat.
const ORDER: u64 = u64::MAX;

/// The variants of a round (from 1). With several rounds the seed decides the order, round by round: a machine that becomes slower in the
/// course of a run would otherwise always make the same variant look slower. A single round keeps the plan's order, as one draw removes
/// nothing.
pub fn of_round(plan: &Plan, round: u32) -> Vec<&Variant> {
    let variants = plan.variants.iter().collect();
    if plan.repeat == 1 {
        return variants;
    }
    statistics::seed::shuffled(variants, statistics::seed::mixed(plan.seed, &[ORDER, u64::from(round)]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use api::Profile;
    use loadtest::scenario::Scenario;

    use super::*;
    use crate::evaluation::tests::plan;

    #[test]
    fn several_rounds_run_in_orders_that_the_seed_decides() {
        let variants = [Profile::Baseline, Profile::Protected].map(Variant::plain).to_vec();
        let orders = |seed, repeat| -> Vec<Vec<String>> {
            let plan =
                Plan { variants: variants.clone(), repeat, seed, ..plan(Scenario::load("article").unwrap(), &[]) };
            (1..=repeat)
                .map(|round| of_round(&plan, round).iter().map(|variant| variant.name.clone()).collect())
                .collect()
        };
        assert_eq!(orders(1, 1), [["baseline", "protected"]]);
        let twenty = orders(1, 20);
        assert_eq!(twenty.iter().collect::<BTreeSet<_>>().len(), 2, "both orders occur");
        assert!(twenty.iter().all(|order| order.len() == 2 && order[0] != order[1]));
        assert_eq!(orders(1, 20), twenty);
        assert_ne!(orders(2, 20), twenty);
    }
}
