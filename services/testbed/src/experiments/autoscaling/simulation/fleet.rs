//! Replicas on a virtual clock: each has the virtual CPU of a live replica with a modelled quota (`services/api/src/work/virtual_cpu.rs`), and
//! each request of each second is charged to one of them, in turn, as the gateway does.

use std::time::Duration;

use api::VirtualCpu;

use super::{
    model::{Model, ns},
    service::{Answers, Flow, Service},
};
use crate::autoscale::{Observed, Reading};

const S: u64 = 1_000_000_000;

/// What happened in a second of the nominal clock.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Second {
    pub planned: u64,
    /// Answered after the SLO, or not sent.
    pub beyond_slo: u64,
    /// Planned requests per second of the machine's clock.
    pub rate: f64,
    /// Replicas that were asked for.
    pub desired: u32,
    /// Replicas that were ready at its end.
    pub ready: u32,
    /// Mean used share of the CPU of the replicas that had been ready at its begin, in percent; 0 without any.
    pub utilization_pct: f64,
    /// Requests waiting or being answered, of all replicas: the mean over the second.
    pub in_flight: f64,
}

pub struct Fleet {
    model: Model,
    service: Service,
    /// Seconds of the nominal clock that have passed.
    seconds: u64,
    /// In order of their start, so that those that get requests come first.
    replicas: Vec<Replica>,
    started: u64,
    /// Requests that have been planned and do not make a whole one yet.
    owed: f64,
    /// Number of the replica that gets the next request.
    turn: u64,
}

struct Replica {
    id: u64,
    cpu: VirtualCpu,
    started_ns: u64,
    ready_ns: u64,
    /// From then on it gets requests.
    found_ns: u64,
    /// At the end of the second before.
    used_ns: u64,
}

impl Fleet {
    /// Begins with this number of replicas that have been ready for long.
    pub fn new(model: Model, replicas: u32) -> Self {
        let service = Service::of(&model);
        let mut fleet = Self { model, service, seconds: 0, replicas: Vec::new(), started: 0, owed: 0.0, turn: 0 };
        fleet.scale_to(replicas);
        for replica in &mut fleet.replicas {
            (replica.ready_ns, replica.found_ns) = (0, 0);
        }
        fleet
    }

    /// Starts replicas, or lets the youngest leave. One that leaves has nothing else to do than to answer what it has.
    pub fn scale_to(&mut self, desired: u32) {
        let now_ns = self.now_ns();
        self.replicas.truncate(desired as usize);
        while self.replicas.len() < desired as usize {
            self.replicas.push(Replica {
                id: self.started,
                cpu: VirtualCpu::new(self.model.quota, now_ns),
                started_ns: now_ns,
                ready_ns: now_ns + ns(self.model.ready_after),
                found_ns: now_ns + ns(self.model.ready_after + self.model.found_after),
                used_ns: 0,
            });
            self.started += 1;
        }
    }

    pub fn desired(&self) -> u32 {
        self.replicas.len() as u32
    }

    pub fn ready(&self) -> u32 {
        let now_ns = self.now_ns();
        self.replicas.partition_point(|replica| replica.ready_ns <= now_ns) as u32
    }

    /// What a planner can know now.
    pub fn observed(&self) -> Vec<Observed<u64>> {
        let now_ns = self.now_ns();
        let since = |then_ns: u64| Duration::from_nanos(now_ns - then_ns);
        let seen = |(n, replica): (usize, &Replica)| Observed {
            id: replica.id,
            n,
            age: since(replica.started_ns),
            ready_for: (replica.ready_ns <= now_ns).then(|| since(replica.ready_ns)),
            reading: Some(Reading { at: self.now(), used_s: replica.cpu.used_ns(now_ns) as f64 / S as f64 }),
        };
        self.replicas.iter().enumerate().map(seen).collect()
    }

