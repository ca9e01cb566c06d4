//! Behaviour data: reads or generates it, imports it into the store, and builds the model.

use std::{fs::File, num::NonZero, path::Path, time::SystemTime};

use anyhow::{Context, bail};
use contract::ShardId;
use model::{BadRows, Dataset, DatasetBuilder, GenerateParams, NeighbourModel, ParseReport};
use stores::{ImportEvent, Imported, Store};

/// Source of a data set.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Source {
    File(std::path::PathBuf),
    /// Number of synthetic users.
    Generator(u32),
}

pub struct Loaded {
    pub dataset: Dataset,
    pub name: String,
    pub bad_rows: u64,
}

impl Source {
    /// Reads or generates the data on a blocking thread, so that Ctrl-C works meanwhile. Invalid rows are left out and reported on stderr.
    pub async fn load(&self) -> anyhow::Result<Loaded> {
        let source = self.clone();
        tokio::task::spawn_blocking(move || source.load_blocking()).await?
    }

    fn load_blocking(&self) -> anyhow::Result<Loaded> {
        match self {
            Self::File(path) => {
                let (dataset, report) = read(path, BadRows::Skip)?;
                if report.bad_rows > 0 {
                    eprintln!("{}: {report}", path.display());
                }
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                Ok(Loaded { dataset, name, bad_rows: report.bad_rows })
            }
            Self::Generator(users) => {
                let params = generator(*users, None, 1);
                let dataset = model::generate(&params)?;
                Ok(Loaded { dataset, name: format!("synthetic, seed {}", params.seed), bad_rows: 0 })
            }
        }
    }
}

/// Parameters of the generator. There are at most as many clusters as items.
pub fn generator(users: u32, items: Option<u32>, seed: u64) -> GenerateParams {
    let defaults = GenerateParams::default();
    let items = items.unwrap_or(defaults.items);
    GenerateParams { users, items, seed, clusters: defaults.clusters.min(items), ..defaults }
}

pub fn read(path: &Path, bad_rows: BadRows) -> anyhow::Result<(Dataset, ParseReport)> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    model::parse(file, bad_rows).with_context(|| format!("cannot import {}", path.display()))
}

/// The ids of all users for the load generator, one per line, the most active user first: that is the order of popularity for `zipf`.
pub fn known_ids(dataset: &Dataset) -> String {
    let ids: Vec<&str> = most_first(dataset.users.len(), dataset.events.iter().map(|event| event.user))
        .into_iter()
        .map(|user| dataset.users[user].as_str())
        .collect();
    ids.join("\n")
}

/// The ids of all items, one per line, the most popular first, for the generator of events.
pub fn known_items(dataset: &Dataset) -> String {
    let ids: Vec<&str> = most_first(dataset.items.len(), dataset.events.iter().map(|event| event.item))
        .into_iter()
        .map(|item| dataset.items[item].as_str())
        .collect();
    ids.join("\n")
}

/// The numbers below `count` in the order of how often they occur.
fn most_first(count: usize, occurrences: impl Iterator<Item = u32>) -> Vec<usize> {
    let mut times = vec![0_u32; count];
    for number in occurrences {
        times[number as usize] += 1;
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&number| std::cmp::Reverse(times[number]));
    order
}

/// Writes the events and their users into the shards. Each user's events arrive in order of time, also if the file has another order: the model
/// depends on it. The argument of `progress` is the number of rows sent so far.
pub async fn import(store: &Store, dataset: &Dataset, progress: impl Fn(usize)) -> anyhow::Result<Imported> {
    let rows = dataset.in_order_of_time().into_iter().map(|at| {
        let event = &dataset.events[at];
        ImportEvent {
            user_id: &dataset.users[event.user as usize],
            item_id: &dataset.items[event.item as usize],
            kind: event.kind,
            at_ms: event.at_ms,
            weight: event.weight,
        }
    });
    store.import(rows.collect(), progress).await.context("cannot write the events to the store")
}

/// Builds the model from all events of the shards in their order of arrival, as the segments are folded. Stores the model and returns its
/// version.
pub async fn build_model(store: &Store) -> anyhow::Result<u64> {
    let mut all = DatasetBuilder::default();
    for shard in ShardId::all() {
        let mut refused = None;
        store
            .each_event(shard, |user, item, kind, at_ms, weight| {
                if let Err(error) = all.push(user.as_str(), item.as_str(), kind, at_ms, weight) {
                    refused = Some(error);
                }
            })
            .await
            .context("cannot read the events back")?;
        if let Some(error) = refused {
            bail!("shard {} has an invalid event: {error}", shard.index());
        }
    }
    let (dataset, _) = all.finish();
    let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let model = tokio::task::spawn_blocking(move || NeighbourModel::build(&dataset, threads)).await?;
    let (header, rows) = model.to_rows();
    let rows: Vec<_> = rows.collect();
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_millis() as i64);
    store.save_model(&header, &rows, now_ms).await.context("cannot store the model")
}
