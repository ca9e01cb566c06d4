//! Monitors, workers, clients, registry, topics, store and network in one seeded simulation. `SIMULATION_SEED=N cargo test -p heartbeat --test
//! simulation replay` repeats one failover seed.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod checks;
mod config;
mod environment;
mod events;
mod faults;
mod fleet;
mod gray;
mod log;
mod mutants;
mod process;
mod random;
mod scenario;
mod world;

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use heartbeat::Nanos;

use crate::{
    checks::Checks,
    config::{Config, SECOND},
    scenario::SCENES,
    world::World,
};

fn run(config: Config) -> World {
    let mut world = World::new(config).run();
    if world.checks.breach.is_none() {
        world.check_recovered();
    }
    world
}

/// In seconds.
fn percentile_s(values: &[Nanos], percent: f64) -> f64 {
    let seconds: Vec<f64> = values.iter().map(|nanos| *nanos as f64 / SECOND as f64).collect();
    statistics::percentile(&seconds, percent).unwrap_or(f64::NAN)
}

/// Seeds of the test that always runs. Mutants of the log are caught by the same ones.
const SEEDS: u64 = 300;

/// Sums over many runs.
#[derive(Default)]
struct Sums {
    breaches: u64,
    writes: u64,
    fenced: u64,
    by_loss: u64,
    moved: u64,
    tables: u64,
    messages: u64,
    logged: u64,
    batches: u64,
    batches_by_fence: u64,
    batches_by_offset: u64,
    detected: Vec<Nanos>,
}

impl Sums {
    fn add(&mut self, checks: &Checks) {
        for (sum, of_run) in [
            (&mut self.writes, checks.writes),
            (&mut self.fenced, checks.refused_by_fence),
            (&mut self.by_loss, checks.failed_by_loss),
            (&mut self.moved, checks.moved_from_healthy),
            (&mut self.tables, checks.commits),
            (&mut self.messages, checks.messages),
            (&mut self.logged, checks.logged),
            (&mut self.batches, checks.batches),
            (&mut self.batches_by_fence, checks.batches_refused_by_fence),
            (&mut self.batches_by_offset, checks.batches_refused_by_offset),
        ] {
            *sum += of_run;
        }
    }
}

fn failovers(seeds: std::ops::Range<u64>) {
    let count = seeds.end - seeds.start;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, sums) = (AtomicU64::new(seeds.start), Mutex::new(Sums::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let world = run(scenario::draw(seed));
                    let mut sums = sums.lock().expect("no other run has panicked");
                    if let Some(breach) = &world.checks.breach {
                        println!("seed {seed}, {breach}; faults: {:?}", world.config.faults);
                        sums.breaches += 1;
                    }
                    if world.checks.moved_from_healthy > 0 {
                        println!("seed {seed}: a healthy worker lost partitions; faults: {:?}", world.config.faults);
                    }
                    sums.add(&world.checks);
                    sums.detected.extend(world.detected);
                }
            });
        }
    });
    let mut sums = sums.into_inner().expect("no run has panicked");
    let detected = std::mem::take(&mut sums.detected);
    let Sums { breaches, writes, fenced, by_loss, moved, tables, .. } = sums;
    assert!(writes > 0 && !detected.is_empty());
    let [p50, p99] = [50.0, 99.0].map(|percent| percentile_s(&detected, percent));
    println!(
        "{count} failover seeds: {writes} writes, {fenced} stopped by the fence, {tables} tables after the first fault, {by_loss} healthy workers failed by loss of 20 % and more, {moved} partitions taken from healthy workers, {} crashes confirmed, p50 {p50:.2} s, p99 {p99:.2} s",
        detected.len()
    );
    let Sums { messages, logged, batches, batches_by_fence, batches_by_offset, .. } = sums;
    println!(
        "{messages} messages of behaviour in {batches} batches, {logged} in the logs; {batches_by_fence} batches stopped by the fence, {batches_by_offset} by the offset"
    );
    assert!(
        count < SEEDS || batches_by_fence > 0 && batches_by_offset > 0 && logged > 0,
        "nothing was put to the test"
    );
    assert_eq!(breaches, 0, "see above");
    assert!(
        by_loss + moved <= 10,
        "{by_loss} healthy workers were failed and {moved} lost partitions in {count} seeds"
    );
}

#[test]
fn failovers_keep_one_primary_an_epoch_and_every_event_exactly_once() {
    failovers(0..SEEDS);
}

#[test]
fn failovers_ten_thousand_seeds() {
    if launcher::testing::full() {
        let count = std::env::var("SIMULATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10_000);
        failovers(100_000..100_000 + count);
    }
}

#[test]
fn replay() {
    let seed = std::env::var("SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let (first, second) = (run(scenario::draw(seed)), run(scenario::draw(seed)));
    assert_eq!((first.trace, &first.checks.breach), (second.trace, &second.checks.breach), "bit for bit");
    assert_eq!(first.checks.writes, second.checks.writes);
    assert_ne!(first.trace, run(scenario::draw(seed + 1)).trace);
    if let Some(breach) = first.checks.breach {
        panic!("seed {seed}: {breach}; faults: {:?}", first.config.faults);
    }
}

/// Every kind of fault alone, with its breaches.
#[test]
fn each_scene_alone() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("SIMULATION_SEED").unwrap_or(0);
    let seeds = first..first + number("SIMULATION_SEEDS").unwrap_or(3);
    let mut breaches = 0;
    let wanted = std::env::var("SIMULATION_MUTANT").ok();
    let mutant = wanted.and_then(|name| config::Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name));
    let only = number("SIMULATION_SCENE");
    for scene in (0..SCENES).filter(|scene| only.is_none_or(|only| only == *scene)) {
        let worlds: Vec<World> =
            seeds.clone().map(|seed| run(Config { mutant, ..scenario::single(seed, scene) })).collect();
        let broken: Vec<&World> = worlds.iter().filter(|world| world.checks.breach.is_some()).collect();
        let most = worlds.iter().map(|world| (world.checks.commits, world.config.seed)).max();
        let moved: u64 = worlds.iter().map(|world| world.checks.moved_from_healthy).sum();
        if let Some(world) = broken.first() {
            println!(
                "    the first with seed {}: {:?}; {:?}",
                world.config.seed, world.checks.breach, world.config.faults
            );
        }
        println!(
            "scene {scene}: {} of {seeds:?} broken, {moved} unjust moves, most tables and seed: {most:?}",
            broken.len()
        );
        breaches += broken.len();
    }
    assert_eq!(breaches, 0);
}
