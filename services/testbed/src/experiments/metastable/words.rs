//! Tables and charts: the map, the cures, and the stuck cells over time. Pure.

use report::{Chart, Curve, Drawing, Section, Table, numbers::count};

use super::{bisect::Boundary, cell::State, classes::Class, cures, journal::Cell, judgement::Measured};

const MAP: &str = "Recovered: in five seconds in a row at least 90 % of the requests succeed. Stuck: the goodput stays below half of the load until \
                   the load is lowered, or until the cell ends. The boundary is between the largest trigger from which the system recovered and \
                   the smallest one from which it did not. The model's was computed before.";
const CURES: &str = "Triggers beyond the boundary without a cure, from which the system does or does not recover with it. Factor: trigger over that \
                     boundary. The model's boundary with the cure, where the model has it.";

/// # Errors
/// The figures have no JSON form.
pub fn sections(measured: &Measured) -> anyhow::Result<Vec<Section>> {
    let classes: Vec<&Class> = measured.classes().collect();
    let mut map = Section::new("Recovered or stuck", MAP, serde_json::to_value(measured)?);
    map.tables = vec![boundaries(measured, &classes), cells(measured, &classes)];
    map.charts = classes.iter().map(|class| map_chart(measured, class)).collect();
    let mut cure = Section::new("The cures", CURES, serde_json::Value::Null);
    cure.tables = vec![cure_table(measured, &classes), cured_table(measured)];
    // A quick run has no cure alone.
    cure.tables.retain(|table| !table.rows.is_empty());
    let mut stuck = Section::new("Stuck", "One stuck cell of each class.", serde_json::Value::Null);
    for class in classes {
        let Some(cell) = stuck_cell(measured, class) else { continue };
        stuck.charts.push(over_time(class, cell));
        stuck.tables.extend(trace(class, cell));
    }
    Ok(vec![map, cure, stuck])
}

/// The longest one, with a trace if possible.
fn stuck_cell<'a>(measured: &'a Measured, class: &Class) -> Option<&'a Cell> {
    let stuck = measured.map(class).filter(|cell| cell.judged.state == State::Stuck);
    stuck.max_by_key(|cell| (cell.key.hold_s, !cell.trace.is_empty()))
}

fn boundaries(measured: &Measured, classes: &[&Class]) -> Table {
    let rows = classes.iter().flat_map(|class| {
        measured.loads(class).into_iter().map(move |per_s| {
            let seeds = (1..=measured.seeds).map(|seed| boundary(class, measured.boundary(class, per_s, seed)));
            vec![
                class.name.to_owned(),
                count(f64::from(per_s)),
                class.size_label().to_owned(),
                seeds.collect::<Vec<_>>().join("; "),
                measured
                    .predicted(class, per_s, cures::NONE.name)
                    .map_or("not modelled".into(), |one| boundary(class, one)),
            ]
        })
    });
    let head = ["", "requests/s", "trigger", "boundary, by seed", "model"];
    Table::new("Boundaries", "", &head, rows.collect())
}

fn boundary(class: &Class, boundary: Boundary) -> String {
    let value = |size: u32| format!("{:.2}", class.size_value(size.into()));
    match (boundary.low, boundary.high) {
        (None, None) => "not measured".into(),
        (None, Some(high)) => format!("below {}", value(high)),
        (Some(low), None) => format!("above {}", value(low)),
        (Some(low), Some(high)) => format!("{} to {}", value(low), value(high)),
    }
}

fn cells(measured: &Measured, classes: &[&Class]) -> Table {
    let rows = classes.iter().flat_map(|class| measured.map(class).map(move |cell| row(class, cell)));
    let meaning = "Goodput and tries per request: from the end of the trigger until the load was lowered. Zombies: queries whose result no request \
                   waited for, over the whole cell. ! the cell is not valid.";
    let head = [
        "",
        "requests/s",
        "trigger",
        "seed",
        "",
        "recovery",
        "goodput",
        "tries per request",
        "zombies",
        "back when lowered",
    ];
    Table { pages_only: true, ..Table::new("Cells", meaning, &head, rows.collect()) }
}

