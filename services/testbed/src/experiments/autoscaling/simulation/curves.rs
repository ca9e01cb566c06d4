//! Loads of a day, second by second. Pure: the same seed gives the same rates.

use std::{f64::consts::PI, path::Path};

use anyhow::Context as _;
use loadtest::rates;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::experiments::autoscaling::load::Load;

/// Seconds of a day; a curve has at most as many.
pub const DAY_S: usize = 86_400;

/// Requests per second of each second. Seconds are those of the policies' clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    pub name: String,
    /// A sentence with its figures.
    pub about: String,
    /// The day before, for forecasts. Empty: unknown.
    pub yesterday: Vec<f64>,
    pub today: Vec<f64>,
}

/// With a day of this length. Surges last as long in a short day as in a whole one.
///
/// # Errors
/// The live experiment has no load.
pub fn built_in(day_s: usize, seed: u64) -> anyhow::Result<Vec<Curve>> {
    let share = |second: usize| second as f64 / day_s as f64;
    let day = |rate: &dyn Fn(usize) -> f64| (0..day_s).map(rate).collect::<Vec<f64>>();
    let curve = |name: &str, about: &str, yesterday: Vec<f64>, today: Vec<f64>| Curve {
        name: name.into(),
        about: about.into(),
        yesterday,
        today,
    };
    let step = day(&|second| if (1.0 / 3.0..2.0 / 3.0).contains(&share(second)) { 600.0 } else { 160.0 });
    let ramp = day(&|second| 160.0 + 640.0 * (1.0 - (2.0 * share(second) - 1.0).abs()));
    let ordinary_day = day(&|second| ordinary(share(second)));
    let crowds = day(&|second| 200.0 + surge(second, day_s / 4) + surge(second, 3 * day_s / 4));
    let holiday = day(&|second| ordinary(share(second)) * (1.0 + 0.8 * evening(share(second))));
    Ok(vec![
        curve("step", "160 requests/s, 600 in the middle third of the day; yesterday too", step.clone(), step),
        curve("ramp", "from 160 to 800 requests/s at noon and back; yesterday too", ramp.clone(), ramp),
        curve(
            "noise",
            "400 requests/s with a random part, standard deviation 80, correlated over a minute; yesterday another one",
            noise(day_s, seed.wrapping_add(1)),
            noise(day_s, seed),
        ),
        curve(
            "flash crowd",
            "200 requests/s, and twice within a minute 600 more, of which half go in ten minutes; yesterday none",
            vec![200.0; day_s],
            crowds,
        ),
        curve(
            "holiday",
            "a day between 120 and 420 requests/s with its peak in the evening, today up to 1.8 times as high; yesterday ordinary",
            ordinary_day,
            holiday,
        ),
        live()?,
    ])
}

/// That of the live experiment, as slow as in Kubernetes.
///
/// # Errors
/// It has no points.
fn live() -> anyhow::Result<Curve> {
    let load = Load::new(1)?;
    let seconds = load.measure_ms / 1_000;
    Ok(Curve {
        name: "live".into(),
        about: "that of the live experiment: 160, 400, 540 and 160 requests/s in 29 minutes; no yesterday".into(),
        yesterday: Vec::new(),
        today: (0..seconds).map(|second| f64::from(load.curve.users_at(1_000 * second))).collect(),
    })
}

/// A file with the head `second,rate` and a line for each second. Of more than a day, the last day is today, and the one before is yesterday.
///
/// # Errors
/// The file cannot be read, or a line is not of this form; names the line.
pub fn recorded(file: &Path) -> anyhow::Result<Curve> {
    let shown = file.display();
    let mut yesterday = rates::read(file, 2 * DAY_S).with_context(|| format!("curve {shown}"))?;
    let today = yesterday.split_off(yesterday.len().saturating_sub(DAY_S));
    if !yesterday.is_empty() {
        // What was before the recording is unknown: nothing is foreseen for it.
        let unknown = DAY_S - yesterday.len();
        yesterday.splice(0..0, std::iter::repeat_n(0.0, unknown));
    }
    Ok(Curve { name: "recorded".into(), about: format!("recorded, from {shown}"), yesterday, today })
}

