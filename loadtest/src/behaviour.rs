//! Invents the behaviour of users as the requests of `POST /events`: who does what, and when. Pure: the same seed gives the same requests.
//!
//! Sessions are bursts of one user. Few users and few items have most events (Zipf). A view may lead to a cart, a cart to a purchase and a
//! purchase to a rating of the same item, as in the generator of the data (`services/model`).

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use contract::{EventKind, ItemId, UserId, http::NewEvent};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use rand_distr::{Distribution, Exp1, Zipf};

/// Largest number of events in one request.
pub const MAX_BATCH: usize = 20;
/// A client collects its events for a moment and sends them together: 5 on average, before the limit of a batch.
const BATCH_GOES_ON: f64 = 0.8;
/// 20 events on average.
const SESSION_GOES_ON: f64 = 0.95;
/// Sessions at the same time. Their users take turns.
const SESSIONS: usize = 200;
const VIEW_TO_CART: f64 = 0.2;
const CART_TO_PURCHASE: f64 = 0.4;
const PURCHASE_TO_RATING: f64 = 0.25;
/// Another look at an item of the session.
const LOOKS_AGAIN: f64 = 0.15;
/// Popularity of users and items: the n-th has 1/n of the first one's share.
const ZIPF_EXPONENT: f64 = 1.0;
/// Items of a session that it may return to.
const REMEMBERED: usize = 8;
/// Bounds the memory.
const MAX_IDS: usize = 20_000_000;

/// An endless sequence of requests.
pub struct Behaviour {
    random: Xoshiro256PlusPlus,
    users: Popular,
    items: Popular,
    sessions: Vec<Session>,
    /// Seconds between two events, on average.
    gap_s: f64,
    /// Since the start.
    next_s: f64,
}

/// A request, and the time at which it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Since the start.
    pub at: Duration,
    /// All of one user, without timestamps.
    pub events: Vec<NewEvent>,
}

/// Ids in the order of popularity.
struct Popular {
    ids: Vec<String>,
    ranks: Zipf<f64>,
}

struct Session {
    user: usize,
    /// Items of the session, the newest last.
    items: Vec<usize>,
    /// What the user did last.
    last: Option<(usize, EventKind)>,
}

impl Behaviour {
    /// `users` and `items` have one id per line, the most popular first. `per_s` is the mean rate of events, over 0.
    ///
    /// # Errors
    /// A line is no id, a list is empty, or the rate is not positive.
    pub fn new(seed: u64, users: &str, items: &str, per_s: f64) -> Result<Self> {
        ensure!(per_s.is_finite() && per_s > 0.0, "a rate of {per_s} events/s is not positive");
        let users = Popular::new(users, "user", |line| UserId::new(line).map(drop))?;
        let items = Popular::new(items, "item", |line| ItemId::new(line).map(drop))?;
        let mut behaviour = Self {
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            users,
            items,
            sessions: Vec::with_capacity(SESSIONS),
            gap_s: 1.0 / per_s,
            next_s: 0.0,
        };
        for _ in 0..SESSIONS {
            let session = behaviour.new_session();
            behaviour.sessions.push(session);
        }
        Ok(behaviour)
    }

    /// The next request. Requests are a Poisson process: they arrive independently of each other and of the answers.
    pub fn next_request(&mut self) -> Request {
        let number = self.random.random_range(0..self.sessions.len());
        let at = Duration::from_secs_f64(self.next_s);
        let mut events = Vec::new();
        loop {
            events.push(self.next_event(number));
            if !self.random.random_bool(SESSION_GOES_ON) {
                self.sessions[number] = self.new_session();
                break;
            }
            if events.len() == MAX_BATCH || !self.random.random_bool(BATCH_GOES_ON) {
                break;
            }
        }
        let pause: f64 = Exp1.sample(&mut self.random);
        // In proportion to the events, so that the rate is that of events.
        self.next_s += pause * self.gap_s * events.len() as f64;
        Request { at, events }
    }

    fn new_session(&mut self) -> Session {
        Session { user: self.users.draw(&mut self.random), items: Vec::new(), last: None }
    }

    fn next_event(&mut self, number: usize) -> NewEvent {
        let (random, session) = (&mut self.random, &mut self.sessions[number]);
        let (item, kind) = match session.last {
            Some((item, EventKind::View)) if random.random_bool(VIEW_TO_CART) => (item, EventKind::Cart),
            Some((item, EventKind::Cart)) if random.random_bool(CART_TO_PURCHASE) => (item, EventKind::Purchase),
            Some((item, EventKind::Purchase)) if random.random_bool(PURCHASE_TO_RATING) => (item, EventKind::Rating),
            _ if !session.items.is_empty() && random.random_bool(LOOKS_AGAIN) => {
                (session.items[random.random_range(0..session.items.len())], EventKind::View)
            }
            _ => (self.items.draw(random), EventKind::View),
        };
        session.last = Some((item, kind));
        if !session.items.contains(&item) {
            if session.items.len() == REMEMBERED {
                session.items.remove(0);
            }
            session.items.push(item);
        }
        NewEvent {
            user_id: self.users.ids[session.user].clone(),
            item_id: self.items.ids[item].clone(),
            event: kind,
            timestamp: None,
            // Stars. The other kinds have weights of their own.
            weight: (kind == EventKind::Rating).then(|| f64::from(random.random_range(1..=5_u8))),
        }
    }
}

