//! Tables, charts and sentences. Pure.

use report::{
    Chart, Curve, Drawing, Section, Table,
    numbers::{NO_FIGURE, TAIL, count, ms, pct},
};
use statistics::median;

use super::{
    Measured,
    blind_spot::BlindRun,
    judgement::MAX_MACHINE_PCT,
    run::{RULE, Run, Supply},
    servers::{FEW, INTERVAL_MS, MANY, SCALE, SLO_MS},
    simulation::beside_live::{Beside, Count, Inputs},
};
use crate::autoscale::{REQUEST_CORES, WORK_US};

pub fn what(measured: &Measured) -> String {
    let Measured { hurry, quota, .. } = measured;
    format!(
        "Times are divided by {hurry} (--hurry {hurry}): the rule decides every {:.1} s instead of 15 s, and its window of two minutes is {:.1} s. \
         CPU quotas: {quota}. Each replica has {:.0} m CPU, the article's 2 CPU on a scale of 1:{SCALE}, and each answer costs {:.0} ms of it in \
         addition to what it needs. Lists are warm, so that CPU is the bottleneck. Users plan one request every {} ms; an answer within {SLO_MS} ms \
         is in time. The rule is docs/examples/hpa.yaml: 70 % CPU, a window of two minutes, {FEW} to {MANY} replicas; a fixed count is the same \
         rule with equal limits.",
        15.0 / f64::from(*hurry),
        120.0 / f64::from(*hurry),
        1000.0 * REQUEST_CORES,
        WORK_US as f64 / 1000.0,
        INTERVAL_MS,
    )
}

/// # Errors
/// The figures have no JSON form.
pub fn sections(measured: &Measured) -> anyhow::Result<Vec<Section>> {
    let elasticity = Section::new(
        &format!("Autoscaling, {} times as fast as in Kubernetes", measured.hurry),
        "What users notice and what it costs. Times are the machine's.",
        serde_json::to_value(measured)?,
    );
    let mut tables = vec![requests(measured), elasticity_table(measured), demand(measured), starts(measured)];
    tables.extend(measured.runs.iter().filter(|run| run.variant == RULE).map(decisions));
    let charts = measured.runs.iter().flat_map(charts).chain([cpu(&measured.runs)]).collect();
    let blind = Section::new(
        "The blind spot",
        "The connections to the store run out, which burns no CPU: the rule sees nothing. The store's response time is modelled.",
        serde_json::to_value(&measured.blind_spot)?,
    );
    Ok(vec![
        elasticity.with_tables(tables).with_charts(charts),
        simulated(&measured.simulation)?,
        blind.with_tables(vec![blind_spot(measured)]),
    ])
}

fn simulated(beside: &Beside) -> anyhow::Result<Section> {
    let Inputs { cost_ms, ready_after_s, end_s, .. } = beside.inputs;
    let curve = |name: &str, counts: &[Count], value: fn(&Count) -> u32| {
        // What was there at the begin and at the end is drawn too.
        let end = counts.last().map(|last| Count { at_s: end_s, ..*last });
        let points = counts.iter().copied().chain(end).map(|count| (count.at_s.max(0.0), f64::from(value(&count))));
        Curve { name: name.to_owned(), points: steps(points) }
    };
    let replicas = Drawing::OverTime {
        x_label: "second of the run".into(),
        y_label: "replicas".into(),
        curves: vec![
            curve("live, desired", &beside.live, |count| count.desired),
            curve("live, ready", &beside.live, |count| count.ready),
            curve("simulated, desired", &beside.simulated, |count| count.desired),
            curve("simulated, ready", &beside.simulated, |count| count.ready),
        ],
    };
    let meaning = format!(
        "The run under the rule, and the same on a virtual clock (experiment autoscaling --simulate). From the live runs the simulation takes that a \
         request costs {cost_ms:.2} ms of CPU on twenty replicas, that a start takes {ready_after_s:.2} s, and when the first decision was."
    );
    let section = Section::new("Live and simulated", &meaning, serde_json::to_value(beside)?);
    Ok(section.with_charts(vec![Chart::new("Live and simulated replicas", "Only changes are drawn.", replicas)]))
}

fn requests(measured: &Measured) -> Table {
    let row = |run: &Run| {
        let requests = &run.requests;
        vec![
            run.variant.clone(),
            count(requests.answered as f64),
            count(requests.lost() as f64),
            pct(requests.beyond_slo_pct),
            ms(requests.p50_ms),
            ms(requests.p99_ms),
            format!("{:.1}", run.replica_minutes),
            pct(run.machine_pct),
        ]
    };
    Table::new(
        &format!("Users and cost, --hurry {}", measured.hurry),
        &format!(
            "Lost: no good answer. Beyond the SLO: lost, later than {SLO_MS} ms, or not sent because the user still waited, of all planned \
             requests. Replica-minutes count from the start of a replica to its end. A run is not judged if the machine is more than \
             {MAX_MACHINE_PCT} % busy."
        ),
        &["", "answered", "lost", "beyond SLO, %", "p50, ms", "p99, ms", "replica-minutes", "machine, %"],
        measured.runs.iter().map(row).collect(),
    )
}

