//! Properties of every detector, on random histories of heartbeats.

use proptest::prelude::*;

use super::*;
use crate::{
    quality::{QualityMeter, Replay},
    trace::Condition,
};

const MS: Nanos = 1_000_000;
const INTERVAL: Nanos = 100 * MS;

/// Heartbeats as (time after the one before, numbers skipped): late ones, lost ones, several at once.
fn histories() -> impl Strategy<Value = Vec<(Nanos, u64)>> {
    let gap = prop_oneof![8 => 80 * MS..120 * MS, 1 => 0..2 * MS, 1 => 0..3_000 * MS];
    let skipped = prop_oneof![8 => Just(0_u64), 1 => 0..5_u64];
    prop::collection::vec((gap, skipped), 1..1_500)
}

/// Feeds the heartbeats; returns time and number of the last.
fn feed(detector: &mut impl Detector, history: &[(Nanos, u64)]) -> (Nanos, u64) {
    let (mut now, mut sequence) = (1_000 * MS, 0);
    for (gap, skipped) in history {
        now += gap;
        sequence += 1 + skipped;
        detector.heard(now, sequence);
    }
    (now, sequence)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn suspicion_only_grows_between_beats_and_comes_at_the_deadline(history in histories(), looks in prop::collection::vec(0..60_000 * MS, 20)) {
        for kind in &KINDS {
            let mut detector = kind.make(INTERVAL);
            prop_assert_eq!((detector.deadline(), detector.suspects(5_000 * MS)), (None, false));
            let (now, _) = feed(&mut detector, &history);
            let deadline = detector.deadline().expect("a beat was heard");
            for at in looks.iter().map(|after| now + after).chain([deadline - 1, deadline]) {
                prop_assert_eq!(detector.suspects(at), at >= deadline, "{}", kind.name);
            }
        }
    }

    #[test]
    fn silence_is_suspected_in_the_end_and_beats_refute_it(history in histories()) {
        for kind in &KINDS {
            let mut detector = kind.make(INTERVAL);
            let (now, sequence) = feed(&mut detector, &history);
            let deadline = detector.deadline().expect("a beat was heard");
            prop_assert!(deadline < now + 1_000_000 * INTERVAL, "{}", kind.name);
            // Detectors that use sequence numbers expected this heartbeat earlier: they need a few on the new schedule.
            let back = deadline.max(now);
            for n in 1..=1_500 {
                detector.heard(back + n * INTERVAL, sequence + n);
            }
            prop_assert!(!detector.suspects(back + 1_500 * INTERVAL + INTERVAL / 50), "{}", kind.name);
        }
    }

    #[test]
    fn old_beats_and_repeated_ones_prove_nothing(history in histories()) {
        for kind in &KINDS {
            let mut detector = kind.make(INTERVAL);
            let (_, sequence) = feed(&mut detector, &history);
            let before = detector.deadline().expect("a beat was heard");
            detector.heard(before + 1, sequence);
            if sequence > 1 {
                detector.heard(before + 2, sequence - 1);
            }
            // Estimates of arrivals may change with the late heartbeat; no node becomes healthy by it.
            prop_assert!(detector.suspects(before + before / 2 + 3), "{}", kind.name);
        }
    }
}

#[test]
fn no_detector_grows() {
    for kind in &KINDS {
        let mut detector = kind.make(INTERVAL);
        for n in 1..200_000 {
            detector.heard(n * INTERVAL + n % 7 * MS, n + n / 1_000);
        }
        let bytes = size(&detector);
        assert!(bytes <= 9_000, "{}: {bytes}", kind.name);
    }
}

/// Allocated memory shows up in the `Debug` output: no value of a window takes more than 20 characters.
fn size(detector: &AnyDetector) -> usize {
    let shown = format!("{detector:?}");
    let numbers = shown.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).count();
    numbers * 8
}

#[test]
fn a_fixed_timeout_is_found_by_the_scan() {
    let mut fixed = Fixed::new(3_000 * MS, 2_000 * MS);
    fixed.heard(1_500 * MS, 1);
    assert_eq!([5_999, 6_000].map(|ms| fixed.suspects(ms * MS)), [false, true]);
}

