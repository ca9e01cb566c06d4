//! The stack of one run: a replica that takes the events, replicas whose reads are misses, and workers.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use api::Profile;
use contract::{EventKind, http::NewEvent};
use launcher::redis;
use loadtest::scenario::Scenario;
use model::Dataset;
use reqwest::StatusCode;

use super::{
    ITEMS,
    judgement::{EventPath, Features, StoreLaw},
};
use crate::{
    data,
    instruments::{event_lag::EventLag, scrape::Reading},
    stack::{
        control_plane::{self, ControlPlane},
        event_stack::{self, EventStack},
        service,
    },
};

pub(super) struct Servers {
    pub(super) stack: EventStack,
    /// The replica with usual caches.
    pub(super) events: String,
    pub(super) misses: Vec<Target>,
    /// Ids, the most active users first.
    pub(super) users: Vec<String>,
    /// Users who are not among `users`.
    pub(super) probed: Vec<String>,
    /// One id per line, the most popular first.
    pub(super) items: String,
    workers: Option<Workers>,
    http: reqwest::Client,
}

/// A replica whose reads are misses.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) features: Features,
    pub(super) url: String,
}

pub(super) struct Workers {
    pub(super) plane: ControlPlane,
    pub(super) lag: EventLag,
}

/// As `experiment overload`: every request costs a query.
const ALL_MISS: [&str; 3] = ["guards.warmup=off", "cache.fresh_ms=1", "cache.stale_ms=0"];
const POOL_SIZE: u32 = 50;
const PROBED: usize = 400;
/// Of a request of `POST /events`.
const BATCH: usize = 100;
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

impl Servers {
    pub(super) async fn start(law: StoreLaw, path: EventPath, users: u32) -> anyhow::Result<Self> {
        let dataset = model::generate(&data::generator(users, Some(ITEMS), 1))?;
        let law = match law {
            StoreLaw::None => faultproxy::Law::None,
            StoreLaw::Modelled => without_spread(service::law(Scenario::load("overload")?.law)),
        };
        let plan = event_stack::Plan {
            replicas: 3,
            pool_size: POOL_SIZE,
            law,
            slow_workers: true,
            ..event_stack::Plan::new("decoupling")
        };
        let mut stack = EventStack::start(plan, &dataset).await?;
        let workers = match path {
            EventPath::Direct => None,
            EventPath::Kafka => {
                let plane = stack.start_control_plane(&control_plane::Plan::default()).await?;
                let lag = EventLag::new(stack.store()?, stack.brokers()?)?;
                Some(Workers { plane, lag })
            }
        };
        // The stack's replicas have Kafka, unless they are told otherwise.
        let without = workers.is_none().then(|| "kafka.brokers=".to_owned());
        let sets = |features: &str, further: &[String]| {
            [&[format!("features={features}")], further].concat().into_iter().chain(without.clone()).collect::<Vec<_>>()
        };
        let (usual, judged): (_, &[_]) = match path {
            EventPath::Direct => ("inline", &[(Features::Inline, "inline")]),
            EventPath::Kafka => ("kafka", &[(Features::Inline, "inline"), (Features::Kafka, "kafka")]),
        };
        let start = async |stack: &mut EventStack, n, sets: Vec<String>| {
            let (_child, address) = stack.service.start_replica(n, Profile::Protected, &sets).await?;
            anyhow::Ok(format!("http://{address}"))
        };
        let events = start(&mut stack, 0, sets(usual, &[])).await?;
        let mut misses = Vec::new();
        for (n, &(features, name)) in judged.iter().enumerate() {
            // The workers write fresh lists to the other Redis. One of its own: the targets' reads of a user follow each other closely.
            let options = redis::Options { name: format!("redis-{name}"), ..redis::Options::default() };
            let empty = redis::start(&mut stack.service.stack, &options).await?;
            let all_miss = ALL_MISS.map(str::to_owned).into_iter().chain([format!("redis.url={}", empty.socket_url)]);
            let url = start(&mut stack, 1 + n, sets(name, &all_miss.collect::<Vec<_>>())).await?;
            misses.push(Target { features, url });
        }
        let all: Vec<String> = data::known_ids(&dataset).lines().map(str::to_owned).collect();
        let (probed, users) = choose(all);
        let http = runtime::http::plain().timeout(Duration::from_secs(10)).build()?;
        let items = data::known_items(&dataset);
        let servers = Self { stack, events, misses, users, probed, items, workers, http };
        servers.act_once(&dataset).await?;
        servers.drained().await?;
        Ok(servers)
    }

