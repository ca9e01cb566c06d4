//! The lists in Redis, compared with the features, and with what a replica computes on a miss.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use contract::{
    UserId,
    http::{Recommendations, ScoredItem, Source},
    keys,
};
use lists::RankedList;
use redis::{AsyncCommands as _, aio::ConnectionManager};
use serde::Serialize;
use tokio::time::sleep;

use super::oracle::{Compared, FeaturesRow};

const CHUNK: usize = 500;
/// Items of a compared answer.
const LIMIT: usize = 20;
/// Workers publish lists after the store has the features.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lists {
    /// A list's arrival number is not greater than that of the user's features.
    pub not_newer: Compared,
    /// A list is the answer of a miss. Of a sample.
    pub as_on_miss: Compared,
    /// Lists made from older features than the store has.
    pub older: u64,
}

/// `users`: of all partitions, with their features.
///
/// # Errors
/// Redis or the API does not answer.
pub async fn check(
    redis: &mut ConnectionManager,
    gateway: &str,
    users: &BTreeMap<UserId, FeaturesRow>,
    sample: usize,
) -> anyhow::Result<Lists> {
    let begun = Instant::now();
    let lists = loop {
        let lists = read(redis, users).await?;
        if lists.iter().all(|(user, list)| list.arrival() >= users[*user].arrival) || begun.elapsed() > PUBLISHED_WITHIN
        {
            break lists;
        }
        sleep(PAUSE).await;
    };
    let mut found = Lists::default();
    for (user, list) in &lists {
        let (of_list, of_features) = (list.arrival(), users[*user].arrival);
        found.older += u64::from(of_list < of_features);
        found.not_newer.expect(of_list <= of_features, || {
            format!("the list of {user} has arrival number {of_list}, its features have {of_features}")
        });
    }
    let http = runtime::http::plain().timeout(TIMEOUT).build()?;
    let url = format!("{gateway}/recommendations");
    for (user, list) in lists.iter().step_by((lists.len() / sample).max(1)).take(sample) {
        let text = [b"[", list.items_json(LIMIT), b"]"].concat();
        let cached: Vec<ScoredItem> = serde_json::from_slice(&text).context("a list has no JSON")?;
        redis.del::<_, ()>(keys::recommendations(user.as_str())).await?;
        let query = [("user_id", user.as_str()), ("limit", &LIMIT.to_string())];
        let answer: Recommendations =
            http.get(&url).query(&query).send().await?.error_for_status()?.json().await.context("not an answer")?;
        found.as_on_miss.expect(answer.source == Source::Store && answer.items == cached, || {
            format!("the list of {user} in Redis differs from a miss, whose source is {:?}", answer.source)
        });
    }
    Ok(found)
}

/// The lists that are there.
async fn read<'a>(
    redis: &mut ConnectionManager,
    users: &'a BTreeMap<UserId, FeaturesRow>,
) -> anyhow::Result<Vec<(&'a UserId, RankedList)>> {
    let mut lists = Vec::new();
    let all: Vec<&UserId> = users.keys().collect();
    for chunk in all.chunks(CHUNK) {
        let names: Vec<String> = chunk.iter().map(|user| keys::recommendations(user.as_str())).collect();
        let values: Vec<Option<Vec<u8>>> = redis.mget(names).await.context("Redis does not answer")?;
        let decoded =
            chunk.iter().zip(values).filter_map(|(user, bytes)| Some((*user, RankedList::decode(bytes?.into())?)));
        lists.extend(decoded);
    }
    Ok(lists)
}
