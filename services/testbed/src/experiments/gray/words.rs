//! The table of the faults. Pure.

use report::{Section, Table};

use super::{
    faults::{Expected, GrayFault},
    judgement::{Defence, Evidence, Measured},
};

const MEANING: &str = "Detected: seconds from the fault until the monitors acted against the worker, and by which evidence. Served: seconds until \
                       fewer than 1 % of the writes fail, until the end of the fault. Errors: share of the writes, and seconds with at least \
                       one. Moved: partitions. In brackets: with the workers' reports and the complaints of requesters switched off.";

/// # Errors
/// The figures have no JSON form.
pub fn section(all: &[Measured]) -> anyhow::Result<Section> {
    let rows = GrayFault::ALL.into_iter().filter_map(|fault| row(all, fault)).collect();
    let head = ["", "detected", "served", "false removals", "table changes", "moved", "errors", "handled"];
    let table = Table::new("Gray failures", MEANING, &head, rows);
    Ok(Section::new("Workers that are only partly alive", "", serde_json::to_value(all)?).with_tables(vec![table]))
}

fn row(all: &[Measured], fault: GrayFault) -> Option<Vec<String>> {
    let of = |defence| all.iter().find(|one| one.fault == fault && one.defence == defence);
    let (with, without) = (of(Defence::All), of(Defence::Heartbeats));
    with.or(without)?;
    // A line may break between the two figures, not within one.
    let text = |figure: fn(&Measured) -> String| move |one| figure(one).replace(' ', "\u{a0}");
    let cells = |figure: fn(&Measured) -> String| match (with.map(text(figure)), without.map(text(figure))) {
        (Some(with), Some(without)) => format!("{with} ({without})"),
        (Some(with), None) => with,
        (None, Some(without)) => format!("({without})"),
        (None, None) => String::new(),
    };
    let name = match fault.expected() {
        Expected::Serves => fault.text().to_owned(),
        Expected::Stays => format!("{}; nothing should move", fault.text()),
    };
    let figures: [fn(&Measured) -> String; 7] = [
        detected,
        |one| one.served_after_s.map_or("never".into(), |after| format!("{after:.1} s")),
        |one| one.false_removals.to_string(),
        |one| one.tables.len().to_string(),
        |one| one.moved.to_string(),
        |one| format!("{:.1} %, {} s", 100.0 * one.error_share(), one.error_seconds),
        |one| if one.is_handled() { "yes".into() } else { "no".into() },
    ];
    Some([name].into_iter().chain(figures.map(cells)).collect())
}

fn detected(one: &Measured) -> String {
    let Some(sign) = one.detected else { return "-".into() };
    let by = match sign.evidence {
        Evidence::Heartbeats => "heartbeats",
        Evidence::Report => "report",
        Evidence::Requesters => "requesters",
    };
    format!("{:.1} s, {by}", sign.after_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::gray::judgement::tests::measured;

    #[test]
    fn a_row_per_fault_with_both_defences() {
        let all = [
            measured(GrayFault::WritesStall, Defence::All, Some(3.5)),
            Measured { detected: None, ..measured(GrayFault::WritesStall, Defence::Heartbeats, None) },
            measured(GrayFault::EtcdSlow, Defence::All, Some(0.0)),
        ];
        let section = section(&all).unwrap();
        let rows = &section.tables[0].rows;
        assert_eq!(rows.len(), 2);
        assert!(rows[0][0].ends_with("nothing should move"));
        let row: Vec<String> = rows[1].iter().map(|cell| cell.replace('\u{a0}', " ")).collect();
        assert_eq!(
            row,
            [
                "writes of a worker stall",
                "2.0 s, report (-)",
                "3.5 s (never)",
                "0 (0)",
                "0 (0)",
                "0 (0)",
                "1.0 %, 4 s (1.0 %, 4 s)",
                "yes (no)"
            ]
        );
    }
}
