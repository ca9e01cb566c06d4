//! The requests that one replica gets in a second, charged to its virtual CPU.

use api::VirtualCpu;

use super::model::{Model, ns};

/// Times of every request, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    cost_ns: u64,
    /// What a request takes that waits for no other.
    alone_ns: u64,
    slo_ns: u64,
    patience_ns: u64,
}

/// Requests at equal distances.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    pub first_ns: u64,
    pub apart_ns: u64,
    pub count: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    /// After the SLO.
    pub late: u64,
    /// Not sent: its user would have to wait for too long.
    pub refused: u64,
    /// From sending to the answer, of all requests together.
    pub waited_ns: u64,
}

impl Answers {
    pub fn add(&mut self, other: Self) {
        self.late += other.late;
        self.refused += other.refused;
        self.waited_ns += other.waited_ns;
    }
}

impl Service {
    pub fn of(model: &Model) -> Self {
        let cost_ns = ns(model.cost);
        let alone_ns = VirtualCpu::new(model.quota, 0).charge(0, cost_ns, u64::MAX).unwrap_or(u64::MAX);
        Self { cost_ns, alone_ns, slo_ns: ns(model.slo), patience_ns: ns(model.patience) }
    }

    /// Charges all requests. Most seconds have no queue, and take three charges instead of one for each request: a day has tens of millions.
    pub fn answer(&self, cpu: &mut VirtualCpu, flow: Flow) -> Answers {
        let Some(behind_first) = flow.count.checked_sub(1) else { return Answers::default() };
        let first = self.one(cpu, flow.first_ns);
        let no_queue = first.waited_ns == self.alone_ns && flow.apart_ns >= self.alone_ns;
        if !no_queue || behind_first < 2 {
            return self.one_by_one(cpu, flow, first);
        }
        // All is done before the last one comes, so it finds the CPU as after charges one by one.
        let between = behind_first - 1;
        cpu.charge(flow.first_ns + flow.apart_ns, between * self.cost_ns, u64::MAX);
        let last = self.one(cpu, flow.first_ns + behind_first * flow.apart_ns);
        Answers { late: flow.count * last.late, refused: 0, waited_ns: flow.count * last.waited_ns }
    }

    fn one_by_one(&self, cpu: &mut VirtualCpu, flow: Flow, first: Answers) -> Answers {
        let mut all = first;
        let mut now_ns = flow.first_ns;
        for _ in 1..flow.count {
            now_ns += flow.apart_ns;
            all.add(self.one(cpu, now_ns));
        }
        all
    }

    fn one(&self, cpu: &mut VirtualCpu, now_ns: u64) -> Answers {
        match cpu.charge(now_ns, self.cost_ns, now_ns + self.patience_ns) {
            Some(done_ns) => {
                let waited_ns = done_ns - now_ns;
                Answers { late: u64::from(waited_ns > self.slo_ns), refused: 0, waited_ns }
            }
            None => Answers { refused: 1, ..Answers::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::experiments::autoscaling::simulation::model::tests::MODEL;

    const MS: u64 = 1_000_000;

    /// The same answers, and a CPU that is left in the same state, with and without a backlog, below and above its quota.
    #[test]
    fn three_charges_are_as_good_as_one_for_each_request() {
        let service = Service::of(&Model { slo: Duration::from_millis(200), ..MODEL });
        for backlog in [0, 1, 10, 40] {
            for apart_ns in [10 * MS, 19_999_999, 20 * MS, 20_000_001, 37 * MS, 300 * MS] {
                for count in [0, 1, 2, 3, 4, 60] {
                    let mut cpu = VirtualCpu::new(MODEL.quota, 0);
                    for _ in 0..backlog {
                        cpu.charge(5 * MS, MS, u64::MAX).unwrap();
                    }
                    let mut slow = cpu.clone();
                    let flow = Flow { first_ns: 7 * MS, apart_ns, count };
                    let mut expected = Answers::default();
                    for n in 0..count {
                        expected.add(service.one(&mut slow, flow.first_ns + n * apart_ns));
                    }
                    assert_eq!(service.answer(&mut cpu, flow), expected, "{backlog} {flow:?}");
                    let end_ns = flow.first_ns + count * apart_ns;
                    let state = |cpu: &mut VirtualCpu| (cpu.used_ns(end_ns), cpu.charge(end_ns, MS, u64::MAX));
                    assert_eq!(state(&mut cpu), state(&mut slow), "{backlog} {flow:?}");
                }
            }
        }
    }
}
