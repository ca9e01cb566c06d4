//! Draws the faults of a run from its seed.

use heartbeat::Nanos;

use crate::{
    config::{ALL_PARTITIONS, Config, MS, SECOND, adaptive, fixed},
    faults::{Fault, Kind, Trouble, Who},
    random::Random,
};

/// Faults begin between these times.
const FIRST: Nanos = 8 * SECOND;
const LAST: Nanos = 60 * SECOND;
/// They are over after this time.
const OVER: Nanos = 100 * SECOND;
/// Time to recover.
const RECOVERY: Nanos = 30 * SECOND;
/// Number of kinds of scenes, see `Scene::draw`.
pub const SCENES: u64 = 34;

/// A cluster with one to six scenes.
pub fn draw(seed: u64) -> Config {
    let random = &mut Random::new(seed ^ 0xFA11);
    let mut config = cluster(seed, random);
    // Every other run has a single one, which shows its effect undisturbed.
    let scenes = if random.chance(0.5) { 1 } else { random.range(2, 6) };
    for _ in 0..scenes {
        let kind = random.range(0, SCENES);
        scene(&mut config, random, kind);
    }
    config
}

/// A cluster with a single scene of this kind.
pub fn single(seed: u64, kind: u64) -> Config {
    let random = &mut Random::new(seed ^ (kind << 40));
    let mut config = cluster(seed, random);
    scene(&mut config, random, kind);
    // What the monitors are for: without a death it would not show that they do not act.
    if random.chance(0.6) {
        let Fault { at, lasts, .. } = config.faults[0];
        let at = at + random.range(0, lasts / 2 + SECOND);
        let worker = Who::Worker(random.range(0, config.workers as u64) as usize);
        config.scenes += 1;
        config.faults.push(Fault { at, lasts: 25 * SECOND, kind: Kind::Crash(worker) });
    }
    config
}

fn cluster(seed: u64, random: &mut Random) -> Config {
    let monitors = if random.chance(0.1) { 5 } else { 3 };
    let mut config = Config::new(seed, monitors, 5, OVER + RECOVERY);
    (config.loss, config.events) = (0.02, true);
    config.forget_after = 40 * SECOND;
    config.interval = if random.chance(0.25) { 100 * MS } else { SECOND };
    (config.detector, config.careful) =
        if random.chance(0.2) { (adaptive(config.interval), 30) } else { (fixed(config.interval), 0) };
    config
}

fn scene(config: &mut Config, random: &mut Random, kind: u64) {
    config.scenes += 1;
    let at = random.range(FIRST, LAST);
    // Long enough to judge whether partitions are served meanwhile, or short.
    let lasts = if random.chance(0.6) { random.range(18, 40) * SECOND } else { random.range(100 * MS, 12 * SECOND) };
    let monitor = random.range(0, config.monitors as u64) as usize;
    let worker = random.range(0, config.workers as u64) as usize;
    let mut scene = Scene { at, lasts, config, random };
    scene.draw(kind, monitor, worker);
}

struct Scene<'a> {
    at: Nanos,
    lasts: Nanos,
    config: &'a mut Config,
    random: &'a mut Random,
}

