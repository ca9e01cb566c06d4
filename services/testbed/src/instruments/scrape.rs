//! Counters of the replicas and of faultproxy, read from their Prometheus text, before and after.

use std::collections::BTreeSet;

/// One reading of all processes of a kind, summed over them.
#[derive(Debug, Clone, Default)]
pub struct Reading(Vec<(String, f64)>);

impl Reading {
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let lines = texts.into_iter().flat_map(str::lines).filter(|line| !line.starts_with('#'));
        Self(
            lines
                .filter_map(|line| {
                    let (series, value) = line.rsplit_once(' ')?;
                    Some((series.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// Of several processes together.
    pub fn all(readings: impl IntoIterator<Item = Self>) -> Self {
        Self(readings.into_iter().flat_map(|reading| reading.0).collect())
    }

    /// Of one process; `admin` is the base URL of its admin port.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn get(http: &reqwest::Client, admin: &str) -> reqwest::Result<Self> {
        let text = http.get(format!("{admin}/metrics")).send().await?.error_for_status()?.text().await?;
        Ok(Self::of([text.as_str()]))
    }

    /// Sum of the series of this name that carry all of these labels, e.g. `("cache_requests_total", &["result=\"hit\""])`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let matching = |series: &str| {
            let (of, rest) = series.split_once('{').unwrap_or((series, ""));
            of == name && labels.iter().all(|label| rest.contains(label))
        };
        self.0.iter().filter(|(series, _)| matching(series)).map(|(_, value)| value).sum()
    }

    /// Values of a label of the series of this name, e.g. `("api_profile_info", "profile")`.
    pub fn labels(&self, name: &str, label: &str) -> BTreeSet<String> {
        let start = format!("{label}=\"");
        let value = |series: &String| {
            let (of, rest) = series.split_once('{')?;
            let (_, rest) = rest.split_once(&start).filter(|_| of == name)?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        self.0.iter().filter_map(|(series, _)| value(series)).collect()
    }

    /// How much it grew since `earlier`.
    pub fn since(&self, earlier: &Self, name: &str, labels: &[&str]) -> f64 {
        self.sum(name, labels) - earlier.sum(name, labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_processes_and_labels() {
        let a = "# HELP x\nx_total{result=\"hit\",k=\"1\"} 3\nx_total{result=\"miss\"} 4\nx_total_other 9\n";
        let b = "x_total{result=\"hit\"} 5\ny 1.5e3\n";
        let reading = Reading::of([a, b]);
        assert_eq!(reading.sum("x_total", &["result=\"hit\""]), 8.0);
        assert_eq!(reading.sum("x_total", &[]), 12.0);
        assert_eq!(reading.sum("y", &[]), 1500.0);
        assert_eq!(reading.labels("x_total", "result").into_iter().collect::<Vec<_>>(), ["hit", "miss"]);
        assert!(reading.labels("x", "result").is_empty() && reading.labels("y", "result").is_empty());
        assert_eq!(reading.since(&Reading::of([a]), "x_total", &[]), 5.0);
    }
}
