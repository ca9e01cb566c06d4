//! The table of the switch-overs. Pure.

use report::{Section, Table};
use statistics::percentile;

use super::{
    fence_off::FenceOff,
    judgement::{FIGURES, Kill, Sample, Series, ms},
    traces::{Parts, Row, Slowest},
};

/// # Errors
/// The figures have no JSON form.
pub fn section(all: &[Series]) -> anyhow::Result<Section> {
    let rows = all.iter().flat_map(|series| [Kill::Kill, Kill::Stop].map(|kill| row(series, kill))).collect();
    let table = Table::new(
        "Switch-overs",
        "ms from the signal, p50 / p99. Redirected: a client that asked another worker was sent to the new primary. False alarms: workers \
         declared offline that were neither killed nor stopped, in the whole series. The article's table 2.4 has words, no figures.",
        &["", "deaths", "confirmed", "new primaries", "redirected", "false alarms", "article"],
        rows,
    );
    let slowest = all.iter().filter_map(|series| Some(waterfall(series, series.slowest.as_ref()?)));
    let tables = [table, parts(all), by_pauses(all)].into_iter().chain(slowest).collect();
    Ok(Section::new("From a death to its new primaries", "", serde_json::to_value(all)?).with_tables(tables))
}

const PARTS: [fn(&Parts) -> f64; 4] =
    [|parts| parts.failed_ms, |parts| parts.majority_ms, |parts| parts.commit_ms, |parts| parts.published_ms];

fn parts(all: &[Series]) -> Table {
    let row = |series: &Series| {
        let known: Vec<Parts> = series.samples.iter().filter_map(|sample| sample.parts).collect();
        let cells = PARTS.map(|part| {
            let values: Vec<f64> = known.iter().map(part).collect();
            let [p50, p99, slowest] =
                [50.0, 99.0, 100.0].map(|percent| percentile(&values, percent).unwrap_or(f64::NAN));
            if known.is_empty() { "-".into() } else { format!("{p50:.0} / {p99:.0} / {slowest:.0}") }
        });
        let name = format!("{}, {} ms", series.strategy, series.interval_ms);
        [name, known.len().to_string()].into_iter().chain(cells).collect()
    };
    Table::new(
        "Parts of the confirmation",
        "ms, p50 / p99 / slowest, from the traces. Failed: from the signal until the leader failed the worker, by silence and two rounds of \
         probes, or the others agreed without it. Majority: until the monitors agreed. Commit: the transaction in etcd, which waits for the disk. \
         Published: until a client had the table; negative if another monitor published it before the leader had etcd's response.",
        &["", "traces", "failed", "majority", "commit", "published"],
        all.iter().map(row).collect(),
    )
}

/// Which part of the slow deaths is due to pauses?
fn by_pauses(all: &[Series]) -> Table {
    let row = |series: &Series, paused: bool| {
        let counts = |sample: &Sample| (sample.longest_pause_ms > 0.0) == paused;
        let deaths = series.samples.iter().filter(|sample| counts(sample)).count();
        let [p50, p99, slowest] = [50.0, 99.0, 100.0].map(|percent| match deaths {
            0 => "-".into(),
            _ => ms(series.percentile_of(counts, FIGURES[0].1, percent)),
        });
        let which = if paused { "a monitor paused" } else { "no monitor paused" };
        let name = format!("{}, {} ms, {which}", series.strategy, series.interval_ms);
        vec![name, deaths.to_string(), format!("{p50} / {p99}"), slowest]
    };
    let rows = all.iter().flat_map(|series| [false, true].map(|paused| row(series, paused))).collect();
    Table::new(
        "Confirmed, by pauses of the monitors",
        "ms from the signal, p50 / p99. A monitor whose process did not run for half an interval excuses the silence of all workers in that time: \
         it waits for the next heartbeat, or repeats its probes. A machine with too little CPU time confirms later, not wrongly.",
        &["", "deaths", "confirmed", "slowest"],
        rows,
    )
}

fn waterfall(series: &Series, slowest: &Slowest) -> Table {
    let sample = &series.samples[slowest.sample];
    let title = format!("The slowest death: {}, {} ms, {}", series.strategy, series.interval_ms, sample.text());
    let meaning = if slowest.rows.is_empty() {
        "The receiver of traces has no trace of it."
    } else {
        "Its trace; times from the signal. A trace begins with the last sign of life. Pauses of monitors' processes follow at the end."
    };
    let row = |row: &Row| {
        let name = format!("{}{}", "· ".repeat(row.depth), row.name);
        let [offset, duration] = [row.offset_ms, row.duration_ms].map(|ms| format!("{ms:.1}"));
        vec![name, row.process.clone(), offset, duration, row.details.clone()]
    };
    let rows = slowest.rows.iter().map(row).collect();
    Table::new(&title, meaning, &["span", "process", "from, ms", "duration, ms", "attributes"], rows)
}

