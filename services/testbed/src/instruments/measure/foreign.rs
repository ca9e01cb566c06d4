//! One step of load on somebody else's endpoint.

use loadtest::plan::{Progress, StepOutcome, StepPlan};
use report::Step;

use super::figures;
use crate::instruments::{
    generator::{self, HasStack, Moment},
    target::Target,
};

/// As [`super::step`], without what only our own stack has. The caller fills in `profile` and `hdr_log`.
///
/// # Errors
/// The load generator fails.
pub async fn step<S: HasStack>(
    stack: &mut S,
    target: &Target,
    plan: &StepPlan,
    mut progress: impl FnMut(&Progress),
) -> anyhow::Result<(Step, StepOutcome)> {
    let window = generator::drive(stack, target, plan, async |_, moment| {
        if let Moment::Second(now) = moment {
            progress(now);
        }
        Ok(None)
    })
    .await?;
    let step = Step {
        seed: Some(plan.seed),
        scheduling: Some(window.scheduling),
        foreign: true,
        known_good_per_s: None,
        ..figures(&window.outcome, &window.before, &window.after, &window.validity)
    };
    Ok((step, window.outcome))
}
