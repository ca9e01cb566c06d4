//! The table of the deaths. Pure.

use report::{Section, Table};

use super::judgement::{Death, Group, Owners, Sample, Series};

const MEANING: &str = "Seconds from the signal, median / maximum. Detected: a monitor published a table without the worker. Consumed again: each partition \
                       of the dead process has an event processed that was sent after the signal. Fresh again: from then on the p99 from sending \
                       an event until the user's list in Redis contains it is at most 2 s. Names have the interval of the heartbeats, and the session of the consumer group, whose members only decode and write positions.";

/// # Errors
/// The figures have no JSON form.
pub fn section(all: &[Series]) -> anyhow::Result<Section> {
    let rows = all.iter().flat_map(|series| Death::ALL.into_iter().filter_map(|death| row(series, death))).collect();
    let head =
        ["", "deaths", "detected", "consumed again", "fresh again", "stalest event", "failed reads", "failed events"];
    let table = Table::new("From a death to consumption by others", MEANING, &head, rows);
    Ok(Section::new("Failover of the event path", "", serde_json::to_value(all)?).with_tables(vec![table]))
}

pub fn name(owners: Owners) -> String {
    match owners {
        Owners::Workers { interval_ms } => format!("workers, {interval_ms} ms"),
        Owners::Group(group) => Group::text(group).to_owned(),
    }
}

fn row(series: &Series, death: Death) -> Option<Vec<String>> {
    let of_kind: Vec<&Sample> = series.samples.iter().filter(|sample| sample.death == death).collect();
    if of_kind.is_empty() {
        return None;
    }
    let by_monitors = matches!(series.owners, Owners::Workers { .. });
    let figure = |figure: fn(&Sample) -> Option<f64>| match series.figure(death, figure) {
        Some((median, max)) => format!("{median:.2} / {max:.2}"),
        None => "not reached".into(),
    };
    let only_workers = |text: String| if by_monitors { text } else { "–".into() };
    let of = |failed: u64, all: u64| format!("{failed} of {all}");
    let sum = |count: fn(&Sample) -> u64| of_kind.iter().map(|sample| count(sample)).sum::<u64>();
    let stalest = of_kind.iter().map(|sample| sample.stalest_s).fold(0.0, f64::max);
    Some(vec![
        format!("{}, {}", name(series.owners), death.text()),
        of_kind.len().to_string(),
        only_workers(figure(|one| one.detected_s)),
        figure(|one| one.consumed_s),
        only_workers(figure(|one| one.fresh_s)),
        only_workers(format!("{stalest:.1}")),
        of(sum(|one| one.failed_reads), sum(|one| one.reads)),
        of(sum(|one| one.failed_events), sum(|one| one.events + one.failed_events)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::failover::judgement::tests::sample;

    #[test]
    fn a_row_per_kind_of_death_and_per_group() {
        let workers = Series {
            owners: Owners::Workers { interval_ms: 100 },
            samples: vec![sample(Death::Kill, 0.3, 0.5, Some(0.9)), sample(Death::Stop, 0.4, 0.6, None)],
        };
        let group = Series {
            owners: Owners::Group(Group::ShortSession),
            samples: vec![Sample { detected_s: None, ..sample(Death::Kill, 0.0, 7.25, None) }],
        };
        let rows = section(&[workers, group]).unwrap().tables[0].rows.clone();
        assert_eq!(rows.len(), 3);
        assert_eq!(
            rows[0],
            [
                "workers, 100 ms, kill -9",
                "1",
                "0.30 / 0.30",
                "0.50 / 0.50",
                "0.90 / 0.90",
                "2.5",
                "0 of 100",
                "0 of 500"
            ]
        );
        assert_eq!(rows[1][4], "not reached");
        assert_eq!(rows[2][..5], ["group, session 6 s, kill -9", "1", "–", "7.25 / 7.25", "–"]);
    }
}
