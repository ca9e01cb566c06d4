//! Start and end of faults.

use heartbeat::Nanos;

use super::{World, monitors::Monitor};
use crate::{
    config::MS,
    events::Event,
    faults::{Fault, Kind, Who},
};

impl World {
    pub(super) fn fault(&mut self, number: usize, begins: bool) {
        let fault = self.config.faults[number];
        let Fault { kind, .. } = fault;
        self.record(5, Who::Client, number as u64);
        if begins {
            self.environment.begin(&kind, &self.config);
            self.in_force.push((kind, fault.end()));
            self.begin_fault(&fault);
        } else {
            self.environment.end(self.now, &kind, &self.config);
            if let Some(over) = self.in_force.iter().position(|known| *known == (kind, fault.end())) {
                self.in_force.remove(over);
            }
            self.end_fault(&fault);
        }
        self.network.set(self.config.loss, self.in_force.iter().map(|(kind, _)| kind));
        if let Kind::HeldBack { from, to } = kind
            && !begins
        {
            self.let_through(from, to);
        }
    }

    fn begin_fault(&mut self, fault: &Fault) {
        match fault.kind {
            Kind::Pause(who) => {
                if let Some(process) = self.process(who) {
                    process.paused_until = process.paused_until.max(fault.end());
                }
            }
            Kind::Crash(who) => self.crash(who),
            Kind::Leave { worker } => self.workers[worker].leaving = true,
            Kind::Clone { spare, of } => {
                let original = &self.workers[of];
                let (id, incarnation) = (original.id.clone(), original.incarnation);
                let wall_offset_ms = original.process.wall_offset_ms;
                let clone = &mut self.workers[spare];
                (clone.id, clone.process.wall_offset_ms) = (id, wall_offset_ms);
                self.revive(spare, Some(incarnation));
            }
            Kind::Newcomer { spare } => self.revive(spare, None),
            Kind::ClockStep { who, by_ms } => {
                if let Some(process) = self.process(who) {
                    process.wall_offset_ms += by_ms;
                }
            }
            Kind::Replay { worker, monitor } => self.replay(worker, monitor, fault.end()),
            Kind::LeaseLost => self.etcd.lose_lease(),
            Kind::LeaseFrozen => self.etcd.freeze(self.now),
            Kind::Emptied => self.etcd.empty(),
            Kind::Restored { age } => self.etcd.restore(self.now, age),
            _ => {}
        }
        if matches!(fault.kind, Kind::LeaseLost | Kind::Emptied | Kind::Restored { .. }) {
            self.notify();
        }
    }

    fn end_fault(&mut self, fault: &Fault) {
        match fault.kind {
            Kind::Crash(who) => self.restart(who),
            Kind::Leave { worker } if self.workers[worker].leaving => {
                // It has stopped, or is stopped before it has left.
                self.stop(worker);
                self.revive(worker, None);
            }
            Kind::Clone { spare, .. } | Kind::Newcomer { spare } => self.crash(Who::Worker(spare)),
            Kind::LeaseFrozen if !self.in_force.iter().any(|(kind, _)| *kind == Kind::LeaseFrozen) => {
                self.etcd.thaw(self.now);
            }
            _ => {}
        }
    }

    /// Worker that leaves and owns nothing any more.
    pub(super) fn stop_if_left(&mut self, number: usize) {
        let worker = &self.workers[number];
        let table = worker.ownership.table();
        if worker.leaving && table.epoch > 0 && !table.is_online(&worker.id) {
            self.stop(number);
        }
    }

    fn stop(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        if !std::mem::replace(&mut worker.has_left, true) {
            worker.process.down += 1;
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

    fn restart(&mut self, who: Who) {
        match who {
            Who::Monitor(_) => {
                let process = self.process(who).expect("monitors have one");
                process.down -= 1;
                if process.down == 0 {
                    self.restart_monitor(who);
                }
            }
            Who::Worker(number) => self.revive(number, None),
            Who::Registry => self.registry_down -= 1,
            Who::Client => {}
        }
    }

    fn restart_monitor(&mut self, who: Who) {
        let Who::Monitor(number) = who else { return };
        let mut process = std::mem::take(&mut self.monitors[number].process);
        process.life += 1;
        process.paused_until = 0;
        let life = process.life;
        self.monitors[number] = Monitor::new(&self.config, number, process, self.now);
        self.after(1, Event::Timer { who, life });
    }

    /// A worker starts, unless another fault keeps it down.
    fn revive(&mut self, number: usize, incarnation: Option<u64>) {
        let process = &mut self.workers[number].process;
        process.down = process.down.saturating_sub(1);
        if process.down > 0 {
            return;
        }
        process.life += 1;
        process.paused_until = 0;
        let life = process.life;
        self.start_worker(number, incarnation);
        self.after(1, Event::Timer { who: Who::Worker(number), life });
    }

    pub(super) fn registry_delay(&self) -> Nanos {
        let delay = |(kind, _): &(Kind, Nanos)| if let Kind::SlowRegistry(by) = kind { *by } else { 0 };
        self.in_force.iter().map(delay).max().unwrap_or(0)
    }

    /// Until when the monitor's inputs wait.
    pub(super) fn backlog(&self, to: Who) -> Option<Nanos> {
        let Who::Monitor(number) = to else { return None };
        let until = |(kind, end): &(Kind, Nanos)| (*kind == Kind::Backlog { monitor: number }).then_some(*end);
        self.in_force.iter().filter_map(until).max().map(|end| end + MS)
    }
}
