//! A queueing model of a step. It predicts rates and latency from the law, the connection pools and the timeouts. Pure and seeded.
//!
//! Users send once per interval, one request at a time. The replicas get the requests in turn; each has a connection pool with a queue.
//! A query takes `base + slope × queries in flight in the whole store`, times a log-normal factor of mean 1. A waiting request fails
//! after the checkout timeout. A user gives up after the request timeout; its query continues.
//!
//! As in the load generator, the next request is sent at the first planned instant at or after the response. In `article_model.py` a
//! late user sends immediately after the response. With the article's parameters the rates differ by less than 1 %.

pub mod open;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, LogNormal};

use crate::{
    figures::ModelFigures,
    scenario::{Law, Order, Scenario},
    schedule,
};

/// Time of a request that is refused without a query.
const REFUSAL_MS: f64 = 3.0;

/// What the model can do and the stack does not: changes that are only tried in the model. The default changes nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// How often a user sends a failed request again, at once. Such a request ends with the last response.
    pub retries: u32,
    /// The law's slope counts `n × (n / POWER_REFERENCE)^(power − 1)` instead of n queries in flight. 1: a linear law.
    pub power: f64,
    /// Share of a query that each waiting request counts in the law's slope: the store gets slower the more requests wait for it.
    pub waiting_weight: f64,
    /// Share of the requests that need the store, 0 to 1. The others are answered after [`HIT_MS`].
    pub store_share: f64,
}

/// Latency of a request that does not need the store, in milliseconds.
pub const HIT_MS: f64 = 3.0;

/// With so many queries in flight, a law of any power equals the linear one.
pub const POWER_REFERENCE: f64 = 500.0;

impl Default for Change {
    fn default() -> Self {
        Self { retries: 0, power: 1.0, waiting_weight: 0.0, store_share: 1.0 }
    }
}

/// The expected figures of a step with `users` users whose requests all need the store. `None` without a law, and with open arrivals or
/// retries, which [`open`] models.
///
/// The same arguments give the same figures.
pub fn step(scenario: &Scenario, users: u32, seed: u64) -> Option<ModelFigures> {
    changed_step(scenario, users, seed, Change::default())
}

/// As [`step`], of a changed model.
pub fn changed_step(scenario: &Scenario, users: u32, seed: u64, change: Change) -> Option<ModelFigures> {
    let Law::Modelled { base_ms, slope_ms, crosstalk_ms, spread } = scenario.law else { return None };
    if !scenario.arrivals.is_closed() || scenario.retry.is_some() {
        return None;
    }
    let factor = LogNormal::new(-spread * spread / 2.0, spread).ok()?;
    let store = Store {
        base_us: base_ms * 1000.0,
        slope_us: slope_ms * 1000.0,
        crosstalk_us: crosstalk_ms * 1000.0,
        factor,
        power: change.power,
        waiting_weight: change.waiting_weight,
        in_flight: 0,
        pool_size: scenario.store.pool_size as usize,
        max_waiting: scenario.store.max_waiting as usize,
        order: scenario.store.order,
        replicas: vec![Replica::default(); scenario.replicas as usize],
    };
    let from_us = u64::from(scenario.warm_up_s) * 1_000_000;
    let mut simulation = Simulation {
        interval_us: scenario.interval_ms * 1000,
        timeout_us: scenario.timeout_ms * 1000,
        checkout_timeout_us: scenario.store.checkout_timeout_ms * 1000,
        window_us: from_us..from_us + u64::from(scenario.measure_s) * 1_000_000,
        store,
        retries: change.retries,
        store_share: change.store_share,
        requests: vec![Request::default(); users as usize],
        waiting: vec![None; users as usize],
        events: BinaryHeap::with_capacity(3 * users as usize),
        turn: 0,
        random: SmallRng::seed_from_u64(seed),
        tally: Tally::default(),
    };
    simulation.run();
    Some(simulation.tally.figures(f64::from(scenario.measure_s)))
}

/// The queue of events orders them by time, then by kind and user, so that runs are reproducible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A query ends and frees its connection.
    Free {
        replica: usize,
    },
    /// The checkout timeout of a request that may still wait.
    GiveUp {
        user: usize,
        sent_us: u64,
    },
    Send {
        user: usize,
    },
}

/// A user has at most one request, so user and instant identify a request.
#[derive(Debug, Clone, Default)]
struct Replica {
    busy: usize,
    /// In order of arrival. Timed-out requests stay in the queue until they are popped.
    queue: VecDeque<(usize, u64)>,
    /// Requests in the queue that have not timed out.
    waiting: usize,
}

/// A user's current request.
#[derive(Debug, Clone, Copy, Default)]
struct Request {
    planned_us: u64,
    /// How often it was sent again.
    again: u32,
}

struct Store {
    base_us: f64,
    slope_us: f64,
    crosstalk_us: f64,
    factor: LogNormal<f64>,
    power: f64,
    waiting_weight: f64,
    in_flight: u32,
    pool_size: usize,
    max_waiting: usize,
    order: Order,
    replicas: Vec<Replica>,
}