impl Scene<'_> {
    fn draw(&mut self, kind: u64, monitor: usize, worker: usize) {
        let (m, w) = (Who::Monitor(monitor), Who::Worker(worker));
        match kind {
            0 => self.add(Kind::Crash(w)),
            1 => self.add(Kind::Pause(w)),
            2 => self.add(Kind::Crash(m)),
            3 => self.add(Kind::Pause(m)),
            4 => {
                self.add(Kind::Crash(Who::Registry));
                let end = self.at + self.lasts;
                match self.random.range(0, 3) {
                    0 => self.add_at(end, MS, Kind::LeaseLost),
                    1 => self.add(Kind::LeaseFrozen),
                    _ => {}
                }
            }
            5 => {
                let rate = self.random.range(5, 40) as f64 / 100.0;
                self.lasts = self.lasts.min(12 * SECOND);
                self.add(Kind::Loss(rate));
            }
            6 => {
                let from = if self.random.chance(0.5) { m } else { w };
                self.isolate(from, true);
            }
            7 => {
                let who = if self.random.chance(0.5) { m } else { w };
                self.isolate(who, false);
            }
            // A monitor is cut from the others, in one direction or both; the registry hears all of them.
            8 | 9 => {
                let (out, back) = self.directions();
                for other in (0..self.config.monitors).filter(|other| *other != monitor).map(Who::Monitor) {
                    self.cut_where(m, other, out, back);
                }
            }
            10 => {
                let other = Who::Monitor((monitor + 1) % self.config.monitors);
                let (out, back) = self.directions();
                self.cut_where(m, other, out, back);
            }
            11 => {
                let one = self.random.chance(0.5);
                for to in (0..self.config.monitors).filter(|to| !one || *to == monitor) {
                    self.add(Kind::Cut { from: w, to: Who::Monitor(to) });
                }
            }
            12 => {
                let (out, back) = self.directions();
                self.cut_where(m, Who::Registry, out, back);
            }
            13 => {
                self.lasts = MS;
                self.add(Kind::LeaseLost);
            }
            14 => self.add(Kind::LeaseFrozen),
            15 => {
                self.lasts = MS;
                self.add(Kind::Emptied);
            }
            16 => {
                self.lasts = MS;
                let age = self.random.range(1, 40) * SECOND;
                self.add(Kind::Restored { age });
                if self.random.chance(0.5) {
                    // Tables that the restored state does not have.
                    let before = self.at.saturating_sub(self.random.range(4, 20) * SECOND).max(SECOND);
                    self.add_at(before, 12 * SECOND, Kind::Crash(w));
                }
            }
            17 => {
                let by = self.random.range(50, 900) * MS;
                self.add(Kind::SlowRegistry(by));
            }
            18..=20 => self.store(Some(worker)),
            21 => self.store(None),
            22 => {
                let most = self.random.range(self.config.interval / 2, 4 * self.config.interval);
                let from = if self.random.chance(0.5) { w } else { Who::Monitor((monitor + 1) % self.config.monitors) };
                self.add(Kind::SlowLink { from, to: m, most });
            }
            23 => {
                let one = self.random.chance(0.3);
                for to in (0..self.config.monitors).filter(|to| !one || *to == monitor) {
                    self.add(Kind::HeldBack { from: w, to: Who::Monitor(to) });
                }
                if self.random.chance(0.7) {
                    // Its heartbeats outlive it.
                    let before = self.random.range(MS, 2 * self.config.interval);
                    self.add_at(self.at + self.lasts - before.min(self.lasts), 60 * SECOND, Kind::Crash(w));
                }
            }
            24 | 25 => {
                let who = if kind == 24 { w } else { m };
                let by_ms = self.random.range(0, 10_800_000) as i64 - 5_400_000;
                self.add_at(self.at, MS, Kind::ClockStep { who, by_ms });
                if self.random.chance(0.8) {
                    self.add(Kind::Crash(who));
                }
                if self.random.chance(0.4) {
                    // It registers with the wrong clock, dies before it is admitted, and comes back with the right one.
                    let lives = self.random.range(self.config.interval / 10, 2 * self.config.interval);
                    let again = self.at + self.lasts + lives;
                    self.add_at(again, 2 * self.config.interval, Kind::Crash(who));
                    self.add_at(again, MS, Kind::ClockStep { who, by_ms: -by_ms });
                }
            }
            26 => {
                let spare = self.spare();
                self.add(Kind::Clone { spare, of: worker });
            }
            27 => self.add(Kind::Leave { worker }),
            28 => {
                let many = self.random.range(3, 9);
                for n in 0..many {
                    let at = self.at + n * self.random.range(2, 5) * self.config.interval;
                    let lasts = self.random.range(self.config.interval / 2, 3 * self.config.interval);
                    self.add_at(at, lasts, Kind::Crash(w));
                }
            }
            29 | 30 => {
                let partitions = self.partitions();
                self.add(Kind::Gray { worker, partitions });
            }
            31 => {
                let many = self.random.range(1, 4) as usize;
                for monitor in 0..self.config.monitors.min(many) {
                    self.add(Kind::Replay { worker, monitor });
                }
                self.add_at(self.at, self.lasts + 5 * SECOND, Kind::Crash(w));
                if self.random.chance(0.7) {
                    for monitor in 0..self.config.monitors.min(many) {
                        self.add_at(self.at + 100 * MS, 300 * MS, Kind::Crash(Who::Monitor(monitor)));
                    }
                }
            }
            32 => {
                let spare = self.spare();
                self.add(Kind::Newcomer { spare });
            }
            _ => {
                if self.random.chance(0.5) {
                    let rate = self.random.range(20, 90) as f64 / 100.0;
                    self.add(Kind::LossyLink { from: w, to: m, rate });
                } else {
                    self.lasts = self.lasts.min(10 * SECOND);
                    self.add(Kind::Backlog { monitor });
                }
            }
        }
    }

    fn add(&mut self, kind: Kind) {
        self.add_at(self.at, self.lasts, kind);
    }

    fn add_at(&mut self, at: Nanos, lasts: Nanos, kind: Kind) {
        self.config.faults.push(Fault { at, lasts: lasts.min(OVER.saturating_sub(at)).max(MS), kind });
    }

    fn spare(&mut self) -> usize {
        self.config.spares += 1;
        self.config.workers + self.config.spares - 1
    }

    fn directions(&mut self) -> (bool, bool) {
        match self.random.range(0, 3) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        }
    }

    fn cut_where(&mut self, a: Who, b: Who, out: bool, back: bool) {
        if out {
            self.add(Kind::Cut { from: a, to: b });
        }
        if back {
            self.add(Kind::Cut { from: b, to: a });
        }
    }

    fn isolate(&mut self, who: Who, one_way: bool) {
        let (out, back) = if one_way { (self.random.chance(0.5), false) } else { (true, true) };
        let all = (0..self.config.monitors).map(Who::Monitor).chain((0..self.config.workers).map(Who::Worker));
        let others: Vec<Who> = all.chain([Who::Registry, Who::Client]).filter(|other| *other != who).collect();
        for other in others {
            self.cut_where(who, other, out, back || !out);
        }
    }

    fn partitions(&mut self) -> u32 {
        match self.random.range(0, 3) {
            0 => ALL_PARTITIONS,
            1 => 1 << self.random.range(0, 16),
            _ => self.random.next() as u32 & ALL_PARTITIONS,
        }
    }

    fn store(&mut self, worker: Option<usize>) {
        let partitions = if worker.is_some() { self.partitions() } else { 1 << self.random.range(0, 16) };
        let trouble = match self.random.range(0, 3) {
            0 => Trouble::Slow(self.random.range(10 * MS, 3 * SECOND)),
            1 => Trouble::Hang,
            _ => Trouble::Fail(self.random.range(10, 101) as f64 / 100.0),
        };
        self.add(Kind::Store { worker, partitions, trouble });
    }
}
