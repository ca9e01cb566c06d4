//! The prediction and the sensitivity of an evaluation: variants that measure them, and what the report says about both.

use loadtest::{
    fit::{
        self, Effort, FITTED_UP_TO, Fit,
        sensitivity::{self, Effect},
    },
    model::Change,
    scenario::{Law, Order, Scenario, Store},
};
use report::{
    Report,
    fitted::{self, PREDICTION, Predicted, Prediction, sensitivity::Sensitivity},
};

use super::Variant;

/// Parameters whose effect is also measured.
const MEASURED: usize = 2;

/// What is computed before the run.
pub struct Fitted {
    scenario: Scenario,
    /// None: a run without the prediction's steps.
    fit: Option<Fit>,
    sensitivity: Option<Sensitivity>,
}

impl Fitted {
    /// Some seconds of computation.
    pub fn of(scenario: &Scenario, prediction: bool, sensitivity: bool) -> Self {
        Self {
            scenario: scenario.clone(),
            fit: if prediction { fit::fit(scenario, Effort::FULL) } else { None },
            sensitivity: if sensitivity { sensitivity_of(scenario) } else { None },
        }
    }

    /// The steps to measure after those of the profiles.
    pub fn variants(&self) -> Vec<Variant> {
        let prediction = self.fit.as_ref().map(|fit| {
            let mut scenario = fit.apply(&self.scenario);
            keep_steps(&mut scenario, |users| users > FITTED_UP_TO);
            variant(PREDICTION, &self.scenario, scenario)
        });
        let varied = self.sensitivity.iter().flat_map(|sensitivity| &sensitivity.measured);
        let varied = varied.map(|(effect, name)| {
            let mut scenario = effect.variation.scenario.clone();
            let users = scenario.steps.get(effect.step).copied();
            keep_steps(&mut scenario, |step| Some(step) == users);
            variant(name, &self.scenario, scenario)
        });
        // Without a step there is nothing to measure.
        let all = prediction.into_iter().chain(varied);
        all.filter(|one| one.scenario.as_ref().is_some_and(|scenario| !scenario.steps.is_empty())).collect()
    }

    /// Adds sections and verdicts.
    pub fn conclude(&self, report: &mut Report) {
        report.sections.extend(fitted::section(report, &self.scenario));
        if let Some(prediction) = self.fit.as_ref().and_then(|fit| self.prediction(fit)) {
            report.sections.push(fitted::prediction(report, &prediction));
            report.verdicts.extend(fitted::verdicts(report, &prediction));
        }
        if let Some(sensitivity) = &self.sensitivity {
            report.sections.push(fitted::sensitivity::section(report, sensitivity));
        }
    }

    fn prediction(&self, fit: &Fit) -> Option<Prediction> {
        let Law::Modelled { base_ms, slope_ms, .. } = self.scenario.law else { return None };
        let applied = fit.apply(&self.scenario);
        let rows = self.scenario.steps.iter().filter(|&&users| users > FITTED_UP_TO).filter_map(|&users| {
            let article = self.scenario.article("baseline", users)?.clone();
            Some(Predicted { users, article, model: fit::predict(&applied, users, Change::default())? })
        });
        Some(Prediction {
            fit: fit.clone(),
            base_ms_in_force: base_ms,
            slope_ms_in_force: slope_ms,
            capacity_per_s: applied.store_capacity_per_s(),
            capacity_in_force_per_s: self.scenario.store_capacity_per_s(),
            rows: rows.collect(),
        })
    }
}

fn sensitivity_of(scenario: &Scenario) -> Option<Sensitivity> {
    let steps = |change| scenario.steps.iter().map(|&users| fit::predict(scenario, users, change)).collect();
    let unchanged: Option<Vec<_>> = steps(Change::default());
    let effects = sensitivity::effects(scenario);
    let measured: Vec<(Effect, String)> = sensitivity::most_sensitive(&effects, MEASURED)
        .into_iter()
        .map(|effect| (effect.clone(), format!("varied {}", effect.variation.parameter)))
        .collect();
    let candidates = sensitivity::candidates().into_iter();
    let candidates = candidates.filter_map(|(name, change)| Some((name, steps(change)?))).collect();
    Some(Sensitivity { users: scenario.steps.clone(), unchanged: unchanged?, effects, measured, candidates })
}

