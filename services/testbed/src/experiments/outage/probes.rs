//! Single requests during the load whose answers are compared: for users with a list, which must stay the same, and for users without.

use std::{ops::Range, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use reqwest::{StatusCode, Url};
use serde_json::Value;
use statistics::percentile;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::figures::Probes;
use crate::instruments::target::unix_ms;

/// Time between two probes of a kind.
const EVERY: Duration = Duration::from_millis(40);
/// As long as the load's users wait; bounds the probes in flight.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Users with a list; asked for in turn.
const LISTED: usize = 100;

/// Users of the probes.
pub(super) struct Ids {
    /// Have a list in Redis.
    pub(super) listed: Vec<String>,
    /// Have none; each is asked for once.
    pub(super) unlisted: Vec<String>,
}

/// How many users without a list are asked for within these seconds, with some to spare.
pub(super) fn asked_within(seconds: u32) -> usize {
    (f64::from(seconds + 10) / EVERY.as_secs_f64()).ceil() as usize
}

impl Ids {
    /// Takes users evenly out of all activities; another `turn` takes others without a list, where there are enough.
    ///
    /// # Errors
    /// There are not twice as many users as would be taken: the load would be left with few.
    pub(super) fn choose(users: &mut Vec<String>, unlisted: usize, turn: usize) -> anyhow::Result<Self> {
        let taken = LISTED + unlisted;
        ensure!(
            users.len() > 2 * taken,
            "only {} users have a list in Redis, {} are needed",
            users.len(),
            2 * taken + 1
        );
        let stride = users.len() / taken;
        let offset = turn % stride;
        let (mut chosen, mut rest) = (Vec::with_capacity(taken), Vec::with_capacity(users.len() - taken));
        for (n, user) in users.drain(..).enumerate() {
            if n % stride == offset && chosen.len() < taken { chosen.push(user) } else { rest.push(user) }
        }
        *users = rest;
        // Evenly spread, so that users with a list are of all activities, too.
        let every = taken / LISTED;
        let (mut with_list, mut without) = (Vec::with_capacity(LISTED), Vec::with_capacity(unlisted));
        for (n, user) in chosen.into_iter().enumerate() {
            if n % every == 0 && with_list.len() < LISTED { with_list.push(user) } else { without.push(user) }
        }
        Ok(Self { listed: with_list, unlisted: without })
    }
}

/// Probes that run until `finish`.
pub(super) struct Probing {
    stop: CancellationToken,
    task: JoinHandle<Vec<Probe>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Probe {
    /// Unix time.
    sent_ms: u64,
    listed: bool,
    latency_ms: f64,
    answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// A list of the user's own; the same as before, where that is known.
    Good,
    /// Other items than before, or an unknown user's.
    Wrong,
    Refused,
    Failed,
}

struct Asker {
    http: reqwest::Client,
    recommendations: Url,
}

impl Probing {
    /// Asks for the lists of all users with one, to compare with, then begins.
    ///
    /// # Errors
    /// One of them does not get its own list.
    pub(super) async fn start(gateway: &str, ids: Ids) -> anyhow::Result<Self> {
        let http = runtime::http::plain().timeout(TIMEOUT).build()?;
        let recommendations = Url::parse(gateway).and_then(|url| url.join("/recommendations"));
        let asker = Arc::new(Asker { http, recommendations: recommendations.context("the gateway's address")? });
        let mut listed = Vec::with_capacity(ids.listed.len());
        for id in ids.listed {
            let body = asker.ask(&id).await.ok().filter(|(status, _)| status.is_success()).map(|(_, body)| body);
            let body = body.filter(is_own).with_context(|| format!("{id} did not get its own list"))?;
            listed.push((id, body["items"].clone()));
        }
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(asker, listed, ids.unlisted, stop.clone()));
        Ok(Self { stop, task })
    }

    /// Sends no more and waits for the probes in flight.
    pub(super) async fn finish(self) -> anyhow::Result<Vec<Probe>> {
        self.stop.cancel();
        self.task.await.context("the probes crashed")
    }
}

async fn run(
    asker: Arc<Asker>,
    listed: Vec<(String, Value)>,
    unlisted: Vec<String>,
    stop: CancellationToken,
) -> Vec<Probe> {
    let mut probes = JoinSet::new();
    let mut done = Vec::new();
    let (mut at, mut unlisted) = (Instant::now(), unlisted.into_iter());
    let mut round = listed.iter().cycle();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep_until(at) => at += EVERY,
        }
        for (user, before) in
            [round.next().map(|(id, items)| (id.clone(), Some(items.clone()))), unlisted.next().map(|id| (id, None))]
                .into_iter()
                .flatten()
        {
            let asker = Arc::clone(&asker);
            probes.spawn(async move { asker.probe(&user, before.as_ref()).await });
        }
        while let Some(probe) = probes.try_join_next() {
            done.extend(probe);
        }
    }
    done.extend(probes.join_all().await);
    done
}

