//! New versions under load: events flow, primaries publish, and the replicas of the API switch. Reads near a switch beside all others.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use contract::{EventKind, http::NewEvent};
use model::Dataset;
use rand::RngExt;
use tokio::time::{Instant, sleep_until};

use super::{cluster::LIMIT, judgement::Switches, readers::ListReaders};
use crate::{instruments::scrape::Reading, stack::service::ServiceStack};

/// Events per request.
pub const BATCH: usize = 20;
const EVERY: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(10);
/// A read this long before the switch was seen, or after it, is one during the switch: the replica fetches and builds before.
const BEFORE: Duration = Duration::from_millis(1_500);
const AFTER: Duration = Duration::from_millis(100);
pub const SWITCHES: &str = "model_switches_total";

/// Sends events of known users.
pub struct Events {
    http: reqwest::Client,
    url: String,
    users: Vec<String>,
    items: Vec<String>,
}

impl Events {
    pub fn new(gateway: &str, dataset: &Dataset) -> anyhow::Result<Self> {
        Ok(Self {
            http: runtime::http::plain().timeout(TIMEOUT).build()?,
            url: format!("{gateway}/events"),
            users: dataset.users.iter().map(|id| id.as_str().to_owned()).collect(),
            items: dataset.items.iter().map(|id| id.as_str().to_owned()).collect(),
        })
    }

    /// # Errors
    /// They are not accepted.
    pub async fn send(&self, events: usize) -> anyhow::Result<()> {
        let one = || {
            let any = |ids: &[String]| ids[rand::rng().random_range(0..ids.len())].clone();
            let (user_id, item_id) = (any(&self.users), any(&self.items));
            NewEvent { user_id, item_id, event: EventKind::View, timestamp: None, weight: None }
        };
        let batch: Vec<NewEvent> = (0..events).map(|_| one()).collect();
        let answer = self.http.post(&self.url).json(&batch).send().await?;
        ensure!(answer.status().is_success(), "the events were answered with {}", answer.status());
        Ok(())
    }
}

/// Lasts longer than `lasting` if no replica has switched by then: a replica rests after a build, nine times as long as the build took.
///
/// # Errors
/// Events are not accepted, or a replica does not answer.
pub async fn observe(
    events: &Events,
    service: &ServiceStack,
    lists: &ListReaders,
    lasting: Duration,
) -> anyhow::Result<Switches> {
    let (began, http) = (Instant::now(), &events.http);
    let mut known = vec![None; service.replicas.len()];
    let (mut switches, mut at) = (Vec::new(), began);
    while began.elapsed() < lasting || switches.is_empty() && began.elapsed() < LIMIT {
        at += EVERY;
        events.send(BATCH).await?;
        for (replica, known) in service.replicas.iter().zip(&mut known) {
            let switched = Reading::get(http, &replica.admin).await.context("a replica")?.sum(SWITCHES, &[]);
            if known.replace(switched).is_some_and(|before| before < switched) {
                switches.push(Instant::now());
            }
        }
        sleep_until(at).await;
    }
    let ended = Instant::now();
    let is_near = |sent: Instant| switches.iter().any(|switch| sent + BEFORE >= *switch && sent <= *switch + AFTER);
    let within = |sent: Instant| sent >= began && sent + AFTER < ended;
    Ok(Switches {
        switches: switches.len() as u64,
        near: lists.latencies(|read| within(read.sent) && is_near(read.sent)),
        others: lists.latencies(|read| within(read.sent) && !is_near(read.sent)),
    })
}
