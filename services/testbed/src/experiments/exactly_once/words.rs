//! The tables of the run. Pure.

use report::{
    Section, Table,
    numbers::{count, ms},
};

use super::{
    faults::Imposed,
    judgement::Measured,
    oracle::{Compared, Findings},
};

/// # Errors
/// The figures have no JSON form.
pub fn section(measured: &Measured) -> anyhow::Result<Section> {
    let tables = vec![events(measured), faults(measured), compared(measured)];
    let meaning = "Clients send each batch until it is acknowledged, while processes are killed and stopped. Afterwards the topic is read from its \
                   beginning, and one thread computes what the store must contain.";
    Ok(Section::new("Each event once", meaning, serde_json::to_value(measured)?).with_tables(tables))
}

fn events(measured: &Measured) -> Table {
    let topic = &measured.topic;
    let figures = [
        ("events sent", measured.events),
        ("positions acknowledged", measured.acknowledged),
        ("requests", measured.requests),
        ("requests without an acknowledgement", measured.failed_requests),
        ("events sent again for them", measured.resent),
        ("events sent twice on purpose", measured.repeated),
        ("poison written past the API", measured.poison),
        ("messages in the topic", topic.messages),
        ("new in the log", topic.new),
        ("of these late", topic.late),
        ("duplicates dropped", topic.duplicates),
        ("dead letters", topic.dead_letters),
        ("lists older than the features", measured.lists.older),
        ("files of segments read during the faults", measured.files.compared),
        ("versions of segments among them", measured.files.versions),
        ("different from the fold of the logs", measured.files.wrong),
    ];
    let mut rows: Vec<Vec<String>> =
        figures.map(|(name, figure)| vec![name.to_owned(), count(figure as f64)]).into_iter().collect();
    let seconds = [
        ("duration, s", measured.seconds),
        ("drained after the last event, s", measured.drained_s),
        ("longest time without an acknowledgement, s", measured.longest_gap_s),
        ("longest time in which a partition stood still, s", measured.longest_stall_s),
    ];
    rows.extend(seconds.map(|(name, figure)| vec![name.to_owned(), ms(figure)]));
    Table::new("Events", "", &["", ""], rows)
}

fn faults(measured: &Measured) -> Table {
    let row = |imposed: &Imposed| {
        let Imposed { fault, process, at_s, lasts_s } = imposed;
        vec![fault.text().to_owned(), process.clone(), format!("{at_s:.0} s"), format!("{lasts_s:.1} s")]
    };
    Table::new("Faults", "", &["", "process", "at", "for"], measured.faults.iter().map(row).collect())
}

fn compared(measured: &Measured) -> Table {
    let Findings { acknowledged, log, counts, features, positions, dead_letters } = &measured.findings;
    let rows: [(&str, &Compared); 9] = [
        ("acknowledged events", acknowledged),
        ("rows of the log", log),
        ("counts of users", counts),
        ("features", features),
        ("positions of partitions", positions),
        ("dead letters", dead_letters),
        ("poison among the dead letters", &measured.poison_found),
        ("arrival numbers of lists", &measured.lists.not_newer),
        ("lists and answers of misses", &measured.lists.as_on_miss),
    ];
    let row = |(name, compared): (&str, &Compared)| {
        let described = if compared.different == 0 { "nothing".to_owned() } else { compared.described.join("; ") };
        vec![name.to_owned(), count(compared.compared as f64), count(compared.different as f64), described]
    };
    let meaning = format!(
        "What the store contains, beside the recomputation. {} copies of one partition's state have one defect each; {} of the defects were found.",
        measured.mutants,
        measured.mutants - measured.missed_mutants.len()
    );
    Table::new("Compared", &meaning, &["", "compared", "different", "found"], rows.map(row).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::exactly_once::judgement::tests::measured;

    #[test]
    fn the_tables_show_all_figures() {
        let section = section(&measured()).unwrap();
        let [events, faults, compared] = section.tables.as_slice() else { panic!("{section:?}") };
        assert_eq!(events.rows[0], ["events sent", "1,000"]);
        let of_broker = faults.rows.iter().find(|row| row[1] == "kafka").unwrap();
        assert_eq!(*of_broker, ["kill -9 of the broker", "kafka", "3 s", "1.0 s"]);
        assert_eq!(compared.rows[3], ["features", "5", "0", "nothing"]);
        assert_eq!(section.measured["events"], 1_000);
    }
}
