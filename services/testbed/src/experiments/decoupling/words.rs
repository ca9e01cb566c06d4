//! The tables of the report. Pure.

use report::{
    Section, Table,
    numbers::{NO_FIGURE, count, ms, pct, per_request},
};

use super::judgement::{EventPath, Features, Measured};

const MISSES: &str = "The same reads by two replicas in turns, while events come in. The caches never have a list, so that every read is a \
                      miss. Readers are as active as those who act: few users have most events. Rows: what MySQL reads for a miss, \
                      counted without other load.";
const FIRST_READS: &str = "A user acts and reads at once, then again until the list shows it; lists are cached as usual. Age: from the \
                           acknowledgement to the first read that shows the action. Without Kafka the replica deletes the list, and \
                           the next read computes it.";
const EVENTS: &str = "Freshness: from sending an event until the list with it is in Redis, by the workers' histogram. Backlog: all workers \
                      were away while events came in, and events went on coming in while it was drained.";

/// # Errors
/// The figures have no JSON form.
pub fn section(all: &[Measured]) -> anyhow::Result<Section> {
    let tables = vec![misses(all), first_reads(all), events(all)];
    let meaning = "What a miss costs when the features are prepared, and how old lists are.";
    Ok(Section::new("Features off the online path", meaning, serde_json::to_value(all)?).with_tables(tables))
}

fn misses(all: &[Measured]) -> Table {
    let rows = all.iter().flat_map(|run| {
        run.misses.iter().map(|misses| {
            let features = match misses.features {
                Features::Inline => "inline",
                Features::Kafka => "kafka",
            };
            vec![
                format!("{}, features={features}", run.name()),
                count(misses.reads as f64),
                ms(misses.p50_ms),
                ms(misses.p99_ms),
                per_request(misses.rows),
            ]
        })
    });
    Table::new("A miss", MISSES, &["", "misses", "p50, ms", "p99, ms", "rows"], rows.collect())
}

fn first_reads(all: &[Measured]) -> Table {
    let rows = all.iter().map(|run| {
        let reads = run.first_reads;
        let figure = |value: Option<f64>| value.map_or_else(|| NO_FIGURE.into(), ms);
        vec![
            run.name(),
            count(reads.users as f64),
            format!("{} %", pct(reads.shows_pct)),
            figure(reads.p50_ms),
            figure(reads.p99_ms),
            figure(reads.age_p50_ms),
            figure(reads.age_p99_ms),
            count(reads.never as f64),
            count(reads.failed as f64),
        ]
    });
    let head =
        ["", "users", "shown at once", "first read p50, ms", "p99, ms", "age p50, ms", "p99, ms", "never", "failed"];
    Table::new("The first read after an event", FIRST_READS, &head, rows.collect())
}

fn events(all: &[Measured]) -> Table {
    let seconds = |value: f64| if value.is_finite() { format!("{value:.2}") } else { NO_FIGURE.into() };
    let rows = all.iter().map(|run| {
        let mut row = vec![
            run.name(),
            count(run.ingest.accepted_per_s),
            run.ingest.p99_ms.map_or_else(|| NO_FIGURE.into(), ms),
            pct(run.cpu_pct),
        ];
        row.extend(match run.freshness {
            Some(freshness) => [seconds(freshness.p50_s), seconds(freshness.p99_s)],
            None => [(); 2].map(|()| NO_FIGURE.to_owned()),
        });
        row.extend(match run.backlog {
            Some(backlog) => [
                count(backlog.messages as f64),
                format!("{:.1} s", backlog.drained_s),
                count(backlog.consumed_per_s),
                format!("{:.1} ×", backlog.ratio()),
            ],
            None => [(); 4].map(|()| NO_FIGURE.to_owned()),
        });
        row
    });
    let head = [
        "",
        "events/s",
        "accepted p99, ms",
        "CPU, %",
        "freshness p50, s",
        "p99, s",
        "backlog",
        "drained in",
        "consumed/s",
        "of those coming in",
    ];
    Table::new("Events", EVENTS, &head, rows.collect())
}

/// A line for the terminal, as soon as a run is over.
pub fn line(run: &Measured) -> String {
    let misses = run.misses.iter().map(|misses| {
        format!(
            "{:?} {}/{} ms, {} rows",
            misses.features,
            ms(misses.p50_ms),
            ms(misses.p99_ms),
            per_request(misses.rows)
        )
    });
    let misses: Vec<String> = misses.collect();
    let drain = match (run.path, run.backlog) {
        (EventPath::Kafka, Some(backlog)) => format!(", drained at {:.1} ×", backlog.ratio()),
        _ => String::new(),
    };
    format!("{}: misses p50/p99 {}{drain}", run.name(), misses.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::decoupling::judgement::{StoreLaw, tests::measured};

    #[test]
    fn a_row_for_each_setting_and_run_also_without_kafka() {
        let all = [
            measured(StoreLaw::None, EventPath::Direct),
            measured(StoreLaw::None, EventPath::Kafka),
            measured(StoreLaw::Modelled, EventPath::Kafka),
        ];
        let section = section(&all).unwrap();
        let rows: Vec<usize> = section.tables.iter().map(|table| table.rows.len()).collect();
        assert_eq!(rows, [5, 3, 3]);
        for table in &section.tables {
            assert!(table.rows.iter().all(|row| row.len() == table.head.len()), "{table:?}");
        }
        assert_eq!(section.tables[0].rows[0][0], "no law, without Kafka, features=inline");
        assert_eq!(section.tables[2].rows[0][4..], [NO_FIGURE; 6]);
        assert_eq!(section.tables[2].rows[1][9], "3.5 ×");
        assert_eq!(section.measured[2]["law"], "modelled");
        assert!(line(&all[1]).ends_with("drained at 3.5 ×"), "{}", line(&all[1]));
    }
}
