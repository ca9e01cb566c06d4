//! Faults of a run, drawn from its seed.

use heartbeat::Nanos;

use crate::{
    random::Random,
    world::{MS, SECOND},
};

/// A process, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    Monitor(usize),
    Worker(usize),
    Registry,
    Client,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Nothing passes in this direction; a full cut is two of these.
    Cut { from: Who, to: Who },
    /// SIGSTOP and SIGCONT: messages to it wait.
    Pause(Who),
    /// SIGKILL, and a restart at the end. Only the registry keeps its state.
    Crash(Who),
    /// Datagrams are lost at this rate.
    Loss(f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    pub at: Nanos,
    pub lasts: Nanos,
    pub kind: Kind,
}

/// A few faults, all over by `until`.
pub fn draw(random: &mut Random, monitors: usize, workers: usize, until: Nanos) -> Vec<Fault> {
    let mut faults = Vec::new();
    for _ in 0..random.range(2, 7) {
        let at = random.range(5 * SECOND, until - 12 * SECOND);
        let lasts = random.range(100 * MS, 12 * SECOND);
        let monitor = Who::Monitor(random.range(0, monitors as u64) as usize);
        let worker = Who::Worker(random.range(0, workers as u64) as usize);
        let somebody = if random.chance(0.5) { monitor } else { worker };
        let mut add = |kind| faults.push(Fault { at, lasts, kind });
        match random.range(0, 8) {
            0 => add(Kind::Crash(worker)),
            1 => add(Kind::Pause(worker)),
            2 => add(Kind::Crash(monitor)),
            3 => add(Kind::Pause(monitor)),
            4 => add(Kind::Crash(Who::Registry)),
            5 => add(Kind::Loss(random.range(5, 40) as f64 / 100.0)),
            6 => {
                // In one direction only.
                let other = if somebody == monitor { worker } else { Who::Registry };
                add(Kind::Cut { from: somebody, to: other });
            }
            _ => {
                // One process is isolated.
                let everybody = (0..monitors).map(Who::Monitor).chain((0..workers).map(Who::Worker));
                for other in everybody.chain([Who::Registry, Who::Client]).filter(|other| *other != somebody) {
                    add(Kind::Cut { from: somebody, to: other });
                    add(Kind::Cut { from: other, to: somebody });
                }
            }
        }
    }
    faults
}