/// # Errors
/// The figures have no JSON form.
pub fn history(all: &[Series], fence_off: &FenceOff) -> anyhow::Result<Section> {
    let row = |series: &Series| {
        let check = &series.check;
        let counts = [check.acknowledged, check.refused, check.unknown, check.explained].map(|count| count.to_string());
        let rejected = check.mutants - check.missed_mutants.len() as u64;
        let name = format!("{}, {} ms", series.strategy, series.interval_ms);
        let found = if check.violations.is_empty() { "nothing".into() } else { check.violations.join("; ") };
        [name].into_iter().chain(counts).chain([found, format!("{rejected} of {}", check.mutants)]).collect()
    };
    let table = Table::new(
        "Counter check",
        "Each partition has a counter in the store. Clients record all writes. The check accepts a history if one order of the writes explains \
         all answers and the store's last row, agrees with real time, and never decreases the epoch. Mutants are copies of these histories with \
         one defect each.",
        &["", "acknowledged", "refused", "without an answer", "of these took effect", "found", "mutants rejected"],
        all.iter().map(row).collect(),
    );
    let control = Table::new(
        "Positive control: fences switched off",
        "A stopped worker continues and finds requests, after others have taken its partitions over. The experiment erases the store's fences, so that its writes pass.",
        &["attempts", "stale writes", "found"],
        vec![vec![
            fence_off.attempts.to_string(),
            fence_off.stale_writes.to_string(),
            fence_off.violations.first().cloned().unwrap_or_else(|| "nothing".into()),
        ]],
    );
    Ok(Section::new("Histories of the writes", "", serde_json::to_value(fence_off)?).with_tables(vec![table, control]))
}

fn row(series: &Series, kill: Kill) -> Vec<String> {
    let times = FIGURES.map(|(_, figure)| {
        let [p50, p99] = [50.0, 99.0].map(|percent| ms(series.percentile(Some(kill), figure, percent)));
        format!("{p50} / {p99}")
    });
    let deaths = series.samples.iter().filter(|sample| sample.kill == kill).count();
    let name = format!("{}, {} ms, {kill}", series.strategy, series.interval_ms);
    let after = [series.false_alarms.to_string(), series.strategy.article().to_owned()];
    [name, deaths.to_string()].into_iter().chain(times).chain(after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::switchover::{judgement::Strategy, recorder::CounterCheck};

    #[test]
    fn a_row_per_kind_of_death() {
        let sample = |confirmed_ms| Sample {
            kill: Kill::Kill,
            worker: "w".into(),
            partitions: 5,
            confirmed_ms: Some(confirmed_ms),
            primary_ms: Some(100.0),
            redirected_ms: None,
            longest_pause_ms: if confirmed_ms > 300.0 { 60.0 } else { 0.0 },
            parts: Some(Parts {
                failed_ms: 187.0,
                majority_ms: 1.0,
                commit_ms: confirmed_ms - 190.0,
                published_ms: 2.0,
            }),
        };
        let series = Series {
            strategy: Strategy::Majority,
            interval_ms: 100,
            samples: vec![sample(200.0), sample(351.0)],
            false_alarms: 0,
            writes: 10,
            refused: 0,
            stale_writes: 0,
            etcd_away: None,
            check: CounterCheck { acknowledged: 10, ..CounterCheck::default() },
            validity: report::Validity::default(),
            slowest: Some(Slowest {
                sample: 1,
                confirmed_ms: 351.0,
                rows: vec![Row {
                    depth: 1,
                    process: "monitor-0".into(),
                    name: "switch".into(),
                    offset_ms: 200.0,
                    duration_ms: 150.0,
                    details: String::new(),
                }],
            }),
        };
        let fence_off =
            FenceOff { attempts: 2, stale_writes: 1, found: true, violations: vec!["partition 3: stale".into()] };
        let tables = history(std::slice::from_ref(&series), &fence_off).unwrap().tables;
        assert_eq!(tables[0].rows, [["majority, 100 ms", "10", "0", "0", "0", "nothing", "0 of 0"]]);
        assert_eq!(tables[1].rows, [["2", "1", "partition 3: stale"]]);
        let section = section(&[series]).unwrap();
        let rows = &section.tables[0].rows;
        assert_eq!(rows[0][..5], ["majority, 100 ms, kill -9", "2", "200 / 351", "100 / 100", "never / never"]);
        assert_eq!((rows.len(), rows[1][1].as_str()), (2, "0"));
        assert_eq!(section.measured[0]["strategy"], "majority");
        assert_eq!(
            section.tables[1].rows,
            [["majority, 100 ms", "2", "187 / 187 / 187", "1 / 1 / 1", "10 / 161 / 161", "2 / 2 / 2"]]
        );
        let [without, with] = [("no monitor", "200"), ("a monitor", "351")].map(|(which, ms)| {
            [format!("majority, 100 ms, {which} paused"), "1".into(), format!("{ms} / {ms}"), ms.into()]
        });
        assert_eq!(section.tables[2].rows, [without, with]);
        assert_eq!(section.tables[3].rows, [["· switch", "monitor-0", "200.0", "150.0", ""]]);
        assert!(section.tables[3].title.contains("confirmed 351"), "{}", section.tables[3].title);
    }
}