fn row(class: &Class, cell: &Cell) -> Vec<String> {
    let Cell { key, judged, .. } = cell;
    let sign = if cell.validity.is_valid() { "" } else { " !" };
    vec![
        class.name.to_owned(),
        count(f64::from(key.per_s)),
        class.size_text(key.size),
        key.seed.to_string(),
        format!("{}{sign}", judged.state.text()),
        seconds(judged.recovery_s),
        format!("{:.0} %", judged.goodput_pct),
        format!("{:.2}", judged.tries_per_request),
        cell.zombie_share.map_or("-".into(), |share| format!("{:.0} %", 100.0 * share)),
        judged.back_s.map_or("-".into(), |after_s| format!("{after_s} s")),
    ]
}

fn seconds(after_s: Option<f64>) -> String {
    after_s.map_or("-".into(), |after_s| format!("{after_s:.1} s"))
}

fn map_chart(measured: &Measured, class: &Class) -> Chart {
    let value = |size: f64| class.size_value(size);
    let of_state = |state: State| {
        let cells = measured.map(class).filter(|cell| cell.judged.state == state);
        let points = cells.map(|cell| (f64::from(cell.key.per_s), value(cell.key.size.into()))).collect();
        Curve { name: state.text().into(), points }
    };
    let model = measured.loads(class).into_iter().filter_map(|per_s| {
        let middle = measured.predicted(class, per_s, cures::NONE.name)?.middle()?;
        Some((f64::from(per_s), value(middle)))
    });
    let mut curves: Vec<Curve> = [State::Recovered, State::InBetween, State::Stuck].map(of_state).into();
    curves.push(Curve { name: "model's boundary".into(), points: model.collect() });
    curves.retain(|curve| !curve.points.is_empty());
    let drawing = Drawing::Points { x_label: "requests/s".into(), y_label: class.size_label().into(), curves };
    Chart::new(&format!("{}: load and trigger", class.name), class.mechanism, drawing)
}

fn cure_table(measured: &Measured, classes: &[&Class]) -> Table {
    let rows =
        classes.iter().flat_map(|class| cures::ALL.iter().filter_map(move |cure| cure_row(measured, class, cure.name)));
    let head = ["", "cure", "requests/s", "trigger, factor: outcome", "model's boundary with it"];
    Table::new("Which cure moves which boundary", "", &head, rows.collect())
}

fn cure_row(measured: &Measured, class: &Class, cure: &str) -> Option<Vec<String>> {
    let cells: Vec<&Cell> = measured.of(class, cure).collect();
    let per_s = cells.first()?.key.per_s;
    let high = (1..=measured.seeds).filter_map(|seed| measured.boundary(class, per_s, seed).high).max();
    let tried = cells.iter().map(|cell| {
        let factor =
            high.map_or(String::new(), |high| format!(", × {:.1}", f64::from(cell.key.size) / f64::from(high)));
        let after = cell.judged.recovery_s.map_or_else(String::new, |after_s| format!(" after {after_s:.1} s"));
        let sign = if cell.validity.is_valid() { "" } else { " !" };
        format!("{}{factor}: {}{after}{sign}", class.size_text(cell.key.size), cell.judged.state.text())
    });
    Some(vec![
        class.name.to_owned(),
        cure.to_owned(),
        count(f64::from(per_s)),
        tried.collect::<Vec<_>>().join("; "),
        measured.predicted(class, per_s, cure).map_or("not modelled".into(), |one| boundary(class, one)),
    ])
}

fn cured_table(measured: &Measured) -> Table {
    let rows = measured.classes().flat_map(|class| {
        measured.of(class, cures::ALL_ON.name).map(move |cell| row(class, cell).into_iter().take(8).collect())
    });
    let head = ["", "requests/s", "trigger", "seed", "", "recovery", "goodput", "tries per request"];
    Table::new("All cures on", "The triggers of the map from which the system did not recover.", &head, rows.collect())
}

