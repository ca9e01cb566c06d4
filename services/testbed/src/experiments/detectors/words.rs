//! The results of the sweep as tables and verdicts. Pure.

use heartbeat::{detector::KINDS, quality::Quality};
use report::{Section, Table, Verdict};
use serde_json::json;

use super::{
    GOAL, PLAIN_GOAL, curves,
    sweep::{Cell, OURS, Outcome, Plan, RIVALS, is_rare, summary},
    text,
};
use crate::experiments::publish::Found;

pub fn found(outcome: &Outcome, plan: &Plan) -> Found {
    Found {
        what: format!(
            "{} conditions, heartbeats every 1 s and every 100 ms, {} trace(s) of {} h of each, and {} instants in each at which the sender is \
             assumed to crash. Quality after Chen, Toueg and Aguilera: detection time T_D, mistakes and their recurrence T_MR and duration \
             T_M, query accuracy P_A.",
            outcome.cells.len() / 2,
            plan.traces,
            plan.length_s / 3_600,
            plan.crashes
        ),
        sections: vec![
            Section::new("Detection time and mistakes", "", measured(outcome))
                .with_tables(vec![unchanged(outcome), conditions(outcome), defaults(outcome), curves::table(outcome)])
                .with_charts(curves::charts(outcome)),
        ],
        verdicts: verdicts(outcome),
        remarks: vec![
            "The adaptive detector was developed on other seeds and frozen before these were drawn.".into(),
            "Parameters that are durations are in heartbeat intervals, so a setting scales with the interval.".into(),
            "Hindsight is the fixed timeout that makes one mistake a day on these traces; it cannot be known beforehand.".into(),
            "Pauses of the observer are not part of this: the same guard handles them before every detector.".into(),
        ],
        ..Found::default()
    }
}

/// The best of the rivals: setting and mean.
fn best_rival(outcome: &Outcome) -> Option<(usize, f64)> {
    RIVALS.iter().filter_map(|name| outcome.best(name)).min_by(|a, b| a.1.total_cmp(&b.1))
}

fn unchanged(outcome: &Outcome) -> Table {
    let ours = (outcome.ours(), outcome.everywhere(outcome.ours()));
    let best = best_rival(outcome).map_or(f64::NAN, |best| best.1);
    let row = |name: &str, setting: Option<usize>, mean: Option<f64>| {
        let mean = mean.unwrap_or(f64::NAN);
        let words = setting.map_or_else(|| "none".into(), |n| outcome.settings[n].words());
        vec![name.to_owned(), words, text(mean, 2), text(mean / best, 3)]
    };
    let mut rows = vec![row(OURS, Some(ours.0), ours.1)];
    for name in RIVALS {
        let best = outcome.best(name);
        rows.push(row(name, best.map(|best| best.0), best.map(|best| best.1)));
    }
    Table::new(
        "One unchanged setting everywhere",
        "Geometric mean over all conditions and rates of the p99 detection time in intervals, of the best setting that makes at most one \
         mistake a day on each; ours is its default. None: no setting does.",
        &["detector", "setting", "p99, intervals", "relative to the best other"],
        rows,
    )
}

fn conditions(outcome: &Outcome) -> Table {
    let rival = best_rival(outcome).map(|best| best.0);
    let row = |cell: &Cell| {
        let mine = cell.qualities[outcome.ours()].as_ref();
        let other = rival.and_then(|n| cell.qualities[n].as_ref());
        let of = |quality: Option<&Quality>, figure: fn(&Quality) -> f64| quality.map_or(f64::NAN, figure);
        let p99 = of(mine, |q| q.detection_p99_s);
        vec![
            cell.name(),
            text(cell.hindsight.detection_p99_s, 3),
            text(of(other, |q| q.detection_p99_s), 3),
            text(of(mine, |q| q.detection_p50_s), 3),
            text(p99, 3),
            text(p99 / cell.hindsight.detection_p99_s, 3),
            mine.map_or_else(|| "–".into(), |q| q.mistakes.to_string()),
            text(of(mine, |q| q.mistake_recurrence_s.unwrap_or(f64::NAN)), 0),
            text(of(mine, |q| q.mistake_duration_s), 3),
            text(of(mine, |q| q.query_accuracy), 6),
        ]
    };
    let other = rival.map_or_else(
        || "none".into(),
        |n| format!("{}, {}", outcome.settings[n].detector, outcome.settings[n].words()),
    );
    Table::new(
        "By condition",
        &format!(
            "Seconds. p99 of hindsight and of the best other unchanged setting ({other}); the other columns are the adaptive detector."
        ),
        &[
            "condition",
            "hindsight",
            "best other",
            "T_D p50",
            "T_D p99",
            "relative to hindsight",
            "mistakes",
            "T_MR",
            "T_M",
            "P_A",
        ],
        outcome.cells.iter().map(row).collect(),
    )
}

