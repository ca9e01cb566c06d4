//! Sends invented behaviour to `POST /events` at a rate that does not depend on the answers (open loop), and counts what came back.
//!
//! Latency begins at the planned instant, so it includes the delay of a late load generator.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use contract::http::{EventsAccepted, NewEvent};
use hdrhistogram::Histogram;
use reqwest::Url;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep_until},
};

use crate::{
    answer::{class, class_of, class_of_failure},
    behaviour::{Behaviour, Request},
    client::{Client, Response},
};

/// Largest rate, in events/s: several times what a machine of two cores takes.
pub const MAX_PER_S: u32 = 50_000;
const PATH: &str = "/events";
/// As long as users wait.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Bounds memory and connections. A request that would exceed it is not sent, and is counted.
const MAX_IN_FLIGHT: usize = 1_000;
/// Latencies are recorded in µs.
const MAX_LATENCY_US: u64 = 10_000_000;

/// What to send.
pub struct EventLoad {
    /// `http://HOST:PORT` on a loopback address.
    pub gateway: String,
    /// Mean rate, in events/s.
    pub per_s: u32,
    pub lasting: Duration,
    pub seed: u64,
    /// Ids of existing users and items, one per line, the most popular first.
    pub users: String,
    pub items: String,
    /// Events carry the generator's time, so that an event that is sent twice counts once. Otherwise they get the server's time.
    pub timestamps: bool,
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EventLoadOutcome {
    /// From the first planned instant to the last answer.
    pub seconds: f64,
    pub requests: u64,
    /// Events of all requests, sent or not.
    pub offered: u64,
    /// Events of requests that were answered 202.
    pub accepted: u64,
    /// Events of all other requests. A failed request may have written some of its events.
    pub failed: u64,
    pub accepted_per_s: f64,
    /// Failed requests by class: as in `report.json`, and `not_sent` of requests that would have exceeded the number in flight.
    pub errors: BTreeMap<String, u64>,
    /// Of answered requests, in milliseconds since their planned instants; null without such a request.
    pub latency: Option<LatencyMs>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatencyMs {
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// The state of the load, once per second.
#[derive(Debug, Clone, Copy)]
pub struct EventProgress {
    pub elapsed: Duration,
    pub accepted: u64,
    pub failed: u64,
}

/// Of one request.
struct Done {
    events: u64,
    latency: Duration,
    /// The class of the error.
    result: Result<(), String>,
}

/// Sends all requests whose planned instants are within `lasting`, and waits for their answers, each at most 3 s.
///
/// # Errors
/// The gateway is no loopback address, or a list of ids is not valid. Failed requests are no error: they are counted.
pub async fn run(load: &EventLoad, progress: impl Fn(EventProgress)) -> Result<EventLoadOutcome> {
    check_gateway(&load.gateway)?;
    ensure!((1..=MAX_PER_S).contains(&load.per_s), "the rate must be 1 to {MAX_PER_S} events/s");
    let mut behaviour = Behaviour::new(load.seed, &load.users, &load.items, f64::from(load.per_s))?;
    let client = Arc::new(Client::new(&load.gateway, TIMEOUT).await?);
    let (mut tally, mut in_flight) = (Tally::new()?, JoinSet::new());
    let start = Instant::now();
    let mut every_second = interval(Duration::from_secs(1));
    let mut next = behaviour.next_request();
    while next.at < load.lasting {
        tokio::select! {
            biased;
            () = sleep_until(start + next.at) => {
                if in_flight.len() < MAX_IN_FLIGHT {
                    let (planned, client) = (start + next.at, Arc::clone(&client));
                    in_flight.spawn(send(client, next, planned, load.timestamps));
                } else {
                    tally.not_sent(&next);
                }
                next = behaviour.next_request();
            }
            Some(done) = in_flight.join_next() => tally.count(done.context("a request was interrupted")?)?,
            _ = every_second.tick() => progress(tally.progress(start)),
        }
        // When the generator is late, the branch above always wins.
        while let Some(done) = in_flight.try_join_next() {
            tally.count(done.context("a request was interrupted")?)?;
        }
    }
    while let Some(done) = in_flight.join_next().await {
        tally.count(done.context("a request was interrupted")?)?;
    }
    progress(tally.progress(start));
    Ok(tally.outcome(start.elapsed()))
}

/// A typing error must not load another machine.
fn check_gateway(gateway: &str) -> Result<()> {
    let url = Url::parse(gateway).with_context(|| format!("the gateway {gateway:?} is no URL"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if url.scheme() != "http" || !host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        bail!("the gateway {gateway:?} must be a loopback address such as http://127.0.0.1:8080");
    }
    Ok(())
}

async fn send(client: Arc<Client>, request: Request, planned: Instant, timestamps: bool) -> Done {
    let Request { mut events, .. } = request;
    if timestamps {
        stamp(&mut events);
    }
    let count = events.len() as u64;
    let answer = match serde_json::to_vec(&events) {
        Ok(body) => client.post_json(PATH, &body).await,
        // Texts and numbers always have a JSON form; a failure here would be counted as a broken connection.
        Err(_) => Err(crate::client::Failure::Broken),
    };
    let result = match answer {
        Ok(answer) => judge(&answer, count),
        Err(failure) => Err(class_of_failure(failure).to_owned()),
    };
    Done { events: count, latency: planned.elapsed(), result }
}

/// Each event 1 ms after the one before it, the last one now, as the server does it.
fn stamp(events: &mut [NewEvent]) {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let now_ms = since_epoch.map_or(0, |time| time.as_millis() as u64);
    for (before, event) in (0_u64..).zip(events.iter_mut().rev()) {
        event.timestamp = Some(now_ms.saturating_sub(before) as f64 / 1e3);
    }
}

fn judge(answer: &Response, events: u64) -> Result<(), String> {
    if answer.status != 202 {
        return Err(class_of(answer.status, &answer.body).into_owned());
    }
    match serde_json::from_slice::<EventsAccepted>(&answer.body) {
        Ok(body) if body.accepted as u64 == events => Ok(()),
        _ => Err(class::BAD_BODY.to_owned()),
    }
}

struct Tally {
    outcome: EventLoadOutcome,
    latencies: Histogram<u64>,
}

impl Tally {
    fn new() -> Result<Self> {
        let latencies = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).context("cannot make a histogram")?;
        Ok(Self { outcome: EventLoadOutcome::default(), latencies })
    }

    fn not_sent(&mut self, request: &Request) {
        let events = request.events.len() as u64;
        self.failed(events, "not_sent".to_owned());
    }

    fn count(&mut self, done: Done) -> Result<()> {
        let us = u64::try_from(done.latency.as_micros()).unwrap_or(MAX_LATENCY_US).clamp(1, MAX_LATENCY_US);
        match done.result {
            Ok(()) => {
                self.latencies.record(us).context("cannot record a latency")?;
                self.outcome.requests += 1;
                self.outcome.offered += done.events;
                self.outcome.accepted += done.events;
            }
            Err(class) => self.failed(done.events, class),
        }
        Ok(())
    }

    fn failed(&mut self, events: u64, class: String) {
        self.outcome.requests += 1;
        self.outcome.offered += events;
        self.outcome.failed += events;
        *self.outcome.errors.entry(class).or_default() += 1;
    }

    fn progress(&self, start: Instant) -> EventProgress {
        let EventLoadOutcome { accepted, failed, .. } = self.outcome;
        EventProgress { elapsed: start.elapsed(), accepted, failed }
    }

    fn outcome(self, elapsed: Duration) -> EventLoadOutcome {
        let ms = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let latency = LatencyMs { p50_ms: ms(0.5), p90_ms: ms(0.9), p99_ms: ms(0.99), max_ms: ms(1.0) };
        EventLoadOutcome {
            seconds: elapsed.as_secs_f64(),
            accepted_per_s: self.outcome.accepted as f64 / elapsed.as_secs_f64(),
            latency: (!self.latencies.is_empty()).then_some(latency),
            ..self.outcome
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::{Json, Router, http::StatusCode, routing::post};

    use super::*;

    fn load(gateway: &str) -> EventLoad {
        EventLoad {
            gateway: gateway.to_owned(),
            per_s: 2_000,
            lasting: Duration::from_millis(500),
            seed: 1,
            users: "a\nb\nc".into(),
            items: "x\ny\nz".into(),
            timestamps: false,
        }
    }

    async fn serve(app: Router) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    #[tokio::test]
    async fn every_event_is_counted_as_accepted_or_failed() {
        let seen = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&seen);
        let answer = async move |Json(events): Json<Vec<NewEvent>>| {
            let n = counted.fetch_add(1, Ordering::Relaxed);
            // Every fourth request is refused.
            if n % 4 == 3 {
                return (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({ "type": "/problems/overloaded" })));
            }
            (StatusCode::ACCEPTED, Json(serde_json::json!({ "accepted": events.len() })))
        };
        let url = serve(Router::new().route("/events", post(answer))).await;
        let outcome = run(&load(&url), |_| ()).await.unwrap();
        assert_eq!(outcome.requests, seen.load(Ordering::Relaxed));
        assert_eq!(outcome.offered, outcome.accepted + outcome.failed);
        assert_eq!(outcome.errors, BTreeMap::from([("overloaded".to_owned(), outcome.requests / 4)]));
        // The planned events of half a second, and nothing beyond them.
        let mut planned = Behaviour::new(1, "a\nb\nc", "x\ny\nz", 2_000.0).unwrap();
        let planned = std::iter::repeat_with(|| planned.next_request()).take_while(|it| it.at.as_millis() < 500);
        assert_eq!(outcome.offered, planned.map(|it| it.events.len() as u64).sum::<u64>());
        let latency = outcome.latency.unwrap();
        assert!(latency.p50_ms <= latency.p99_ms && latency.p99_ms <= latency.max_ms, "{latency:?}");
    }

    #[tokio::test]
    async fn an_answer_that_accepts_fewer_events_is_a_failure() {
        let answer = async || (StatusCode::ACCEPTED, Json(serde_json::json!({ "accepted": 0 })));
        let url = serve(Router::new().route("/events", post(answer))).await;
        let outcome = run(&EventLoad { timestamps: true, ..load(&url) }, |_| ()).await.unwrap();
        assert_eq!((outcome.accepted, outcome.errors["bad_body"]), (0, outcome.requests));
        assert!(outcome.latency.is_none());
    }

    #[tokio::test]
    async fn only_loopback_is_loaded() {
        for bad in ["http://192.0.2.1:8080", "https://127.0.0.1:1", "http://example.org", "nowhere"] {
            assert!(run(&load(bad), |_| ()).await.is_err(), "{bad}");
        }
    }

    #[test]
    fn own_times_ascend_and_the_last_event_is_now() {
        let mut events = Behaviour::new(1, "u", "i", 1.0).unwrap().next_request().events;
        events.push(events[0].clone());
        stamp(&mut events);
        let times: Vec<f64> = events.iter().filter_map(|event| event.timestamp).collect();
        assert!(times.len() == events.len() && times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    }
}
