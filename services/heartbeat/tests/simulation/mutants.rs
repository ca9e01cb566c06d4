//! Mutants: each breaks one rule, and the simulation notices. The faults that show it are drawn or, where they must coincide, composed.

use heartbeat::Nanos;

use crate::{
    SEEDS,
    config::{Config, MS, Mutant, SECOND},
    faults::{Fault, Kind, Trouble, Who},
    random::Random,
    run, scenario,
};

/// Whether a run of the mutant breaks an invariant with these words. The same run without the mutant breaks none.
#[track_caller]
fn is_caught(mutant: Mutant, words: &str, seeds: u64, config: impl Fn(u64) -> Config) {
    for seed in 0..seeds {
        let breach = run(Config { mutant: Some(mutant), ..config(seed) }).checks.breach;
        if let Some(breach) = breach.filter(|breach| breach.contains(words)) {
            println!("{mutant:?}: seed {seed}, {breach}");
            assert_eq!(run(config(seed)).checks.breach, None, "without the mutant, seed {seed}");
            return;
        }
    }
    panic!("{mutant:?} broke no invariant in {seeds} runs");
}

/// A cluster with three monitors and five workers.
fn cluster(seed: u64) -> (Config, Random) {
    let mut config = Config::new(seed, 3, 5, 100 * SECOND);
    config.loss = 0.02;
    (config, Random::new(seed))
}

fn fault(at: Nanos, lasts: Nanos, kind: Kind) -> Fault {
    Fault { at, lasts, kind }
}

fn cuts_of_all_workers(config: &Config, monitor: usize, at: Nanos, lasts: Nanos) -> Vec<Fault> {
    let to = Who::Monitor(monitor);
    (0..config.workers).map(|worker| fault(at, lasts, Kind::Cut { from: Who::Worker(worker), to })).collect()
}

#[test]
fn one_monitor_that_decides_alone() {
    is_caught(Mutant::QuorumOfOne, "was healthy and was failed", 60, |seed| scenario::single(seed, 11));
}

#[test]
fn a_registry_that_takes_every_commit() {
    // The former leader and the next one decide about the same death.
    is_caught(Mutant::AnyCommit, "follows", 100, |seed| {
        let (mut config, mut random) = cluster(seed);
        config.faults.push(fault(20 * SECOND, 30 * SECOND, Kind::Crash(Who::Worker(1))));
        config.faults.push(fault(20 * SECOND + random.range(500, 2_500) * MS, MS, Kind::LeaseLost));
        config
    });
}

#[test]
fn a_store_that_takes_every_epoch() {
    is_caught(Mutant::AnyFence, "was accepted after one of", 20, |seed| scenario::single(seed, 1));
}

#[test]
fn two_processes_of_one_name_and_incarnation() {
    is_caught(Mutant::AnyProcess, "two processes wrote", 20, |seed| scenario::single(seed, 26));
}

#[test]
fn a_write_that_is_acknowledged_before_it_is_stored() {
    is_caught(Mutant::AcknowledgedBeforeStored, "is impossible", 5, |seed| scenario::single(seed, 0));
}

#[test]
fn a_leader_without_a_majority_that_keeps_its_lease() {
    is_caught(Mutant::LeaderWithoutQuorum, "no client could write", 60, |seed| scenario::single(seed, 8));
}

#[test]
fn heartbeats_as_the_only_evidence() {
    is_caught(Mutant::HeartbeatsAlone, "no client could write", 20, |seed| scenario::single(seed, 19));
}

#[test]
fn requesters_that_are_not_heard() {
    is_caught(Mutant::NoComplaints, "no client could write", 20, |seed| scenario::single(seed, 29));
}

#[test]
fn a_worker_that_waits_for_all_fences() {
    // One server hangs, and worker after worker waits for it.
    is_caught(Mutant::SerialTakeover, "no client could write", 20, |seed| {
        let (mut config, mut random) = cluster(seed);
        let partitions = 1 << random.range(0, 16);
        let hangs = Kind::Store { worker: None, partitions, trouble: Trouble::Hang };
        config.faults.push(fault(20 * SECOND, 50 * SECOND, hangs));
        for (n, worker) in [0, 1, 2].into_iter().enumerate() {
            let at = 22 * SECOND + n as u64 * random.range(3, 7) * SECOND;
            config.faults.push(fault(at, 60 * SECOND, Kind::Crash(Who::Worker(worker))));
        }
        config
    });
}

