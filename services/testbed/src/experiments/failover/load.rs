//! Events and reads at a steady rate, and the time from each event until the user's list in Redis contains it.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use contract::{
    EventKind, ItemId, SHARDS, UserId,
    http::{EventsAccepted, NewEvent},
};
use rand::RngExt as _;
use redis::aio::ConnectionManager;
use reqwest::StatusCode;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use super::judgement::Fresh;

/// 1,000 events/s.
const EVENTS_PER_REQUEST: usize = 20;
const EVENTS_TICK: Duration = Duration::from_millis(20);
/// 200 reads/s.
const READ_TICK: Duration = Duration::from_millis(5);
const IN_FLIGHT: usize = 500;
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks into Redis: the resolution of the freshness. While thousands of events wait, a look takes longer, and so does the pause
/// after it: looking takes at most a tenth of a core.
const LOOK: Duration = Duration::from_millis(20);
const PAUSES_PER_LOOK: u32 = 9;

pub struct Target {
    pub gateway: String,
    pub users: Vec<UserId>,
    pub items: Vec<ItemId>,
    /// By partition: the arrival number of an event is this plus its offset.
    pub arrival_bases: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    user: usize,
    arrival: u64,
    sent: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    /// By partition: the lowest offset of an event that was sent after the mark.
    first: [Option<u64>; SHARDS as usize],
}

#[derive(Default)]
struct Seen {
    events: u64,
    failed_events: u64,
    reads: u64,
    failed_reads: u64,
    waiting: Vec<Waiting>,
    /// In order of their appearance.
    fresh: Vec<Fresh>,
    mark: Option<Mark>,
}

/// Counts since the begin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    pub events: u64,
    pub failed_events: u64,
    pub reads: u64,
    pub failed_reads: u64,
}

/// The clients; they end with it.
pub struct Load {
    seen: Arc<Mutex<Seen>>,
    begun: Instant,
    _clients: JoinSet<()>,
}

impl Load {
    /// `redis`: where lists appear; `None`: no lists are published, and freshness is not measured.
    ///
    /// # Errors
    /// No HTTP client can be built.
    pub fn start(target: Target, redis: Option<ConnectionManager>) -> anyhow::Result<Self> {
        let http = runtime::http::plain().timeout(TIMEOUT).build()?;
        let (target, seen, begun) = (Arc::new(target), Arc::<Mutex<Seen>>::default(), Instant::now());
        let client = Client { http, target, seen: Arc::clone(&seen), follows: redis.is_some() };
        let mut clients = JoinSet::new();
        clients.spawn(client.clone().each(EVENTS_TICK, Client::send));
        clients.spawn(client.clone().each(READ_TICK, Client::read));
        if let Some(redis) = redis {
            clients.spawn(client.follow(redis, begun));
        }
        Ok(Self { seen, begun, _clients: clients })
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }

    pub fn counted(&self) -> Counted {
        let seen = lock(&self.seen);
        let Seen { events, failed_events, reads, failed_reads, .. } = *seen;
        Counted { events, failed_events, reads, failed_reads }
    }

    /// From now on `first_after_mark` looks at later events.
    pub fn mark(&self, at: Instant) {
        lock(&self.seen).mark = Some(Mark { at, first: [None; SHARDS as usize] });
    }

    /// The offset of an event of the partition that was sent after the mark.
    pub fn first_after_mark(&self, partition: usize) -> Option<u64> {
        lock(&self.seen).mark?.first[partition]
    }