impl Popular {
    fn new<E: std::fmt::Display>(list: &str, what: &str, check: impl Fn(&str) -> Result<(), E>) -> Result<Self> {
        let mut ids = Vec::new();
        for (number, line) in list.lines().enumerate() {
            if let Err(error) = check(line) {
                bail!("line {} of the list of {what} ids {error}", number + 1);
            }
            ensure!(number < MAX_IDS, "the list of {what} ids has more than {MAX_IDS} lines");
            ids.push(line.to_owned());
        }
        ensure!(!ids.is_empty(), "the list of {what} ids is empty");
        let ranks = Zipf::new(ids.len() as f64, ZIPF_EXPONENT)?;
        Ok(Self { ids, ranks })
    }

    fn draw(&self, random: &mut Xoshiro256PlusPlus) -> usize {
        // Ranks begin at 1.
        (self.ranks.sample(random) as usize).clamp(1, self.ids.len()) - 1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn list(letter: char, count: usize) -> String {
        (0..count).map(|number| format!("{letter}{number}\n")).collect()
    }

    fn behaviour(seed: u64) -> Behaviour {
        Behaviour::new(seed, &list('u', 5_000), &list('i', 500), 1_000.0).unwrap()
    }

    fn requests(seed: u64, count: usize) -> Vec<Request> {
        let mut behaviour = behaviour(seed);
        (0..count).map(|_| behaviour.next_request()).collect()
    }

    #[test]
    fn a_seed_repeats_and_another_one_differs() {
        assert_eq!(requests(7, 300), requests(7, 300));
        assert_ne!(requests(7, 300), requests(8, 300));
    }

    #[test]
    fn requests_are_bursts_of_one_user_at_the_rate() {
        let requests = requests(1, 20_000);
        assert!(requests.windows(2).all(|pair| pair[0].at <= pair[1].at));
        let events: usize = requests.iter().map(|request| request.events.len()).sum();
        let per_s = events as f64 / requests.last().unwrap().at.as_secs_f64();
        assert!((950.0..1_050.0).contains(&per_s), "{per_s}");
        let mean = events as f64 / requests.len() as f64;
        assert!((3.0..6.0).contains(&mean), "{mean} events in a request");
        assert!(requests.iter().all(|request| (1..=MAX_BATCH).contains(&request.events.len())));
        let of_one = |request: &Request| request.events.iter().all(|event| event.user_id == request.events[0].user_id);
        assert!(requests.iter().all(of_one));
    }

    #[test]
    fn views_are_most_and_purchases_few_and_popular_items_are_seen_most() {
        let requests = requests(1, 20_000);
        let events: Vec<&NewEvent> = requests.iter().flat_map(|request| &request.events).collect();
        let share = |kind| events.iter().filter(|event| event.event == kind).count() as f64 / events.len() as f64;
        let [views, carts, purchases, ratings] =
            [EventKind::View, EventKind::Cart, EventKind::Purchase, EventKind::Rating].map(share);
        assert!((0.7..0.9).contains(&views) && (0.1..0.2).contains(&carts), "{views} {carts}");
        assert!((0.03..0.08).contains(&purchases) && (0.005..0.03).contains(&ratings), "{purchases} {ratings}");
        for event in &events {
            assert_eq!(event.weight.is_some(), event.event == EventKind::Rating);
            assert!(event.weight.is_none_or(|stars| (1.0..=5.0).contains(&stars)) && event.timestamp.is_none());
        }
        let mut counts = BTreeMap::new();
        for event in &events {
            *counts.entry(event.item_id.as_str()).or_insert(0_u32) += 1;
        }
        assert!(counts["i0"] > counts["i9"] && counts["i9"] > counts["i99"], "{counts:?}");
    }

    #[test]
    fn bad_lists_and_rates_are_refused() {
        let error = |users: &str, items: &str, per_s| Behaviour::new(1, users, items, per_s).err().unwrap().to_string();
        assert!(error("", "i", 1.0).contains("user ids is empty"));
        assert!(error("u", "", 1.0).contains("item ids is empty"));
        assert!(error("u\n\n", "i", 1.0).contains("line 2 of the list of user ids"));
        assert!(error("u", &"x".repeat(65), 1.0).contains("line 1 of the list of item ids"));
        assert!(error("u", "i", 0.0).contains("not positive") && error("u", "i", f64::NAN).contains("not positive"));
    }
}
