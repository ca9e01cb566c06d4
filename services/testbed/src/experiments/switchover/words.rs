//! The table of the switch-overs. Pure.

use report::{Section, Table};

use super::judgement::{FIGURES, Kill, Series, ms};

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
    Ok(Section::new("From a death to its new primaries", "", serde_json::to_value(all)?).with_tables(vec![table]))
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
    use crate::experiments::switchover::judgement::{Sample, Strategy};

    #[test]
    fn a_row_per_kind_of_death() {
        let sample = |confirmed_ms| Sample {
            kill: Kill::Kill,
            worker: "w".into(),
            partitions: 5,
            confirmed_ms: Some(confirmed_ms),
            primary_ms: Some(100.0),
            redirected_ms: None,
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
        };
        let section = section(&[series]).unwrap();
        let rows = &section.tables[0].rows;
        assert_eq!(rows[0][..5], ["majority, 100 ms, kill -9", "2", "200 / 351", "100 / 100", "never / never"]);
        assert_eq!((rows.len(), rows[1][1].as_str()), (2, "0"));
        assert_eq!(section.measured[0]["strategy"], "majority");
    }
}
