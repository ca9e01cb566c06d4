//! A queueing model of open arrivals whose client retries, through what disturbs the system. Discrete events; pure and seeded.
//!
//! It has the store, pools, queues and timeouts of [`super`], and the client's policy is the very code of [`crate::retry`]. Arrivals are those
//! of the load generator with the same seed. What disturbs the system is a [`Disturbance`]; of a scenario's faults only stalls are modelled.
//! Every request needs the store, unless there is a cache, and everything but the store takes no time.

mod disturbance;
mod second;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    path::Path,
};

use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, LogNormal};

use self::disturbance::Lists;
pub use self::{disturbance::Disturbance, second::Second};
use crate::{
    open_instants::OpenInstants,
    plan::StepPlan,
    retry::{Next, Retries},
    scenario::{Fault, FaultKind, Order, Scenario},
};

/// What becomes of a try that waits for a connection when its client gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// It leaves the queue: a replica drops a request whose client has closed the connection, and with `http.honour_deadline` the wait ends.
    Leaves,
    /// It stays until it is served or the checkout times out: a load that requests share (`guards.coalesce`) survives its clients.
    Stays,
}

/// Longest stall that [`critical_stall_ms`] tries, in milliseconds.
pub const LONGEST_STALL_MS: u64 = 10_000;
/// Seconds before the stall, and at the end those in which a store that has recovered serves the load.
const NORMAL_S: u32 = 5;
/// Least share of the arriving requests that succeed at a store that has recovered.
const RECOVERED_SHARE: f64 = 0.9;

/// A run of `per_s` requests per second, through the stalls of the scenario. `None` without a modelled law, open arrivals and retries.
///
/// The same arguments give the same figures.
pub fn run(scenario: &Scenario, per_s: u32, seed: u64, given_up: GivenUp) -> Option<Vec<Second>> {
    let warm_up_us = u64::from(scenario.warm_up_s) * 1_000_000;
    let is_stall = |fault: &Fault| fault.kind == FaultKind::Stall;
    let stalls = scenario.faults_of(0).into_iter().filter(is_stall).map(|fault| {
        let from_us = warm_up_us + (fault.at_s * 1e6) as u64;
        Disturbance::Stall(from_us..from_us + (fault.for_s * 1e6) as u64)
    });
    run_disturbed(scenario, per_s, seed, given_up, (0, &stalls.collect::<Vec<_>>()))
}

/// As [`run`], through these disturbances instead of the scenario's faults. Each request asks for the list of one of `cached_users` users,
/// all of them equally often; at the beginning all lists are cached. 0: there is no cache.
pub fn run_disturbed(
    scenario: &Scenario,
    per_s: u32,
    seed: u64,
    given_up: GivenUp,
    (cached_users, disturbances): (u32, &[Disturbance]),
) -> Option<Vec<Second>> {
    let crate::scenario::Law::Modelled { spread, .. } = scenario.law else { return None };
    let (open, retry) = (scenario.arrivals.open()?, scenario.retry.as_ref()?);
    let plan = StepPlan { seed, ..StepPlan::of(scenario, per_s, 0, Path::new(""), "") };
    let end_us = (plan.warm_up_ms + plan.measure_ms) * 1000;
    let events = disturbances
        .iter()
        .enumerate()
        .filter_map(|(n, one)| Some(Reverse((one.event_us()?, Event::Disturbance { n }))));
    let mut simulation = Simulation {
        scenario,
        given_up,
        factor: LogNormal::new(-spread * spread / 2.0, spread).ok()?,
        disturbances,
        lists: Lists::all_cached(cached_users),
        client: Retries::new(retry),
        requests: Vec::new(),
        tries: Vec::new(),
        replicas: vec![Replica::default(); scenario.replicas as usize],
        in_flight: 0,
        events: events.collect(),
        random: SmallRng::seed_from_u64(seed),
        seconds: vec![Second::default(); end_us.div_ceil(1_000_000) as usize],
    };
    simulation.run(OpenInstants::of(&plan, open), end_us);
    Some(simulation.seconds)
}

