//! The response-time law of the modelled store, and the table `[law]`.

use serde::Serialize;

use super::read::Table;

/// Response time of the store.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Law {
    /// With n queries in flight in the whole store: `(base_ms + slope_ms × n + crosstalk_ms × n × (n − 1)) × a log-normal factor of mean 1`.
    Modelled {
        /// Response time of an idle store, in milliseconds (0 to 60,000).
        base_ms: f64,
        /// Additional response time for each query in flight, in milliseconds (0 to 1,000).
        slope_ms: f64,
        /// Additional response time for each ordered pair of queries in flight, in milliseconds (0 to 100). 0: the law is linear. Above 0 it is
        /// the universal scalability law (Gunther 2007): the rate is highest at √(base_ms / crosstalk_ms) queries in flight and falls beyond.
        #[serde(skip_serializing_if = "is_zero")]
        crosstalk_ms: f64,
        /// Sigma of the log-normal factor (0 to 2).
        spread: f64,
    },
    /// The real response time of the MySQL servers, without a modelled delay.
    None,
}

/// A linear law is written as before there was crosstalk: the manifests of reports contain scenarios.
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Law {
    /// Mean response time with so many queries in flight, in milliseconds. `None` without a modelled law.
    pub fn mean_ms(&self, in_flight: f64) -> Option<f64> {
        let Self::Modelled { base_ms, slope_ms, crosstalk_ms, .. } = *self else { return None };
        Some(base_ms + slope_ms * in_flight + crosstalk_ms * in_flight * (in_flight - 1.0))
    }

    /// Queries per second with so many queries in flight all the time. `None` without a modelled law, or with one that takes no time.
    pub fn rate_per_s(&self, in_flight: f64) -> Option<f64> {
        let query_ms = self.mean_ms(in_flight)?;
        (query_ms > 0.0).then(|| 1000.0 * in_flight / query_ms)
    }
}

pub(super) fn read(table: Table<'_>) -> Law {
    let modelled = table.choice("kind", &[("modelled", true), ("none", false)]).unwrap_or(true);
    let law = if modelled {
        Law::Modelled {
            base_ms: table.required("base_ms", |t, key| t.number(key, 0.0..=60_000.0)),
            slope_ms: table.required("slope_ms", |t, key| t.number(key, 0.0..=1000.0)),
            crosstalk_ms: table.number("crosstalk_ms", 0.0..=100.0).unwrap_or_default(),
            spread: table.required("spread", |t, key| t.number(key, 0.0..=2.0)),
        }
    } else {
        for key in ["base_ms", "slope_ms", "crosstalk_ms", "spread"] {
            if table.has(key) {
                table.error(key, "belongs to kind = \"modelled\"");
            }
        }
        Law::None
    };
    table.finish();
    law
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: Law = Law::Modelled { base_ms: 74.0, slope_ms: 0.2, crosstalk_ms: 0.0, spread: 0.3 };

    #[test]
    fn the_rate_of_a_linear_law_only_rises_and_crosstalk_gives_it_a_peak() {
        assert_eq!(LINEAR.rate_per_s(100.0), Some(1000.0 * 100.0 / (74.0 + 0.2 * 100.0)));
        let rate = |law: Law, n: u32| law.rate_per_s(n.into()).unwrap_or_default();
        assert!((1..2000).all(|n| rate(LINEAR, n) < rate(LINEAR, n + 1)));
        let crosstalk = Law::Modelled { base_ms: 70.0, slope_ms: 0.2, crosstalk_ms: 0.007, spread: 0.3 };
        assert!((1..100).all(|n| rate(crosstalk, n) < rate(crosstalk, n + 1)));
        assert!((100..2000).all(|n| rate(crosstalk, n) > rate(crosstalk, n + 1)));
        let idle = Law::Modelled { base_ms: 0.0, slope_ms: 0.0, crosstalk_ms: 0.0, spread: 0.0 };
        assert_eq!((Law::None.rate_per_s(1.0), idle.rate_per_s(1.0)), (None, None));
    }

    #[test]
    fn a_linear_law_is_written_as_before() {
        let text = serde_json::to_string(&LINEAR).unwrap();
        assert_eq!(text, r#"{"kind":"modelled","base_ms":74.0,"slope_ms":0.2,"spread":0.3}"#);
    }
}