#[test]
fn a_worker_that_ignores_that_a_later_incarnation_is_registered() {
    // It registers with a clock that is ahead, dies before it is admitted, and comes back with the right time.
    is_caught(Mutant::IgnoresRefusal, "is not admitted", 20, |seed| {
        let (mut config, mut random) = cluster(seed);
        let (who, by_ms) = (Who::Worker(2), 3_600_000);
        let dies_again = 26 * SECOND + random.range(100, 800) * MS;
        config.faults.push(fault(20 * SECOND, 6 * SECOND, Kind::Crash(who)));
        config.faults.push(fault(20 * SECOND, MS, Kind::ClockStep { who, by_ms }));
        config.faults.push(fault(dies_again, 4 * SECOND, Kind::Crash(who)));
        config.faults.push(fault(dies_again, MS, Kind::ClockStep { who, by_ms: -by_ms }));
        config
    });
}

#[test]
fn workers_that_do_not_report_later_epochs() {
    // No monitor remembers the tables that the registry has lost.
    is_caught(Mutant::SilentOverrule, "is not admitted", 20, |seed| {
        let (mut config, mut random) = cluster(seed);
        for monitor in (0..config.monitors).map(Who::Monitor) {
            config.faults.push(fault(20 * SECOND, 2 * SECOND, Kind::Crash(monitor)));
        }
        config.faults.push(fault(21 * SECOND, MS, Kind::Emptied));
        let worker = Who::Worker(random.range(0, 5) as usize);
        config.faults.push(fault(21 * SECOND, 60 * SECOND, Kind::Crash(worker)));
        config
    });
}

#[test]
fn votes_of_any_age() {
    // One monitor votes against all workers and dies; long after that another one is cut off from them.
    is_caught(Mutant::AgelessVotes, "was healthy and was failed", 20, |seed| {
        let (mut config, mut random) = cluster(seed);
        let (first, second) = (seed as usize % 3, (seed as usize + 1) % 3);
        config.faults.extend(cuts_of_all_workers(&config, first, 20 * SECOND, 8 * SECOND));
        let dies = 25 * SECOND + random.range(0, 2_000) * MS;
        config.faults.push(fault(dies, 40 * SECOND, Kind::Crash(Who::Monitor(first))));
        config.faults.extend(cuts_of_all_workers(&config, second, 45 * SECOND, 6 * SECOND));
        config
    });
}

#[test]
fn heartbeats_of_any_age() {
    is_caught(Mutant::AgelessBeats, "is not failed", 60, |seed| scenario::single(seed, 23));
}

#[test]
fn a_name_that_is_removed_too_early() {
    is_caught(Mutant::ForgetsEarly, "can still write", 20, |seed| scenario::single(seed, 0));
}

#[test]
fn a_worker_that_gets_partitions_whenever_it_comes_back() {
    is_caught(Mutant::NoDamping, "tables since the first fault", 20, |seed| {
        let (mut config, mut random) = cluster(seed);
        (config.scenes, config.length) = (1, 160 * SECOND);
        for restart in 0..12 {
            let at = (20 + 9 * restart) * SECOND + random.range(0, 1_000) * MS;
            config.faults.push(fault(at, 4 * SECOND, Kind::Crash(Who::Worker(2))));
        }
        config
    });
}

#[test]
fn a_store_that_takes_batches_of_every_epoch() {
    is_caught(Mutant::UnfencedBatch, "a batch of epoch", SEEDS, scenario::draw);
}

#[test]
fn a_store_that_takes_batches_from_any_offset() {
    is_caught(Mutant::AnyOffset, "is not what its topic gives", SEEDS, scenario::draw);
}

#[test]
fn a_worker_that_folds_what_the_log_has() {
    is_caught(Mutant::KeepsLogged, "the features of user", SEEDS, scenario::draw);
}

#[test]
fn a_worker_that_folds_repetitions_in_a_batch() {
    is_caught(Mutant::KeepsRepeated, "the features of user", SEEDS, scenario::draw);
}

#[test]
fn a_worker_that_does_not_wait_for_its_dead_letters() {
    is_caught(Mutant::ForgetsDeadLetters, "the dead letters of partition", SEEDS, scenario::draw);
}
