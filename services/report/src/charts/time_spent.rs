//! What recorded requests spent their time with: a figure per profile, as the profiles' times differ by a hundred.

use super::{Bar, Caption, Key, PROCESS_COLOURS, Report, Swatch, bars, figure, ms};
use crate::traces::recorded;

pub(crate) fn time_spent(report: &Report) -> String {
    report.profiles.iter().enumerate().map(|(n, profile)| of_profile(report, n, profile)).collect()
}

fn of_profile(report: &Report, n: usize, profile: &str) -> String {
    let spent = recorded(report)
        .filter(|step| step.profile == *profile)
        .filter_map(|step| Some((step, step.time_spent.as_ref()?)));
    let class = |stage: usize| format!("p{}", stage % PROCESS_COLOURS);
    let mut keys: Vec<Key> = Vec::new();
    let rows: Vec<Bar> = spent
        .map(|(step, spent)| {
            for (i, stage) in spent.stages.iter().enumerate() {
                if stage.requests > 0 && keys.iter().all(|key| key.label != stage.name) {
                    keys.push(Key { class: class(i), swatch: Swatch::Box, label: stage.name.clone() });
                }
            }
            let parts = spent.stages.iter().enumerate().map(|(i, stage)| {
                let mean_ms = if stage.mean_ms.is_finite() { stage.mean_ms } else { 0.0 };
                (class(i), mean_ms, format!("{}: {} ms", stage.name, ms(mean_ms)))
            });
            Bar { label: format!("{:.0}/s", step.offered_per_s), parts: parts.collect(), first_of_group: false }
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let described: Vec<String> =
        rows.iter().map(|row| format!("{}: {} ms", row.label, ms(row.parts.iter().map(|part| part.1).sum()))).collect();
    let caption = Caption {
        id: &format!("time-{n}"),
        title: &format!("Mean time of a recorded request, {profile}"),
        description: &format!("Stacked bars. {}.", described.join("; ")),
    };
    figure(caption.title, "By what it was spent with; ms.", &bars(&caption, "ms", 0.0, &rows), &keys)
}
