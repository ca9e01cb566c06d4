//! Every detector with many values of its parameters, on every condition at every beat rate. Pure, but for the threads.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use heartbeat::{
    detector::{AnyDetector, Detector, Fixed, KINDS},
    quality::{Quality, QualityMeter, Replay, hindsight_timeout},
    trace::Condition,
};
use serde::Serialize;

use super::RATES_MS;

/// A setting with more mistakes a day is abandoned.
const HOPELESS_PER_DAY: u64 = 1_000;
/// Detectors whose best unchanged setting is compared with ours.
pub const RIVALS: [&str; 7] = ["fixed", "ewma", "nfd-e", "bertier", "phi-normal", "phi-exponential", "chitchat"];
pub const OURS: &str = "adaptive";

pub struct Plan {
    pub conditions: Vec<Condition>,
    pub seed: u64,
    /// Per condition and rate.
    pub traces: u64,
    pub length_s: u64,
    /// Per trace.
    pub crashes: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    pub detector: &'static str,
    /// Parameters that differ from their default.
    pub params: Vec<(String, f64)>,
}

impl Setting {
    pub fn words(&self) -> String {
        let params = self.params.iter().filter(|param| param.0 != "scan");
        let words: Vec<String> = params.map(|(name, value)| format!("{name} {value:.2}")).collect();
        if words.is_empty() { "default".into() } else { words.join(", ") }
    }
}

/// A condition at a beat rate.
pub struct Cell {
    pub condition: Condition,
    pub interval_ms: u64,
    /// Quality of the timeout fitted in hindsight.
    pub hindsight: Quality,
    /// In the order of the settings; `None`: hopeless.
    pub qualities: Vec<Option<Quality>>,
}

impl Cell {
    pub fn name(&self) -> String {
        format!("{}, {} ms", self.condition.name(), self.interval_ms)
    }

    pub fn intervals(&self, seconds: f64) -> f64 {
        seconds * 1e3 / self.interval_ms as f64
    }
}

pub struct Outcome {
    pub settings: Vec<Setting>,
    pub cells: Vec<Cell>,
}

impl Outcome {
    pub fn cells_at(&self, interval_ms: u64) -> Vec<&Cell> {
        self.cells.iter().filter(|cell| cell.interval_ms == interval_ms).collect()
    }

    /// The best unchanged setting of this detector on these cells, and its mean.
    pub fn best(&self, cells: &[&Cell], detector: &str) -> Option<(usize, f64)> {
        let of = (0..self.settings.len()).filter(|&n| self.settings[n].detector == detector);
        of.filter_map(|n| Some((n, everywhere(cells, n)?))).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The best of the rivals on these cells: setting and mean.
    pub fn best_rival(&self, cells: &[&Cell]) -> Option<(usize, f64)> {
        RIVALS.iter().filter_map(|name| self.best(cells, name)).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The adaptive detector as it is by default.
    pub fn ours(&self) -> usize {
        self.settings.iter().position(|s| s.detector == OURS && s.params.is_empty()).unwrap_or(0)
    }
}

/// Geometric mean over the cells of the p99 detection time in intervals; `None` if it is not at most one mistake a day in each.
pub fn everywhere(cells: &[&Cell], setting: usize) -> Option<f64> {
    let is_rare_everywhere = cells.iter().all(|cell| cell.qualities[setting].as_ref().is_some_and(is_rare));
    if is_rare_everywhere { summary(cells, setting).map(|all| all.0) } else { None }
}

/// At most one mistake a day, and at most one in a trace shorter than a day.
pub fn is_rare(quality: &Quality) -> bool {
    quality.mistakes as f64 <= (quality.observed_s / 86_400.0).ceil()
}

/// Of one setting over these cells: geometric mean of the p99 in intervals, mean of the mistakes a day, cells with at most one a day.
pub fn summary(cells: &[&Cell], setting: usize) -> Option<(f64, f64, usize)> {
    let (mut logs, mut mistakes, mut rare) = (0.0, 0.0, 0);
    for cell in cells {
        let quality = cell.qualities[setting].as_ref()?;
        logs += cell.intervals(quality.detection_p99_s).max(1e-9).ln();
        mistakes += quality.mistakes_per_day;
        rare += usize::from(is_rare(quality));
    }
    let number = cells.len().max(1) as f64;
    Some(((logs / number).exp(), mistakes / number, rare))
}

/// `from` to `to` in equal ratios.
fn geometric(from: f64, to: f64, steps: u32) -> impl Iterator<Item = f64> {
    (0..=steps).map(move |n| from * (to / from).powf(f64::from(n) / f64::from(steps)))
}

pub fn settings() -> Vec<Setting> {
    let mut all: Vec<Setting> = KINDS.iter().map(|kind| Setting { detector: kind.name, params: Vec::new() }).collect();
    let mut add = |detector, params: &[(&str, f64)]| {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        all.push(Setting { detector, params });
    };
    // A scan only adds to the timeout: without it a fixed one is at its best.
    // The longest pause of a condition is a minute: 600 intervals.
    geometric(1.02, 800.0, 72).for_each(|v| add("fixed", &[("suspect", v), ("scan", 0.0)]));
    geometric(0.02, 800.0, 48).for_each(|v| add("nfd-e", &[("alpha", v)]));
    geometric(0.5, 400.0, 40).for_each(|v| add("phi-exponential", &[("threshold", v)]));
    geometric(1.2, 900.0, 40).for_each(|v| add("chitchat", &[("threshold", v)]));
    geometric(1.0, 10_000.0, 24).for_each(|v| add("ewma", &[("k", v)]));
    geometric(1.0, 100_000.0, 24).for_each(|v| add("bertier", &[("phi", v)]));
    for pause in [0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0, 25.0, 30.0, 45.0, 60.0, 120.0, 250.0, 400.0, 600.0] {
        geometric(0.5, 2_000.0, 8).for_each(|v| add("phi-normal", &[("threshold", v), ("pause", pause)]));
    }
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0].into_iter().for_each(|v| add("backoff", &[("probes", v)]));
    geometric(0.02, 60.0, 16).for_each(|v| add("consecutive", &[("patience", v)]));
    [0.1, 0.3, 1.0, 4.0, 10.0, 30.0].into_iter().for_each(|v| add(OURS, &[("days", v)]));
    all
}

pub fn run(plan: &Plan) -> Outcome {
    let settings = settings();
    // Most heartbeats first, so that the threads end together.
    let mut work: Vec<(Condition, u64)> = Vec::new();
    for interval_ms in RATES_MS.into_iter().rev() {
        work.extend(plan.conditions.iter().map(|&condition| (condition, interval_ms)));
    }
    let (next, cells) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(&(condition, interval_ms)) = work.get(next.fetch_add(1, Relaxed)) {
                    let cell = judge(plan, condition, interval_ms, &settings);
                    let at = plan.conditions.iter().position(|c| *c == condition);
                    let place = (at, std::cmp::Reverse(interval_ms));
                    cells.lock().unwrap_or_else(PoisonError::into_inner).insert(place, cell);
                }
            });
        }
    });
    let cells = cells.into_inner().unwrap_or_else(PoisonError::into_inner);
    Outcome { settings, cells: cells.into_values().collect() }
}

