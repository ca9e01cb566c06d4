//! Monitors, workers, registry and network in one seeded simulation. `SIMULATION_SEED=N cargo test -p heartbeat --test simulation replay`
//! repeats one failover seed.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod checks;
mod events;
mod faults;
mod process;
mod random;
mod world;

use heartbeat::Nanos;

use crate::{
    faults::{Fault, Kind, Who},
    random::Random,
    world::{Config, MS, SECOND, World},
};

/// Faults for 45 s, and time to recover.
fn failover(seed: u64) -> Config {
    let faulty = 45 * SECOND;
    let mut config = Config::new(seed, 3, 5, faulty + 15 * SECOND);
    config.loss = 0.02;
    config.faults = faults::draw(&mut Random::new(seed ^ 0xFA11), config.monitors, config.workers, faulty);
    config
}

fn run(config: Config) -> World {
    let mut world = World::new(config).run();
    if world.checks.breach.is_none() {
        world.check_recovered();
    }
    world
}

fn sound(config: Config) -> World {
    let (seed, faults) = (config.seed, config.faults.clone());
    let world = run(config);
    if let Some(breach) = &world.checks.breach {
        panic!("seed {seed}, {breach}; faults: {faults:?}");
    }
    world
}

fn quantile(values: &mut [Nanos], q: f64) -> f64 {
    values.sort_unstable();
    let at = ((values.len() - 1) as f64 * q).round() as usize;
    values[at] as f64 / SECOND as f64
}

fn failovers(seeds: std::ops::Range<u64>) {
    let (mut writes, mut fenced, mut by_loss, mut detected) = (0, 0, 0, Vec::new());
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let world = sound(failover(seed));
        writes += world.checks.writes;
        fenced += world.checks.refused_by_fence;
        by_loss += world.checks.failed_by_loss;
        detected.extend(world.detected);
    }
    assert!(writes > 0 && !detected.is_empty());
    // Seven in 10,000 when this was written.
    assert!(by_loss <= count / 500, "{by_loss} healthy workers failed by loss in {count} seeds");
    let [p50, p99] = [0.5, 0.99].map(|q| quantile(&mut detected, q));
    println!(
        "{count} failover seeds: {writes} writes, {fenced} stopped by the fence, {by_loss} healthy workers failed by loss of 20 % and more, {} crashes confirmed, p50 {p50:.2} s, p99 {p99:.2} s",
        detected.len()
    );
}

#[test]
fn failovers_keep_one_primary_an_epoch_and_let_no_stale_write_pass() {
    failovers(0..60);
}

#[test]
fn failovers_ten_thousand_seeds() {
    if launcher::testing::full() {
        failovers(100_000..110_000);
    }
}

#[test]
fn replay() {
    let seed = std::env::var("SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let (first, second) = (run(failover(seed)), run(failover(seed)));
    assert_eq!((first.trace, &first.checks.breach), (second.trace, &second.checks.breach), "bit for bit");
    assert_eq!(first.acknowledged, second.acknowledged);
    assert_ne!(first.trace, run(failover(seed + 1)).trace);
    if let Some(breach) = first.checks.breach {
        panic!("seed {seed}: {breach}; faults: {:?}", first.config.faults);
    }
}

#[test]
fn a_majority_rule_broken_on_purpose_is_caught() {
    let breaches = (0..60).filter(|seed| run(Config { quorum: |_| 1, ..failover(*seed) }).checks.breach.is_some());
    assert!(breaches.count() > 0, "one monitor decides alone, and nobody noticed");
}

#[test]
fn a_registry_that_takes_every_commit_is_caught() {
    // Two concurrent leaders are rare: seed 371 is the first.
    let is_caught =
        (0..1_000).any(|seed| run(Config { accepts_any_commit: true, ..failover(seed) }).checks.breach.is_some());
    assert!(is_caught, "two leaders wrote over each other, and nobody noticed");
}

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
    let mut world = World::new(config).run();
    assert_eq!(world.checks.breach, None);
    assert_eq!(world.failed_alive, [], "a healthy worker was failed");
    assert_eq!(world.detected.len(), crashes, "every crash is confirmed");
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| quantile(&mut world.detected, q));
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
    let [p50, max] = [0.5, 1.0].map(|q| quantile(&mut late, q));
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