    /// One event of every user, so that all have prepared features. Those who have none cost a second read.
    async fn act_once(&self, dataset: &Dataset) -> anyhow::Result<()> {
        // Events are in order of user and time, so the last one wins.
        let mut last = vec![None; dataset.users.len()];
        for event in &dataset.events {
            last[event.user as usize] = Some(event.item);
        }
        let event = |(user, item): (&contract::UserId, &Option<u32>)| {
            item.map(|item| NewEvent {
                user_id: user.as_str().to_owned(),
                item_id: dataset.items[item as usize].as_str().to_owned(),
                event: EventKind::View,
                timestamp: None,
                weight: None,
            })
        };
        let events: Vec<NewEvent> = dataset.users.iter().zip(&last).filter_map(event).collect();
        for batch in events.chunks(BATCH) {
            let answer = self.http.post(format!("{}/events", self.events)).json(batch).send().await?;
            ensure!(answer.status() == StatusCode::ACCEPTED, "{} for a batch of events", answer.status());
        }
        Ok(())
    }

    /// Until the workers have consumed all events. At once without workers.
    pub(super) async fn drained(&self) -> anyhow::Result<()> {
        match &self.workers {
            Some(workers) => workers.lag.drained(DRAIN_LIMIT).await,
            None => Ok(()),
        }
    }

    pub(super) fn workers(&mut self) -> anyhow::Result<(&mut Workers, &mut launcher::Stack)> {
        let workers = self.workers.as_mut().context("there are no workers")?;
        Ok((workers, &mut self.stack.service.stack))
    }

    /// Empty without workers.
    pub(super) async fn worker_metrics(&self) -> anyhow::Result<Reading> {
        let mut texts = Vec::new();
        for worker in self.workers.iter().flat_map(|workers| &workers.plane.workers) {
            let url = format!("{}/metrics", worker.admin);
            let answer = self.http.get(&url).send().await.with_context(|| format!("cannot read {url}"))?;
            texts.push(answer.error_for_status()?.text().await?);
        }
        Ok(Reading::of(texts.iter().map(String::as_str)))
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.stack.stop().await
    }
}

/// The law's random factor is the same for both kinds of misses, and thirty times what differs between them: hundreds of thousands of reads
/// would be needed to see it.
fn without_spread(law: faultproxy::Law) -> faultproxy::Law {
    match law {
        faultproxy::Law::None => law,
        faultproxy::Law::Linear { base_ms, slope_ms, crosstalk_ms, .. } => {
            faultproxy::Law::Linear { base_ms, slope_ms, crosstalk_ms, spread: 0.0 }
        }
    }
}

/// Users of all activities to ask for, and the others.
fn choose(all: Vec<String>) -> (Vec<String>, Vec<String>) {
    let stride = (all.len() / PROBED).max(2);
    let (mut probed, mut rest) = (Vec::with_capacity(PROBED), Vec::with_capacity(all.len()));
    for (n, user) in all.into_iter().enumerate() {
        // The most active users of all make the load what it is.
        if n % stride == stride - 1 { probed.push(user) } else { rest.push(user) }
    }
    (probed, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probed_users_are_of_all_activities_and_take_no_part_in_the_load() {
        let all: Vec<String> = (0..4_000).map(|n| n.to_string()).collect();
        let (probed, rest) = choose(all);
        assert_eq!((probed.len(), rest.len()), (400, 3_600));
        assert_eq!((probed[0].as_str(), probed[399].as_str(), rest[0].as_str()), ("9", "3999", "0"));
        assert!(rest.iter().all(|user| !probed.contains(user)));
    }
}
