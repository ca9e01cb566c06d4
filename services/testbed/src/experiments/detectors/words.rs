//! The results of the sweep as tables and verdicts. Pure.

use heartbeat::{detector::KINDS, quality::Quality};
use report::{Section, Table, Verdict};
use serde_json::json;

use super::{
    GOALS, MEAN_MISTAKES, MOST_MISTAKES, PLAIN_GOAL, RATES_MS, curves,
    sweep::{Cell, OURS, Outcome, Plan, RIVALS, is_rare, summary, warmed_up},
    text,
};
use crate::experiments::publish::Found;

pub fn found(outcome: &Outcome, plan: &Plan) -> Found {
    Found {
        what: format!(
            "{} conditions, of which {} have parameters drawn from the seed; heartbeats every 1 s and every 100 ms, {} trace(s) of {} h of each, \
             and {} instants in each at which the sender is assumed to crash. The first minutes count. Quality after Chen, Toueg and Aguilera: detection time T_D, mistakes and their recurrence T_MR and duration \
             T_M, query accuracy P_A.",
            plan.conditions.len(),
            plan.conditions.iter().filter(|condition| condition.is_drawn()).count(),
            plan.traces,
            plan.length_s / 3_600,
            plan.crashes
        ),
        sections: vec![
            Section::new("Detection time and mistakes", "", measured(outcome))
                .with_tables(vec![unchanged(outcome), conditions(outcome), defaults(outcome), curves::table(outcome)])
                .with_charts(curves::charts(outcome)),
        ],
        verdicts: verdicts(outcome, plan),
        remarks: vec![
            "The adaptive detector was developed on conditions and traces of other seeds and frozen before these were drawn.".into(),
            "Parameters that are durations are in heartbeat intervals, so a setting scales with the interval.".into(),
            "Hindsight is the fixed timeout that makes one mistake a day on these traces; it cannot be known beforehand.".into(),
            "Pauses of the observer are part of the conditions. A monitor handles its own pauses before any detector does.".into(),
        ],
        ..Found::default()
    }
}

/// Cells that one unchanged setting must suit, by name: all and the named conditions, at each rate.
fn groups(outcome: &Outcome) -> Vec<(String, Vec<&Cell>)> {
    let mut groups = Vec::new();
    for interval_ms in RATES_MS {
        let all = outcome.cells_at(interval_ms);
        let named = all.iter().copied().filter(|cell| !cell.condition.is_drawn()).collect();
        groups.push((format!("all, {interval_ms} ms"), all));
        groups.push((format!("named, {interval_ms} ms"), named));
    }
    groups
}

fn unchanged(outcome: &Outcome) -> Table {
    let mut rows = Vec::new();
    for (name, cells) in groups(outcome) {
        let best = outcome.best_rival(&cells).map_or(f64::NAN, |best| best.1);
        let mut row = |detector: &str, setting: Option<usize>, mean: Option<f64>| {
            let mean = mean.unwrap_or(f64::NAN);
            let words = setting.map_or_else(|| "none".into(), |n| outcome.settings[n].words());
            rows.push(vec![name.clone(), detector.to_owned(), words, text(mean, 2), text(mean / best, 3)]);
        };
        let ours = outcome.ours();
        row(OURS, Some(ours), summary(&cells, ours).map(|all| all.0));
        for detector in RIVALS {
            let best = outcome.best(&cells, detector);
            row(detector, best.map(|best| best.0), best.map(|best| best.1));
        }
    }
    Table::new(
        "One unchanged setting everywhere",
        "Geometric mean over the conditions of the p99 detection time in intervals, of the best setting that makes at most one mistake a day on \
         each; ours is its default, with the mistakes in the verdicts. None: no setting does.",
        &["conditions", "detector", "setting", "p99, intervals", "relative to the best other"],
        rows,
    )
}