struct Simulation {
    interval_us: u64,
    timeout_us: u64,
    checkout_timeout_us: u64,
    window_us: std::ops::Range<u64>,
    store: Store,
    retries: u32,
    store_share: f64,
    /// Per user.
    requests: Vec<Request>,
    /// Per user: instant and replica of the request that waits for a connection.
    waiting: Vec<Option<(u64, usize)>>,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    turn: usize,
    random: SmallRng,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    answered: u64,
    failed: u64,
    latency_us: u64,
}

impl Simulation {
    fn run(&mut self) {
        for user in 0..self.waiting.len() {
            let phase = self.random.random_range(0..self.interval_us);
            self.at(phase, Event::Send { user });
        }
        while let Some(Reverse((now, event))) = self.events.pop() {
            if now >= self.window_us.end {
                break;
            }
            match event {
                Event::Send { user } => self.send(now, user),
                Event::GiveUp { user, sent_us } => self.give_up(now, user, sent_us),
                Event::Free { replica } => self.free(now, replica),
            }
        }
    }

    fn at(&mut self, time_us: u64, event: Event) {
        self.events.push(Reverse((time_us, event)));
    }

    fn send(&mut self, now: u64, user: usize) {
        if self.requests[user].again == 0 {
            self.requests[user].planned_us = now;
        }
        // A share of 1 takes no random number, so that an unchanged model keeps its figures.
        if self.store_share < 1.0 && self.random.random::<f64>() >= self.store_share {
            return self.answer(now + (HIT_MS * 1000.0) as u64, user, false);
        }
        self.turn += 1;
        let replica = self.turn % self.store.replicas.len();
        if self.store.replicas[replica].busy < self.store.pool_size {
            self.query(now, replica, user, now);
        } else if self.store.replicas[replica].waiting >= self.store.max_waiting {
            self.answer(now + (REFUSAL_MS * 1000.0) as u64, user, true);
        } else {
            self.store.replicas[replica].queue.push_back((user, now));
            self.store.replicas[replica].waiting += 1;
            self.waiting[user] = Some((now, replica));
            self.at(now + self.checkout_timeout_us, Event::GiveUp { user, sent_us: now });
        }
    }

    fn query(&mut self, now: u64, replica: usize, user: usize, sent_us: u64) {
        let store = &mut self.store;
        store.replicas[replica].busy += 1;
        store.in_flight += 1;
        let load = store.load();
        let mean_us = store.base_us + store.slope_us * load + store.crosstalk_us * load * (load - 1.0).max(0.0);
        let end_us = now + (mean_us * store.factor.sample(&mut self.random)) as u64;
        self.at(end_us, Event::Free { replica });
        let deadline_us = sent_us + self.timeout_us;
        self.answer(end_us.min(deadline_us), user, end_us > deadline_us);
    }

    fn give_up(&mut self, now: u64, user: usize, sent_us: u64) {
        if let Some((waiting_since, replica)) = self.waiting[user]
            && waiting_since == sent_us
        {
            self.waiting[user] = None;
            self.store.replicas[replica].waiting -= 1;
            self.answer(now.min(sent_us + self.timeout_us), user, true);
        }
    }

    fn free(&mut self, now: u64, replica: usize) {
        self.store.replicas[replica].busy -= 1;
        self.store.in_flight -= 1;
        loop {
            let queue = &mut self.store.replicas[replica].queue;
            let next = match self.store.order {
                Order::Newest => queue.pop_back(),
                Order::Oldest => queue.pop_front(),
            };
            let Some((user, sent_us)) = next else { break };
            if self.waiting[user] == Some((sent_us, replica)) {
                self.waiting[user] = None;
                self.store.replicas[replica].waiting -= 1;
                self.query(now, replica, user, sent_us);
                break;
            }
        }
    }

    /// An answer whose time is known already: it counts when it comes, and the user's next request follows from it.
    fn answer(&mut self, answered_us: u64, user: usize, failed: bool) {
        let Request { planned_us, again } = self.requests[user];
        if failed && again < self.retries {
            self.requests[user].again += 1;
            return self.at(answered_us, Event::Send { user });
        }
        self.requests[user].again = 0;
        if self.window_us.contains(&answered_us) {
            self.tally.answered += 1;
            self.tally.failed += u64::from(failed);
            self.tally.latency_us += answered_us - planned_us;
        }
        let (next_us, _) = schedule::next_planned(planned_us, answered_us, self.interval_us);
        self.at(next_us, Event::Send { user });
    }
}

impl Store {
    /// Queries in flight, as the law counts them.
    fn load(&self) -> f64 {
        let mut load = f64::from(self.in_flight);
        if self.waiting_weight > 0.0 {
            let waiting: usize = self.replicas.iter().map(|replica| replica.waiting).sum();
            load += self.waiting_weight * waiting as f64;
        }
        if self.power == 1.0 { load } else { load * (load / POWER_REFERENCE).powf(self.power - 1.0) }
    }
}

impl Tally {
    fn figures(&self, seconds: f64) -> ModelFigures {
        let answered = self.answered.max(1) as f64;
        ModelFigures {
            mean_ms: self.latency_us as f64 / 1000.0 / answered,
            error_pct: 100.0 * self.failed as f64 / answered,
            answered_per_s: self.answered as f64 / seconds,
            good_per_s: (self.answered - self.failed) as f64 / seconds,
        }
    }
}

#[cfg(test)]
mod tests;