fn elasticity_table(measured: &Measured) -> Table {
    let row = |run: &Run| {
        let elasticity = &run.elasticity;
        vec![
            run.variant.clone(),
            format!("{:.2}", elasticity.accuracy_under),
            format!("{:.2}", elasticity.accuracy_over),
            pct(elasticity.timeshare_under_pct),
            pct(elasticity.timeshare_over_pct),
            format!("{:+.1}", elasticity.jitter_per_min),
            elasticity.reaction_s.map_or_else(|| NO_FIGURE.into(), |seconds| format!("{seconds:.1}")),
        ]
    };
    Table::new(
        &format!("Elasticity, --hurry {}", measured.hurry),
        "SPEC's measures, against the measured demand below. Accuracy: mean number of replicas missing (U) and beyond the demand (O). Timeshare: \
         share of the time with too few (U) and too many (O). Jitter: changes of the supply less those of the demand, per minute. Reaction: the \
         longest time from a rise of the demand until enough replicas are ready.",
        &["", "accuracy U", "accuracy O", "timeshare U, %", "timeshare O, %", "jitter, 1/min", "reaction, s"],
        measured.runs.iter().map(row).collect(),
    )
}

fn demand(measured: &Measured) -> Table {
    let rows = measured.calibration.levels.iter().map(|level| {
        let p99 = |replicas: Option<u32>| {
            let tried = level.tried.iter().find(|tried| Some(tried.replicas) == replicas);
            tried.map_or_else(|| NO_FIGURE.into(), |tried| ms(tried.p99_ms))
        };
        let replicas = if level.is_enough { level.replicas.to_string() } else { format!("> {}", level.replicas) };
        vec![
            count(f64::from(level.requests_per_s)),
            replicas,
            p99(Some(level.replicas)),
            p99(level.replicas.checked_sub(1)),
        ]
    });
    Table::new(
        "Demand",
        &format!(
            "By calibration: the smallest number of replicas whose p99 is at most {SLO_MS} ms, without a lost or skipped request. Between two loads \
             the demand is on the straight line, rounded up."
        ),
        &["requests/s", "replicas needed", "p99, ms", "with one less, ms"],
        rows.collect(),
    )
}

fn starts(measured: &Measured) -> Table {
    let row = |run: &Run| {
        let times = &run.time_to_ready_s;
        let seconds = |value: Option<f64>| value.map_or_else(|| NO_FIGURE.into(), |seconds| format!("{seconds:.2}"));
        vec![
            run.variant.clone(),
            count(times.len() as f64),
            seconds(median(times)),
            seconds(times.last().copied()),
            format!("{:.3}", run.cpu_over_quota_max),
        ]
    };
    Table::new(
        "Replicas",
        "From the start of a replica to its being ready, looked at several times a second. CPU over quota: the replica and window between two decisions that used \
         the most of it.",
        &["", "replicas seen", "ready after, median, s", "longest, s", "CPU over quota"],
        measured.runs.iter().map(row).collect(),
    )
}

fn decisions(run: &Run) -> Table {
    let changes = run.decisions.iter().filter(|decision| decision.after != decision.before);
    let rows = changes.map(|decision| {
        vec![
            format!("{:.1}", decision.at_s),
            format!("{} → {}", decision.before, decision.after),
            decision.utilization_pct.map_or_else(|| NO_FIGURE.into(), |pct| pct.to_string()),
            decision.explain.join(" "),
        ]
    });
    let table = Table::new(
        "Decisions",
        "Those that changed the count, in seconds of the run. All decisions can be replayed: measured.runs[].plan in report.json is a line for \
         testbed plan.",
        &["at, s", "replicas", "CPU, % of the request", "why"],
        rows.collect(),
    );
    // They were printed as they were made, and the sentences are long.
    Table { pages_only: true, ..table }
}

fn charts(run: &Run) -> [Chart; 2] {
    let curve = |name: &str, value: fn(&Supply) -> u32| Curve {
        name: name.to_owned(),
        points: steps(run.supply.iter().map(|now| (now.at_s, f64::from(value(now))))),
    };
    let replicas = Drawing::OverTime {
        x_label: "second of the run".into(),
        y_label: "replicas".into(),
        curves: vec![
            curve("demand", |now| now.demand),
            curve("desired", |now| now.desired),
            curve("ready", |now| now.ready),
        ],
    };
    let tails = run.seconds.iter().filter_map(|second| Some((f64::from(second.second), second.tail()?.ms())));
    let latency = Drawing::OverTime {
        x_label: "second of the run".into(),
        y_label: "p99 or max, ms".into(),
        curves: vec![Curve { name: TAIL.into(), points: tails.collect() }],
    };
    let meaning = format!("{} % of the planned requests were beyond the SLO.", pct(run.requests.beyond_slo_pct));
    [
        Chart::new(
            &format!("{}: replicas", run.variant),
            "What the load needed, what was decided, and what was ready.",
            replicas,
        ),
        Chart::new(&format!("{}: latency", run.variant), &meaning, latency),
    ]
}

