//! What works, and since when: the basis of liveness. Where a majority of the monitors can act and a worker can serve, every partition must
//! be served.

use std::collections::BTreeMap;

use heartbeat::{Nanos, assign::PARTITIONS};

use crate::{
    config::Config,
    faults::{Kind, Who},
};

/// A part of the cluster that faults impair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Process(Who),
    /// One direction.
    Link(Who, Who),
    /// The path from a worker's clients through it to the rows of a partition.
    Path(usize, usize),
    /// All links.
    Network,
}

#[derive(Default)]
pub struct Environment {
    /// Number of faults that impair a part, and since when there is none.
    parts: BTreeMap<Part, (u32, Nanos)>,
}

/// Loss on all links below this rate is not a fault: heartbeats, probes and streams are made for it.
const LOSS: f64 = 0.1;

impl Environment {
    pub fn begin(&mut self, kind: &Kind, config: &Config) {
        for part in impaired(kind, config) {
            self.parts.entry(part).or_default().0 += 1;
        }
    }

    pub fn end(&mut self, now: Nanos, kind: &Kind, config: &Config) {
        for part in impaired(kind, config) {
            let (faults, since) = self.parts.entry(part).or_default();
            *faults -= 1;
            *since = now;
        }
    }

    /// Whether the part has had no fault since this time.
    fn is_good(&self, part: Part, since: Nanos) -> bool {
        self.parts.get(&part).is_none_or(|(faults, good_since)| *faults == 0 && *good_since <= since)
    }

    fn are_linked(&self, a: Who, b: Who, since: Nanos) -> bool {
        self.is_good(Part::Link(a, b), since) && self.is_good(Part::Link(b, a), since)
    }

    /// Whether no fault since this time explains that the worker does not serve its partitions.
    pub fn is_healthy(&self, config: &Config, worker: usize, since: Nanos) -> bool {
        self.is_controlled(config, since)
            && self.is_reachable(config, worker, since)
            && self.are_linked(Who::Worker(worker), Who::Client, since)
            && (0..PARTITIONS).all(|partition| self.is_good(Part::Path(worker, partition), since))
    }

    /// Whether all monitors and the registry have reached each other since this time.
    pub fn is_controlled(&self, config: &Config, since: Nanos) -> bool {
        let monitors = || (0..config.monitors).map(Who::Monitor);
        let is_good = |me: Who| {
            self.is_good(Part::Process(me), since)
                && self.are_linked(me, Who::Registry, since)
                && monitors().all(|other| other == me || self.are_linked(me, other, since))
        };
        let shared = [Part::Network, Part::Process(Who::Registry)];
        shared.into_iter().all(|part| self.is_good(part, since)) && monitors().all(is_good)
    }

    /// Whether the worker and all monitors have reached each other since this time.
    pub fn is_reachable(&self, config: &Config, worker: usize, since: Nanos) -> bool {
        let me = Who::Worker(worker);
        self.is_good(Part::Process(me), since)
            && (0..config.monitors).all(|monitor| self.are_linked(me, Who::Monitor(monitor), since))
    }

    /// Workers that have been able to serve a partition since this time, together with the same majority of monitors.
    pub fn able_workers(&self, config: &Config, since: Nanos) -> [Option<usize>; PARTITIONS] {
        let mut able = [None; PARTITIONS];
        if !self.is_good(Part::Network, since) || !self.is_good(Part::Process(Who::Registry), since) {
            return able;
        }
        let is_good = |monitor: &usize| {
            let me = Who::Monitor(*monitor);
            self.is_good(Part::Process(me), since) && self.are_linked(me, Who::Registry, since)
        };
        let monitors: Vec<usize> = (0..config.monitors).filter(is_good).collect();
        for chosen in 0_u32..1 << monitors.len() {
            let members =
                monitors.iter().enumerate().filter(|(at, _)| chosen & (1 << at) != 0).map(|(_, member)| *member);
            let members: Vec<Who> = members.map(Who::Monitor).collect();
            let is_majority = members.len() > config.monitors / 2;
            let all_linked = |a: &Who| members.iter().all(|b| a == b || self.are_linked(*a, *b, since));
            if !is_majority || !members.iter().all(all_linked) {
                continue;
            }
            for worker in 0..config.workers {
                let me = Who::Worker(worker);
                let is_reached = members.iter().all(|monitor| self.are_linked(me, *monitor, since));
                let serves_clients = self.are_linked(me, Who::Client, since);
                if !is_reached || !serves_clients || !self.is_good(Part::Process(me), since) {
                    continue;
                }
                for (partition, able) in able.iter_mut().enumerate() {
                    if self.is_good(Part::Path(worker, partition), since) {
                        able.get_or_insert(worker);
                    }
                }
            }
        }
        able
    }
}

fn impaired(kind: &Kind, config: &Config) -> Vec<Part> {
    let paths = |workers: std::ops::Range<usize>, mask: u32| {
        let in_mask = move |partition: &usize| mask & (1 << partition) != 0;
        workers.flat_map(move |worker| (0..PARTITIONS).filter(in_mask).map(move |at| Part::Path(worker, at))).collect()
    };
    match *kind {
        Kind::Cut { from, to }
        | Kind::LossyLink { from, to, .. }
        | Kind::SlowLink { from, to, .. }
        | Kind::HeldBack { from, to } => vec![Part::Link(from, to)],
        Kind::Loss(rate) if rate >= LOSS => vec![Part::Network],
        Kind::Pause(who) | Kind::Crash(who) => vec![Part::Process(who)],
        Kind::Backlog { monitor } => vec![Part::Process(Who::Monitor(monitor))],
        Kind::Leave { worker } | Kind::Clone { of: worker, .. } | Kind::Newcomer { spare: worker } => {
            vec![Part::Process(Who::Worker(worker))]
        }
        Kind::Gray { worker, partitions } => paths(worker..worker + 1, partitions),
        Kind::Store { worker: Some(worker), partitions, .. } => paths(worker..worker + 1, partitions),
        Kind::Store { worker: None, partitions, .. } => paths(0..config.workers, partitions),
        Kind::SlowRegistry(_) | Kind::LeaseLost | Kind::LeaseFrozen | Kind::Emptied | Kind::Restored { .. } => {
            vec![Part::Process(Who::Registry)]
        }
        Kind::Loss(_) | Kind::ClockStep { .. } | Kind::Replay { .. } => Vec::new(),
    }
}