fn defaults(outcome: &Outcome) -> Table {
    let row = |(n, kind): (usize, &heartbeat::detector::DetectorKind)| {
        let params: Vec<String> = kind.params.iter().map(|p| format!("{} {}", p.name, p.default)).collect();
        let known = outcome.cells.iter().filter_map(|cell| cell.qualities[n].as_ref());
        let rare = known.filter(|quality| is_rare(quality)).count();
        let (p99, mistakes) = summary(outcome, n).map_or((f64::NAN, f64::NAN), |all| (all.0, all.1));
        vec![
            kind.name.to_owned(),
            params.join(", "),
            text(p99, 2),
            text(mistakes, 2),
            format!("{rare} of {}", outcome.cells.len()),
            kind.description.to_owned(),
        ]
    };
    Table::new(
        "Every detector with its authors' defaults",
        "p99 detection time in intervals (geometric mean), mistakes a day (mean; –: more than 1,000 somewhere), and on how many conditions \
         there is one mistake a day at most.",
        &["detector", "defaults", "p99, intervals", "mistakes a day", "conditions held", "what it is"],
        KINDS.iter().enumerate().map(row).collect(),
    )
}

fn verdicts(outcome: &Outcome) -> Vec<Verdict> {
    let ours = outcome.ours();
    let mine = |cell: &Cell| cell.qualities[ours].clone();
    let often: Vec<String> =
        outcome.cells.iter().filter(|cell| !mine(cell).is_some_and(|q| is_rare(&q))).map(Cell::name).collect();
    // With too many mistakes somewhere the mean is still shown; the verdict before it fails.
    let mean = summary(outcome, ours).map_or(f64::NAN, |all| all.0);
    let rival = best_rival(outcome);
    let ratio = mean / rival.map_or(f64::NAN, |best| best.1);
    let mut plain: Vec<(f64, String)> = Vec::new();
    for cell in outcome.cells.iter().filter(|cell| cell.condition.is_plain()) {
        let p99 = mine(cell).map_or(f64::INFINITY, |quality| quality.detection_p99_s);
        plain.push((p99 / cell.hindsight.detection_p99_s, cell.name()));
    }
    plain.sort_by(|a, b| b.0.total_cmp(&a.0));
    let worst = plain.first().map_or(f64::NAN, |worst| worst.0);
    let ratios: Vec<String> = plain.iter().map(|(ratio, name)| format!("{name}: {ratio:.3}")).collect();
    vec![
        Verdict::new(
            "adaptive, unchanged: mistakes",
            "≤ 1 a day on every condition".into(),
            if often.is_empty() { "nowhere more".into() } else { format!("more on {}", often.len()) },
            often.is_empty(),
            &often.join("; "),
        ),
        Verdict::new(
            "adaptive, unchanged: p99 detection time relative to the best other unchanged setting",
            format!("≤ {GOAL} ×"),
            format!("{ratio:.3} ×"),
            ratio <= GOAL,
            &rival.map_or_else(String::new, |(n, mean)| {
                format!("{} with {}: {mean:.2} intervals", outcome.settings[n].detector, outcome.settings[n].words())
            }),
        ),
        Verdict::new(
            "adaptive relative to the timeout fitted in hindsight, on plain conditions",
            format!("≤ {PLAIN_GOAL} ×"),
            format!("{worst:.3} ×"),
            worst <= PLAIN_GOAL,
            &ratios.join("; "),
        ),
    ]
}

fn measured(outcome: &Outcome) -> serde_json::Value {
    let cell = |cell: &Cell| {
        let known = outcome.settings.iter().zip(&cell.qualities);
        let curve: Vec<serde_json::Value> = known
            .filter_map(|(setting, quality)| {
                Some(json!({"detector": setting.detector, "params": setting.params, "quality": quality.as_ref()?}))
            })
            .collect();
        json!({
            "condition": cell.condition.name(),
            "what": cell.condition.description(),
            "interval_ms": cell.interval_ms,
            "hindsight": cell.hindsight,
            "settings": curve,
        })
    };
    outcome.cells.iter().map(cell).collect()
}
