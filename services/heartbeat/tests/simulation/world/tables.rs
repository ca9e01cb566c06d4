//! What a new partition table means: whom it fails, and whose partitions it moves.

use heartbeat::assign::{NodeId, Table};

use super::{World, workers::Worker};
use crate::{checks::number, config::SECOND, faults::Who};

impl World {
    pub(super) fn committed(&mut self, before: &Table, after: &Table) {
        if self.config.verbose {
            self.print_change(before, after);
        }
        self.record(4, Who::Registry, after.epoch);
        let is_running = |id: &NodeId, process: (u64, u64)| {
            let is_it = |worker: &Worker| worker.id == *id && (worker.incarnation, worker.process_id) == process;
            self.workers.iter().any(|worker| worker.process.down == 0 && is_it(worker))
        };
        let failed = after.nodes.iter().filter(|(id, known)| !known.online && before.is_online(id));
        let running = failed.filter(|(id, known)| is_running(id, (known.incarnation, known.process)));
        let failed: Vec<NodeId> = running.map(|(id, _)| id.clone()).collect();
        self.checks.committed(self.now, self.etcd.history, (before, after));
        for node in &failed {
            self.checks.justice(self.now, &self.config, node);
        }
        for (partition, (old, new)) in before.partitions.iter().zip(&after.partitions).enumerate() {
            let Some(former) = old.primary.as_ref().filter(|former| after.is_online(former)) else { continue };
            let is_planned = old.successor.is_some() || before.owner(old) == after.owner(new);
            let since = self.now.saturating_sub(self.config.restored_within());
            let is_healthy = self.environment.is_healthy(&self.config, number(former), since);
            if old.primary != new.primary && !is_planned && is_healthy {
                self.checks.moved_from_healthy += 1;
                if self.config.verbose {
                    println!("partition {partition} is taken from {former}, which is healthy");
                }
            }
        }
        let first = self.config.faults.iter().map(|fault| fault.at).min().unwrap_or(0);
        self.checks.commits += u64::from(self.now >= first);
        let budget = self.config.tables();
        if self.checks.commits > budget {
            self.checks.broken(self.now, &format!("more than {budget} tables since the first fault"));
        }
        for (id, membership) in after.nodes.iter().filter(|(id, s)| !s.online && before.is_online(id)) {
            let worker = &self.workers[number(id)];
            match worker.crashed_at {
                Some(at) => self.detected.push(self.now - at),
                None if worker.incarnation == membership.incarnation => self.failed_alive.push((self.now, id.clone())),
                None => {}
            }
        }
    }

    fn print_change(&self, before: &Table, after: &Table) {
        let at = self.now as f64 / SECOND as f64;
        print!("{at:.3} s: epoch {}", after.epoch);
        for (id, membership) in after.nodes.iter().filter(|(id, known)| before.nodes.get(*id) != Some(*known)) {
            print!(", {id} {} online: {}", membership.incarnation, membership.online);
        }
        for (n, (old, new)) in before.partitions.iter().zip(&after.partitions).enumerate() {
            if (&old.primary, &old.successor) != (&new.primary, &new.successor) {
                let name = |id: &Option<NodeId>| id.as_deref().unwrap_or("-").to_owned();
                print!(
                    ", {n}: {} {} -> {} {}",
                    name(&old.primary),
                    name(&old.successor),
                    name(&new.primary),
                    name(&new.successor)
                );
            } else if old.epoch != new.epoch {
                print!(", {n}: later epoch");
            }
        }
        println!();
    }
}
