//! Under which conditions a step of an evaluation is measured, repeated, modelled and judged. Pure.

use anyhow::ensure;
use api::Profile;
use loadtest::scenario::{KnownIds, Scenario};

use super::{Plan, Variant, all_sets, service_plan};
use crate::stack::service;

/// # Errors
/// The stack alone is slower than the law allows for all of it.
pub fn base_in_force(scenario_base_ms: f64, overhead_ms: f64) -> anyhow::Result<f64> {
    ensure!(
        overhead_ms < scenario_base_ms,
        "the real stack needs {overhead_ms} ms without the law, and the law's base for all of it is {scenario_base_ms} ms: use a quieter or \
         faster machine, a scenario with a larger base, or evaluate --law none"
    );
    Ok(scenario_base_ms - overhead_ms)
}

/// The law of a scenario, less the stack's own latency.
///
/// # Errors
/// As [`base_in_force`].
pub fn in_force(scenario: &Scenario, overhead_ms: f64) -> anyhow::Result<faultproxy::Law> {
    Ok(match service::law(scenario.law) {
        faultproxy::Law::Linear { base_ms, slope_ms, crosstalk_ms, spread } => {
            faultproxy::Law::Linear { base_ms: base_in_force(base_ms, overhead_ms)?, slope_ms, crosstalk_ms, spread }
        }
        other => other,
    })
}

pub fn empties_cache(scenario: &Scenario, variant: &Variant) -> bool {
    variant.profile == Profile::Baseline && scenario.flush_cache_before_step
}

/// Whether Redis is the same when a step is measured again. The ids are the same, so their lists are cached by then, unless the cache is
/// emptied before the step or warmed up with all lists.
pub fn starts_alike(plan: &Plan, variant: &Variant) -> anyhow::Result<bool> {
    let api = service_plan(plan).settings(variant.profile, &all_sets(plan, variant))?;
    Ok(empties_cache(variant.scenario(plan), variant) || api.guards.warmup)
}

/// The model covers steps in which every request needs the store, nothing is changed that the scenario does not state, and nothing is
/// broken.
pub fn model_applies(plan: &Plan, variant: &Variant, step: usize) -> bool {
    let scenario = variant.scenario(plan);
    let sets = if variant.scenario.is_some() { plan.sets.is_empty() } else { all_sets(plan, variant).is_empty() };
    empties_cache(scenario, variant)
        && matches!(scenario.known, KnownIds::Once)
        && scenario.faults_of(step).is_empty()
        && sets
        && plan.instances == 1
}

/// What differs from the conditions of the article, the model and the tolerances.
pub fn changed(plan: &Plan) -> Vec<String> {
    let mut changed = Vec::new();
    if !plan.sets.is_empty() {
        changed.push(format!("settings changed ({})", plan.sets.join(", ")));
    }
    if plan.instances > 1 {
        changed.push(format!("{} MySQL servers", plan.instances));
    }
    if !plan.batch {
        changed.push("SCHED_OTHER instead of SCHED_BATCH".to_owned());
    }
    if !plan.scenario.faults.is_empty() {
        changed.push("planned faults".to_owned());
    }
    if plan.scenario.retry.is_some() {
        changed.push("a client that sends failed requests again".to_owned());
    }
    changed
}

#[cfg(test)]
mod tests {
    use loadtest::{
        retry::{Backoff, Budget, Retry},
        scenario::{Fault, FaultKind, Law},
    };

    use super::*;
    use crate::evaluation::tests::plan;

    fn without_warmup() -> Variant {
        let sets = vec!["guards.warmup=off".to_owned()];
        Variant { name: "protected -warmup".into(), sets, ..Variant::plain(Profile::Protected) }
    }

    #[test]
    fn a_step_is_measured_again_where_its_ids_are_as_new_or_as_known_as_before() {
        let [article, penetration] =
            ["article", "penetration"].map(|name| plan(Scenario::load(name).unwrap(), &["cache.items=20"]));
        let [baseline, protected] = [Profile::Baseline, Profile::Protected].map(Variant::plain);
        assert!(starts_alike(&article, &baseline).unwrap() && starts_alike(&article, &protected).unwrap());
        assert!(!starts_alike(&article, &without_warmup()).unwrap());
        assert!(!starts_alike(&penetration, &baseline).unwrap(), "its cache is not emptied");
        assert!(starts_alike(&penetration, &protected).unwrap());
    }

    #[test]
    fn the_model_is_for_an_unchanged_scenario() {
        let article = || plan(Scenario::load("article").unwrap(), &[]);
        let baseline = Variant::plain(Profile::Baseline);
        assert!(model_applies(&article(), &baseline, 0) && changed(&article()).is_empty());
        assert!(!model_applies(&article(), &Variant::plain(Profile::Protected), 0));
        assert!(!model_applies(&article(), &Variant { sets: vec!["cache.items=1".into()], ..baseline.clone() }, 0));
        let set = Plan { sets: vec!["store.pool_size=5".into()], ..article() };
        let spread = Plan { instances: 16, ..article() };
        let mut broken = article();
        let kind = FaultKind::Stall;
        broken.scenario.faults = vec![Fault { step: Some(1), at_s: 1.0, for_s: 1.0, kind }];
        assert!(!model_applies(&set, &baseline, 0) && !model_applies(&spread, &baseline, 0));
        assert!(model_applies(&broken, &baseline, 0) && !model_applies(&broken, &baseline, 1));
        let own = Variant {
            scenario: Some(Box::new(Scenario::load("article").unwrap())),
            sets: vec!["store.order=oldest".into()],
            ..baseline.clone()
        };
        assert!(model_applies(&article(), &own, 0), "its settings are those of its scenario");
        assert!(!model_applies(&set, &own, 0));
        assert_eq!(changed(&set), ["settings changed (store.pool_size=5)"]);
        assert_eq!(changed(&spread), ["16 MySQL servers"]);
        assert_eq!(changed(&broken), ["planned faults"]);
        let mut retrying = article();
        let (backoff, budget) = (Backoff::None, Budget::None);
        retrying.scenario.retry = Some(Retry { attempts: 2, per_try_timeout_ms: 1000, backoff, budget });
        assert_eq!(changed(&retrying), ["a client that sends failed requests again"]);
    }

    #[test]
    fn a_variant_has_a_law_of_its_own() {
        let mut scenario = Scenario::load("article").unwrap();
        let Law::Modelled { slope_ms, crosstalk_ms, spread, .. } = scenario.law else { panic!("{:?}", scenario.law) };
        scenario.law = Law::Modelled { base_ms: 71.0, slope_ms, crosstalk_ms, spread };
        let law = in_force(&scenario, 3.5).unwrap();
        assert_eq!(law, faultproxy::Law::Linear { base_ms: 67.5, slope_ms, crosstalk_ms, spread });
        assert!(in_force(&scenario, 71.0).is_err());
        scenario.law = Law::None;
        assert_eq!(in_force(&scenario, 3.5).unwrap(), faultproxy::Law::None);
    }

    #[test]
    fn the_law_has_room_for_the_stack() {
        assert!((base_in_force(74.0, 3.2).unwrap() - 70.8).abs() < 1e-9);
        let error = base_in_force(3.0, 3.0).unwrap_err().to_string();
        assert!(error.contains("3 ms without the law") && error.contains("--law none"), "{error}");
    }
}
