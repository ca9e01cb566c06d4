//! The boundary by the queueing model, which is computed before the measurement. Pure.

use loadtest::{
    arrivals::Arrivals,
    model::open::{self, GivenUp},
    scenario::Scenario,
};

use super::{
    bisect::{Boundary, Search, Step, Tried},
    cell::{HOLD_S, Judged, Second, State, Timing, judge},
    classes::Class,
};

/// Of the model: a client that gives up leaves the queue, as in a replica that notices the closed connection.
const GIVEN_UP: GivenUp = GivenUp::Leaves;
/// Of the model's boundary; the measurement's is coarser.
const PRECISION: f64 = 0.97;
const SEED: u64 = 1;
/// Of the cells of the model.
const BEFORE_S: u32 = 3;

/// The boundary of a class at this rate, in trigger sizes. `None`: the scenario is none of those that are modelled.
pub fn boundary(class: &Class, scenario: &Scenario, per_s: u32, scale: u32) -> Option<Boundary> {
    let search = Search { expected: None, largest: class.largest, precision: PRECISION };
    let mut tried = Vec::new();
    loop {
        match search.next(&tried) {
            Step::Try(size) => {
                let judged = cell(class, scenario, per_s, (size, scale))?;
                tried.push(Tried { size, recovered: judged.state == State::Recovered });
            }
            Step::Done(boundary) => return Some(boundary),
        }
    }
}

/// One cell of the model: a trigger of this size.
pub fn cell(class: &Class, scenario: &Scenario, per_s: u32, (size, scale): (u32, u32)) -> Option<Judged> {
    let timing = Timing { before_s: BEFORE_S, trigger_ms: class.trigger_ms(size), hold_s: HOLD_S, lowered_s: 0 };
    let scenario = Scenario {
        warm_up_s: 0,
        measure_s: timing.total_s() as u32,
        arrivals: Arrivals::at_constant_rate(scenario.arrivals.clone()),
        ..scenario.clone()
    };
    let (cached_users, disturbances) = class.modelled(size, u64::from(BEFORE_S) * 1_000_000, scale);
    let seconds = open::run_disturbed(&scenario, per_s, SEED, GIVEN_UP, (cached_users, &disturbances))?;
    let second = |of: &open::Second| Second { requests: of.requests, good: of.good, retries: of.retries };
    Some(judge(&seconds.iter().map(second).collect::<Vec<_>>(), timing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::metastable::{classes, cures};

    /// A quarter of the size, so that a debug build is fast enough. In a much smaller store chance lets some tries through, and it recovers.
    const SCALE: u32 = 4;

    fn of(class: &Class, cure: &str, per_s: u32) -> Boundary {
        let scenario = cures::of(cure).unwrap().scenario(class.scenario(SCALE).unwrap());
        boundary(class, &scenario, per_s, SCALE).unwrap()
    }

    #[test]
    fn every_class_has_a_boundary_that_falls_with_the_load() {
        for class in &classes::ALL {
            let [low, high] = class.loads(SCALE).map(|per_s| of(class, "none", per_s));
            let (Some(at_low), Some(at_high)) = (low.middle(), high.middle()) else {
                panic!("{}: {low:?} {high:?}", class.name)
            };
            assert!(at_low > at_high, "{}: {low:?} {high:?}", class.name);
            assert!(high.low.unwrap() > 1, "{}: {high:?}", class.name);
        }
    }

    #[test]
    fn without_retries_no_trigger_sticks() {
        for class in &classes::ALL {
            // A cold cache needs no retries: the store cannot carry the load.
            if !class.has_cache() {
                assert_eq!(of(class, "no retries", class.loads(SCALE)[0]).high, None, "{}", class.name);
            }
        }
    }
}
