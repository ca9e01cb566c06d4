//! Files of segments as workers send them, and what they have to contain: the fold of the logs at their version vectors, computed here.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use anyhow::{Context, ensure};
use contract::{SHARDS, SegmentId, ShardId, VersionVector, http::ScoredItem};
use lists::ModelView;
use model::Fold;
use reqwest::{StatusCode, header};
use segments::{Digest, MAX_FILE_BYTES, MAX_MANIFEST_BYTES, MAX_RANGE_BYTES, Manifest, Version, encode};
use stores::{ArrivedEvent, Store};

/// Folds that are kept: versions of different primaries do not follow each other, those of one primary do.
const MAX_FOLDS: usize = 4;
const ROWS_PER_PAGE: usize = 10_000;
/// Of an item, as answers are compared.
pub const NEIGHBOURS: usize = 20;

/// A file as a worker sent it. Nothing is verified on the way: the bytes are what is judged.
#[derive(Debug, Clone)]
pub struct Sent {
    pub version: Version,
    /// Of the bytes, as `Manifest::content`.
    pub content: Digest,
    pub bytes: u64,
}

#[derive(Debug)]
pub enum Fetched {
    Whole(Sent),
    /// The worker refused a damaged block or manifest, or has no version.
    Refused,
    /// Another version took the place of this one meanwhile, or the worker does not answer.
    Gone,
}

/// Reads the worker's own copy.
///
/// # Errors
/// The worker's answer is not one that the contract has.
pub async fn fetch(http: &reqwest::Client, address: &str, segment: SegmentId) -> anyhow::Result<Fetched> {
    let base = format!("http://{address}/segments/{}", segment.number());
    let Ok(answer) = http.get(format!("{base}/manifest?holder=true")).send().await else { return Ok(Fetched::Gone) };
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::SERVICE_UNAVAILABLE => return Ok(Fetched::Refused),
        other => anyhow::bail!("{base}/manifest answered {other}"),
    }
    let Ok(manifest) = runtime::http::body_within(answer, MAX_MANIFEST_BYTES).await else { return Ok(Fetched::Gone) };
    let manifest = Manifest::decode(&manifest, segment).with_context(|| format!("{base}/manifest"))?;
    let (length, content) = (manifest.length().min(MAX_FILE_BYTES), manifest.content());
    let mut bytes = Vec::with_capacity(length as usize);
    while (bytes.len() as u64) < length {
        let first = bytes.len() as u64;
        let last = (first + MAX_RANGE_BYTES).min(length) - 1;
        let get = http.get(format!("{base}/blocks/{content}")).header(header::RANGE, format!("bytes={first}-{last}"));
        let Ok(answer) = get.send().await else { return Ok(Fetched::Gone) };
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::SERVICE_UNAVAILABLE => return Ok(Fetched::Refused),
            StatusCode::NOT_FOUND => return Ok(Fetched::Gone),
            other => anyhow::bail!("{base}/blocks answered {other}"),
        }
        let wanted = (last - first + 1) as usize;
        let Ok(part) = runtime::http::body_within(answer, wanted).await else { return Ok(Fetched::Gone) };
        ensure!(part.len() == wanted, "{base}/blocks sent {} of {wanted} bytes", part.len());
        bytes.extend_from_slice(&part);
    }
    let content = Manifest::of(segment, manifest.version(), &bytes)?.content();
    Ok(Fetched::Whole(Sent { version: manifest.version(), content, bytes: bytes.len() as u64 }))
}

/// The logs, and folds of them.
#[derive(Default)]
pub struct Oracle {
    logs: [Vec<ArrivedEvent>; SHARDS as usize],
    folds: Vec<Fold>,
    known: HashMap<(SegmentId, VersionVector), Digest>,
    /// `None`: they are not wanted.
    lists: Option<Lists>,
}

/// Neighbours of items in all versions that were asked for.
#[derive(Default)]
struct Lists {
    versions: usize,
    of_item: HashMap<String, ListsOfItem>,
}