#[test]
fn probes_back_off() {
    let mut backoff = Backoff::new(1_000 * MS, 500 * MS, 3);
    backoff.heard(1_000 * MS, 1);
    // Missed 1.1 s after the heartbeat; probes wait 0.5, 1 and 2 s.
    assert_eq!(backoff.deadline(), Some(5_600 * MS));
}

#[test]
fn phi_is_the_logarithm_of_the_law_s_tail() {
    let mut normal = Phi::new(1_000 * MS, GapDistribution::Normal { pause: 0.0 }, 8.0);
    let mut exponential = Phi::new(1_000 * MS, GapDistribution::Exponential, 8.0);
    for n in 1..=2_000 {
        normal.heard(n * 1_000 * MS, n);
        exponential.heard(n * 1_000 * MS, n);
    }
    let last = 2_000_000 * MS;
    // Mean 1 s and the least deviation, 0.1 s: at 1.5 s five deviations, of which one in 3.5 million gaps is longer.
    assert!((normal.phi(last + 1_500 * MS) - 6.542_6).abs() < 1e-3);
    assert!((exponential.phi(last + 10_000 * MS) - 4.342_9).abs() < 1e-3);
    for phi in [&normal, &exponential] {
        let deadline = phi.deadline().unwrap();
        assert!((phi.phi(deadline) - 8.0).abs() < 1e-4);
        let far = phi.phi(last + 3_600_000 * MS);
        assert!(far.is_finite() && far > 1_000.0, "{far}");
    }
}

#[test]
fn detectors_are_found_by_name_and_errors_say_what_there_is() {
    let some = |name: &str, value| vec![(name.to_owned(), value)];
    for kind in &KINDS {
        assert!(AnyDetector::named(kind.name, INTERVAL, &[]).is_ok());
    }
    let mut fixed = AnyDetector::named("fixed", INTERVAL, &[some("suspect", 7.0), some("scan", 0.0)].concat()).unwrap();
    fixed.heard(0, 1);
    assert_eq!(fixed.deadline(), Some(7 * INTERVAL));
    let error = |name, params: Vec<(String, f64)>| AnyDetector::named(name, INTERVAL, &params).unwrap_err().to_string();
    assert!(
        error("phi", vec![]).starts_with("unknown detector 'phi'; the detectors are fixed, backoff, consecutive, ewma")
    );
    assert!(
        error("ewma", some("alpha", 1.0)).contains("'ewma' has no parameter 'alpha'; its parameters are k (3; factor")
    );
    assert!(error("ewma", some("k", -1.0)).starts_with("k=-1 is out of range: 0 to 1000000"));
    assert!(error("ewma", some("k", f64::NAN)).starts_with("k=NaN is out of range"));
}

/// Heartbeats of a link that loses every `one_in`-th independently. Returns the timeout after the last.
fn learned(lost: impl Fn(u64) -> bool) -> f64 {
    let mut adaptive = AnyDetector::named("adaptive", 1_000 * MS, &[]).unwrap();
    let mut last = 0;
    for n in 1..20_000 {
        if !lost(n) {
            last = n * 1_000 * MS + n % 5 * MS;
            adaptive.heard(last, n);
        }
    }
    (adaptive.deadline().unwrap() - last) as f64 / (1_000 * MS) as f64
}

#[test]
fn the_adaptive_one_tells_losses_by_chance_from_bursts() {
    let hash = |n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32;
    assert!((1.0..1.25).contains(&learned(|_| false)), "nothing is lost: {}", learned(|_| false));
    let by_chance = learned(|n| hash(n) % 20 == 0);
    assert!((4.0..6.1).contains(&by_chance), "5 % by chance: {by_chance}");
    // Also 5 %, but five in a row.
    let bursts = learned(|n| hash(n / 5) % 20 == 0);
    assert!(bursts > 8.0, "5 % in bursts: {bursts}");
}

