//! Large fleets, and a monitor that pauses.

use heartbeat::Nanos;

use crate::{
    config::{Config, MS, SECOND},
    faults::{Fault, Kind, Who},
    percentile_s,
    random::Random,
    world::World,
};

/// A crash of a different worker every minute, each for 20 s.
fn fleet(seed: u64, workers: usize, length: Nanos) {
    let mut config = Config::new(seed, 3, workers, length);
    (config.loss, config.serve) = (0.05, false);
    let mut random = Random::new(seed);
    let mut at = 30 * SECOND;
    while at + 30 * SECOND < length {
        let worker = random.range(0, workers as u64) as usize;
        let at_ms = at + random.range(0, 1_000) * MS;
        config.faults.push(Fault { at: at_ms, lasts: 20 * SECOND, kind: Kind::Crash(Who::Worker(worker)) });
        at += 60 * SECOND;
    }
    let crashes = config.faults.len();
    let world = World::new(config).run();
    assert_eq!(world.checks.breach, None);
    assert_eq!(world.failed_alive, [], "a healthy worker was failed");
    assert_eq!(world.detected.len(), crashes, "every crash is confirmed");
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| percentile_s(&world.detected, percent));
    println!(
        "{workers} workers, {} s, 5 % loss: {crashes} crashes confirmed, p50 {p50:.2} s, p99 {p99:.2} s, max {max:.2} s; no healthy worker failed",
        length / SECOND
    );
    assert!(p99 <= 3.0, "p99 {p99} s");
}

#[test]
fn a_fleet_with_loss_loses_only_what_crashes() {
    fleet(1, 50, 600 * SECOND);
}

#[test]
fn a_thousand_workers_a_day() {
    if launcher::testing::full() {
        fleet(2, 1_000, 86_400 * SECOND);
    }
}

/// A single monitor, its own majority, pauses for 1 to 30 s; with every other seed a worker dies meanwhile.
fn paused(seeds: std::ops::Range<u64>) {
    let (count, mut late) = (seeds.end - seeds.start, Vec::new());
    for seed in seeds {
        let mut random = Random::new(seed);
        let mut config = Config::new(seed, 1, 20, 60 * SECOND);
        (config.loss, config.serve) = (0.01, false);
        let (at, lasts) = (10 * SECOND + random.range(0, 1_000) * MS, random.range(1_000, 30_000) * MS);
        config.faults.push(Fault { at, lasts, kind: Kind::Pause(Who::Monitor(0)) });
        let dies = random.chance(0.5);
        let died = at + random.range(0, lasts / MS) * MS;
        if dies {
            config.faults.push(Fault { at: died, lasts: 100 * SECOND, kind: Kind::Crash(Who::Worker(3)) });
        }
        let world = World::new(config).run();
        assert_eq!((world.checks.breach, world.failed_alive), (None, Vec::new()), "seed {seed}");
        assert_eq!(world.detected.len(), usize::from(dies), "seed {seed}");
        // From the end of the pause.
        for after in world.detected {
            let after = (died + after).saturating_sub(at + lasts);
            assert!(
                after <= 2 * SECOND,
                "seed {seed}: confirmed {after} ns after a pause of {lasts} ns from {at} on, died at {died}"
            );
            late.push(after);
        }
    }
    let [p50, max] = [50.0, 100.0].map(|percent| percentile_s(&late, percent));
    println!(
        "{count} pauses of a monitor: {} real deaths confirmed {p50:.2} s after it, {max:.2} s at most",
        late.len()
    );
}

#[test]
fn a_monitor_that_stood_still_blames_nobody_and_finds_the_dead() {
    paused(0..30);
}

#[test]
fn a_monitor_that_stood_still_a_thousand_seeds() {
    if launcher::testing::full() {
        paused(10_000..11_000);
    }
}