#[derive(Default)]
struct ListsOfItem {
    lists: HashSet<ListHash>,
    /// Versions that know the item.
    versions: usize,
}

/// Of a list of items with their scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListHash(u64);

pub fn hash_of(list: &[ScoredItem]) -> ListHash {
    let mut hasher = DefaultHasher::new();
    list.iter().for_each(|item| (&item.item_id, item.score.to_bits()).hash(&mut hasher));
    ListHash(hasher.finish())
}

impl Oracle {
    /// Also keeps the neighbours of each item in each version.
    pub fn with_lists() -> Self {
        Self { lists: Some(Lists::default()), ..Self::default() }
    }

    /// Whether a version that was asked for has this list of the item's neighbours; none, if the version does not know the item.
    pub fn has_list(&self, item: &str, list: ListHash) -> bool {
        let Some(lists) = &self.lists else { return false };
        let of_item = lists.of_item.get(item);
        let is_absent = of_item.map_or(0, |of_item| of_item.versions) < lists.versions;
        of_item.is_some_and(|of_item| of_item.lists.contains(&list)) || is_absent && list == hash_of(&[])
    }

    /// Reads what is new in the logs.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(&mut self, store: &Store) -> anyhow::Result<()> {
        for shard in ShardId::all() {
            let log = &mut self.logs[shard.index()];
            loop {
                let after = log.last().map_or(0, |last| last.arrival);
                let page = store.log_after(shard, after, ROWS_PER_PAGE).await?;
                let is_last = page.len() < ROWS_PER_PAGE;
                log.extend(page);
                if is_last {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The content that the file of this version must have.
    ///
    /// # Errors
    /// The logs have not been read up to this version, or never had it.
    pub fn content(&mut self, segment: SegmentId, vector: &VersionVector) -> anyhow::Result<Digest> {
        if let Some(known) = self.known.get(&(segment, *vector)) {
            return Ok(*known);
        }
        // The fold that is furthest without being beyond.
        let usable = |fold: &Fold| fold.version() <= vector;
        let sum = |fold: &Fold| fold.version().positions().iter().sum::<u64>();
        let best = (0..self.folds.len()).filter(|at| usable(&self.folds[*at])).max_by_key(|at| sum(&self.folds[*at]));
        let mut fold = match best {
            Some(at) => self.folds.remove(at),
            None => Fold::new(SegmentId::all()),
        };
        for shard in ShardId::all() {
            let (log, from) = (&self.logs[shard.index()], fold.version().position(shard));
            let first = log.partition_point(|row| row.arrival <= from);
            let rows = log[first..].iter().take_while(|row| row.arrival <= vector.position(shard));
            rows.for_each(|row| {
                fold.add(&row.event, row.arrival);
            });
        }
        ensure!(fold.version() == vector, "the logs have no version {vector:?} of segment {segment}");
        // All segments of this version: others of the same primary follow.
        let mut all = Vec::new();
        for segment in SegmentId::all() {
            let published = fold.publish(segment).context("the fold has all segments")?;
            let version = Version { epoch: 0, vector: *vector };
            let content = Manifest::of(segment, version, &encode(&published))?.content();
            self.known.insert((segment, *vector), content);
            all.push(published);
        }
        if let Some(lists) = &mut self.lists {
            let view = ModelView::of_segments(&all);
            lists.versions += 1;
            for (index, item) in view.neighbours.items().iter().enumerate() {
                let list = view.scored(view.neighbours.neighbours(index as u32), NEIGHBOURS);
                let of_item = lists.of_item.entry(item.as_str().to_owned()).or_default();
                of_item.lists.insert(hash_of(&list));
                of_item.versions += 1;
            }
        }
        if self.folds.len() >= MAX_FOLDS {
            self.folds.remove(0);
        }
        self.folds.push(fold);
        self.known.get(&(segment, *vector)).copied().context("it was computed above")
    }
}
