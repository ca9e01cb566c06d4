//! What the fitted parameters do to the model's figures: each of them changed alone. Pure and seeded.

use super::predict;
use crate::{
    figures::ModelFigures,
    model::Change,
    scenario::{Law, Order, Scenario},
};

/// Relative change of a parameter.
pub const VARIED_BY: f64 = 0.2;

/// A scenario with one fitted parameter changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Variation {
    /// The parameter, for both of its changes.
    pub parameter: &'static str,
    /// With its unit and both values, such as `pool 100 → 80`.
    pub name: String,
    /// The scenario with the change.
    pub scenario: Scenario,
    /// What only the model can change.
    pub change: Change,
    /// Whether the real stack can run the changed scenario.
    pub measurable: bool,
}

/// Each fitted parameter 20 % lower and higher; of the order, the other one. Empty without a modelled law.
pub fn variations(scenario: &Scenario) -> Vec<Variation> {
    let Law::Modelled { base_ms, slope_ms, crosstalk_ms, spread } = scenario.law else { return Vec::new() };
    let law = |base_ms, slope_ms, spread| Law::Modelled { base_ms, slope_ms, crosstalk_ms, spread };
    let mut all = Vec::new();
    let mut push = |parameter: &'static str, name: String, edit: &dyn Fn(&mut Scenario)| {
        let mut scenario = scenario.clone();
        edit(&mut scenario);
        all.push(Variation { parameter, name, scenario, change: Change::default(), measurable: true });
    };
    for by in [1.0 - VARIED_BY, 1.0 + VARIED_BY] {
        let name = format!("law: base {base_ms:.1} → {:.1} ms", base_ms * by);
        push("base", name, &|s| s.law = law(base_ms * by, slope_ms, spread));
        let name = format!("law: slope {slope_ms:.3} → {:.3} ms", slope_ms * by);
        push("slope", name, &|s| s.law = law(base_ms, slope_ms * by, spread));
        let name = format!("law: spread {spread} → {:.2}", spread * by);
        push("spread", name, &|s| s.law = law(base_ms, slope_ms, spread * by));
        let pool = f64::from(scenario.store.pool_size);
        let name = format!("pool {pool} → {:.0}", pool * by);
        push("pool", name, &|s| s.store.pool_size = (pool * by).round().max(1.0) as u32);
        let patience = |ms: u64| (ms as f64 * by).round() as u64;
        let (timeout, checkout) = (scenario.timeout_ms, scenario.store.checkout_timeout_ms);
        push("patience", format!("patience {checkout} → {} ms", patience(checkout)), &|s| {
            (s.timeout_ms, s.store.checkout_timeout_ms) = (patience(timeout), patience(checkout));
        });
    }
    let (order, name) = match scenario.store.order {
        Order::Newest => (Order::Oldest, "order: newest → oldest first"),
        Order::Oldest => (Order::Newest, "order: oldest → newest first"),
    };
    push("order", name.into(), &|s| s.store.order = order);
    for by in [1.0 - VARIED_BY, 1.0 + VARIED_BY] {
        let share = scenario.unknown_share.first().copied().unwrap_or_default();
        let changed = (share * by).min(1.0);
        // With an empty cache and one use per id, known and unknown ids need the store alike.
        push("unknown ids", format!("unknown ids {:.0} → {:.0} %", 100.0 * share, 100.0 * changed), &|s| {
            s.unknown_share.iter_mut().for_each(|share| *share = (*share * by).min(1.0));
        });
    }
    let cached = Change { store_share: 1.0 - VARIED_BY, ..Change::default() };
    let name = format!("one use per id, flush: {:.0} % of the requests found in the cache", 100.0 * VARIED_BY);
    all.push(Variation {
        parameter: "once and flush",
        name,
        scenario: scenario.clone(),
        change: cached,
        measurable: false,
    });
    all
}

/// A variation and the model's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// What is changed.
    pub variation: Variation,
    /// One for each step of the scenario.
    pub figures: Vec<ModelFigures>,
    /// Step whose mean latency changes most: an index into the scenario's steps.
    pub step: usize,
    /// Change of the mean latency there, in percent.
    pub mean_pct: f64,
}