fn cpu(runs: &[Run]) -> Chart {
    let curve = |run: &Run| {
        let points = run.decisions.iter().filter_map(|one| Some((one.at_s, f64::from(one.utilization_pct?))));
        Curve { name: run.variant.clone(), points: points.filter(|(at_s, _)| *at_s >= 0.0).collect() }
    };
    let drawing = Drawing::OverTime {
        x_label: "second of the run".into(),
        y_label: "CPU, % of the request".into(),
        curves: runs.iter().map(curve).collect(),
    };
    Chart::new("CPU", "Mean of the replicas, as the planner saw it. The rule aims at 70 %.", drawing)
}

/// Points that change at an instant and not gradually; those that change nothing are left out.
fn steps(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut drawn: Vec<(f64, f64)> = Vec::new();
    let mut end = None;
    for (x, y) in points {
        match drawn.last() {
            Some(&(_, before)) if before == y => {}
            Some(&(_, before)) => drawn.extend([(x, before), (x, y)]),
            None => drawn.push((x, y)),
        }
        end = Some((x, y));
    }
    drawn.extend(end.filter(|end| drawn.last() != Some(end)));
    drawn
}

fn blind_spot(measured: &Measured) -> Table {
    let row = |run: &BlindRun| {
        vec![
            format!("{} → {}", run.replicas, run.replicas_after),
            run.connections.to_string(),
            run.utilization_pct.map_or_else(|| NO_FIGURE.into(), |pct| pct.to_string()),
            count(run.offered_per_s),
            count(run.good_per_s),
            pct(run.error_pct),
            ms(run.p99_ms),
            ms(run.store_ms),
        ]
    };
    Table::new(
        "A pool that runs out",
        "Every request needs the store, and each replica has two connections. With more replicas more queries are in flight, which makes each of \
         them slower: the store, not the replicas, is what runs out.",
        &["replicas", "connections", "highest CPU, %", "offered/s", "good/s", "errors, %", "p99, ms", "store, ms"],
        measured.blind_spot.iter().map(row).collect(),
    )
}

/// For the terminal, as soon as a run is over.
pub fn line(run: &Run) -> String {
    format!(
        "{}: {} answered, {} lost, {} % beyond the SLO, {:.1} replica-minutes, machine {} %",
        run.variant,
        count(run.requests.answered as f64),
        run.requests.lost(),
        pct(run.requests.beyond_slo_pct),
        run.replica_minutes,
        pct(run.machine_pct)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::autoscaling::judgement::tests::measured;

    #[test]
    fn hurry_and_quota_are_in_title_and_text() {
        let measured = measured();
        let text = what(&measured);
        assert!(
            text.contains("--hurry 10") && text.contains("every 1.5 s") && text.contains("kernel (cgroup v1)"),
            "{text}"
        );
        let sections = sections(&measured).unwrap();
        assert_eq!(sections[0].title, "Autoscaling, 10 times as fast as in Kubernetes");
        for table in sections.iter().flat_map(|section| &section.tables) {
            assert!(table.rows.iter().all(|row| row.len() == table.head.len()), "{table:?}");
        }
        let rows: Vec<usize> = sections[0].tables.iter().map(|table| table.rows.len()).collect();
        assert_eq!((rows, sections[0].charts.len()), (vec![3, 3, 3, 3, 0], 7));
    }

    /// As the example of the help reads it.
    #[test]
    fn the_planners_lines_are_in_the_report() {
        let section = &sections(&measured()).unwrap()[0];
        for run in section.measured["runs"].as_array().unwrap() {
            let case = autoscaler::line::parse(run["plan"].to_string().as_bytes()).unwrap();
            assert_eq!(autoscaler::line::answer(&case).unwrap().steps.unwrap().len(), 1);
        }
    }

    #[test]
    fn a_count_changes_at_an_instant() {
        let seen = [(0.0, 8.0), (1.0, 8.0), (2.0, 12.0), (3.0, 12.0)];
        assert_eq!(steps(seen.into_iter()), [(0.0, 8.0), (2.0, 8.0), (2.0, 12.0), (3.0, 12.0)]);
        assert_eq!(steps([(0.0, 8.0)].into_iter()), [(0.0, 8.0)]);
        assert!(steps(std::iter::empty()).is_empty());
    }
}