    /// Since the begin, on the machine's clock.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns())
    }

    fn now_ns(&self) -> u64 {
        self.seconds * S / u64::from(self.model.hurry)
    }

    /// Lets a second of the nominal clock pass, in which requests come at this rate, evenly.
    pub fn pass(&mut self, rate: f64) -> Second {
        let (desired, from_ns) = (self.desired(), self.now_ns());
        self.owed += rate / f64::from(self.model.hurry);
        let planned = self.owed as u64;
        self.owed -= planned as f64;
        self.seconds += 1;
        let length_ns = self.now_ns() - from_ns;
        let answers = self.answer(planned, from_ns, length_ns);
        Second {
            planned,
            beyond_slo: answers.late + answers.refused,
            rate,
            desired,
            ready: self.ready(),
            utilization_pct: self.utilization_pct(from_ns, length_ns),
            // Little's law.
            in_flight: answers.waited_ns as f64 / length_ns as f64,
        }
    }

    /// Each replica that gets requests has every nth of them.
    fn answer(&mut self, planned: u64, from_ns: u64, length_ns: u64) -> Answers {
        let open = self.replicas.partition_point(|replica| replica.found_ns <= from_ns) as u64;
        if open == 0 || planned == 0 {
            return Answers { refused: planned, ..Answers::default() };
        }
        let apart_ns = length_ns / planned;
        let mut answers = Answers::default();
        for (n, replica) in (0..open).zip(&mut self.replicas) {
            let first = (n + open - self.turn % open) % open;
            let flow = Flow {
                first_ns: from_ns + first * apart_ns,
                apart_ns: open * apart_ns,
                count: planned.saturating_sub(first).div_ceil(open),
            };
            answers.add(self.service.answer(&mut replica.cpu, flow));
        }
        self.turn = (self.turn + planned) % open;
        answers
    }

    fn utilization_pct(&mut self, from_ns: u64, length_ns: u64) -> f64 {
        let now_ns = self.now_ns();
        let (mut used_ns, mut ready) = (0, 0_u32);
        for replica in &mut self.replicas {
            let before_ns = std::mem::replace(&mut replica.used_ns, replica.cpu.used_ns(now_ns));
            if replica.ready_ns <= from_ns {
                used_ns += replica.used_ns.saturating_sub(before_ns);
                ready += 1;
            }
        }
        100.0 * used_ns as f64 / (f64::from(ready.max(1)) * self.model.quota * length_ns as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::autoscaling::simulation::model::tests::MODEL;

    fn pass(fleet: &mut Fleet, seconds: u32, rate: f64) -> (u64, u64) {
        let all: Vec<Second> = (0..seconds).map(|_| fleet.pass(rate)).collect();
        (all.iter().map(|second| second.planned).sum(), all.iter().map(|second| second.beyond_slo).sum())
    }

    /// The demand is what the model itself needs, and not a formula beside it.
    #[test]
    fn the_demand_is_the_smallest_count_that_answers_in_time() {
        for rate in [1.0, 49.0, 50.0, 51.0, 160.0, 399.5, 400.0, 401.0, 540.0, 999.0] {
            let demand = MODEL.demand(rate);
            assert_eq!(pass(&mut Fleet::new(MODEL, demand), 600, rate).1, 0, "{rate}/s on {demand}");
            if demand > 1 {
                assert!(pass(&mut Fleet::new(MODEL, demand - 1), 600, rate).1 > 0, "{rate}/s on {}", demand - 1);
            }
        }
    }

    #[test]
    fn an_overload_fills_the_cpu_and_the_rest_is_not_sent() {
        let mut fleet = Fleet::new(MODEL, 8);
        assert_eq!(pass(&mut fleet, 10, 200.0), (2_000, 0));
        pass(&mut fleet, 10, 800.0);
        let second = fleet.pass(800.0);
        assert_eq!((second.planned, second.ready), (800, 8));
        assert_eq!(second.beyond_slo, 800, "half is not sent, and the other half is late");
        assert!((second.utilization_pct - 100.0).abs() < 0.01, "{second:?}");
        // 50 requests wait a second each in front of each replica.
        assert!((380.0..=400.0).contains(&second.in_flight), "{second:?}");
        // The backlog of a second is gone after two at half load.
        pass(&mut fleet, 3, 200.0);
        let second = fleet.pass(200.0);
        assert_eq!(second.beyond_slo, 0);
        assert!((second.utilization_pct - 50.0).abs() < 1.0 && (second.in_flight - 4.0).abs() < 0.1, "{second:?}");
    }

    #[test]
    fn a_replica_gets_requests_when_it_is_ready_and_found() {
        let mut fleet = Fleet::new(Model { found_after: Duration::from_secs(3), ..MODEL }, 1);
        fleet.scale_to(3);
        let seen: Vec<(u32, u32)> = (0..14).map(|_| fleet.pass(50.0)).map(|s| (s.desired, s.ready)).collect();
        assert_eq!((seen[8], seen[9]), ((3, 1), (3, 3)));
        let used = |fleet: &Fleet| fleet.observed().iter().map(|one| one.reading.unwrap().used_s).collect::<Vec<_>>();
        let [first, second, third] = used(&fleet)[..] else { panic!() };
        assert!(first > 0.65 && second > 0.015 && second < 0.02 && third > 0.015, "{first} {second} {third}");
        fleet.scale_to(1);
        assert_eq!((fleet.ready(), fleet.observed().len()), (1, 1));
    }

    #[test]
    fn requests_add_up_at_every_hurry() {
        for hurry in [1, 7, 10, 30] {
            let mut fleet = Fleet::new(Model { hurry, ..MODEL }, 8);
            let (planned, beyond_slo) = pass(&mut fleet, 70 * hurry, 160.3);
            assert!(planned.abs_diff(11_221) <= 1 && beyond_slo == 0, "{planned} {beyond_slo} at {hurry}");
            assert_eq!(fleet.now(), Duration::from_secs(70));
        }
    }

    #[test]
    fn without_a_replica_all_is_lost() {
        assert_eq!(pass(&mut Fleet::new(MODEL, 0), 2, 10.0), (20, 20));
    }
}