/// The model's figures of each variation, in the order of [`variations`].
pub fn effects(scenario: &Scenario) -> Vec<Effect> {
    let figures = |scenario: &Scenario, change| -> Option<Vec<ModelFigures>> {
        scenario.steps.iter().map(|&users| predict(scenario, users, change)).collect()
    };
    let Some(unchanged) = figures(scenario, Change::default()) else { return Vec::new() };
    let effect = |variation: Variation| {
        let figures = figures(&variation.scenario, variation.change)?;
        let pairs = figures.iter().zip(&unchanged);
        let changes = pairs.map(|(changed, plain)| 100.0 * (changed.mean_ms / plain.mean_ms - 1.0));
        let (step, mean_pct) = changes.enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))?;
        Some(Effect { variation, figures, step, mean_pct })
    };
    variations(scenario).into_iter().filter_map(effect).collect()
}

/// The strongest measurable change of each of the `n` parameters that change a mean latency most.
pub fn most_sensitive(effects: &[Effect], n: usize) -> Vec<&Effect> {
    let mut strongest: Vec<&Effect> = effects.iter().filter(|effect| effect.variation.measurable).collect();
    strongest.sort_by(|a, b| b.mean_pct.abs().total_cmp(&a.mean_pct.abs()));
    let mut chosen: Vec<&Effect> = Vec::new();
    for effect in strongest {
        if chosen.len() < n && chosen.iter().all(|one| one.variation.parameter != effect.variation.parameter) {
            chosen.push(effect);
        }
    }
    chosen
}

/// Changes of the model that could make the rate fall under overload, as the article's does from 4000 to 5000 users.
pub fn candidates() -> Vec<(String, Change)> {
    let retries =
        [1, 2, 5].map(|retries| (format!("{retries} retries at once"), Change { retries, ..Change::default() }));
    let powers = [1.2, 1.5].map(|power| (format!("law with power {power}"), Change { power, ..Change::default() }));
    let waiting = [0.05, 0.1, 0.2, 0.5].map(|waiting_weight| {
        (
            format!("a waiting request counts {waiting_weight} of a query"),
            Change { waiting_weight, ..Change::default() },
        )
    });
    [("none".to_owned(), Change::default())].into_iter().chain(retries).chain(powers).chain(waiting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An eighth of the article's stack, with the same store per replica.
    fn eighth(steps: &[u32]) -> Scenario {
        Scenario {
            steps: steps.to_vec(),
            replicas: 1,
            law: Law::Modelled { base_ms: 74.0, slope_ms: 1.6, crosstalk_ms: 0.0, spread: 0.3 },
            warm_up_s: 5,
            measure_s: 10,
            ..Scenario::load("article").unwrap()
        }
    }

    #[test]
    fn each_variation_changes_what_its_name_says() {
        let scenario = Scenario::load("article").unwrap();
        let all = variations(&scenario);
        let names: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names.len(), 14, "{names:?}");
        assert!(names.contains(&"pool 100 → 80") && names.contains(&"patience 2900 → 3480 ms"), "{names:?}");
        assert!(all.iter().all(|one| one.scenario != scenario || one.change != Change::default()));
        assert!(all.iter().filter(|one| !one.measurable).count() == 1);
    }

    #[test]
    fn the_most_sensitive_parameters_are_named_once_each() {
        let mut scenario = eighth(&[125, 500]);
        let all = effects(&scenario);
        assert_eq!(all.len(), variations(&scenario).len());
        let chosen = most_sensitive(&all, 2);
        let names: Vec<_> = chosen.iter().map(|effect| effect.variation.parameter).collect();
        assert_eq!(names[0], "order", "{names:?}");
        assert!(names.len() == 2 && names[1] != "order", "{names:?}");
        assert!(chosen[0].step == 1 && chosen[0].mean_pct > 20.0, "{chosen:?}");
        let ids = all.iter().filter(|effect| effect.variation.parameter == "unknown ids");
        assert!(ids.clone().count() == 2 && ids.clone().all(|effect| effect.mean_pct == 0.0), "all need the store");
        scenario.law = Law::None;
        assert!(effects(&scenario).is_empty() && variations(&scenario).is_empty());
    }

    #[test]
    fn a_candidate_makes_the_rate_of_good_answers_fall() {
        let scenario = eighth(&[]);
        let good = |users, change| crate::model::changed_step(&scenario, users, 1, change).unwrap().good_per_s;
        let candidates = candidates();
        assert_eq!(candidates[0].1, Change::default());
        let falls = |change| good(625, change) < 0.97 * good(500, change);
        assert!(!falls(Change::default()));
        let (_, waiting) = candidates.iter().find(|(_, change)| change.waiting_weight == 0.1).unwrap();
        assert!(falls(*waiting));
    }
}