/// Removes steps with their shares of unknown ids. Planned faults name steps by their index, so they are removed too.
fn keep_steps(scenario: &mut Scenario, keep: impl Fn(u32) -> bool) {
    let kept = scenario.steps.iter().zip(&scenario.unknown_share).filter(|(users, _)| keep(**users));
    (scenario.steps, scenario.unknown_share) = kept.map(|(&users, &share)| (users, share)).unzip();
    scenario.faults.clear();
}

fn variant(name: &str, before: &Scenario, scenario: Scenario) -> Variant {
    let sets = store_sets(&before.store, &scenario.store);
    Variant {
        name: name.to_owned(),
        sets,
        scenario: Some(Box::new(scenario)),
        ..Variant::plain(api::Profile::Baseline)
    }
}

/// The replicas are configured by the plan's scenario; these settings change its store to another one.
fn store_sets(before: &Store, after: &Store) -> Vec<String> {
    let order = match after.order {
        Order::Newest => "newest",
        Order::Oldest => "oldest",
    };
    let all = [
        (before.pool_size != after.pool_size, format!("store.pool_size={}", after.pool_size)),
        (before.order != after.order, format!("store.order={order}")),
        (
            before.checkout_timeout_ms != after.checkout_timeout_ms,
            format!("store.checkout_timeout_ms={}", after.checkout_timeout_ms),
        ),
    ];
    all.into_iter().filter(|(differs, _)| *differs).map(|(_, set)| set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn article() -> Scenario {
        Scenario::load("article").unwrap()
    }

    #[test]
    fn the_prediction_is_measured_at_the_steps_that_the_fit_did_not_see() {
        let fit = Fit { base_ms: 71.4, slope_ms: 0.22, ..Fit::default() };
        let fitted = Fitted { scenario: article(), fit: Some(fit), sensitivity: None };
        let variants = fitted.variants();
        let [prediction] = variants.as_slice() else { panic!("{variants:?}") };
        let scenario = prediction.scenario.as_ref().unwrap();
        assert_eq!((prediction.name.as_str(), &scenario.steps), (PREDICTION, &vec![4000, 5000]));
        assert_eq!(scenario.law, Law::Modelled { base_ms: 71.4, slope_ms: 0.22, crosstalk_ms: 0.0, spread: 0.3 });
        assert!(prediction.sets.is_empty() && scenario.unknown_share.len() == 2);
        let mut few = article();
        few.steps.truncate(3);
        few.unknown_share.truncate(3);
        assert!(Fitted { scenario: few, ..fitted }.variants().is_empty(), "nothing is left to predict");
    }

    #[test]
    fn a_variation_is_measured_at_its_step_with_its_settings() {
        let scenario = article();
        let variations = sensitivity::variations(&scenario);
        let of = |parameter: &str| {
            let variation = variations.iter().find(|one| one.parameter == parameter).unwrap().clone();
            (Effect { variation, figures: Vec::new(), step: 3, mean_pct: 1.0 }, format!("varied {parameter}"))
        };
        let measured = vec![of("order"), of("pool"), of("patience"), of("slope")];
        let sensitivity = Sensitivity { measured, ..Sensitivity::default() };
        let variants = Fitted { scenario, fit: None, sensitivity: Some(sensitivity) }.variants();
        assert!(variants.iter().all(|one| one.scenario.as_ref().unwrap().steps == [4000]));
        let sets: Vec<_> = variants.iter().map(|one| one.sets.join(" ")).collect();
        assert_eq!(sets, ["store.order=oldest", "store.pool_size=80", "store.checkout_timeout_ms=2320", ""]);
        assert_eq!(variants[2].scenario.as_ref().unwrap().timeout_ms, 2400);
        assert_ne!(variants[3].scenario.as_ref().unwrap().law, article().law);
    }
}
