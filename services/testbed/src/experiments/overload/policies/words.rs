//! Tables, charts and sentences of the report.

use std::collections::BTreeMap;

use report::{
    Chart, Curve, Drawing, Section, Table, Validity,
    numbers::{NO_FIGURE, count, ms, pct},
};

use super::{
    compared::SHIPPED_LIMIT,
    figures::{Cost, LoadFigures, PolicyFigures},
    windows::{CALM, LOADS, SPIKE},
};

/// `store_per_s`: queries that the store can serve; `capacity_per_s`: requests that it can.
///
/// # Errors
/// The figures have no JSON form.
pub fn sections(
    all: &[PolicyFigures],
    cost: Option<Cost>,
    (store_per_s, capacity_per_s): (f64, f64),
) -> anyhow::Result<Vec<Section>> {
    let mut sections = vec![
        Section::new(
            "Overload",
            "How many requests are answered in time at 1, 2 and 5 times the capacity, and which?",
            serde_json::to_value(all)?,
        )
        .with_tables(vec![loads(all)])
        .with_charts(vec![goodput(all, store_per_s)]),
        Section::new(
            "Changes",
            "How soon does each policy follow a spike, half the capacity, and a slow replica?",
            serde_json::to_value(all.iter().map(|figures| (&figures.policy, &figures.changes)).collect::<Vec<_>>())?,
        )
        .with_tables(vec![changes(all)])
        .with_charts(
            limits(all).into_iter().chain(all.iter().map(|figures| answers(figures, capacity_per_s))).collect(),
        ),
    ];
    if let Some(cost) = cost {
        let text = "The replicas' CPU time per request, of replicas that answer nothing else: hits in Redis, hits in the replica's \
                    memory, which are little more than HTTP, and requests that admission refuses.";
        let rows = [("hit", cost.hit_us), ("hit in memory", cost.memory_us), ("rejection", cost.rejection_us)];
        let rows = rows.map(|(name, us)| vec![name.to_owned(), count(us)]).to_vec();
        let table = Table::new("CPU per request", text, &["", "CPU, µs"], rows);
        let meaning = "How much CPU time does a refused request take?";
        let section = Section::new("What a rejection costs", meaning, serde_json::to_value(cost)?);
        sections.push(section.with_tables(vec![table]));
    }
    Ok(sections)
}

/// Of each window, by name.
pub fn validity(all: &[PolicyFigures]) -> BTreeMap<String, Validity> {
    let windows = all.iter().flat_map(|figures| {
        let loads = figures.loads.iter().map(|load| (format!("{} × capacity", load.load), &load.validity));
        let changes = ("changes".to_owned(), &figures.changes.validity);
        let slow = ("slow replica".to_owned(), &figures.slow_replica.validity);
        loads
            .chain([changes, slow])
            .map(move |(window, validity)| (format!("{}, {window}", name(figures)), validity.clone()))
    });
    windows.collect()
}

fn name(figures: &PolicyFigures) -> String {
    if figures.repeat > 1 { format!("{} ({})", figures.policy, figures.repeat) } else { figures.policy.clone() }
}

fn loads(all: &[PolicyFigures]) -> Table {
    let row = |figures: &PolicyFigures, load: &LoadFigures| {
        let share = |n: usize| load.criticalities.get(n).and_then(|share| share.good_pct).map_or(NO_FIGURE.into(), pct);
        vec![
            name(figures),
            format!("{} ×", load.load),
            count(load.offered_per_s),
            count(load.good_per_s),
            count(load.store_good_per_s),
            share(0),
            share(1),
            share(2),
            ms(load.good_p99_ms),
            count(load.rejected_per_s),
            load.tries_per_request.map_or(NO_FIGURE.into(), |tries| format!("{tries:.2}")),
        ]
    };
    let rows = all.iter().flat_map(|figures| figures.loads.iter().map(move |load| (figures, load)));
    Table::new(
        "Beyond the capacity",
        "Good: answered within the 3 s of a request, with at most three tries of 1 s each. Shares are of the requests of one criticality. \
         Rejections are tries that \
         admission refused, or that got no connection to the store in time.",
        &[
            "policy",
            "load",
            "offered/s",
            "good/s",
            "of the store, good/s",
            "critical good, %",
            "default good, %",
            "sheddable good, %",
            "good p99, ms",
            "rejections/s",
            "tries per request",
        ],
        rows.map(|(figures, load)| row(figures, load)).collect(),
    )
}

