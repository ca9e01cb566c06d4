//! Response time of the modelled store per command. It includes the real store's time.

use std::time::Duration;

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// Upper bound of a delay, so that no law holds a command for ever.
pub const MAX_DELAY_MS: f64 = 600_000.0;

/// JSON: `{"law":"none"}`, `{"law":"linear","base_ms":74,"slope_ms":0.2,"spread":0.3}`; the latter also without `law`, and with `crosstalk_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "LawForm", into = "LawForm")]
pub enum Law {
    /// No added delay: the real store's speed.
    #[default]
    None,
    /// With n commands in flight: response time = `(base_ms + slope_ms × n + crosstalk_ms × n × (n − 1)) × lognormal(mean 1, sigma spread)`.
    /// This is the universal scalability law (Gunther 2007): the slope is contention, and crosstalk is what each command costs each other one.
    /// With crosstalk the rate, n / response time, is highest at `n = √(base_ms / crosstalk_ms)` and falls beyond it.
    Linear {
        /// Response time in milliseconds without any command in flight.
        base_ms: f64,
        /// Milliseconds that each command in flight in the whole store adds.
        slope_ms: f64,
        /// Milliseconds that each ordered pair of commands in flight adds to every response time; 0: the law is linear.
        crosstalk_ms: f64,
        /// Sigma of the log-normal factor; 0: no scatter.
        spread: f64,
    },
}

impl Law {
    /// `in_flight`: commands in flight in the whole store at this one's arrival, this one included.
    pub fn delay(&self, in_flight: u64, rng: &mut impl Rng) -> Duration {
        match *self {
            Self::None => Duration::ZERO,
            Self::Linear { base_ms, slope_ms, crosstalk_ms, spread } => {
                let n = in_flight as f64;
                let mean_ms = base_ms + slope_ms * n + crosstalk_ms * n * (n - 1.0);
                // exp(N(−s²/2, s)) has mean 1: the spread does not move the mean.
                let normal: f64 = StandardNormal.sample(rng);
                let factor = (spread * normal - spread * spread / 2.0).exp();
                Duration::from_secs_f64((mean_ms * factor).min(MAX_DELAY_MS) / 1000.0)
            }
        }
    }
}

