//! A steady load, a surge on top of it, and the steady load again.

use std::path::Path;

use loadtest::{
    curve::{Curve, Point},
    plan::{DEFAULT_RUN_SEED, StepPlan},
    scenario::Scenario,
};
use report::{
    Chart, Drawing, Second, Section, Table, Validity,
    numbers::{count, tail},
    trend,
};
use serde::Serialize;

use crate::{evaluation::AfterSteps, instruments::generator};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surge {
    pub base_users: u32,
    /// In all during the surge; more than `base_users`.
    pub peak_users: u32,
    pub before_s: u32,
    pub for_s: u32,
    pub after_s: u32,
}

pub const SURGE: Surge = Surge { base_users: 600, peak_users: 2130, before_s: 10, for_s: 20, after_s: 20 };
pub const QUICK_SURGE: Surge = Surge { before_s: 5, for_s: 8, after_s: 12, ..SURGE };

/// How one variant came through a surge.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Recovery {
    pub profile: String,
    pub repeat: u32,
    /// Offered before and after the surge.
    pub base_per_s: f64,
    /// Offered during the surge.
    pub peak_per_s: f64,
    /// Second of `series` in which the surge begins.
    pub surge_from_s: u32,
    /// Second of `series` in which it is over.
    pub surge_to_s: u32,
    /// Median of the seconds' p99 before the surge; null when too few requests ended in them.
    pub normal_p99_ms: Option<f64>,
    /// Instead of it, the median of the seconds' longest requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normal_max_ms: Option<f64>,
    /// Good answers during the surge.
    pub surge_good_per_s: f64,
    /// From the end of the surge to the first of three normal seconds in a row; null: not within the series.
    pub back_after_s: Option<u32>,
    /// The same if each second that is not valid had been normal.
    pub earliest_back_s: Option<u32>,
    /// Of the seconds until the end of the surge. The later ones are judged one by one.
    #[serde(skip)]
    pub validity: Validity,
    pub series: Vec<Second>,
}

impl Surge {
    /// Of load, with its warm-up.
    pub fn seconds(&self, scenario: &Scenario) -> u64 {
        u64::from(scenario.warm_up_s + self.before_s + self.for_s + self.after_s)
    }

    /// Planned as one more step, with the first step's share of unknown ids.
    fn plan(&self, scenario: &Scenario, known_ids: &Path, gateway: &str) -> anyhow::Result<StepPlan> {
        let from_ms = u64::from(self.before_s) * 1000;
        let to_ms = from_ms + u64::from(self.for_s) * 1000;
        let (base, peak) = (self.base_users, self.peak_users);
        let points = [(from_ms, base), (from_ms, peak), (to_ms, peak), (to_ms, base)];
        let points = points.map(|(at_ms, users)| Point { at_ms, users });
        Ok(StepPlan {
            name: format!("{} surge", scenario.name),
            curve: Some(Curve::new(points.to_vec())?),
            measure_ms: to_ms + u64::from(self.after_s) * 1000,
            // Other ids than in the steps.
            seed: statistics::seed::of_step(DEFAULT_RUN_SEED, 1, scenario.steps.len()),
            ..StepPlan::of(scenario, base, 0, known_ids, gateway)
        })
    }

    /// # Errors
    /// A server or the load generator fails.
    pub async fn run(&self, after: &mut AfterSteps<'_>) -> anyhow::Result<Recovery> {
        let scenario = after.scenario;
        let plan = self.plan(scenario, after.known_ids, &after.target.gateway)?;
        let mut show = after.bar.follow(&format!("{}, surge to {} users", after.variant.name, self.peak_users));
        let window = generator::drive(after.service, after.target, &plan, async |_, moment| {
            if let generator::Moment::Second(now) = moment {
                show(now);
            }
            Ok(None)
        })
        .await?;
        after.bar.done(self.seconds(scenario));
        let (series, send_lag) = (window.outcome.series, window.outcome.send_lag);
        let during = self.before_s..self.before_s + self.for_s;
        let back = trend::back_to_normal(&series, during.clone());
        let good: u64 = series.iter().filter(|s| during.contains(&s.second)).map(|s| s.good).sum();
        Ok(Recovery {
            profile: after.variant.name.clone(),
            repeat: after.repeat,
            base_per_s: scenario.offered_per_s(self.base_users),
            peak_per_s: scenario.offered_per_s(self.peak_users),
            surge_from_s: during.start,
            surge_to_s: during.end,
            normal_p99_ms: back.normal_p99_ms(),
            normal_max_ms: back.normal_max_ms(),
            surge_good_per_s: good as f64 / f64::from(self.for_s.max(1)),
            back_after_s: back.after_s,
            earliest_back_s: back.earliest_s,
            validity: Validity::of_seconds(&series, 0..during.end, send_lag.p99_ms).with_scheduling(&window.scheduling),
            series,
        })
    }
}

