//! Monitors, workers, clients, registry, store and network in one seeded simulation. `SIMULATION_SEED=N cargo test -p heartbeat --test
//! simulation replay` repeats one failover seed.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod checks;
mod config;
mod environment;
mod events;
mod faults;
mod fleet;
mod mutants;
mod process;
mod random;
mod scenario;
mod world;

use heartbeat::Nanos;

use crate::{
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
    let (mut writes, mut fenced, mut by_loss, mut moved, mut commits) = (0, 0, 0, 0, 0);
    let mut detected = Vec::new();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let world = sound(scenario::draw(seed));
        writes += world.checks.writes;
        fenced += world.checks.refused_by_fence;
        by_loss += world.checks.failed_by_loss;
        moved += world.checks.moved_from_healthy;
        commits += world.checks.commits;
        detected.extend(world.detected);
    }
    assert!(writes > 0 && !detected.is_empty());
    assert!(by_loss <= 10, "{by_loss} healthy workers failed by loss in {count} seeds");
    let [p50, p99] = [0.5, 0.99].map(|q| quantile(&mut detected, q));
    println!(
        "{count} failover seeds: {writes} writes, {fenced} stopped by the fence, {commits} tables, {moved} partitions taken from healthy workers, {by_loss} healthy workers failed by loss of 20 % and more, {} crashes confirmed, p50 {p50:.2} s, p99 {p99:.2} s",
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
    let seeds = std::env::var("SIMULATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3);
    let mut breaches = 0;
    let wanted = std::env::var("SIMULATION_MUTANT").ok();
    let mutant = wanted.and_then(|name| config::Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name));
    let only: Option<u64> = std::env::var("SIMULATION_SCENE").ok().and_then(|scene| scene.parse().ok());
    for scene in (0..SCENES).filter(|scene| only.is_none_or(|only| only == *scene)) {
        let worlds: Vec<World> =
            (0..seeds).map(|seed| run(Config { mutant, ..scenario::single(seed, scene) })).collect();
        let broken: Vec<&World> = worlds.iter().filter(|world| world.checks.breach.is_some()).collect();
        let most = worlds.iter().map(|world| (world.checks.commits, world.config.seed)).max();
        let moved: u64 = worlds.iter().map(|world| world.checks.moved_from_healthy).sum();
        if let Some(world) = broken.first() {
            println!(
                "    the first with seed {}: {:?}; {:?}",
                world.config.seed, world.checks.breach, world.config.faults
            );
        }
        println!("scene {scene}: {} of {seeds} broken, {moved} unjust moves, most tables and seed: {most:?}", broken.len());
        breaches += broken.len();
    }
    assert_eq!(breaches, 0);
}
