//! Neighbours of items that the API gives meanwhile, and their comparison with the fold of the logs.

use std::{collections::BTreeMap, time::Duration};

use contract::http::ItemList;
use model::Dataset;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::StatusCode;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::instruments::segment_files::{ListHash, NEIGHBOURS, Oracle, hash_of};

const PER_SECOND: u32 = 20;
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Default, Serialize)]
pub struct Answers {
    /// Lists of neighbours, each compared with those of all versions that the workers have sent.
    pub compared: u64,
    /// No version has this list.
    pub wrong: u64,
    /// Different lists among them.
    pub lists: u64,
}

/// How often each list was answered.
#[derive(Debug, Default)]
pub struct Given(BTreeMap<(String, ListHash), u64>);

/// A client that asks for the neighbours of random items until `finish`.
pub struct AnswerReader {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<Given>>,
}

impl AnswerReader {
    pub fn start(gateway: &str, dataset: &Dataset, seed: u64) -> Self {
        let items: Vec<String> = dataset.items.iter().map(|id| id.as_str().to_owned()).collect();
        let stop = CancellationToken::new();
        let task = tokio::spawn(read(gateway.to_owned(), items, StdRng::seed_from_u64(seed), stop.clone()));
        Self { stop, task }
    }

    /// # Errors
    /// A request failed.
    pub async fn finish(self) -> anyhow::Result<Given> {
        self.stop.cancel();
        self.task.await?
    }
}

async fn read(
    gateway: String,
    items: Vec<String>,
    mut random: StdRng,
    stop: CancellationToken,
) -> anyhow::Result<Given> {
    let http = runtime::http::plain().timeout(TIMEOUT).build()?;
    let mut tick = interval(Duration::from_secs(1) / PER_SECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut given = Given::default();
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let item = &items[random.random_range(0..items.len())];
        let url = format!("{gateway}/items/{item}/neighbours?limit={NEIGHBOURS}");
        let answer = http.get(url).send().await?;
        // An item without events is in no segment.
        let items = if answer.status() == StatusCode::NOT_FOUND {
            Vec::new()
        } else {
            answer.error_for_status()?.json::<ItemList>().await?.items
        };
        *given.0.entry((item.clone(), hash_of(&items))).or_default() += 1;
    }
    Ok(given)
}

impl Given {
    /// After the files were compared, so that the oracle knows all versions.
    pub fn judge(&self, oracle: &Oracle) -> Answers {
        let mut answers = Answers { lists: self.0.len() as u64, ..Answers::default() };
        for ((item, list), count) in &self.0 {
            answers.compared += count;
            answers.wrong += if oracle.has_list(item, *list) { 0 } else { *count };
        }
        answers
    }
}
