//! Quality of a detector on a heartbeat trace, after Chen, Toueg and Aguilera ("On the quality of service of failure detectors", 2002):
//! detection time, mistake rate, mistake duration, query accuracy.
//!
//! One pass over the trace measures all of them. At each simulated crash, a clone of the detector receives the heartbeats still in flight,
//! and its deadline is the detection.

use serde::Serialize;
use statistics::percentile;

use crate::{
    Nanos,
    detector::{AnyDetector, Detector},
    trace::{Arrival, Trace},
};

const DAY_S: f64 = 86_400.0;
const NANOS_PER_S: f64 = 1e9;

/// Quality of one detector on one trace. Times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quality {
    /// Number of simulated crashes, all after the first arrival.
    pub crashes: usize,
    /// Detection time T_D: from the crash to the final suspicion.
    pub detection_mean_s: f64,
    pub detection_p50_s: f64,
    pub detection_p99_s: f64,
    pub detection_max_s: f64,
    pub mistakes: u64,
    pub mistakes_per_day: f64,
    /// Mean mistake recurrence time T_MR, from start to start; null with fewer than two mistakes.
    pub mistake_recurrence_s: Option<f64>,
    /// Mean mistake duration T_M; 0 without mistakes.
    pub mistake_duration_s: f64,
    /// Query accuracy P_A: probability that the detector is right about the healthy node at a random time.
    pub query_accuracy: f64,
    /// From the first arrival to the last.
    pub observed_s: f64,
}

/// A trace prepared for replay: arrivals in order, and the simulated crashes.
pub struct Replay {
    pub interval: Nanos,
    arrivals: Vec<Arrival>,
    /// Sorted by `at`.
    crashes: Vec<Crash>,
    /// Arrivals after a crash's `cut` that were sent before it.
    under_way: Vec<u32>,
}

/// The smallest timeout with at most one mistake per replay. It can only be known afterwards.
pub fn hindsight_timeout(replays: &[Replay]) -> Nanos {
    let allowed = replays.len();
    let mut gaps: Vec<Nanos> = replays.iter().flat_map(|replay| replay.longest_gaps(allowed + 1)).collect();
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    // A heartbeat exactly at the timeout is not a mistake.
    gaps.get(allowed).copied().unwrap_or_default()
}

struct Crash {
    at: Nanos,
    /// The first arrival that the crash prevents.
    cut: usize,
    under_way: std::ops::Range<usize>,
}

impl Replay {
    /// Simulates a crash at each of these times on the sender's clock, one at a time. Times before the first arrival are dropped.
    pub fn new(trace: &Trace, mut crashes: Vec<Nanos>) -> Self {
        let arrivals = trace.arrivals();
        crashes.sort_unstable();
        let first = arrivals.first().map_or(Nanos::MAX, |arrival| arrival.at);
        crashes.retain(|&at| at > first);
        let mut under_way = Vec::new();
        let longest = arrivals.iter().map(|arrival| arrival.at.saturating_sub(arrival.sent)).max().unwrap_or(0);
        // The latest send time up to each arrival is ascending, so a binary search finds the first prevented arrival.
        let mut newest = 0;
        let newest: Vec<Nanos> = arrivals
            .iter()
            .map(|arrival| {
                newest = arrival.sent.max(newest);
                newest
            })
            .collect();
        let crash = |at: Nanos| {
            let cut = newest.partition_point(|&sent| sent < at);
            let from = under_way.len();
            for (n, arrival) in arrivals.iter().enumerate().skip(cut) {
                if arrival.at > at.saturating_add(longest) {
                    break;
                }
                if arrival.sent < at {
                    under_way.push(n as u32);
                }
            }
            Crash { at, cut, under_way: from..under_way.len() }
        };
        let crashes = crashes.into_iter().map(crash).collect();
        Self { interval: trace.interval, arrivals, crashes, under_way }
    }

    /// Simulates `number` crashes, each at a random time of an equal part of the trace.
    pub fn with_crashes(trace: &Trace, number: usize, seed: u64) -> Self {
        let from = trace.beats.first().map_or(0, |beat| beat.sent);
        let length = trace.beats.last().map_or(0, |beat| beat.sent) - from;
        let mut state = seed;
        let crash = |n: usize| {
            // SplitMix64; a part is long compared to the interval.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let part = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
            from + (length as f64 * (n as f64 + part) / number as f64) as Nanos
        };
        Self::new(trace, (0..number).map(crash).collect())
    }

    /// The longest silences of the replay, longest first.
    pub fn longest_gaps(&self, number: usize) -> Vec<Nanos> {
        let mut newest = 0;
        let news = self.arrivals.iter().filter(|arrival| {
            let is_news = arrival.sequence > newest;
            newest = newest.max(arrival.sequence);
            is_news
        });
        let at: Vec<Nanos> = news.map(|arrival| arrival.at).collect();
        let mut gaps: Vec<Nanos> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_unstable_by(|a, b| b.cmp(a));
        gaps.truncate(number);
        gaps
    }

