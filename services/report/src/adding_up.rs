//! Whether the counts of all steps add up: the check, and the table of each step.

use super::{
    counts::{Counts, Known, Link},
    numbers::count,
    schema::{Report, Step},
    section::{Table, Verdict},
};

const MEANING: &str = "Counted over the whole step, warm-up and drain included. Each line compares two neighbours on the path of a request. \
                       What explains a difference is named; \"up to\" where the counters only bound it.";

/// None without counts. Does not depend on the length of the steps or the speed of the machine, so that quick runs and invalid steps are
/// judged too.
pub(super) fn verdict(report: &Report) -> Option<Verdict> {
    let counted: Vec<(&Step, &Counts)> =
        report.steps.iter().filter_map(|step| Some((step, step.counts.as_ref()?))).collect();
    if counted.is_empty() {
        return None;
    }
    let wrong: Vec<String> = counted.iter().filter_map(|(step, counts)| problems(step, counts)).collect();
    Some(Verdict {
        name: "Counts add up".into(),
        expected: "load generator = nginx = replicas = cache + filter + store, per step; each difference explained"
            .into(),
        measured: format!("{} of {} steps", counted.len() - wrong.len(), counted.len()),
        passed: Some(wrong.is_empty()),
        note: wrong.join(" · "),
        ..Verdict::default()
    })
}

fn problems(step: &Step, counts: &Counts) -> Option<String> {
    let links = counts.links();
    let broken = links.iter().filter(|link| link.unexplained() != 0);
    let broken = broken.map(|link| format!("{}: {:+} unexplained", link.name, link.unexplained()));
    let all: Vec<String> = counts.doubts.iter().cloned().chain(broken).collect();
    (!all.is_empty()).then(|| format!("{}: {}", name(step), all.join(", ")))
}

/// A table for each step with counts.
pub(super) fn tables(report: &Report) -> Vec<Table> {
    report.steps.iter().filter_map(|step| Some(table(step, step.counts.as_ref()?))).collect()
}

fn table(step: &Step, counts: &Counts) -> Table {
    let mut rows: Vec<Vec<String>> = counts.links().iter().map(row).collect();
    rows.extend(counts.doubts.iter().map(|doubt| {
        let none = String::new;
        vec![format!("✗ {doubt}"), none(), none(), none(), none()]
    }));
    let state = if counts.add_up() { "counts add up" } else { "counts do not add up" };
    let head = ["count", "left", "right", "difference", "explained by"];
    Table { pages_only: true, ..Table::new(&format!("{}: {state}", name(step)), MEANING, &head, rows) }
}

fn row(link: &Link) -> Vec<String> {
    let mut why: Vec<String> = link.known.iter().map(explanation).collect();
    if link.unexplained() != 0 {
        why.push(format!("✗ {:+} unexplained", link.unexplained()));
    }
    vec![
        link.name.into(),
        count(link.left as f64),
        count(link.right as f64),
        format!("{:+}", link.difference()),
        why.join("; "),
    ]
}

fn explanation(known: &Known) -> String {
    if known.from == known.to {
        format!("{:+} {}", known.from, known.what)
    } else {
        format!("up to {:+} {}", if known.to > 0 { known.to } else { known.from }, known.what)
    }
}

fn name(step: &Step) -> String {
    format!("{} {:.0}, repeat {}", step.profile, step.offered_per_s, step.repeat)
}
