//! Invariants. A violation reports the simulated time and ends the run.

use std::collections::HashMap;

use heartbeat::{
    Nanos,
    assign::{NodeId, Table, check_step},
};

use crate::{
    faults::{Kind, Who},
    world::{Config, SECOND},
};

#[derive(Default)]
pub struct Checks {
    /// The primary of each partition and epoch, and its incarnation.
    owners: HashMap<(usize, u64), (NodeId, u64)>,
    /// The latest epoch a write was accepted in, by partition.
    accepted: HashMap<usize, u64>,
    pub writes: u64,
    pub refused_by_fence: u64,
    /// Healthy workers failed under heavy loss.
    pub failed_by_loss: u64,
    pub breach: Option<String>,
}

/// Loss rate from which a healthy worker may be failed occasionally.
const HEAVY_LOSS: f64 = 0.2;

impl Checks {
    pub fn committed(&mut self, now: Nanos, config: &Config, before: &Table, after: &Table) {
        if let Err(broken) = check_step(before, after) {
            self.broken(now, &broken);
        }
        for (partition, assignment) in after.partitions.iter().enumerate() {
            let Some((primary, life, _)) = after.owner(assignment) else { continue };
            let owner = self.owners.entry((partition, assignment.epoch)).or_insert_with(|| (primary.clone(), life));
            if (&owner.0, owner.1) != (primary, life) {
                let broken = format!(
                    "{owner:?} and {primary} in life {life} are primaries of {partition} in {}",
                    assignment.epoch
                );
                self.broken(now, &broken);
            }
        }
        for (node, membership) in &after.nodes {
            if !membership.online && before.is_online(node) {
                self.justice(now, config, node);
            }
        }
    }

    /// A worker may be failed only for what a majority of monitors could observe: it was down or paused, or it was cut off from more than
    /// half of them. (A monitor that pauses, or is isolated, does not count.) Under heavy loss a heartbeat, probes and answers may all be
    /// lost: that is counted.
    fn justice(&mut self, now: Nanos, config: &Config, node: &NodeId) {
        let worker = config.worker(node);
        let recent = |at: Nanos, lasts: Nanos| at <= now && now <= at + lasts + 6 * config.interval;
        let (mut cut_off, mut is_lossy) = (vec![false; config.monitors], false);
        for fault in config.faults.iter().filter(|fault| recent(fault.at, fault.lasts)) {
            match fault.kind {
                Kind::Crash(who) | Kind::Pause(who) if who == worker => return,
                Kind::Loss(rate) if rate >= HEAVY_LOSS => is_lossy = true,
                Kind::Cut { from: Who::Monitor(m), to } if to == worker => cut_off[m] = true,
                Kind::Cut { from, to: Who::Monitor(m) } if from == worker => cut_off[m] = true,
                _ => {}
            }
        }
        let witnesses = cut_off.iter().filter(|cut| **cut).count();
        if witnesses > config.monitors / 2 {
            return;
        }
        if is_lossy {
            self.failed_by_loss += 1;
        } else {
            self.broken(now, &format!("{node} was healthy and was failed; {witnesses} monitors could not hear it"));
        }
    }

    /// The store accepted a write.
    pub fn written(&mut self, now: Nanos, partition: usize, epoch: u64, (writer, life): (&NodeId, u64)) {
        self.writes += 1;
        let latest = self.accepted.entry(partition).or_default();
        if epoch < *latest {
            let broken = format!("a write of epoch {epoch} to {partition} was accepted after one of {latest}");
            return self.broken(now, &broken);
        }
        *latest = epoch;
        if self.owners.get(&(partition, epoch)).is_none_or(|owner| (&owner.0, owner.1) != (writer, life)) {
            self.broken(
                now,
                &format!("{writer} in life {life} wrote to {partition} in epoch {epoch}, which is not its own"),
            );
        }
    }

    pub fn broken(&mut self, now: Nanos, what: &str) {
        let at = now as f64 / SECOND as f64;
        self.breach.get_or_insert_with(|| format!("at {at:.3} s: {what}"));
    }
}