    fn detect(&self, detector: &AnyDetector, crash: &Crash) -> Nanos {
        let deadline = if crash.under_way.is_empty() {
            detector.deadline()
        } else {
            let mut detector = detector.clone();
            for &n in &self.under_way[crash.under_way.clone()] {
                let arrival = &self.arrivals[n as usize];
                detector.heard(arrival.at, arrival.sequence);
            }
            detector.deadline()
        };
        // Suspected already at the crash: detected immediately.
        deadline.unwrap_or(Nanos::MAX).saturating_sub(crash.at)
    }
}

/// Measures detectors of one kind on one or several replays.
///
/// ```
/// use heartbeat::{
///     detector::AnyDetector,
///     quality::{QualityMeter, Replay},
///     trace::Condition,
/// };
///
/// const SECOND: heartbeat::Nanos = 1_000_000_000;
/// let trace = Condition::Loss5.trace(SECOND, 3_600 * SECOND, 1);
/// let replay = Replay::with_crashes(&trace, 50, 1);
/// let mut meter = QualityMeter::default();
/// assert!(meter.run(&replay, AnyDetector::named("phi-normal", SECOND, &[])?, 1_000));
/// let quality = meter.quality();
/// assert!(quality.detection_p99_s < 30.0 && quality.query_accuracy > 0.9, "{quality:?}");
/// # Ok::<(), heartbeat::detector::BadParam>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct QualityMeter {
    detection: Vec<Nanos>,
    observed: Nanos,
    mistakes: u64,
    /// Total duration of mistakes.
    wrong: Nanos,
    /// Sum and number of times between the starts of two mistakes.
    recurrence: (Nanos, u64),
}

/// The current mistake of a replay.
#[derive(Default)]
struct Mistake {
    began: Option<Nanos>,
    /// The last arrival did not end the suspicion: it lasted at least until then.
    goes_on: Option<Nanos>,
}

impl QualityMeter {
    /// Replays the trace with a new detector, without allocations per heartbeat. Stops and returns false when there are more than `most`
    /// mistakes; then there is no result.
    pub fn run(&mut self, replay: &Replay, mut detector: AnyDetector, most: u64) -> bool {
        self.detection.reserve(replay.crashes.len());
        let mut crashes = replay.crashes.iter().peekable();
        let mut mistake = Mistake::default();
        for (n, arrival) in replay.arrivals.iter().enumerate() {
            while let Some(crash) = crashes.next_if(|crash| crash.cut <= n) {
                self.detection.push(replay.detect(&detector, crash));
            }
            let deadline = detector.deadline();
            detector.heard(arrival.at, arrival.sequence);
            if let Some(deadline) = deadline.filter(|&deadline| deadline < arrival.at) {
                self.suspected(&mut mistake, deadline, arrival.at);
                mistake.goes_on = detector.suspects(arrival.at).then_some(arrival.at);
                if self.mistakes > most {
                    return false;
                }
            }
        }
        self.detection.extend(crashes.map(|crash| replay.detect(&detector, crash)));
        let from = replay.arrivals.first().map_or(0, |arrival| arrival.at);
        self.observed += replay.arrivals.last().map_or(0, |arrival| arrival.at) - from;
        true
    }

    /// The healthy node was suspected from `from` until `to`.
    fn suspected(&mut self, mistake: &mut Mistake, from: Nanos, to: Nanos) {
        if let Some(until) = mistake.goes_on {
            self.wrong += to - until;
            return;
        }
        self.mistakes += 1;
        self.wrong += to - from;
        if let Some(before) = mistake.began.replace(from) {
            self.recurrence.0 += from - before;
            self.recurrence.1 += 1;
        }
    }

