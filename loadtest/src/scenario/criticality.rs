//! Reads the table `[criticality]`.

use super::read::Table;
use crate::criticality::CriticalityMix;

pub(super) fn read(table: Table<'_>) -> CriticalityMix {
    let share = |key| table.number(key, 0.0..=1.0).unwrap_or_default();
    let mix = CriticalityMix { critical: share("critical"), sheddable: share("sheddable") };
    if let Err(error) = mix.check() {
        let message = error.to_string();
        let (key, reason) = message.split_once(' ').unwrap_or(("sheddable", &message));
        table.error(key, reason);
    }
    table.finish();
    mix
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{criticality::CriticalityMix, plan::StepPlan, scenario::Scenario};

    fn with(table: &str) -> anyhow::Result<Scenario> {
        let article = include_str!("../../scenarios/article.toml");
        Scenario::parse("test", &format!("{article}\n[criticality]\n{table}"))
    }

    #[test]
    fn the_table_is_read_and_is_part_of_the_plan() {
        let scenario = with("critical = 0.1\nsheddable = 0.4").unwrap();
        assert_eq!(scenario.criticality, Some(CriticalityMix { critical: 0.1, sheddable: 0.4 }));
        let plan = StepPlan::of(&scenario, 1000, 0, Path::new("-"), "http://127.0.0.1:80");
        plan.check().unwrap();
        assert_eq!(plan.criticality, scenario.criticality);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<StepPlan>(&text).unwrap(), plan);
        assert_eq!(with("").unwrap().criticality, Some(CriticalityMix { critical: 0.0, sheddable: 0.0 }));
        let bad = StepPlan { criticality: Some(CriticalityMix { critical: 0.7, sheddable: 0.7 }), ..plan };
        assert!(format!("{:#}", bad.check().unwrap_err()).starts_with("criticality: sheddable must be at most"));
    }

    #[test]
    fn bad_shares_are_errors_with_line_and_key() {
        for (text, expected) in [
            ("critical = 2", "criticality.critical must be 0..=1, is 2"),
            ("sheddable = -0.1", "criticality.sheddable must be 0..=1, is -0.1"),
            ("critical = 0.5\nsheddable = 0.6", "criticality.sheddable must be at most 1 - critical (0.5)"),
            ("default = 0.5", "criticality.default is unknown; known here: critical, sheddable"),
        ] {
            let error = with(text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("has 1 error:") && error.contains("line "), "{error}");
        }
    }
}
