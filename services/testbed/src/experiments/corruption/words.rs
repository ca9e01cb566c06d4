//! The tables of the run. Pure.

use report::{
    Section, Table,
    numbers::{count, ms},
};

use super::judgement::{Death, Latencies, Measured, Repair};

/// # Errors
/// The figures have no JSON form.
pub fn section(measured: &Measured) -> anyhow::Result<Section> {
    let tables = vec![repairs(measured), deaths(measured), files(measured), latencies(measured)];
    let meaning = "Each damage is imposed on complete copies while no events flow. It is found when the leading monitor knows of it, and repaired \
                   when the file of every holder is read from its disk and equals the fold of the logs.";
    Ok(Section::new("Damaged copies", meaning, serde_json::to_value(measured)?).with_tables(tables))
}

fn repairs(measured: &Measured) -> Table {
    let row = |repair: &Repair| {
        vec![
            repair.damage.clone(),
            repair.segments.to_string(),
            count(repair.damaged as f64),
            repair.manifests.to_string(),
            count(repair.received as f64),
            format!("{:.1} s", repair.found_s),
            format!("{:.1} s", repair.repaired_s),
        ]
    };
    let meaning = "A block has 4096 bytes. Bytes: what workers received from each other, failed attempts and manifests included. If no copy has what is \
                   needed, the logs are folded again, and less moves.";
    let columns = ["", "segments", "blocks damaged", "manifests", "bytes moved", "found after", "repaired after"];
    Table::new("Damages", meaning, &columns, measured.repairs.iter().map(row).collect())
}

fn deaths(measured: &Measured) -> Table {
    let row = |death: &Death| {
        vec![
            death.copies.to_string(),
            count(death.blocks as f64),
            count(death.received as f64),
            format!("{:.1} s", death.failed_s),
            format!("{:.1} s", death.back_s),
            format!("{:.0} s", death.back_within_s()),
        ]
    };
    let meaning = "Times from the kill. Back: three complete copies of each segment, without the killed worker. Stated: its bytes at the limit of one \
                   worker's transfers, and 15 s.";
    let columns = ["copies", "blocks", "bytes received", "failed after", "back after", "stated"];
    Table::new("Killed workers", meaning, &columns, measured.deaths.iter().map(row).collect())
}

fn files(measured: &Measured) -> Table {
    let files = &measured.files;
    let answers = &measured.answers;
    let figures = [
        ("files read whole, and compared with the fold", files.compared),
        ("different from the fold", files.wrong),
        ("versions of segments among them", files.versions),
        ("refused: a block or the manifest is damaged, or nothing is there", files.refused),
        ("replaced by a newer version while they were read, or the worker was dead", files.gone),
        ("lists of neighbours that the API gave, and compared with the fold", answers.compared),
        ("different from the fold", answers.wrong),
        ("different lists among them", answers.lists),
    ];
    let mut rows: Vec<Vec<String>> =
        figures.map(|(name, figure)| vec![name.to_owned(), count(figure as f64)]).into_iter().collect();
    rows.push(vec!["megabytes".to_owned(), count(files.megabytes)]);
    Table::new("Files that workers sent, and answers made of them", "", &["", ""], rows)
}

fn latencies(measured: &Measured) -> Table {
    let switches = format!("near one of {} switches", measured.switches.switches);
    let rows: [(&str, &Latencies); 4] = [
        ("before the kills", &measured.before_deaths),
        ("while copies of a killed worker are made", &measured.during_deaths),
        (&switches, &measured.switches.near),
        ("between, with the same events", &measured.switches.others),
    ];
    let row = |(name, latencies): (&str, &Latencies)| {
        let Latencies { reads, failed, p50_ms, p99_ms } = latencies;
        vec![name.to_owned(), count(*reads as f64), count(*failed as f64), ms(*p50_ms), ms(*p99_ms)]
    };
    let columns = ["", "reads", "without an answer", "p50, ms", "p99, ms"];
    let meaning = "Of these lists only status and latency are judged: most come from the cache, where they are as old as it permits.";
    Table::new("Lists read through the gateway", meaning, &columns, rows.map(row).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::corruption::judgement::tests::measured;

    #[test]
    fn the_tables_show_all_figures() {
        let section = section(&measured()).unwrap();
        let [repairs, deaths, files, latencies] = section.tables.as_slice() else { panic!("{section:?}") };
        assert_eq!(repairs.rows[0], ["bits flipped in a replica's copy", "1", "3", "0", "12,288", "1.0 s", "2.0 s"]);
        assert_eq!(deaths.rows[0][5], "19 s");
        assert_eq!(files.rows[0][1], "500");
        assert_eq!(latencies.rows[2][0], "near one of 9 switches");
        assert_eq!(section.measured["files"]["wrong"], 0);
    }
}