/// Timeout of the adaptive detector after two minutes of this condition, in intervals.
pub fn warmed_up(condition: Condition, interval_ms: u64, seed: u64) -> f64 {
    let interval = interval_ms * 1_000_000;
    let mut timeout = f64::NAN;
    let Ok(mut detector) = AnyDetector::named(OURS, interval, &[]) else { return timeout };
    for arrival in condition.trace(interval, 120_000_000_000, seed).arrivals() {
        detector.heard(arrival.at, arrival.sequence);
        let left = detector.deadline().map(|deadline| deadline.saturating_sub(arrival.at));
        timeout = left.map_or(f64::NAN, |left| left as f64 / interval as f64);
    }
    timeout
}

fn judge(plan: &Plan, condition: Condition, interval_ms: u64, settings: &[Setting]) -> Cell {
    let (interval, length) = (interval_ms * 1_000_000, plan.length_s * 1_000_000_000);
    let replay = |n: u64| {
        let seed = plan.seed.wrapping_add(n);
        Replay::with_crashes(&condition.trace(interval, length, seed), plan.crashes, seed)
    };
    let replays: Vec<Replay> = (0..plan.traces).map(replay).collect();
    let run = |detector: &AnyDetector| {
        let mut meter = QualityMeter::default();
        let is_done = replays.iter().all(|replay| meter.run(replay, detector.clone(), HOPELESS_PER_DAY * plan.traces));
        is_done.then(|| meter.quality())
    };
    let timeout = hindsight_timeout(&replays);
    let fitted = run(&AnyDetector::Fixed(Fixed::new(timeout, 0)));
    let quality = |setting: &Setting| run(&AnyDetector::named(setting.detector, interval, &setting.params).ok()?);
    Cell {
        condition,
        interval_ms,
        hindsight: fitted.unwrap_or_else(|| QualityMeter::default().quality()),
        qualities: settings.iter().map(quality).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_one() {
        for setting in settings() {
            let made = AnyDetector::named(setting.detector, 1_000_000_000, &setting.params);
            assert!(made.is_ok(), "{setting:?}: {:?}", made.err());
        }
    }

    #[test]
    fn a_patient_setting_is_rarely_wrong_and_slow() {
        let plan = Plan { conditions: vec![Condition::Loss50], seed: 5, traces: 1, length_s: 1_800, crashes: 50 };
        let settings: Vec<Setting> =
            settings().into_iter().filter(|s| s.detector == "fixed" && !s.params.is_empty()).collect();
        let cell = judge(&plan, Condition::Loss50, 1_000, &settings);
        let known: Vec<&Quality> = cell.qualities.iter().flatten().collect();
        assert!(known.is_sorted_by(|a, b| a.mistakes >= b.mistakes && a.detection_p99_s <= b.detection_p99_s));
        assert!(cell.hindsight.mistakes <= 1 && cell.hindsight.crashes >= 48);
        let outcome = Outcome { settings, cells: vec![cell] };
        let cells: Vec<&Cell> = outcome.cells.iter().collect();
        let (best, mean) = outcome.best(&cells, "fixed").unwrap();
        assert!(is_rare(outcome.cells[0].qualities[best].as_ref().unwrap()));
        assert!(best == 0 || everywhere(&cells, best - 1).is_none() && mean > 2.0);
        assert_eq!(outcome.best(&cells, "chitchat"), None);
    }
}