fn changes(all: &[PolicyFigures]) -> Table {
    let seconds = |figure: Option<u32>| figure.map_or_else(|| "not within the window".into(), |s| format!("{s} s"));
    let row = |figures: &PolicyFigures| {
        let (changes, slow) = (&figures.changes, &figures.slow_replica);
        vec![
            name(figures),
            seconds(changes.settled_after_s),
            seconds(changes.adapted_after_s),
            count(changes.halved_good_per_s),
            count(slow.offered_per_s),
            count(slow.good_per_s),
            ms(slow.good_p99_ms),
        ]
    };
    let text = format!(
        "After a spike of {SPIKE} × capacity the load is {CALM} × again: settled at the first of three seconds with at most 1 % errors and no more \
         than twice the tail of before. Then the load is 1.2 × and each query takes twice as long: adapted from the first second on from \
         which the goodput stays at 90 % of what half the store serves (means of three seconds). Slow replica: {CALM} × capacity, while one of two replicas has CPU for 50 requests/s."
    );
    let head = [
        "policy",
        "settled after",
        "adapted after",
        "good/s at half",
        "slow: offered/s",
        "slow: good/s",
        "slow: good p99, ms",
    ];
    Table::new("Following a change", &text, &head, all.iter().map(row).collect())
}

fn goodput(all: &[PolicyFigures], store_per_s: f64) -> Chart {
    let curve = |figures: &PolicyFigures| Curve {
        name: name(figures),
        points: figures.loads.iter().map(|load| (load.load, load.store_good_per_s)).collect(),
    };
    let capacity = Curve { name: "capacity".into(), points: LOADS.map(|load| (load, store_per_s)).to_vec() };
    let drawing = Drawing::OverTime {
        x_label: "offered load, multiples of the capacity".into(),
        y_label: "good answers of the store/s".into(),
        curves: all.iter().map(curve).chain([capacity]).collect(),
    };
    Chart::new("Goodput over load", "A policy without congestion collapse stays level beyond 1.", drawing)
}

/// `None` if no policy has a limit.
fn limits(all: &[PolicyFigures]) -> Option<Chart> {
    let curve = |figures: &PolicyFigures| Curve { name: name(figures), points: figures.changes.limit.clone() };
    // The shipped limit is so high that the others would be a line at 0.
    let limited = |figures: &&PolicyFigures| {
        !SHIPPED_LIMIT.contains(&figures.policy.as_str()) && figures.changes.limit.iter().any(|(_, limit)| *limit > 0.0)
    };
    let curves: Vec<Curve> = all.iter().filter(limited).map(curve).collect();
    let meaning = "Mean of the replicas, through the spike and the time with half the capacity.";
    let drawing =
        Drawing::OverTime { x_label: "second".into(), y_label: "requests in flight per replica".into(), curves };
    all.iter().any(|figures| limited(&figures)).then(|| Chart::new("Limit over time", meaning, drawing))
}

fn answers(figures: &PolicyFigures, capacity_per_s: f64) -> Chart {
    let drawing = Drawing::Answers {
        series: figures.changes.series.clone(),
        level_per_s: capacity_per_s,
        level: "capacity, before it is halved".into(),
    };
    Chart::new(&format!("{} through the changes", name(figures)), "Good answers and errors of each second.", drawing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_limit_is_not_drawn_beside_the_others() {
        let of = |policy: &str, limit| {
            let mut figures = PolicyFigures { policy: policy.into(), repeat: 1, ..Default::default() };
            figures.changes.limit = vec![(0.0, limit)];
            figures
        };
        let all = [of("default", 1_500.0), of("full-waits", 1_500.0), of("codel", 48.0), of("none", 0.0)];
        let Some(Chart { drawing: Drawing::OverTime { curves, .. }, .. }) = limits(&all) else { panic!("no chart") };
        let names: Vec<&str> = curves.iter().map(|curve| curve.name.as_str()).collect();
        assert_eq!(names, ["codel"]);
        assert!(limits(&all[..2]).is_none());
    }

    #[test]
    fn the_sections_have_what_the_jq_example_reads() {
        let load = LoadFigures { load: 2.0, good_per_s: 160.0, ..LoadFigures::default() };
        let mut figures = PolicyFigures { policy: "codel".into(), repeat: 1, loads: vec![load], ..Default::default() };
        figures.changes.limit = vec![(0.0, 48.0)];
        let cost = Cost { hit_us: 80.0, memory_us: 45.0, rejection_us: 40.0 };
        let sections = sections(&[figures], Some(cost), (155.0, 172.0)).unwrap();
        let titles: Vec<&str> = sections.iter().map(|section| section.title.as_str()).collect();
        assert_eq!(titles, ["Overload", "Changes", "What a rejection costs"]);
        let measured = &sections[0].measured[0];
        assert_eq!(
            (measured["policy"].as_str(), measured["loads"][0]["good_per_s"].as_f64()),
            (Some("codel"), Some(160.0))
        );
        assert_eq!((sections[0].tables[0].rows.len(), sections[1].charts.len()), (1, 2));
        assert_eq!(sections[2].measured["rejection_us"].as_f64(), Some(40.0));
    }
}