fn over_time(class: &Class, cell: &Cell) -> Chart {
    let curve = |name: &str, figure: fn(&super::cell::Second) -> u64| Curve {
        name: name.into(),
        points: cell.seconds.iter().enumerate().map(|(at, second)| (at as f64, figure(second) as f64)).collect(),
    };
    let top = f64::from(cell.key.per_s);
    let (from, to) = (f64::from(cell.timing.before_s), cell.timing.trigger_end_s());
    let trigger = Curve { name: "trigger".into(), points: vec![(from, 0.0), (from, top), (to, top), (to, 0.0)] };
    let curves = vec![
        curve("requests", |second| second.requests),
        curve("tries", |second| second.requests + second.retries),
        curve("goodput", |second| second.good),
        trigger,
    ];
    let drawing = Drawing::OverTime { x_label: "seconds".into(), y_label: "per second".into(), curves };
    let lowered = if cell.seconds.len() > cell.timing.lowered_from() {
        format!(" The load is lowered at second {}.", cell.timing.lowered_from())
    } else {
        String::new()
    };
    let meaning = format!(
        "{} requests/s, trigger {} at second {}. {:.2} tries per request afterwards.{lowered}",
        count(top),
        class.size_text(cell.key.size),
        cell.timing.before_s,
        cell.judged.tries_per_request,
    );
    Chart::new(&format!("{}: goodput over time", class.name), &meaning, drawing)
}

/// `None`: no try was recorded.
fn trace(class: &Class, cell: &Cell) -> Option<Table> {
    if cell.trace.is_empty() {
        return None;
    }
    let rows = cell.trace.iter().map(|span| {
        let name = format!("{}{}", "\u{a0}\u{a0}".repeat(span.depth), span.name);
        let failed = if span.failed { "failed" } else { "" };
        let [from, lasts] = [span.offset_ms, span.duration_ms].map(|ms| format!("{ms:.1}"));
        vec![name, span.service.clone(), from, lasts, failed.to_owned()]
    });
    let meaning = "Recorded after the trigger was gone: where the time of a try goes.";
    let head = ["span", "process", "from, ms", "ms", ""];
    Some(Table {
        pages_only: true,
        ..Table::new(&format!("{}: a failed try", class.name), meaning, &head, rows.collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::metastable::{
        journal::{Span, tests::cell},
        judgement::tests::measured,
    };

    #[test]
    fn the_map_has_a_row_per_load_and_the_cells_on_the_pages() {
        let sections = sections(&measured("retry-storm")).unwrap();
        let [map, cures, stuck] = sections.as_slice() else { panic!("{sections:?}") };
        assert_eq!(
            map.tables[0].rows,
            [["retry-storm", "900", "stall, s", "1.00 to 1.10; 1.00 to 1.10", "0.99 to 1.01"]]
        );
        assert_eq!((map.tables[1].rows.len(), map.tables[1].pages_only), (6, true));
        let Drawing::Points { curves, .. } = &map.charts[0].drawing else { panic!("{map:?}") };
        let names: Vec<&str> = curves.iter().map(|curve| curve.name.as_str()).collect();
        assert_eq!(names, ["recovered", "stuck", "model's boundary"]);
        assert_eq!((cures.tables.len(), cures.tables[0].rows.len(), stuck.charts.len()), (1, 4, 1));
        assert!(map.measured["cells"].as_array().is_some_and(|cells| cells.len() == 10));
    }

    #[test]
    fn a_cure_says_which_triggers_it_cures() {
        let mut measured = measured("retry-storm");
        measured.cells.push(cell("retry-storm", (900, 1_650, 1), "newest first", &[(3, 100), (4, 0), (5, 100)]));
        measured.cells.push(cell("retry-storm", (900, 3_300, 1), "newest first", &[(3, 100), (22, 10)]));
        let row = cure_row(&measured, measured.classes().next().unwrap(), "newest first").unwrap();
        assert_eq!(row[3], "1.65 s, × 1.5: recovered after 2.5 s; 3.30 s, × 3.0: stuck");
    }

    #[test]
    fn a_recorded_try_is_a_table() {
        let mut measured = measured("retry-storm");
        let span = Span {
            depth: 1,
            service: "api".into(),
            name: "load".into(),
            offset_ms: 1.0,
            duration_ms: 980.5,
            failed: true,
        };
        measured.cells[2].trace = vec![span];
        let sections = sections(&measured).unwrap();
        assert_eq!(sections[2].tables[0].rows[0][1..], ["api", "1.0", "980.5", "failed"]);
    }
}
