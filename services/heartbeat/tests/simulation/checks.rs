//! Invariants. A violation reports the simulated time and ends the run.

use std::collections::HashMap;

use heartbeat::{
    Nanos,
    assign::{NodeId, PARTITIONS, Table, check_step},
};

use crate::{
    config::{Config, SECOND},
    events::StoreRequest,
    faults::{Kind, Who},
};

/// A worker's name, incarnation and process.
type Owner = (NodeId, u64, u64);

#[derive(Default)]
pub struct Checks {
    /// The primary of each partition and epoch, in each life of the registry's data.
    owners: HashMap<(u64, usize, u64), Owner>,
    /// All primaries of a partition and epoch.
    admitted: HashMap<(usize, u64), Vec<Owner>>,
    /// Epoch and process of each accepted write, by partition: the counter's values in order.
    accepted: [Vec<(u64, u64)>; PARTITIONS],
    /// Begin, end, epoch and counter of each acknowledged write, by partition.
    acknowledged: [Vec<Acknowledged>; PARTITIONS],
    /// Tables since the first fault.
    pub commits: u64,
    pub writes: u64,
    pub refused_by_fence: u64,
    /// Healthy workers failed under heavy loss.
    pub failed_by_loss: u64,
    /// Partitions that were taken from a worker that could serve them.
    pub moved_from_healthy: u64,
    pub breach: Option<String>,
}

struct Acknowledged {
    begun: Nanos,
    ended: Nanos,
    epoch: u64,
    counter: u64,
}

/// Loss rate from which a healthy worker may be failed occasionally.
const HEAVY_LOSS: f64 = 0.2;

impl Checks {
    /// `history`: number of the registry's data; each time they are lost another one begins.
    pub fn committed(&mut self, now: Nanos, config: &Config, history: u64, (before, after): (&Table, &Table)) {
        let first = config.faults.iter().map(|fault| fault.at).min().unwrap_or(0);
        self.commits += u64::from(now >= first);
        if let Err(broken) = check_step(before, after) {
            self.broken(now, &broken);
        }
        for (partition, assignment) in after.partitions.iter().enumerate() {
            let Some((primary, incarnation, process)) = after.owner(assignment) else { continue };
            let new: Owner = (primary.clone(), incarnation, process);
            let owner = self.owners.entry((history, partition, assignment.epoch)).or_insert_with(|| new.clone());
            if *owner != new {
                let broken =
                    format!("{owner:?} and {new:?} are primaries of {partition} in epoch {}", assignment.epoch);
                self.broken(now, &broken);
            }
            let admitted = self.admitted.entry((partition, assignment.epoch)).or_default();
            if !admitted.contains(&new) {
                admitted.push(new);
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
        let worker = number(node);
        let late = (6 + config.careful) * config.interval + SECOND;
        let recent = |at: Nanos, end: Nanos| at <= now && now <= end + late;
        let (mut cut_off, mut is_lossy) = (vec![false; config.monitors], false);
        for fault in config.faults.iter().filter(|fault| recent(fault.at, fault.end())) {
            match fault.kind {
                Kind::Crash(who) | Kind::Pause(who) if who == Who::Worker(worker) => return,
                Kind::Leave { worker: other } | Kind::Clone { of: other, .. } if other == worker => return,
                Kind::Newcomer { spare } if spare == worker => return,
                Kind::Loss(rate) if rate >= HEAVY_LOSS => is_lossy = true,
                Kind::LossyLink { from, to, .. } if from == Who::Worker(worker) || to == Who::Worker(worker) => {
                    is_lossy = true;
                }
                Kind::Cut { from, to } | Kind::SlowLink { from, to, .. } | Kind::HeldBack { from, to } => {
                    match (from, to) {
                        (Who::Monitor(m), Who::Worker(w)) | (Who::Worker(w), Who::Monitor(m)) if w == worker => {
                            cut_off[m] = true;
                        }
                        _ => {}
                    }
                }
                Kind::Backlog { monitor } => cut_off[monitor] = true,
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
    pub fn written(&mut self, now: Nanos, name: &NodeId, request: &StoreRequest) {
        self.writes += 1;
        let StoreRequest { partition, epoch, incarnation, process_id, .. } = *request;
        let latest = self.accepted[partition].last().copied().unwrap_or_default();
        self.accepted[partition].push((epoch, process_id));
        if epoch < latest.0 {
            let broken = format!("a write of epoch {epoch} to {partition} was accepted after one of {}", latest.0);
            return self.broken(now, &broken);
        }
        if epoch == latest.0 && process_id != latest.1 {
            return self.broken(now, &format!("two processes wrote to {partition} in epoch {epoch}"));
        }
        let writer = (name.clone(), incarnation, process_id);
        if self.admitted.get(&(partition, epoch)).is_none_or(|owners| !owners.contains(&writer)) {
            self.broken(now, &format!("{writer:?} wrote to {partition} in epoch {epoch}, which is not its own"));
        }
    }

    pub fn acknowledged(&mut self, begun: Nanos, now: Nanos, partition: usize, (epoch, counter): (u64, u64)) {
        self.acknowledged[partition].push(Acknowledged { begun, ended: now, epoch, counter });
    }

    /// What clients saw against the final state: acknowledged counters are unique, in the order of epochs and of time, and none is lost.
    pub fn check_history(&mut self, now: Nanos) {
        for partition in 0..PARTITIONS {
            let mut seen = std::mem::take(&mut self.acknowledged[partition]);
            seen.sort_by_key(|write| write.counter);
            for write in &seen {
                let stored = (write.counter as usize).checked_sub(1).and_then(|at| self.accepted[partition].get(at));
                if stored.is_none_or(|(epoch, _)| *epoch != write.epoch) {
                    let Acknowledged { epoch, counter, .. } = write;
                    let broken =
                        format!("write {counter} to {partition} was acknowledged in epoch {epoch} and is lost");
                    self.broken(now, &broken);
                }
            }
            for pair in seen.windows(2) {
                if pair[0].counter == pair[1].counter {
                    self.broken(now, &format!("two writes to {partition} were acknowledged as {}", pair[0].counter));
                }
                if pair[0].epoch > pair[1].epoch {
                    self.broken(now, &format!("write {} to {partition} has an earlier epoch", pair[1].counter));
                }
            }
            // A later one ended before this one began.
            let mut earliest_end = Nanos::MAX;
            for write in seen.iter().rev() {
                if earliest_end < write.begun {
                    self.broken(now, &format!("write {} to {partition} began after a later one ended", write.counter));
                }
                earliest_end = earliest_end.min(write.ended);
            }
        }
    }

    pub fn broken(&mut self, now: Nanos, what: &str) {
        let at = now as f64 / SECOND as f64;
        self.breach.get_or_insert_with(|| format!("at {at:.3} s: {what}"));
    }
}

/// The number in a worker's name.
pub fn number(name: &str) -> usize {
    name[1..].parse().expect("a worker's name is w and a number")
}