/// The shortest stall, in milliseconds, after which the load keeps the store overloaded: less than 90 % of the requests succeed `settle_s`
/// seconds after it. To `resolution_ms`; `None` if the store recovers from a stall of 10 s, or as [`run`]. The scenario's own faults do not
/// count, and the rate is constant. 0: it is overloaded without a stall.
pub fn critical_stall_ms(
    scenario: &Scenario,
    per_s: u32,
    seed: u64,
    given_up: GivenUp,
    (settle_s, resolution_ms): (u32, u64),
) -> Option<u64> {
    let recovers = |stall_ms: u64| {
        let for_s = stall_ms as f64 / 1000.0;
        let stall = Fault { step: None, at_s: f64::from(NORMAL_S), for_s, kind: FaultKind::Stall };
        let measure_s = NORMAL_S + for_s.ceil() as u32 + settle_s + NORMAL_S;
        let faults = if stall_ms > 0 { vec![stall] } else { Vec::new() };
        let arrivals = scenario.arrivals.clone().at_constant_rate();
        let seconds = run(&Scenario { measure_s, faults, arrivals, ..scenario.clone() }, per_s, seed, given_up)?;
        let last = &seconds[seconds.len() - NORMAL_S as usize..];
        let sum = |figure: fn(&Second) -> u64| last.iter().map(figure).sum::<u64>() as f64;
        Some(sum(|second| second.good) >= RECOVERED_SHARE * sum(|second| second.requests))
    };
    if !recovers(0)? {
        return Some(0);
    }
    if recovers(LONGEST_STALL_MS)? {
        return None;
    }
    let (mut short, mut long) = (0, LONGEST_STALL_MS);
    while long - short > resolution_ms.max(1) {
        let middle = short.midpoint(long);
        if recovers(middle)? { short = middle } else { long = middle }
    }
    Some(long)
}

/// Events at the same instant are in this order, then in that of their tries, so that runs are reproducible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    QueryEnds {
        of: usize,
    },
    /// The client gives a try up.
    TryTimeout {
        of: usize,
    },
    CheckoutTimeout {
        of: usize,
    },
    Retry {
        request: usize,
    },
    /// Lists are deleted, or replicas run again.
    Disturbance {
        n: usize,
    },
}

#[derive(Debug, Clone, Copy)]
struct Request {
    deadline_us: u64,
    tries: u32,
    /// 0 without a cache.
    user: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Queue,
    Store,
    /// Served, refused or timed out.
    Over,
}

#[derive(Debug, Clone, Copy)]
struct Try {
    request: usize,
    replica: usize,
    place: Place,
    has_client: bool,
}

#[derive(Debug, Clone, Default)]
struct Replica {
    busy: u32,
    /// In order of arrival. Tries that have left stay until they are popped.
    queue: VecDeque<usize>,
    /// Tries in the queue that have not left.
    waiting: u32,
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    given_up: GivenUp,
    factor: LogNormal<f64>,
    disturbances: &'a [Disturbance],
    lists: Lists,
    client: Retries,
    requests: Vec<Request>,
    tries: Vec<Try>,
    replicas: Vec<Replica>,
    in_flight: u32,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    random: SmallRng,
    seconds: Vec<Second>,
}