#[test]
fn the_adaptive_one_is_careful_at_first_and_after_a_mistake() {
    let mut adaptive = AnyDetector::named("adaptive", 1_000 * MS, &[]).unwrap();
    let silence = |adaptive: &AnyDetector, now: Nanos| (adaptive.deadline().unwrap() - now) / (1_000 * MS);
    let mut now = 0;
    let mut beats = |adaptive: &mut AnyDetector, number: u64, gap: Nanos| {
        for _ in 0..number {
            now += gap * MS;
            adaptive.heard(now, now / (1_000 * MS));
        }
        now
    };
    let now = beats(&mut adaptive, 100, 1_000);
    assert_eq!(silence(&adaptive, now), 30);
    let now = beats(&mut adaptive, 1_000, 1_000);
    assert_eq!(silence(&adaptive, now), 1);
    let now = beats(&mut adaptive, 1, 4_000);
    assert!((30..45).contains(&silence(&adaptive, now)));
    let now = beats(&mut adaptive, 150, 1_000);
    assert!((4..45).contains(&silence(&adaptive, now)), "what happened once is expected: {}", silence(&adaptive, now));
}

/// One heartbeat in 500 is 1.5 intervals late; `together`: the next one waits for it. Returns the timeout in intervals.
fn late_ones(together: bool) -> f64 {
    let mut adaptive = AnyDetector::named("adaptive", INTERVAL, &[]).unwrap();
    let late = |n: u64| match n % 500 {
        0 => INTERVAL * 3 / 2,
        1 if together => INTERVAL / 2,
        _ => 0,
    };
    let mut arrivals: Vec<(Nanos, u64)> = (1..40_000).map(|n| (n * INTERVAL + late(n) + n, n)).collect();
    arrivals.sort_unstable();
    arrivals.iter().for_each(|&(at, n)| adaptive.heard(at, n));
    (adaptive.deadline().unwrap() - arrivals.last().unwrap().0) as f64 / INTERVAL as f64
}

#[test]
fn the_adaptive_one_relies_on_the_next_beat_to_overtake_one_that_was_late_by_itself() {
    let (each, together) = (late_ones(false), late_ones(true));
    assert!((3.0..3.3).contains(&each), "each by itself: {each}");
    assert!(together > each + 0.5, "together: {together}");
}

/// Timeout in intervals after heartbeats of which one in 100 is overtaken by the next, and of a sender that pauses for 5 s every 200 s.
#[test]
fn the_adaptive_one_learns_pauses_on_a_link_that_reorders() {
    let mut adaptive = AnyDetector::named("adaptive", INTERVAL, &[]).unwrap();
    let sent = |n: u64| (n * INTERVAL).max((n - n % 2_000) * INTERVAL + 5_000 * MS);
    let late = |n: u64| if n % 100 == 99 { INTERVAL * 3 / 2 } else { n % 7 * MS };
    let mut arrivals: Vec<(Nanos, u64)> = (1..40_000).map(|n| (sent(n) + late(n), n)).collect();
    arrivals.sort_unstable();
    arrivals.iter().for_each(|&(at, n)| adaptive.heard(at, n));
    let timeout = (adaptive.deadline().unwrap() - arrivals.last().unwrap().0) as f64 / INTERVAL as f64;
    assert!((50.0..400.0).contains(&timeout), "{timeout}");
}

#[test]
fn bursts_like_those_before_leave_the_timeout_of_the_adaptive_one_as_it_is() {
    let trace = Condition::Bursts5.trace(INTERVAL, 86_400_000 * MS, 77);
    let mut meter = QualityMeter::default();
    let adaptive = AnyDetector::named("adaptive", INTERVAL, &[]).unwrap();
    assert!(meter.run(&Replay::with_crashes(&trace, 1_000, 77), adaptive, 3));
    let quality = meter.quality();
    assert!(quality.detection_p99_s < 1.4 * quality.detection_p50_s, "{quality:?}");
}

#[test]
fn the_adaptive_one_is_warm_after_two_minutes_of_heartbeats_every_100_ms() {
    let mut adaptive = AnyDetector::named("adaptive", INTERVAL, &[]).unwrap();
    let mut timeout_after = |from: u64, to: u64| {
        (from..to).for_each(|n| adaptive.heard(n * INTERVAL + n % 3 * MS, n));
        (adaptive.deadline().unwrap() - (to - 1) * INTERVAL) / INTERVAL
    };
    assert_eq!(timeout_after(1, 1_000), 30);
    assert_eq!(timeout_after(1_000, 1_200), 10);
    assert_eq!(timeout_after(1_200, 6_100), 1);
}
