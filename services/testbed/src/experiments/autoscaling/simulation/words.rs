//! Tables, charts and sentences of the simulation. Pure.

use report::{
    Chart, Curve as Points, Drawing, Section, Table, Verdict,
    numbers::{NO_FIGURE, count, pct},
};

use super::{
    curves::Curve,
    model::Model,
    policies::{FORESIGHT, Policy},
    run::Outcome,
};
use crate::experiments::autoscaling::rules::Limits;

/// What is modelled and what is not.
pub fn what(model: &Model, limits: Limits, seed: u64) -> String {
    let Limits { min, max } = limits;
    format!(
        "A simulation on a virtual clock, without servers: policies for the number of replicas, each on the same loads. Modelled: {min} to {max} \
         replicas, each with the virtual CPU of a live replica of a modelled quota ({:.0} m CPU, {:.0} ms of it for a request, one request after the \
         other: {:.0} requests/s); the gateway's round robin; a start that takes {:.0} s, with requests at once after it; and users who plan \
         requests evenly and do not send one that would be answered after {:.0} ms, because they still wait. An answer within {:.0} ms is in time. The \
         HorizontalPodAutoscalers are decided by the planner of `testbed plan`, from readings as a live autoscaler takes them. Not modelled: the \
         store, caches, random arrivals within a second, replicas that differ or fail, and delayed or lost metrics. A replica that leaves \
         answers what it has and costs nothing more. Seed {seed}. How near the simulation is to a live run: `experiment autoscaling` has both side by side.",
        1_000.0 * model.quota,
        1_000.0 * model.cost.as_secs_f64(),
        model.replica_per_s(),
        model.ready_after.as_secs_f64(),
        1_000.0 * model.patience.as_secs_f64(),
        1_000.0 * model.slo.as_secs_f64(),
    )
}

/// The policies, then a section for each curve.
///
/// # Errors
/// The figures have no JSON form.
pub fn sections(policies: &[&Policy], runs: &[(Curve, Vec<Outcome>)]) -> anyhow::Result<Vec<Section>> {
    let named = policies.iter().map(|policy| serde_json::json!({ "name": policy.name, "about": policy.about }));
    let about = Section::new("Policies", "All begin with what the first second needs.", named.collect());
    let rows = policies.iter().map(|policy| vec![policy.name.to_owned(), policy.about.to_owned()]).collect();
    let table = Table::new("Policies", "Seconds are those of the simulated clock.", &["", "decides"], rows);
    // A sentence is wider than a terminal.
    let mut sections = vec![about.with_tables(vec![Table { pages_only: true, ..table }])];
    for (curve, outcomes) in runs {
        let section = Section::new(&format!("Load: {}", curve.name), &sentence(curve), serde_json::to_value(outcomes)?);
        sections.push(section.with_tables(vec![figures(curve, outcomes)]).with_charts(vec![chart(curve, outcomes)]));
    }
    Ok(sections)
}

fn sentence(curve: &Curve) -> String {
    let mut letters = curve.about.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}. {:.1} hours.", letters.as_str(), curve.today.len() as f64 / 3_600.0)
}

fn figures(curve: &Curve, outcomes: &[Outcome]) -> Table {
    let row = |outcome: &Outcome| {
        let elasticity = &outcome.elasticity;
        vec![
            outcome.policy.to_owned(),
            pct(outcome.beyond_slo_pct),
            count(outcome.replica_minutes),
            outcome.most_replicas.to_string(),
            count(outcome.changes as f64),
            format!("{:.2}", elasticity.accuracy_under),
            format!("{:.2}", elasticity.accuracy_over),
            pct(elasticity.timeshare_under_pct),
            pct(elasticity.timeshare_over_pct),
            elasticity.reaction_s.map_or_else(|| NO_FIGURE.into(), count),
        ]
    };
    Table::new(
        &format!("Users and cost: {}", curve.name),
        "Beyond the SLO: late or not sent, of all planned requests. Replica-minutes count from the start of a replica. Changes: decisions that \
         changed the count. SPEC's measures against the smallest count that answers each second's load in time: replicas missing (U) and too \
         many (O) in the mean, shares of the time, and the longest time from a rise of the demand until enough were ready.",
        &[
            "",
            "beyond SLO, %",
            "replica-minutes",
            "most replicas",
            "changes",
            "accuracy U",
            "accuracy O",
            "timeshare U, %",
            "timeshare O, %",
            "reaction, s",
        ],
        outcomes.iter().map(row).collect(),
    )
}