impl std::fmt::Display for Law {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Linear { base_ms, slope_ms, crosstalk_ms, spread } => {
                write!(f, "{base_ms} ms + {slope_ms} ms × in flight")?;
                if *crosstalk_ms > 0.0 {
                    write!(f, " + {crosstalk_ms} ms × in flight × (in flight − 1)")?;
                }
                write!(f, ", spread {spread}")
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidLaw {
    pub field: &'static str,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LawKind {
    None,
    Linear,
}

/// The law as written in JSON or TOML. Serde's tagged enums would accept unknown fields beside a unit variant.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LawForm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    law: Option<LawKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slope_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crosstalk_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spread: Option<f64>,
}

impl TryFrom<LawForm> for Law {
    type Error = InvalidLaw;
    fn try_from(form: LawForm) -> Result<Self, InvalidLaw> {
        let parameters = [
            ("base_ms", form.base_ms),
            ("slope_ms", form.slope_ms),
            ("spread", form.spread),
            ("crosstalk_ms", form.crosstalk_ms),
        ];
        if form.law == Some(LawKind::None) {
            return match parameters.iter().find(|(_, value)| value.is_some()) {
                Some(&(field, _)) => Err(InvalidLaw { field, reason: "law none has no parameters".into() }),
                None => Ok(Self::None),
            };
        }
        if form.law.is_none() && form.base_ms.is_none() {
            let reason = "missing; write {\"law\":\"none\"} or give base_ms, slope_ms and spread".into();
            return Err(InvalidLaw { field: "law", reason });
        }
        let parameter = |n: usize, max: f64, default: Option<f64>| {
            let (field, value) = parameters[n];
            match value.or(default) {
                Some(value) if (0.0..=max).contains(&value) => Ok(value),
                Some(value) => Err(InvalidLaw { field, reason: format!("is {value}, must be between 0 and {max}") }),
                None => Err(InvalidLaw { field, reason: "missing".into() }),
            }
        };
        Ok(Self::Linear {
            base_ms: parameter(0, 60_000.0, None)?,
            slope_ms: parameter(1, 1_000.0, None)?,
            spread: parameter(2, 2.0, None)?,
            crosstalk_ms: parameter(3, 100.0, Some(0.0))?,
        })
    }
}

impl From<Law> for LawForm {
    fn from(law: Law) -> Self {
        match law {
            Law::None => Self { law: Some(LawKind::None), ..Self::default() },
            Law::Linear { base_ms, slope_ms, crosstalk_ms, spread } => Self {
                law: Some(LawKind::Linear),
                base_ms: Some(base_ms),
                slope_ms: Some(slope_ms),
                // A linear law is written as before there was crosstalk.
                crosstalk_ms: (crosstalk_ms > 0.0).then_some(crosstalk_ms),
                spread: Some(spread),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    const ARTICLE: Law = Law::Linear { base_ms: 74.0, slope_ms: 0.2, crosstalk_ms: 0.0, spread: 0.3 };
    const USL: Law = Law::Linear { base_ms: 70.0, slope_ms: 0.2, crosstalk_ms: 0.007, spread: 0.0 };

    #[test]
    fn the_spread_keeps_the_mean_and_has_the_sigma() {
        let mut rng = SmallRng::seed_from_u64(7);
        let ms: Vec<f64> = (0..200_000).map(|_| ARTICLE.delay(800, &mut rng).as_secs_f64() * 1000.0).collect();
        let n = ms.len() as f64;
        let mean = ms.iter().sum::<f64>() / n;
        assert!((mean - 234.0).abs() < 1.0, "{mean}");
        let logs: Vec<f64> = ms.iter().map(|ms| (ms / 234.0).ln()).collect();
        let log_mean = logs.iter().sum::<f64>() / n;
        let sigma = (logs.iter().map(|log| (log - log_mean).powi(2)).sum::<f64>() / n).sqrt();
        assert!((log_mean + 0.045).abs() < 0.003 && (sigma - 0.3).abs() < 0.003, "{log_mean} {sigma}");
    }

    #[test]
    fn without_spread_it_is_exact() {
        let law = Law::Linear { base_ms: 74.0, slope_ms: 0.2, crosstalk_ms: 0.0, spread: 0.0 };
        let mut rng = SmallRng::seed_from_u64(1);
        assert_eq!(law.delay(1, &mut rng), Duration::from_micros(74_200));
        assert_eq!(law.delay(1000, &mut rng), Duration::from_millis(274));
        assert_eq!(Law::None.delay(1000, &mut rng), Duration::ZERO);
    }

    /// The law before there was crosstalk, bit for bit.
    #[test]
    fn without_crosstalk_the_delays_are_those_of_the_linear_law() {
        let linear = |in_flight: u64, rng: &mut SmallRng| {
            let normal: f64 = StandardNormal.sample(rng);
            let factor = (0.3 * normal - 0.3 * 0.3 / 2.0).exp();
            Duration::from_secs_f64(((74.0 + 0.2 * in_flight as f64) * factor).min(MAX_DELAY_MS) / 1000.0)
        };
        let (mut ours, mut expected) = (SmallRng::seed_from_u64(3), SmallRng::seed_from_u64(3));
        for in_flight in (0..5_000).chain([1 << 20, u64::MAX]) {
            assert_eq!(ARTICLE.delay(in_flight, &mut ours), linear(in_flight, &mut expected), "{in_flight}");
        }
    }

    /// 70 / 0.007 = 100²: the rate falls on both sides of 100 commands in flight.
    #[test]
    fn with_crosstalk_the_rate_has_a_peak() {
        let rate =
            |in_flight: u64| in_flight as f64 / USL.delay(in_flight, &mut SmallRng::seed_from_u64(1)).as_secs_f64();
        assert!((1..100).all(|n| rate(n) < rate(n + 1)) && (100..1_000).all(|n| rate(n) > rate(n + 1)));
        assert!((rate(100) - 100.0 / 0.159_3).abs() < 0.01, "{}", rate(100));
        assert!(rate(1_000) < 0.25 * rate(100), "{}", rate(1_000));
    }

    #[test]
    fn json_round_trip_and_shorthand() {
        for law in [Law::None, ARTICLE, USL] {
            let text = serde_json::to_string(&law).unwrap();
            assert_eq!(serde_json::from_str::<Law>(&text).unwrap(), law);
        }
        let shorthand = r#"{"base_ms":74,"slope_ms":0.2,"spread":0.3}"#;
        assert_eq!(serde_json::from_str::<Law>(shorthand).unwrap(), ARTICLE);
        assert!(!serde_json::to_string(&ARTICLE).unwrap().contains("crosstalk"));
        assert_eq!(ARTICLE.to_string(), "74 ms + 0.2 ms × in flight, spread 0.3");
        assert_eq!(USL.to_string(), "70 ms + 0.2 ms × in flight + 0.007 ms × in flight × (in flight − 1), spread 0");
    }

    #[test]
    fn bad_laws_name_the_field() {
        for (text, expected) in [
            (r#"{"law":"none","spread":1}"#, "spread: law none"),
            (r#"{}"#, "law: missing"),
            (r#"{"law":"linear","slope_ms":1,"spread":0}"#, "base_ms: missing"),
            (r#"{"base_ms":1,"slope_ms":-1,"spread":0}"#, "slope_ms: is -1"),
            (r#"{"base_ms":1,"slope_ms":0,"spread":0,"crosstalk_ms":-0.1}"#, "crosstalk_ms: is -0.1"),
            (
                r#"{"base_ms":1,"slope_ms":0,"spread":0,"crosstalk_ms":101}"#,
                "crosstalk_ms: is 101, must be between 0 and 100",
            ),
            (r#"{"law":"none","crosstalk_ms":0}"#, "crosstalk_ms: law none"),
            (r#"{"base_ms":1,"slope_ms":1,"spread":2.5}"#, "spread: is 2.5"),
            (r#"{"base_ms":1,"slope_ms":1,"spread":0,"sigma":1}"#, "unknown field `sigma`"),
        ] {
            let error = serde_json::from_str::<Law>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