    pub fn quality(&self) -> Quality {
        let seconds = |nanos: Nanos| nanos as f64 / NANOS_PER_S;
        let detection: Vec<f64> = self.detection.iter().copied().map(seconds).collect();
        let at = |percent| percentile(&detection, percent).unwrap_or(0.0);
        let observed_s = seconds(self.observed).max(1e-9);
        let (recurrence, recurred) = self.recurrence;
        Quality {
            crashes: detection.len(),
            detection_mean_s: detection.iter().sum::<f64>() / detection.len().max(1) as f64,
            detection_p50_s: at(50.0),
            detection_p99_s: at(99.0),
            detection_max_s: at(100.0),
            mistakes: self.mistakes,
            mistakes_per_day: self.mistakes as f64 * DAY_S / observed_s,
            mistake_recurrence_s: (recurred > 0).then(|| seconds(recurrence) / recurred as f64),
            mistake_duration_s: seconds(self.wrong) / self.mistakes.max(1) as f64,
            query_accuracy: 1.0 - seconds(self.wrong) / observed_s,
            observed_s: seconds(self.observed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{detector::Fixed, trace::SentBeat};

    const S: Nanos = 1_000_000_000;

    /// One heartbeat a second, received 0.1 s later; `None`: lost; otherwise an extra delay.
    fn trace(beats: &[Option<Nanos>]) -> Trace {
        let beat = |(n, later): (usize, &Option<Nanos>)| {
            let sent = (n as u64 + 1) * S;
            SentBeat { sequence: n as u64 + 1, sent, received: later.map(|later| sent + S / 10 + later) }
        };
        Trace { interval: S, beats: beats.iter().enumerate().map(beat).collect() }
    }

    fn judge(trace: &Trace, crashes: Vec<Nanos>, timeout: Nanos) -> Quality {
        let mut meter = QualityMeter::default();
        let detector = AnyDetector::Fixed(Fixed::new(timeout, 0));
        assert!(meter.run(&Replay::new(trace, crashes), detector, 100));
        meter.quality()
    }

    #[test]
    fn mistakes_are_counted_and_timed_as_chen_does() {
        // Heartbeats at 1.1, 2.1, 5.1, 6.1, 9.1, 10.1 s: suspected from 3.6 to 5.1 and from 7.6 to 9.1.
        let ok = Some(0);
        let quality = judge(&trace(&[ok, ok, None, None, ok, ok, None, None, ok, ok]), vec![], S * 3 / 2);
        assert_eq!((quality.mistakes, quality.mistake_recurrence_s), (2, Some(4.0)));
        assert!((quality.mistake_duration_s - 1.5).abs() < 1e-9);
        assert!((quality.query_accuracy - (1.0 - 3.0 / 9.0)).abs() < 1e-9);
        assert!((quality.mistakes_per_day - 2.0 * 86_400.0 / 9.0).abs() < 1e-6);
        let patient = judge(&trace(&[ok, None, None, ok]), vec![], 3 * S);
        assert_eq!((patient.mistakes, patient.mistake_recurrence_s, patient.query_accuracy), (0, None, 1.0));
    }

    #[test]
    fn a_mistake_that_an_old_beat_does_not_end_is_one() {
        // Heartbeat 2 arrives at 4.2 s, after heartbeat 3 (3.1 s): it does not end the silence.
        let beats = trace(&[Some(0), Some(S * 21 / 10), Some(0), None, None, None, Some(0)]);
        let quality = judge(&beats, vec![], S);
        assert_eq!(quality.mistakes, 2, "from 2.1 to 3.1, from 4.1 to 7.1");
        assert!((quality.mistake_duration_s - 2.0).abs() < 1e-9, "{quality:?}");
    }

    #[test]
    fn a_crash_is_detected_by_what_was_sent_before_it() {
        let trace = trace(&[Some(0); 20]);
        // The last heartbeat is sent at 10 s and arrives at 10.1; suspicion is due at 13.1.
        let quality = judge(&trace, vec![10 * S + 1, 10 * S + S / 20, 11 * S], 3 * S);
        assert_eq!(quality.crashes, 3);
        let close = |is: f64, wanted: f64| assert!((is - wanted).abs() < 1e-6, "{is} instead of {wanted}");
        close(quality.detection_max_s, 3.1);
        close(quality.detection_p50_s, 3.05);
        close(quality.detection_mean_s, (3.1 + 3.05 + 2.1) / 3.0);
        assert_eq!(judge(&trace, vec![S / 2, S], 3 * S).crashes, 0, "nothing was heard yet");
    }

    #[test]
    fn a_node_suspected_before_its_crash_is_detected_immediately() {
        let quality = judge(&trace(&[Some(0), None, None, None, Some(0)]), vec![S * 9 / 2], S);
        assert_eq!((quality.detection_max_s, quality.mistakes), (0.0, 1));
    }

    #[test]
    fn beats_under_way_arrive_after_the_crash() {
        // Heartbeat 3 is in flight for 2.6 s and arrives after 4 and 5. The crash at 3.5 s prevents these two, not heartbeat 3.
        let beats = trace(&[Some(0), Some(0), Some(S * 5 / 2), Some(0), Some(0), Some(0)]);
        let quality = judge(&beats, vec![S * 7 / 2], 2 * S);
        assert!((quality.detection_max_s - (5.6 + 2.0 - 3.5)).abs() < 1e-6, "{quality:?}");
    }

    #[test]
    fn hindsight_allows_one_mistake_per_replay() {
        let ok = Some(0);
        let replay = Replay::new(&trace(&[ok, None, None, None, ok, None, None, ok, ok, None, ok]), vec![]);
        assert_eq!(replay.longest_gaps(9), [4 * S, 3 * S, 2 * S, S]);
        assert_eq!(hindsight_timeout(&[replay]), 3 * S);
        assert_eq!(judge(&trace(&[ok, None, None, None, ok, None, None, ok]), vec![], 3 * S).mistakes, 1);
    }

    #[test]
    fn crashes_are_spread_evenly() {
        let replay = Replay::with_crashes(&trace(&[Some(0); 1001]), 100, 7);
        assert!((99..=100).contains(&replay.crashes.len()));
        for three in replay.crashes.windows(3) {
            assert!(three[2].at - three[0].at > 9 * S, "a part is between the first and the third");
        }
    }
}