impl Recovery {
    pub fn name(&self) -> String {
        format!("{}, surge {}", self.profile, self.repeat)
    }
}

/// # Errors
/// The figures have no JSON form.
pub fn section(recoveries: &[Recovery], repeats: u32) -> anyhow::Result<Section> {
    let row = |r: &Recovery| {
        vec![
            if repeats > 1 { format!("{} ({})", r.profile, r.repeat) } else { r.profile.clone() },
            count(r.base_per_s),
            count(r.peak_per_s),
            count(r.surge_good_per_s),
            tail(r.normal_p99_ms, r.normal_max_ms),
            r.back_after_s.map_or_else(|| "not within the run".into(), |s| format!("{s} s")),
        ]
    };
    let table = Table::new(
        "Back to normal",
        "A second is normal with at most 1 % errors and a p99 of at most twice the p99 before the surge, or 20 ms more where that is \
         higher; with fewer than 1,000 requests in a second, its longest one (max) instead of the p99. Back to normal is the first of three normal seconds in a row, counted from the end of the surge.",
        &["", "steady/s", "surge/s", "good/s in it", "p99 before, ms", "back to normal after"],
        recoveries.iter().map(row).collect(),
    );
    let section = Section::new(
        "After a surge",
        "Users come for a while and leave again. When does the service answer as before?",
        serde_json::to_value(recoveries)?,
    );
    Ok(section.with_tables(vec![table]).with_charts(recoveries.iter().map(chart).collect()))
}

fn chart(r: &Recovery) -> Chart {
    let back = match r.back_after_s {
        Some(seconds) => format!("back to normal {seconds} s after it"),
        None => "not back to normal within the run".into(),
    };
    let meaning =
        format!("{} requests/s in seconds {} to {}: {back}.", count(r.peak_per_s), r.surge_from_s, r.surge_to_s);
    let level = "offered before and after".to_owned();
    let drawing = Drawing::Answers { series: r.series.clone(), level_per_s: r.base_per_s, level };
    Chart::new(&format!("{} through the surge", r.profile), &meaning, drawing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surge_is_a_plan_in_range_around_the_knee() {
        let scenario = Scenario::load("overload").unwrap();
        let knee = scenario.store_capacity_per_s().unwrap();
        for surge in [SURGE, QUICK_SURGE] {
            let plan = surge.plan(&scenario, Path::new("ids"), "http://127.0.0.1:80").unwrap();
            plan.check().unwrap();
            assert_eq!((plan.users, plan.all_users()), (600, 2130));
            let (from_ms, to_ms) = (surge.before_s * 1000, (surge.before_s + surge.for_s) * 1000);
            let edges = [from_ms - 1, from_ms, to_ms - 1, to_ms].map(|ms| plan.warm_up_ms + u64::from(ms));
            assert_eq!(edges.map(|ms| plan.users_at(ms)), [600, 2130, 2130, 600]);
            assert_eq!(surge.seconds(&scenario), (plan.warm_up_ms + plan.measure_ms) / 1000);
            assert!(scenario.offered_per_s(surge.base_users) < 0.8 * knee);
            assert!(scenario.offered_per_s(surge.peak_users) >= 1.98 * knee);
        }
    }

    #[test]
    fn the_section_has_what_the_jq_example_reads() {
        let recovery = Recovery { profile: "protected".into(), back_after_s: Some(2), ..Recovery::default() };
        let section = section(&[recovery], 1).unwrap();
        assert_eq!(section.title, "After a surge");
        let measured = &section.measured[0];
        assert_eq!((measured["profile"].as_str(), measured["back_after_s"].as_u64()), (Some("protected"), Some(2)));
        assert_eq!((section.tables[0].rows.len(), section.charts.len()), (1, 1));
    }
}
