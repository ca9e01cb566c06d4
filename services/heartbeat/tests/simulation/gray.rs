//! The twelve faults of `experiment gray`, one at a time for a whole day, each of a worker that the seed chooses.

use heartbeat::{Nanos, assign::PARTITIONS};

use crate::{
    config::{ALL_PARTITIONS, Config, MS, SECOND},
    faults::{Fault, Kind, Trouble, Who},
    random::Random,
    world::World,
};

/// Kinds of faults.
const KINDS: u64 = 12;
/// Each lasts this long.
const LASTS: Nanos = 25 * SECOND;
/// From the begin of a fault to the begin of the next one: workers come back, and partitions are balanced again.
const EVERY: Nanos = 150 * SECOND;
/// No partition is without an acknowledged write for longer.
const HANDLED_WITHIN: Nanos = 7 * SECOND;

/// Workers, monitors and clients as in the experiment.
fn config(seed: u64, length: Nanos) -> Config {
    let mut config = Config::new(seed, 3, 3, length);
    let mut random = Random::new(seed ^ 0x69A7);
    let mut at = 30 * SECOND;
    let first = random.range(0, KINDS);
    while at + EVERY < length {
        let kind = (first + config.scenes) % KINDS;
        let worker = random.range(0, config.workers as u64) as usize;
        let kinds = kinds(kind, worker, &mut random, &config);
        let begin = at + random.range(0, 1_000) * MS;
        config.faults.extend(kinds.into_iter().map(|(after, lasts, kind)| Fault { at: begin + after, lasts, kind }));
        config.scenes += 1;
        at += EVERY;
    }
    config
}

/// Begin and length of each part of a fault.
fn kinds(kind: u64, worker: usize, random: &mut Random, config: &Config) -> Vec<(Nanos, Nanos, Kind)> {
    let (w, all) = (Who::Worker(worker), ALL_PARTITIONS);
    let others = || {
        let monitors = (0..config.monitors).map(Who::Monitor);
        let workers = (0..config.workers).filter(|other| *other != worker).map(Who::Worker);
        monitors.chain(workers).chain([Who::Registry, Who::Client])
    };
    let whole = |kinds: Vec<Kind>| kinds.into_iter().map(|kind| (0, LASTS, kind)).collect();
    let to_worker = |make: fn(Who, Who) -> Kind| others().map(|other| make(other, w)).collect::<Vec<_>>();
    let by_worker = |make: fn(Who, Who) -> Kind| others().map(|other| make(w, other)).collect::<Vec<_>>();
    let both = |make: fn(Who, Who) -> Kind| [to_worker(make), by_worker(make)].concat();
    let store = |partitions, trouble| Kind::Store { worker: Some(worker), partitions, trouble };
    let one = 1 << random.range(0, PARTITIONS as u64);
    match kind {
        0 => whole(to_worker(|from, to| Kind::Cut { from, to })),
        1 => whole(by_worker(|from, to| Kind::Cut { from, to })),
        2 => whole(both(|from, to| Kind::LossyLink { from, to, rate: 0.8 })),
        // Cut off for 20 s, twice.
        3 => {
            let cuts = both(|from, to| Kind::Cut { from, to });
            [0, 40 * SECOND].into_iter().flat_map(|at| cuts.iter().map(move |cut| (at, 20 * SECOND, *cut))).collect()
        }
        4 => {
            let half = if random.chance(0.5) { SECOND } else { 200 * MS };
            (0..LASTS / half).step_by(2).map(|n| (n * half, half, Kind::Pause(w))).collect()
        }
        5 => whole(vec![Kind::SlowRegistry(500 * MS)]),
        6 => whole(vec![store(all, Trouble::Hang)]),
        7 => {
            let rate = if random.chance(0.5) { 0.1 } else { 0.4 };
            whole(vec![store(all, Trouble::Fail(rate))])
        }
        8 => whole(vec![Kind::Store { worker: None, partitions: one, trouble: Trouble::Slow(300 * MS) }]),
        // Its answers to clients are late.
        9 => whole(vec![Kind::SlowLink { from: w, to: Who::Client, most: 2 * SECOND }]),
        10 => match random.range(0, 3) {
            0 => whole(both(|from, to| Kind::SlowLink { from, to, most: MS })),
            1 => whole(both(|from, to| Kind::SlowLink { from, to, most: 10 * MS })),
            _ => whole(both(|from, to| Kind::SlowLink { from, to, most: 200 * MS })),
        },
        _ => whole(vec![store(one, Trouble::Fail(1.0))]),
    }
}

/// Returns the number of partitions that were taken from healthy workers.
fn gray(seed: u64, length: Nanos) -> u64 {
    let config = config(seed, length);
    let world = World::new(config).run();
    assert_eq!(world.checks.breach, None, "seed {seed}");
    // A worker that is failed for another reason than its own fault is a breach.
    let removed = world.checks.moved_from_healthy;
    let longest = world.checks.interruptions.iter().max_by_key(|(_, lasts)| *lasts).copied().unwrap_or_default();
    let faults = &world.config.faults;
    let cause = faults.iter().rev().find(|fault| fault.at <= longest.0 + 2 * SECOND).map(|fault| fault.kind);
    println!(
        "seed {seed}, {} s: {} gray faults, {} tables; {removed} partitions taken from healthy workers; longest interruption of a partition {:.2} s, {cause:?}",
        length / SECOND,
        world.config.scenes,
        world.checks.commits,
        longest.1 as f64 / SECOND as f64,
    );
    assert!(longest.1 <= HANDLED_WITHIN, "seed {seed}: interrupted from {} ns on", longest.0);
    removed
}

#[test]
fn a_gray_fault_at_a_time_removes_no_healthy_worker() {
    assert_eq!(gray(1, 7_200 * SECOND), 0);
}

#[test]
fn a_gray_fault_at_a_time_for_ten_days() {
    if launcher::testing::full() {
        let removed: Vec<u64> = (10..20).map(|seed| gray(seed, 86_400 * SECOND)).collect();
        assert_eq!(removed, [0; 10]);
    }
}