/// At a share of the day: low at night, high in the evening.
fn ordinary(share: f64) -> f64 {
    120.0 + 200.0 * (PI * share).sin().powi(2) + 250.0 * evening(share)
}

/// 1 at the peak of the evening.
fn evening(share: f64) -> f64 {
    (-((share - 0.83) / 0.06).powi(2)).exp()
}

/// More requests/s from this second on.
fn surge(second: usize, begin: usize) -> f64 {
    const RISE_S: f64 = 60.0;
    const HALF_LIFE_S: f64 = 600.0;
    let Some(since) = second.checked_sub(begin) else { return 0.0 };
    let since_s = since as f64;
    600.0 * (since_s / RISE_S).min(1.0) * 0.5_f64.powf((since_s - RISE_S).max(0.0) / HALF_LIFE_S)
}

/// An autoregressive process of order 1 around 400 requests/s.
fn noise(day_s: usize, seed: u64) -> Vec<f64> {
    const CORRELATED_S: f64 = 60.0;
    const DEVIATION: f64 = 80.0;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let keep = (-1.0 / CORRELATED_S).exp();
    // A uniform number of this range has the variance that keeps the deviation.
    let widest = DEVIATION * (3.0 * (1.0 - keep * keep)).sqrt();
    let mut part = 0.0;
    let mut next = || {
        part = keep * part + rng.random_range(-widest..widest);
        (400.0 + part).max(0.0)
    };
    (0..day_s).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_curves_and_they_are_what_they_say() {
        let curves = built_in(DAY_S, 7).unwrap();
        assert_eq!(curves, built_in(DAY_S, 7).unwrap());
        assert_ne!(curves[2], built_in(DAY_S, 8).unwrap()[2]);
        let bounds =
            |rates: &[f64]| rates.iter().fold((f64::MAX, 0.0_f64), |(low, high), r| (low.min(*r), high.max(*r)));
        let rounded = |rates: &[f64]| (bounds(rates).0.round(), bounds(rates).1.round());
        let of = |name: &str| curves.iter().find(|curve| curve.name == name).unwrap();
        assert_eq!(rounded(&of("step").today), (160.0, 600.0));
        assert_eq!(rounded(&of("ramp").today), (160.0, 800.0));
        assert_eq!(rounded(&of("flash crowd").today), (200.0, 800.0));
        assert_eq!(rounded(&of("live").today), (160.0, 540.0));
        let (low, high) = bounds(&of("holiday").yesterday);
        assert!((115.0..125.0).contains(&low) && (400.0..440.0).contains(&high), "{low} {high}");
        assert!(bounds(&of("holiday").today).1 > 1.7 * high);
        let noise = &of("noise").today;
        let mean = noise.iter().sum::<f64>() / noise.len() as f64;
        let deviation = (noise.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / noise.len() as f64).sqrt();
        assert!((mean - 400.0).abs() < 10.0 && (deviation - 80.0).abs() < 8.0, "{mean} {deviation}");
        assert!(curves.iter().all(|curve| curve.yesterday.len().is_multiple_of(DAY_S)));
    }

    #[test]
    fn a_recording_of_more_than_a_day_has_a_yesterday() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("load.csv");
        let recorded = |seconds: usize| {
            let lines: String = (0..seconds).map(|second| format!("{second},{}\n", second / 100)).collect();
            std::fs::write(&file, format!("second,rate\n{lines}")).unwrap();
            recorded(&file)
        };
        let short = recorded(200).unwrap();
        assert_eq!((short.yesterday.len(), short.today.len()), (0, 200));
        let long = recorded(DAY_S + 300).unwrap();
        assert_eq!((long.yesterday.len(), long.today.len()), (DAY_S, DAY_S));
        assert_eq!((long.yesterday[DAY_S - 301], long.yesterday[DAY_S - 1], long.today[0]), (0.0, 2.0, 3.0));
        let error = format!("{:#}", recorded(2 * DAY_S + 1).unwrap_err());
        assert!(error.contains("load.csv: line 172802: a curve must have at most 172800 seconds"), "{error}");
    }
}
