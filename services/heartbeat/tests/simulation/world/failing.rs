//! Start and end of faults: which process is down, which is paused.

use heartbeat::{Nanos, ownership::Ownership};

use super::{World, monitors::observer};
use crate::{
    events::Event,
    faults::{Fault, Kind, Who},
    process::Process,
};

impl World {
    pub(super) fn fault(&mut self, number: usize, begins: bool) {
        let Fault { at, lasts, kind } = self.config.faults[number];
        self.record(5, Who::Client, number as u64);
        match kind {
            Kind::Pause(who) if begins => {
                if let Some(process) = self.process(who) {
                    process.paused_until = process.paused_until.max(at + lasts);
                }
            }
            Kind::Crash(who) if begins => self.crash(who),
            Kind::Crash(who) => self.restart(who),
            Kind::Cut { .. } | Kind::Loss(_) if begins => self.in_force.push(kind),
            Kind::Cut { .. } | Kind::Loss(_) => {
                if let Some(over) = self.in_force.iter().position(|other| *other == kind) {
                    self.in_force.swap_remove(over);
                }
            }
            Kind::Pause(_) => {}
        }
    }

    pub(super) fn crash(&mut self, who: Who) {
        let now = self.now;
        if let Who::Worker(number) = who {
            self.workers[number].crashed_at.get_or_insert(now);
        }
        match self.process(who) {
            Some(process) => process.down += 1,
            None => self.registry_down += 1,
        }
    }

    pub(super) fn restart(&mut self, who: Who) {
        let Some(process) = self.process(who) else {
            self.registry_down -= 1;
            return;
        };
        process.down -= 1;
        if process.down > 0 {
            return;
        }
        process.life += 1;
        process.paused_until = 0;
        let life = process.life;
        match who {
            Who::Monitor(number) => {
                let observer = observer(&self.config, number, &self.monitors[number].process, self.now);
                let monitor = &mut self.monitors[number];
                (monitor.observer, monitor.timer, monitor.told_epoch) = (observer, 0, 0);
                monitor.open.clear();
            }
            Who::Worker(number) => {
                let worker = &mut self.workers[number];
                worker.crashed_at = None;
                (worker.incarnation, worker.sequence) = (worker.incarnation + 1_000, 0);
                worker.ownership = Ownership::new(worker.id.clone());
            }
            Who::Registry | Who::Client => {}
        }
        self.after(1, Event::Timer { who, life });
    }

    pub(super) fn process(&mut self, who: Who) -> Option<&mut Process> {
        match who {
            Who::Monitor(number) => Some(&mut self.monitors[number].process),
            Who::Worker(number) => Some(&mut self.workers[number].process),
            Who::Registry | Who::Client => None,
        }
    }

    pub(super) fn life(&mut self, who: Who) -> u64 {
        self.process(who).map_or(0, |process| process.life)
    }

    pub(super) fn is_down(&mut self, who: Who) -> bool {
        let registry_down = self.registry_down > 0;
        self.process(who).map_or(who == Who::Registry && registry_down, |process| process.down > 0)
    }

    pub(super) fn paused(&mut self, who: Who) -> Option<Nanos> {
        let now = self.now;
        self.process(who).map(|process| process.paused_until).filter(|until| *until > now)
    }
}