    /// Freshness of all events whose lists appeared, and how long the others have waited; times since the begin.
    pub fn fresh(&self) -> (Vec<Fresh>, Vec<Duration>) {
        let seen = lock(&self.seen);
        let waiting = seen.waiting.iter().map(|waiting| waiting.sent - self.begun).collect();
        (seen.fresh.clone(), waiting)
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // Every change is a single step: no other thread sees half of one.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    target: Arc<Target>,
    seen: Arc<Mutex<Seen>>,
    follows: bool,
}

impl Client {
    /// Begins a request at each tick, also while others are in flight.
    async fn each<F: Future<Output = ()> + Send + 'static>(self, tick: Duration, request: fn(Self) -> F) {
        let mut in_flight = JoinSet::new();
        let mut ticks = interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            ticks.tick().await;
            while in_flight.try_join_next().is_some() {}
            if in_flight.len() < IN_FLIGHT {
                in_flight.spawn(request(self.clone()));
            }
        }
    }

    async fn send(self) {
        let mut users = Vec::new();
        let mut body = Vec::new();
        for _ in 0..EVENTS_PER_REQUEST {
            let mut random = rand::rng();
            let user = random.random_range(0..self.target.users.len());
            let item = random.random_range(0..self.target.items.len());
            users.push(user);
            body.push(NewEvent {
                user_id: self.target.users[user].to_string(),
                item_id: self.target.items[item].to_string(),
                event: EventKind::View,
                timestamp: None,
                weight: None,
            });
        }
        let sent = Instant::now();
        let answer = self.http.post(format!("{}/events", self.target.gateway)).json(&body).send().await;
        let accepted = match answer {
            Ok(answer) if answer.status() == StatusCode::ACCEPTED => answer.json::<EventsAccepted>().await.ok(),
            Ok(_) | Err(_) => None,
        };
        let mut seen = lock(&self.seen);
        let Some(EventsAccepted { positions, .. }) = accepted else {
            seen.failed_events += EVENTS_PER_REQUEST as u64;
            return;
        };
        seen.events += EVENTS_PER_REQUEST as u64;
        for (position, user) in positions.iter().zip(users) {
            let partition = usize::from(position.partition);
            if let Some(first) =
                seen.mark.as_mut().filter(|mark| sent >= mark.at).map(|mark| &mut mark.first[partition])
            {
                *first = Some(first.map_or(position.offset, |known| known.min(position.offset)));
            }
            if self.follows {
                let arrival = self.target.arrival_bases[partition] + position.offset;
                seen.waiting.push(Waiting { user, arrival, sent });
            }
        }
    }

    async fn read(self) {
        let user = rand::rng().random_range(0..self.target.users.len());
        let request = self.http.get(format!("{}/recommendations", self.target.gateway));
        let answer = request.query(&[("user_id", self.target.users[user].as_str())]).send().await;
        let is_good = match answer {
            Ok(answer) => answer.status() == StatusCode::OK && answer.bytes().await.is_ok(),
            Err(_) => false,
        };
        let mut seen = lock(&self.seen);
        seen.reads += 1;
        seen.failed_reads += u64::from(!is_good);
    }

    /// Looks for the lists of all events that wait.
    async fn follow(self, mut redis: ConnectionManager, begun: Instant) {
        let mut pause = LOOK;
        loop {
            sleep(pause).await;
            let looking = Instant::now();
            let waiting = mem::take(&mut lock(&self.seen).waiting);
            let mut users: Vec<usize> = waiting.iter().map(|waiting| waiting.user).collect();
            users.sort_unstable();
            users.dedup();
            let ids: Vec<&UserId> = users.iter().map(|&user| &self.target.users[user]).collect();
            let arrivals = match ids.is_empty() {
                true => Ok(Vec::new()),
                false => lists::arrivals(&ids, &mut redis).await,
            };
            let arrivals: BTreeMap<usize, u64> = arrivals.map_or_else(
                |_| BTreeMap::new(),
                |arrivals| {
                    users.into_iter().zip(arrivals).filter_map(|(user, arrival)| Some((user, arrival?))).collect()
                },
            );
            let at = begun.elapsed();
            let mut seen = lock(&self.seen);
            for one in waiting {
                if arrivals.get(&one.user).is_some_and(|arrival| *arrival >= one.arrival) {
                    seen.fresh.push(Fresh { sent: one.sent - begun, visible: at });
                } else {
                    seen.waiting.push(one);
                }
            }
            pause = LOOK.max(looking.elapsed() * PAUSES_PER_LOOK);
        }
    }
}
