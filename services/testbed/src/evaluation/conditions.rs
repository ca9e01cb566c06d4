//! Under which conditions a step of an evaluation counts, and what may be set beside it. Pure.

use anyhow::ensure;
use api::Profile;
use loadtest::scenario::{KnownIds, Scenario};

use super::{Order, Variant, all_sets, plan};

/// # Errors
/// The stack alone takes longer than the law says that all of it does.
pub fn base_in_force(scenario_base_ms: f64, overhead_ms: f64) -> anyhow::Result<f64> {
    ensure!(
        overhead_ms < scenario_base_ms,
        "the real stack takes {overhead_ms} ms by itself, and the law's base is {scenario_base_ms} ms for all of it: this needs a quieter or \
         faster machine, a scenario with a larger base, or evaluate --law none"
    );
    Ok(scenario_base_ms - overhead_ms)
}

pub fn empties_cache(scenario: &Scenario, variant: &Variant) -> bool {
    variant.profile == Profile::Baseline && scenario.flush_cache_before_step
}

/// Whether a step that is measured again finds in Redis what it found before. Its ids are the same: without either, their lists are there now.
pub fn starts_alike(order: &Order, variant: &Variant) -> anyhow::Result<bool> {
    let api = plan(order).settings(variant.profile, &all_sets(order, variant))?;
    Ok(empties_cache(&order.scenario, variant) || api.guards.warmup)
}

/// The model knows one kind of step: every request needs the store, all of it is as the scenario says, and nothing breaks.
pub fn model_applies(order: &Order, variant: &Variant, step: usize) -> bool {
    let scenario = &order.scenario;
    empties_cache(scenario, variant)
        && matches!(scenario.known, KnownIds::Once)
        && scenario.faults_of(step).is_empty()
        && all_sets(order, variant).is_empty()
        && order.instances == 1
}

/// What is not as it is for the article, the model and the tolerances: they say nothing of it.
pub fn changed(order: &Order) -> Vec<String> {
    let mut changed = Vec::new();
    if !order.sets.is_empty() {
        changed.push(format!("settings changed ({})", order.sets.join(", ")));
    }
    if order.instances > 1 {
        changed.push(format!("{} MySQL servers", order.instances));
    }
    if !order.scenario.faults.is_empty() {
        changed.push("planned faults".to_owned());
    }
    changed
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::SystemTime};

    use loadtest::scenario::{Fault, FaultKind};

    use super::*;
    use crate::data;

    fn order(scenario: Scenario, sets: &[&str]) -> Order {
        Order {
            command: "test",
            scenario,
            variants: Vec::new(),
            source: data::Source::Generator(1),
            quick: false,
            repeat: 1,
            attempts: 3,
            instances: 1,
            sets: sets.iter().map(|set| (*set).to_owned()).collect(),
            soak: false,
            traces: false,
            out: PathBuf::new(),
            created: SystemTime::UNIX_EPOCH,
        }
    }

    fn without_warmup() -> Variant {
        let sets = vec!["guards.warmup=off".to_owned()];
        Variant { name: "protected -warmup".into(), sets, ..Variant::plain(Profile::Protected) }
    }

    #[test]
    fn a_step_is_measured_again_where_its_ids_are_as_new_or_as_known_as_before() {
        let [article, penetration] =
            ["article", "penetration"].map(|name| order(Scenario::load(name).unwrap(), &["cache.items=20"]));
        let [baseline, protected] = [Profile::Baseline, Profile::Protected].map(Variant::plain);
        assert!(starts_alike(&article, &baseline).unwrap() && starts_alike(&article, &protected).unwrap());
        assert!(!starts_alike(&article, &without_warmup()).unwrap());
        assert!(!starts_alike(&penetration, &baseline).unwrap(), "its cache is not emptied");
        assert!(starts_alike(&penetration, &protected).unwrap());
    }

    #[test]
    fn the_model_is_for_the_scenario_as_it_stands() {
        let article = || order(Scenario::load("article").unwrap(), &[]);
        let baseline = Variant::plain(Profile::Baseline);
        assert!(model_applies(&article(), &baseline, 0) && changed(&article()).is_empty());
        assert!(!model_applies(&article(), &Variant::plain(Profile::Protected), 0));
        assert!(!model_applies(&article(), &Variant { sets: vec!["cache.items=1".into()], ..baseline.clone() }, 0));
        let set = Order { sets: vec!["store.pool_size=5".into()], ..article() };
        let spread = Order { instances: 16, ..article() };
        let mut broken = article();
        let kind = FaultKind::Stall;
        broken.scenario.faults = vec![Fault { step: Some(1), at_s: 1.0, for_s: 1.0, kind }];
        assert!(!model_applies(&set, &baseline, 0) && !model_applies(&spread, &baseline, 0));
        assert!(model_applies(&broken, &baseline, 0) && !model_applies(&broken, &baseline, 1));
        assert_eq!(changed(&set), ["settings changed (store.pool_size=5)"]);
        assert_eq!(changed(&spread), ["16 MySQL servers"]);
        assert_eq!(changed(&broken), ["planned faults"]);
    }

    #[test]
    fn the_law_has_room_for_the_stack() {
        assert!((base_in_force(74.0, 3.2).unwrap() - 70.8).abs() < 1e-9);
        let error = base_in_force(3.0, 3.0).unwrap_err().to_string();
        assert!(error.contains("3 ms by itself") && error.contains("--law none"), "{error}");
    }
}
