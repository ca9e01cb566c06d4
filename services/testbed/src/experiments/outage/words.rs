//! Tables and charts of outages. Pure.

use loadtest::figures::Tail;
use report::{
    Chart, Curve, Drawing, Second, Section, Table,
    numbers::{NO_FIGURE, TAIL, count, ms, pct, plain, tail},
};

use super::figures::{Outage, OutagePhase, Probes, error_pct};

/// Seconds shown before the kill and after the restart.
const SECONDS_SHOWN: u32 = 5;

/// # Errors
/// The figures have no JSON form.
pub fn section(outages: &[Outage], profiles: usize, repeats: u32) -> anyhow::Result<Section> {
    let name = |outage: &Outage| outage.name(profiles, repeats);
    let section = Section::new(
        "A server is killed",
        "The server is killed under load and started again on its data and port. Which users are still answered, and how soon is all back to normal?",
        serde_json::to_value(outages)?,
    );
    let charts =
        outages.iter().filter(|outage| !outage.series.is_empty()).flat_map(|outage| charts(outage, &name(outage)));
    Ok(section.with_tables(vec![summary(outages, &name), seconds(outages, &name)]).with_charts(charts.collect()))
}

fn charts(of: &Outage, name: &str) -> [Chart; 2] {
    let back = match of.back_after_s {
        Some(seconds) => format!("back to normal {seconds} s after that"),
        None => "not back to normal within the run".into(),
    };
    let (killed, restarted) = (plain(of.killed_s.round()), plain(of.restarted_s.round()));
    let meaning = format!("Killed at second {killed}, started again at second {restarted}: {back}.");
    let answers =
        Drawing::Answers { series: of.series.clone(), level_per_s: of.offered_per_s, level: "offered".to_owned() };
    let curve = |name: &str, value: fn(&Second) -> Option<f64>| Curve {
        name: name.to_owned(),
        points: of.series.iter().filter_map(|second| Some((f64::from(second.second), value(second)?))).collect(),
    };
    // Both begin at 0 and should stay low, so they share an axis.
    let latency = Drawing::OverTime {
        x_label: "second of the run".into(),
        y_label: "p99 or max in ms, errors in %".into(),
        curves: vec![curve(TAIL, |second| second.tail().map(Tail::ms)), curve("errors, %", error_pct)],
    };
    [
        Chart::new(&format!("{name} is killed"), &meaning, answers),
        Chart::new(&format!("{name} is killed: errors and latency"), &meaning, latency),
    ]
}

/// One column per outage.
fn summary(outages: &[Outage], name: &impl Fn(&Outage) -> String) -> Table {
    type Show = fn(&Outage) -> String;
    let figures: [(&str, Show); 10] = [
        ("away, s", |o| plain((o.restarted_s - o.killed_s).round())),
        ("its own recovery, s", |o| recovery_s(o)),
        ("users with a list", |o| counts(o.listed)),
        ("users without one", |o| counts(o.unlisted)),
        ("p99 with a list, ms", |o| figure(o.listed.p99_ms)),
        ("p99 without a list, ms", |o| figure(o.unlisted.p99_ms)),
        ("store queries/s", |o| phases(o, |phase| phase.store_queries_per_s)),
        ("CPU, % of all cores", |o| phases(o, |phase| phase.cpu_pct)),
        ("p99 of the load before, ms", |o| tail(o.normal_p99_ms, o.normal_max_ms)),
        ("back to normal after", back),
    ];
    let row =
        |(name, show): &(&str, Show)| std::iter::once((*name).to_owned()).chain(outages.iter().map(show)).collect();
    let names: Vec<String> = outages.iter().map(name).collect();
    let head: Vec<&str> = std::iter::once("").chain(names.iter().map(String::as_str)).collect();
    Table::new(
        "While a server was away",
        "Single requests during the load, of users with a list in Redis and of users without: answered · 503 · failed. Queries and CPU: \
         before · during · after. Back to normal counts from the start of the server.",
        &head,
        figures.iter().map(row).collect(),
    )
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| NO_FIGURE.into(), ms)
}

fn counts(probes: Probes) -> String {
    [probes.good, probes.refused, probes.failed].map(|n| count(n as f64)).join(" · ")
}

fn phases(outage: &Outage, of: fn(&OutagePhase) -> f64) -> String {
    [&outage.before, &outage.during, &outage.after].map(|phase| count(of(phase))).join(" · ")
}

pub fn recovery_s(outage: &Outage) -> String {
    plain(((outage.answering_s - outage.restarted_s) * 10.0).round() / 10.0)
}

/// Each second from shortly before a kill until the load is back to normal.
fn seconds(outages: &[Outage], name: &impl Fn(&Outage) -> String) -> Table {
    let rows_of = |o: &Outage| -> Vec<Vec<String>> {
        let first = (o.killed_s as u32).saturating_sub(SECONDS_SHOWN);
        let last = o.restarted_s as u32 + o.back_after_s.unwrap_or(0).max(SECONDS_SHOWN) + SECONDS_SHOWN;
        let shown = o.series.iter().filter(|s| (first..=last).contains(&s.second));
        shown
            .map(|s| {
                vec![
                    format!("{} {}", name(o), s.second),
                    phase(o, s).into(),
                    count(s.sent as f64),
                    count(s.good as f64),
                    error_pct(s).map_or_else(|| NO_FIGURE.into(), pct),
                    tail(s.p99_ms, s.max_ms),
                ]
            })
            .collect()
    };
    let rows = outages.iter().flat_map(rows_of).collect();
    let head = ["step", "server", "sent", "good", "errors %", "p99, ms"];
    let meaning = "The load around each outage; seconds count from the beginning of the measured part.";
    Table { pages_only: true, ..Table::new("Second by second", meaning, &head, rows) }
}

fn phase(outage: &Outage, second: &Second) -> &'static str {
    let (from, to) = (f64::from(second.second), f64::from(second.second + 1));
    if to <= outage.killed_s {
        "up"
    } else if from < outage.restarted_s {
        if from <= outage.killed_s { "killed" } else { "away" }
    } else if from < outage.answering_s {
        "starting"
    } else {
        "back"
    }
}

pub fn back(outage: &Outage) -> String {
    outage.back_after_s.map_or_else(|| "not within the run".into(), |s| format!("{s} s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::outage::figures::sample::outage;

    #[test]
    fn the_seconds_around_the_outage_are_shown() {
        let section = section(&[outage("MySQL"), outage("Redis")], 2, 1).unwrap();
        let table = &section.tables[1];
        // 10..=45 of either.
        assert_eq!(table.rows.len(), 2 * 36);
        let server = |second: &str| {
            let row = table.rows.iter().find(|row| row[0] == format!("protected, {second}"));
            row.map(|row| row[1].as_str())
        };
        for (second, expected) in [
            ("MySQL 14", "up"),
            ("MySQL 15", "killed"),
            ("MySQL 16", "away"),
            ("MySQL 35", "away"),
            ("MySQL 36", "back"),
        ] {
            assert_eq!(server(second), Some(expected), "{second}");
        }
        assert_eq!((section.tables[0].head.len(), section.charts.len()), (3, 4));
    }
}
