//! Invariants. A violation reports the simulated time and ends the run.

use std::collections::{BTreeMap, HashMap};

use heartbeat::{
    Nanos,
    assign::{NodeId, PARTITIONS, Table, check_step},
    history::{CounterState, Operation, Owners, check_counter},
};

use crate::{
    config::{Config, SECOND},
    faults::{Kind, Who},
};

/// A worker's name, incarnation and process.
pub type Owner = (NodeId, u64, u64);

#[derive(Default)]
pub struct Checks {
    /// For each life of the registry's data.
    owners: BTreeMap<u64, Owners>,
    /// All primaries of a partition and epoch.
    admitted: HashMap<(usize, u64), Vec<Owner>>,
    /// Epoch and process of each accepted write and batch, by partition.
    accepted: [Vec<(u64, u64)>; PARTITIONS],
    /// Every attempt of a client to write, by partition.
    attempts: [Vec<Operation>; PARTITIONS],
    /// Tables since the first fault.
    pub commits: u64,
    pub writes: u64,
    pub refused_by_fence: u64,
    pub batches: u64,
    pub batches_refused_by_fence: u64,
    pub batches_refused_by_offset: u64,
    /// Messages of all topics, and the actions that the logs have from them at the end.
    pub messages: u64,
    pub logged: u64,
    /// Healthy workers failed under heavy loss.
    pub failed_by_loss: u64,
    /// Partitions that were taken from a worker that could serve them.
    pub moved_from_healthy: u64,
    /// Gaps between acknowledged writes to a partition: begin and length.
    pub interruptions: Vec<(Nanos, Nanos)>,
    pub breach: Option<String>,
}

/// Loss rate from which a healthy worker may be failed occasionally.
const HEAVY_LOSS: f64 = 0.2;

impl Checks {
    /// `history`: number of the registry's data; each time they are lost another one begins.
    pub fn committed(&mut self, now: Nanos, history: u64, (before, after): (&Table, &Table)) {
        if let Err(broken) = check_step(before, after) {
            self.broken(now, &broken);
        }
        if let Err(two) = self.owners.entry(history).or_default().record_table(after) {
            self.broken(now, &two.to_string());
        }
        for (partition, assignment) in after.partitions.iter().enumerate() {
            let Some((primary, incarnation, process)) = after.owner(assignment) else { continue };
            let new: Owner = (primary.clone(), incarnation, process);
            let admitted = self.admitted.entry((partition, assignment.epoch)).or_default();
            if !admitted.contains(&new) {
                admitted.push(new);
            }
        }
    }

    /// A worker may be failed only for what a majority of monitors could observe: it was down or paused, or it was cut off from more than
    /// half of them. (A monitor that pauses, or is isolated, does not count.) Under heavy loss a heartbeat, probes and answers may all be
    /// lost: that is counted.
    pub fn justice(&mut self, now: Nanos, config: &Config, node: &NodeId) {
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

    /// The store accepted a write or a batch.
    pub fn written(&mut self, now: Nanos, what: &str, (partition, epoch): (usize, u64), writer: Owner) {
        let process_id = writer.2;
        let latest = self.accepted[partition].last().copied().unwrap_or_default();
        self.accepted[partition].push((epoch, process_id));
        if epoch < latest.0 {
            let broken = format!("a {what} of epoch {epoch} to {partition} was accepted after one of {}", latest.0);
            return self.broken(now, &broken);
        }
        if epoch == latest.0 && process_id != latest.1 {
            return self.broken(now, &format!("two processes wrote to {partition} in epoch {epoch}"));
        }
        let owners = self.admitted.get(&(partition, epoch)).map(Vec::as_slice).unwrap_or_default();
        if !owners.contains(&writer) {
            let broken = format!("{writer:?} wrote to {partition} in epoch {epoch}, which belongs to {owners:?}");
            self.broken(now, &broken);
        }
    }

    pub fn attempted(&mut self, partition: usize, operation: Operation) {
        self.attempts[partition].push(operation);
    }

    /// What clients saw against the final state of the store.
    pub fn check_history(&mut self, now: Nanos, partition: usize, last: CounterState) {
        let first = CounterState { epoch: 0, counter: 0 };
        if let Err(violation) = check_counter(first, &self.attempts[partition], last) {
            self.broken(now, &format!("the history of partition {partition} is impossible: {violation}"));
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