fn chart(curve: &Curve, outcomes: &[Outcome]) -> Chart {
    let point = |outcome: &Outcome| Points {
        name: outcome.policy.to_owned(),
        points: vec![(outcome.replica_minutes, outcome.beyond_slo_pct)],
    };
    let drawing = Drawing::Points {
        x_label: "replica-minutes".into(),
        y_label: "requests beyond the SLO, %".into(),
        curves: outcomes.iter().map(point).collect(),
    };
    let meaning = "Further down is better for users, further left is cheaper. How they weigh is for the reader to say.";
    Chart::new(&format!("SLO and cost: {}", curve.name), meaning, drawing)
}

/// Perfect foresight bounds all others; nothing else is judged, and no policy is the best.
pub fn verdict(runs: &[(Curve, Vec<Outcome>)]) -> Option<Verdict> {
    let under = |outcome: &Outcome| outcome.elasticity.accuracy_under;
    let (mut bounded, mut worse) = (0, Vec::new());
    for (curve, outcomes) in runs {
        let bound = outcomes.iter().find(|outcome| outcome.policy == FORESIGHT.name).map(under)?;
        bounded += outcomes.len().saturating_sub(1);
        let fewer = outcomes.iter().filter(|outcome| under(outcome) < bound);
        worse.extend(fewer.map(|outcome| format!("{} on {}", outcome.policy, curve.name)));
    }
    let measured = format!("{} of {bounded} runs have fewer", worse.len());
    (bounded > 0).then(|| {
        let expected = "no policy has fewer missing replicas on any load".into();
        Verdict::new("perfect foresight is a bound", expected, measured, worse.is_empty(), &worse.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::autoscaling::{
        elasticity::Elasticity,
        simulation::{model::tests::MODEL, policies::ALL},
    };

    fn runs(missing: &[f64]) -> Vec<(Curve, Vec<Outcome>)> {
        let curve =
            Curve { name: "step".into(), about: "it rises".into(), yesterday: Vec::new(), today: vec![1.0; 7_200] };
        let outcome = |(policy, missing): (&&Policy, &f64)| Outcome {
            policy: policy.name,
            planned: 7_200,
            beyond_slo_pct: 3.0,
            replica_minutes: 1_000.0,
            changes: 4,
            most_replicas: 12,
            elasticity: Elasticity { accuracy_under: *missing, ..Elasticity::default() },
        };
        vec![(curve, ALL.iter().rev().zip(missing).map(outcome).collect())]
    }

    #[test]
    fn each_load_has_a_table_and_one_chart_with_all_policies() {
        let sections = sections(ALL, &runs(&[0.0, 1.0, 2.0])).unwrap();
        let titles: Vec<&str> = sections.iter().map(|section| section.title.as_str()).collect();
        assert_eq!(titles, ["Policies", "Load: step"]);
        assert_eq!(sections[1].meaning, "It rises. 2.0 hours.");
        assert_eq!((sections[1].tables.len(), sections[1].charts.len()), (1, 1));
        for table in sections.iter().flat_map(|section| &section.tables) {
            assert!(table.rows.iter().all(|row| row.len() == table.head.len()), "{table:?}");
        }
        let Drawing::Points { curves, .. } = &sections[1].charts[0].drawing else { panic!() };
        assert_eq!(curves.len(), 3);
        let text = what(&MODEL, Limits { min: 8, max: 20 }, 1);
        assert!(text.contains("8 to 20 replicas") && text.contains("50 requests/s") && text.contains("Not modelled"));
    }

    #[test]
    fn only_the_bound_is_judged() {
        let passed = |missing: &[f64]| verdict(&runs(missing)).map(|verdict| verdict.passed);
        assert_eq!(passed(&[0.5, 0.5, 1.0]), Some(Some(true)));
        assert_eq!(passed(&[0.5, 0.4, 1.0]), Some(Some(false)));
        assert_eq!(passed(&[0.5]), None, "nothing to compare with");
    }
}