impl Simulation<'_> {
    fn run(&mut self, arrivals: OpenInstants, end_us: u64) {
        let mut arrivals = arrivals.map(|arrival| arrival.planned_us).peekable();
        loop {
            let next = self.events.peek().map_or(u64::MAX, |Reverse((at_us, _))| *at_us);
            if let Some(now) = arrivals.next_if(|arrival| *arrival < next) {
                self.arrive(now);
                continue;
            }
            let Some(Reverse((now, event))) = self.events.pop() else { return };
            if now >= end_us {
                return;
            }
            match event {
                Event::QueryEnds { of } => self.query_ends(now, of),
                Event::TryTimeout { of } => self.try_timeout(now, of),
                Event::CheckoutTimeout { of } => self.checkout_timeout(now, of),
                Event::Retry { request } => {
                    self.requests[request].tries += 1;
                    self.second(now).retries += 1;
                    self.send(now, request);
                }
                Event::Disturbance { n } => self.disturb(now, n),
            }
        }
    }

    fn at(&mut self, at_us: u64, event: Event) {
        self.events.push(Reverse((at_us, event)));
    }

    fn second(&mut self, now: u64) -> &mut Second {
        let last = self.seconds.len() - 1;
        &mut self.seconds[((now / 1_000_000) as usize).min(last)]
    }

    fn arrive(&mut self, now: u64) {
        self.second(now).requests += 1;
        if !self.client.begin(now, &mut self.random) {
            self.second(now).failed += 1;
            return;
        }
        self.second(now).first_tries += 1;
        let user = self.lists.user(&mut self.random);
        self.requests.push(Request { deadline_us: now + self.scenario.timeout_ms * 1000, tries: 1, user });
        self.send(now, self.requests.len() - 1);
    }

    fn send(&mut self, now: u64, request: usize) {
        if self.lists.is_cached(self.requests[request].user) {
            self.second(now).good += 1;
            return self.client.succeeded(now);
        }
        let of = self.tries.len();
        let replica = of % self.replicas.len();
        self.tries.push(Try { request, replica, place: Place::Queue, has_client: true });
        let end_us = self.client.end_of_try_us(now, self.requests[request].deadline_us);
        self.at(end_us, Event::TryTimeout { of });
        let store = self.scenario.store;
        if self.replicas[replica].busy < store.pool_size && !self.is_paused(now, replica) {
            return self.query(now, of);
        }
        self.replicas[replica].queue.push_back(of);
        self.replicas[replica].waiting += 1;
        self.at(now + store.checkout_timeout_ms * 1000, Event::CheckoutTimeout { of });
        if self.replicas[replica].waiting > store.max_waiting {
            // As the gate: the one that would be served last is refused.
            let refused = match store.order {
                Order::Oldest => of,
                Order::Newest => self.oldest(replica).unwrap_or(of),
            };
            self.leave_queue(refused);
            self.fail(now, refused);
        }
    }

    fn oldest(&self, replica: usize) -> Option<usize> {
        self.replicas[replica].queue.iter().copied().find(|of| self.tries[*of].place == Place::Queue)
    }

    fn query(&mut self, now: u64, of: usize) {
        self.tries[of].place = Place::Store;
        self.replicas[self.tries[of].replica].busy += 1;
        self.in_flight += 1;
        let mean_ms = self.scenario.law.mean_ms(f64::from(self.in_flight)).unwrap_or_default();
        let slower: f64 = self.disturbances.iter().map(|one| one.slower(now)).product();
        let end_us = now + (1000.0 * mean_ms * slower * self.factor.sample(&mut self.random)) as u64;
        let replica = self.tries[of].replica;
        let held_us = self.disturbances.iter().filter_map(|one| one.held_until_us(end_us, replica)).max();
        self.at(held_us.unwrap_or(end_us), Event::QueryEnds { of });
    }

    fn query_ends(&mut self, now: u64, of: usize) {
        let Try { replica, has_client, .. } = self.tries[of];
        self.tries[of].place = Place::Over;
        self.replicas[replica].busy -= 1;
        self.in_flight -= 1;
        let second = self.second(now);
        second.queries += 1;
        second.zombies += u64::from(!has_client);
        // A load that requests share writes its list, also if no client waits for it.
        if has_client || self.given_up == GivenUp::Stays {
            self.lists.cache(self.requests[self.tries[of].request].user);
        }
        if has_client {
            self.tries[of].has_client = false;
            self.second(now).good += 1;
            self.client.succeeded(now);
        }
        self.query_next(now, replica);
    }

    /// Gives a free connection to the try that is to be served next.
    fn query_next(&mut self, now: u64, replica: usize) {
        if self.is_paused(now, replica) {
            return;
        }
        let waiting = loop {
            let queue = &mut self.replicas[replica].queue;
            let next = match self.scenario.store.order {
                Order::Newest => queue.pop_back(),
                Order::Oldest => queue.pop_front(),
            };
            match next {
                Some(waiting) if self.tries[waiting].place != Place::Queue => {}
                next => break next,
            }
        };
        if let Some(waiting) = waiting {
            self.replicas[replica].waiting -= 1;
            self.query(now, waiting);
        }
    }

    fn is_paused(&self, now: u64, replica: usize) -> bool {
        self.disturbances.iter().any(|one| one.pauses(now, replica))
    }

    fn disturb(&mut self, now: u64, n: usize) {
        match &self.disturbances[n] {
            Disturbance::Flush { share, .. } => self.lists.delete(*share, &mut self.random),
            Disturbance::Pause { replicas, .. } => {
                for replica in 0..(*replicas).min(self.replicas.len()) {
                    for _free in self.replicas[replica].busy..self.scenario.store.pool_size {
                        self.query_next(now, replica);
                    }
                }
            }
            Disturbance::Stall(_) | Disturbance::Slow(..) => {}
        }
    }

    fn try_timeout(&mut self, now: u64, of: usize) {
        if self.tries[of].place == Place::Queue && self.given_up == GivenUp::Leaves {
            self.leave_queue(of);
        }
        self.fail(now, of);
    }

    fn checkout_timeout(&mut self, now: u64, of: usize) {
        if self.tries[of].place == Place::Queue {
            self.leave_queue(of);
            self.fail(now, of);
        }
    }

    fn leave_queue(&mut self, of: usize) {
        self.tries[of].place = Place::Over;
        self.replicas[self.tries[of].replica].waiting -= 1;
    }

    /// The client notices the failure of a try, unless it had its answer or had given up before.
    fn fail(&mut self, now: u64, of: usize) {
        if !std::mem::take(&mut self.tries[of].has_client) {
            return;
        }
        let request = self.tries[of].request;
        let Request { deadline_us, tries, .. } = self.requests[request];
        match self.client.after_failure(tries, now, deadline_us, &mut self.random) {
            Next::RetryAt(at_us) => self.at(at_us, Event::Retry { request }),
            Next::GiveUp | Next::BudgetSpent => self.second(now).failed += 1,
        }
    }
}

#[cfg(test)]
mod tests;