fn conditions(outcome: &Outcome) -> Table {
    let rivals = RATES_MS.map(|ms| (ms, outcome.best_rival(&outcome.cells_at(ms)).map(|best| best.0)));
    let row = |cell: &Cell| {
        let rival = rivals.iter().find(|rival| rival.0 == cell.interval_ms).and_then(|rival| rival.1);
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
    let words =
        |setting: usize| format!("{}, {}", outcome.settings[setting].detector, outcome.settings[setting].words());
    let others = rivals.map(|(ms, n)| format!("{} at {ms} ms", n.map_or_else(|| "none".into(), words))).join("; ");
    Table::new(
        "By condition",
        &format!(
            "Seconds. p99 of hindsight and of the best other unchanged setting ({others}); the other columns are the adaptive detector."
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
    let cells: Vec<&Cell> = outcome.cells.iter().collect();
    let row = |(n, kind): (usize, &heartbeat::detector::DetectorKind)| {
        let params: Vec<String> = kind.params.iter().map(|p| format!("{} {}", p.name, p.default)).collect();
        let known = outcome.cells.iter().filter_map(|cell| cell.qualities[n].as_ref());
        let rare = known.filter(|quality| is_rare(quality)).count();
        let (p99, mistakes) = summary(&cells, n).map_or((f64::NAN, f64::NAN), |all| (all.0, all.1));
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

fn verdicts(outcome: &Outcome, plan: &Plan) -> Vec<Verdict> {
    let mut verdicts = mistakes(outcome);
    verdicts.extend(GOALS.map(|(interval_ms, goal)| relative(outcome, interval_ms, goal)));
    verdicts.extend([plain(outcome), warm(plan)]);
    verdicts
}

/// Mistakes a day of the adaptive detector; infinite if it was hopeless.
fn daily(outcome: &Outcome, cell: &Cell) -> f64 {
    cell.qualities[outcome.ours()].as_ref().map_or(f64::INFINITY, |quality| quality.mistakes_per_day)
}

fn mistakes(outcome: &Outcome) -> Vec<Verdict> {
    let mut all: Vec<(f64, String)> = outcome.cells.iter().map(|cell| (daily(outcome, cell), cell.name())).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mean = all.iter().map(|cell| cell.0).sum::<f64>() / all.len().max(1) as f64;
    let most = all.first().map_or(f64::NAN, |cell| cell.0);
    let often =
        all.iter().filter(|cell| cell.0 > MEAN_MISTAKES).map(|(mistakes, name)| format!("{name}: {mistakes:.1}"));
    let by_rate = RATES_MS.map(|ms| {
        let cells = outcome.cells_at(ms);
        let mean = cells.iter().map(|cell| daily(outcome, cell)).sum::<f64>() / cells.len().max(1) as f64;
        format!("{ms} ms: {mean:.2}")
    });
    vec![
        Verdict::new(
            "adaptive, unchanged: mistakes a day, mean over all conditions",
            format!("≤ {MEAN_MISTAKES}"),
            format!("{mean:.2}"),
            mean <= MEAN_MISTAKES,
            &by_rate.join("; "),
        ),
        Verdict::new(
            "adaptive, unchanged: mistakes a day, on the worst condition",
            format!("≤ {MOST_MISTAKES}"),
            format!("{most:.1}"),
            most <= MOST_MISTAKES,
            &often.collect::<Vec<_>>().join("; "),
        ),
    ]
}

fn relative(outcome: &Outcome, interval_ms: u64, goal: f64) -> Verdict {
    let cells = outcome.cells_at(interval_ms);
    let mean = summary(&cells, outcome.ours()).map_or(f64::NAN, |all| all.0);
    let rival = outcome.best_rival(&cells);
    let ratio = mean / rival.map_or(f64::NAN, |best| best.1);
    Verdict::new(
        &format!(
            "adaptive, unchanged, {interval_ms} ms: p99 detection time relative to the best other unchanged setting"
        ),
        format!("≤ {goal} ×"),
        format!("{ratio:.3} ×"),
        ratio <= goal,
        &rival.map_or_else(String::new, |(n, best)| {
            let setting = &outcome.settings[n];
            format!("{mean:.2} intervals; {} with {}: {best:.2}", setting.detector, setting.words())
        }),
    )
}

fn plain(outcome: &Outcome) -> Verdict {
    let mut plain: Vec<(f64, String)> = Vec::new();
    for cell in outcome.cells.iter().filter(|cell| cell.condition.is_plain()) {
        let p99 = cell.qualities[outcome.ours()].as_ref().map_or(f64::INFINITY, |quality| quality.detection_p99_s);
        plain.push((p99 / cell.hindsight.detection_p99_s, cell.name()));
    }
    plain.sort_by(|a, b| b.0.total_cmp(&a.0));
    let worst = plain.first().map_or(f64::NAN, |worst| worst.0);
    let ratios: Vec<String> = plain.iter().map(|(ratio, name)| format!("{name}: {ratio:.3}")).collect();
    Verdict::new(
        "adaptive relative to the timeout fitted in hindsight, on plain conditions",
        format!("≤ {PLAIN_GOAL} ×"),
        format!("{worst:.3} ×"),
        worst <= PLAIN_GOAL,
        &ratios.join("; "),
    )
}

fn warm(plan: &Plan) -> Verdict {
    let plain = plan.conditions.iter().filter(|condition| condition.is_plain());
    let mut warm: Vec<(f64, String)> =
        plain.map(|&condition| (warmed_up(condition, 100, plan.seed), condition.name().into_owned())).collect();
    warm.sort_by(|a, b| b.0.total_cmp(&a.0));
    let worst = warm.first().map_or(f64::NAN, |worst| worst.0);
    let timeouts: Vec<String> = warm.iter().map(|(timeout, name)| format!("{name}: {timeout:.1}")).collect();
    Verdict::new(
        "adaptive, 100 ms: timeout after two minutes, on plain conditions",
        "< 30 intervals (careful)".into(),
        format!("{worst:.1} intervals"),
        worst < 30.0,
        &timeouts.join("; "),
    )
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
            "condition": &*cell.condition.name(),
            "what": cell.condition.description(),
            "interval_ms": cell.interval_ms,
            "hindsight": cell.hindsight,
            "settings": curve,
        })
    };
    outcome.cells.iter().map(cell).collect()
}