impl Asker {
    async fn ask(&self, id: &str) -> reqwest::Result<(StatusCode, Value)> {
        let mut url = self.recommendations.clone();
        url.query_pairs_mut().append_pair("user_id", id);
        let answer = self.http.get(url).send().await?;
        Ok((answer.status(), answer.json().await?))
    }

    /// `before`: the items of a user with a list.
    async fn probe(&self, id: &str, before: Option<&Value>) -> Probe {
        let (sent_ms, sent) = (unix_ms(), Instant::now());
        let answer = match self.ask(id).await {
            Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => Answer::Refused,
            Ok((StatusCode::OK, body)) => judge(&body, before),
            Ok(_) | Err(_) => Answer::Failed,
        };
        Probe { sent_ms, listed: before.is_some(), latency_ms: sent.elapsed().as_secs_f64() * 1000.0, answer }
    }
}

fn is_own(body: &Value) -> bool {
    body["source"] != "popular" && body["items"].is_array()
}

fn judge(body: &Value, before: Option<&Value>) -> Answer {
    let same = before.is_none_or(|items| body["items"] == *items);
    if is_own(body) && same { Answer::Good } else { Answer::Wrong }
}

/// The probes of one kind. `away`: Unix ms.
pub(super) fn count(probes: &[Probe], listed: bool, away: &Range<u64>) -> Probes {
    let of: Vec<&Probe> = probes.iter().filter(|probe| probe.listed == listed).collect();
    let during: Vec<&Probe> = of.iter().copied().filter(|probe| away.contains(&probe.sent_ms)).collect();
    let number = |among: &[&Probe], answers: &[Answer]| {
        among.iter().filter(|probe| answers.contains(&probe.answer)).count() as u64
    };
    let latencies: Vec<f64> = during.iter().map(|probe| probe.latency_ms).collect();
    Probes {
        asked: during.len() as u64,
        good: number(&during, &[Answer::Good, Answer::Wrong]),
        refused: number(&during, &[Answer::Refused]),
        failed: number(&during, &[Answer::Failed]),
        p99_ms: percentile(&latencies, 99.0),
        compared: number(&of, &[Answer::Good, Answer::Wrong]),
        wrong: number(&of, &[Answer::Wrong]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn users_are_taken_from_all_activities_and_only_once() {
        let all: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
        let mut users = all.clone();
        let first = Ids::choose(&mut users, 1_500, 0).unwrap();
        assert_eq!((first.listed.len(), first.unlisted.len(), users.len()), (100, 1_500, 8_400));
        let mut together = [users, first.listed.clone(), first.unlisted.clone()].concat();
        together.sort_by_key(|id| id.parse::<u32>().unwrap());
        assert_eq!(together, all);
        assert!(first.listed.last().unwrap().parse::<u32>().unwrap() > 9_000);
        let second = Ids::choose(&mut all.clone(), 1_500, 1).unwrap();
        assert!(second.unlisted.iter().all(|id| !first.unlisted.contains(id)));
        assert!(Ids::choose(&mut all[..3_200].to_vec(), 1_500, 0).is_err());
    }

    #[test]
    fn an_answer_is_good_if_it_is_the_users_own() {
        let items = json!([{"item_id": "a", "score": 1}]);
        let body = |source| json!({"source": source, "items": items});
        assert_eq!(judge(&body("stale"), Some(&items)), Answer::Good);
        assert_eq!(judge(&body("store"), None), Answer::Good);
        assert_eq!(judge(&body("cache"), Some(&json!([]))), Answer::Wrong);
        for before in [None, Some(&items)] {
            assert_eq!(judge(&body("popular"), before), Answer::Wrong, "an unknown user's answer");
        }
        assert_eq!(judge(&json!({}), None), Answer::Wrong);
    }

    #[test]
    fn probes_count_by_kind_and_time() {
        let probe = |sent_ms, listed, latency_ms, answer| Probe { sent_ms, listed, latency_ms, answer };
        let mut probes: Vec<Probe> = (1..=200).map(|n| probe(100 + n, false, n as f64, Answer::Refused)).collect();
        probes.push(probe(99, false, 5000.0, Answer::Failed));
        probes.push(probe(99, true, 1.0, Answer::Wrong));
        probes.push(probe(150, true, 2.0, Answer::Good));
        probes.push(probe(301, true, 1.0, Answer::Good));
        let unlisted = count(&probes, false, &(100..301));
        assert_eq!((unlisted.asked, unlisted.refused, unlisted.failed, unlisted.compared), (200, 200, 0, 0));
        assert_eq!(unlisted.p99_ms, Some(198.0));
        let listed = count(&probes, true, &(100..301));
        assert_eq!((listed.asked, listed.good, listed.compared, listed.wrong), (1, 1, 3, 1));
        assert_eq!(count(&[], true, &(0..1)), Probes::default());
    }
}
