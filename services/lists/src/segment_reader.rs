//! Holds the model of the 16 segments: asks the workers for newer versions, fetches and verifies what changed, builds the next model beside
//! the one in use, and switches.
//!
//! ```text
//! manifest of each segment → newer? → missing blocks, by ranges → verified → decoded → model built → switch
//! ```
//! A version is newer if its vector dominates that of the version held, or if it is the same vector in a later epoch. Others are ignored: the
//! reader never goes back. A worker that does not answer, or sends bytes that are not those of the manifest, is passed over for the others.
//! If none is left, the model in use stays.

mod client;
mod failure;
mod file;
mod metrics;
mod pause;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use contract::SegmentId;
use runtime::background;
use segments::{Manifest, decode};
use tokio::time::Instant;

pub use self::metrics::ModelMetrics;
use self::{
    client::{Answer, Ask, WorkerClient},
    failure::{Failure, Reason},
    file::{Held, Unfinished},
    pause::Pause,
};
use crate::{current_model::Model, model_view::ModelView};

/// How often a round begins a segment again because a newer version replaced the one being fetched.
const ATTEMPTS: usize = 3;
/// Builds take at most a tenth of the time: primaries publish at different times, and a build is CPU time of a process that serves requests.
const PAUSE_PER_BUILD: u32 = 9;
/// Workers whose pauses are remembered. Redirects may name further ones than the configured.
const MAX_RESTING: usize = 256;

pub struct SegmentReader {
    client: WorkerClient,
    workers: Vec<String>,
    poll: Duration,
    metrics: ModelMetrics,
    /// By segment.
    slots: Vec<Slot>,
    /// Workers that did not answer.
    resting: HashMap<String, Pause>,
    changed: Changed,
}

struct Slot {
    segment: SegmentId,
    held: Option<Held>,
    /// What was fetched of a version before no worker could give the rest.
    unfinished: Option<Unfinished>,
    /// The worker that answered last.
    source: Option<String>,
    /// When the version held was the newest.
    confirmed: Instant,
    /// After a round in which no worker could give the segment.
    pause: Pause,
}

/// What was fetched since the model in use was built.
#[derive(Default)]
struct Changed {
    segments: Vec<u8>,
    bytes: u64,
}

enum Found {
    /// The version held is the newest that a worker has.
    Same,
    Newer,
    /// A newer version replaced the one being fetched.
    Replaced,
    Nothing,
}

impl SegmentReader {
    /// `workers`: their addresses, `host:port`. `poll`: the time between two rounds of questions.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(workers: Vec<String>, poll: Duration, metrics: ModelMetrics) -> reqwest::Result<Self> {
        let slot = |segment| Slot {
            segment,
            held: None,
            unfinished: None,
            source: None,
            confirmed: Instant::now(),
            pause: Pause::default(),
        };
        let slots = SegmentId::all().map(slot).collect();
        let client = WorkerClient::new()?;
        Ok(Self { client, workers, poll, metrics, slots, resting: HashMap::new(), changed: Changed::default() })
    }

    /// Waits until all 16 segments are here. After each round without them, `waiting` gets the sentence that says what is missing.
    pub async fn first(&mut self, mut waiting: impl FnMut(String)) -> Model {
        loop {
            self.round().await;
            let missing: Vec<String> = self.missing().map(|segment| segment.number().to_string()).collect();
            if !missing.is_empty() {
                waiting(format!("waiting for segments {} from the workers", missing.join(", ")));
            } else if let Some(view) = self.build().await {
                return Model::new(view);
            }
            tokio::time::sleep(self.poll).await;
        }
    }

    /// Keeps the model up to date until the future is dropped.
    pub async fn run(mut self, model: Model) {
        let mut not_before = Instant::now();
        loop {
            tokio::time::sleep(self.poll).await;
            self.round().await;
            let began = Instant::now();
            if !self.changed.segments.is_empty()
                && began >= not_before
                && let Some(view) = self.build().await
            {
                not_before = Instant::now() + began.elapsed() * PAUSE_PER_BUILD;
                self.metrics.switches.inc();
                let before = model.switch(view);
                // Not here: it may take milliseconds, and this thread serves requests.
                drop(tokio::spawn(background::run(move || drop(before))));
            }
        }
    }

    fn missing(&self) -> impl Iterator<Item = SegmentId> {
        self.slots.iter().filter(|slot| slot.held.is_none()).map(|slot| slot.segment)
    }

    async fn round(&mut self) {
        for segment in SegmentId::all() {
            if self.slots[segment.index()].pause.is_over(Instant::now()) {
                self.follow(segment).await;
            }
            let oldest = self.slots.iter().map(|slot| slot.confirmed.elapsed()).max().unwrap_or_default();
            self.metrics.age_seconds.set(oldest.as_secs_f64());
        }
    }

    async fn follow(&mut self, segment: SegmentId) {
        for _ in 0..ATTEMPTS {
            match self.find_newer(segment).await {
                Found::Replaced => {}
                Found::Same | Found::Newer => return self.slots[segment.index()].pause.succeeded(),
                Found::Nothing => break,
            }
        }
        self.slots[segment.index()].pause.failed(Instant::now(), self.poll);
    }

    /// Asks for the primary's version, by way of any worker, and for the copies of the workers if that is of no use.
    async fn find_newer(&mut self, segment: SegmentId) -> Found {
        for ask in [Ask::Primary, Ask::Holder] {
            let mut next: VecDeque<String> = self.slots[segment.index()].source.iter().cloned().collect();
            next.extend(self.workers.iter().cloned());
            // Each worker is asked once. Redirects may lead to others, at most to as many again.
            let (mut asked, most) = (Vec::new(), 2 * next.len());
            while let Some(address) = next.pop_front() {
                if asked.contains(&address) || asked.len() >= most || self.is_resting(&address) {
                    continue;
                }
                asked.push(address.clone());
                let held = self.slots[segment.index()].held.as_ref();
                let answer = self.client.manifest(&address, segment, ask, held).await;
                if answer.is_ok() {
                    self.resting.remove(&address);
                }
                match answer {
                    Ok(Answer::Redirect(primary)) => next.push_front(primary),
                    Ok(Answer::Unchanged) => return self.same(segment, ask, address),
                    Ok(Answer::Manifest(manifest)) => match is_newer(&manifest, held.map(|held| &held.manifest)) {
                        Some(true) => match self.take(segment, manifest, &address).await {
                            Ok(()) => return self.newer(segment, ask, address),
                            Err(Reason::NotFound) if ask == Ask::Primary => return Found::Replaced,
                            Err(_) => {}
                        },
                        Some(false) => return self.same(segment, ask, address),
                        None => tracing::debug!(%segment, address, "the worker has an older version of the segment"),
                    },
                    Err(failure) => self.count(segment, &address, &failure),
                }
            }
        }
        Found::Nothing
    }

    fn same(&mut self, segment: SegmentId, ask: Ask, address: String) -> Found {
        if ask == Ask::Primary {
            self.slots[segment.index()].unfinished = None;
        }
        self.confirm(segment, ask, address);
        Found::Same
    }

    fn newer(&mut self, segment: SegmentId, ask: Ask, address: String) -> Found {
        self.confirm(segment, ask, address);
        Found::Newer
    }

    /// Another holder does not know whether the primary has a newer version.
    fn confirm(&mut self, segment: SegmentId, ask: Ask, address: String) {
        if ask == Ask::Primary {
            let slot = &mut self.slots[segment.index()];
            slot.confirmed = Instant::now();
            slot.source = Some(address);
        }
    }

    /// Fetches what is missing of a version, and holds it from then on. Begins with the worker that has sent the manifest.
    ///
    /// # Errors
    /// No worker could give the rest, or it cannot be read. What was fetched is kept for the next attempt.
    async fn take(&mut self, segment: SegmentId, manifest: Manifest, address: &str) -> Result<(), Reason> {
        let slot = &mut self.slots[segment.index()];
        let file = Unfinished::new(manifest, slot.held.as_ref(), slot.unfinished.take().as_ref());
        let file = self.fetch(segment, file, address).await?;
        let held = self.check(segment, file, address).await?.finish();
        let slot = &mut self.slots[segment.index()];
        // The same bytes in a later epoch are no other model.
        let is_changed = slot.held.as_ref().is_none_or(|before| before.manifest.blocks() != held.manifest.blocks());
        if is_changed && !self.changed.segments.contains(&segment.number()) {
            self.changed.segments.push(segment.number());
        }
        slot.held = Some(held);
        Ok(())
    }

    /// Returns the file when no block is missing.
    async fn fetch(&mut self, segment: SegmentId, mut file: Unfinished, address: &str) -> Result<Unfinished, Reason> {
        let content = file.manifest().content();
        let mut sources = VecDeque::from([address.to_owned()]);
        sources.extend(self.workers.iter().filter(|worker| *worker != address).cloned());
        let mut reason = None;
        while let Some(blocks) = file.next_blocks() {
            let Some(source) = sources.front().cloned() else {
                self.slots[segment.index()].unfinished = Some(file);
                return Err(reason.unwrap_or(Reason::Unavailable));
            };
            if self.is_resting(&source) {
                sources.pop_front();
                continue;
            }
            let put = match self.client.range(&source, segment, &content, file.offsets(&blocks)).await {
                Ok(bytes) => {
                    self.metrics.fetched_bytes.inc_by(bytes.len() as u64);
                    self.changed.bytes += bytes.len() as u64;
                    let put;
                    (file, put) = off_thread(file, move |file| file.put(blocks, &bytes)).await?;
                    put
                }
                Err(failure) => Err(failure),
            };
            if let Err(failure) = put {
                self.count(segment, &source, &failure);
                // That of the worker with the manifest tells whether it has a newer version by now.
                reason.get_or_insert(failure.reason());
                sources.pop_front();
            }
        }
        Ok(file)
    }

    /// Returns the file if it can be read, and is of the version that the manifest states.
    async fn check(&mut self, segment: SegmentId, file: Unfinished, address: &str) -> Result<Unfinished, Reason> {
        let (file, checked) = off_thread(file, move |file| {
            let found = decode(file.bytes(), segment).map_err(|error| error.to_string())?;
            let is_stated = found.version == file.manifest().version().vector;
            is_stated.then_some(()).ok_or_else(|| "the file has another version vector than its manifest".to_owned())
        })
        .await?;
        let Err(why) = checked else { return Ok(file) };
        let failure = Failure::Invalid(why);
        self.count(segment, address, &failure);
        // The next attempt fetches nothing if the manifest is still the same.
        self.slots[segment.index()].unfinished = Some(file);
        Err(failure.reason())
    }

    /// Builds the model of the versions held. `None`: it failed, and the next round tries again.
    async fn build(&mut self) -> Option<ModelView> {
        let files: Vec<(SegmentId, Arc<Vec<u8>>)> =
            self.slots.iter().filter_map(|slot| Some((slot.segment, Arc::clone(&slot.held.as_ref()?.bytes)))).collect();
        let started = Instant::now();
        let built = background::run(move || ModelView::of_files(&files));
        let built = built.await.map_err(|error| error.to_string());
        let built = built.and_then(|built| built.map_err(|error| error.to_string()));
        let view =
            built.inspect_err(|error| tracing::error!(error, "cannot build the model from its segments")).ok()?;
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.build_seconds.observe(seconds);
        self.metrics.version.set(view.version as f64);
        let Changed { segments, bytes } = std::mem::take(&mut self.changed);
        let (version, items) = (view.version, view.neighbours.items().len());
        tracing::info!(version, items, changed = ?segments, bytes, seconds, "model built from segments");
        Some(view)
    }

    fn is_resting(&self, address: &str) -> bool {
        self.resting.get(address).is_some_and(|pause| !pause.is_over(Instant::now()))
    }

    fn count(&mut self, segment: SegmentId, address: &str, failure: &Failure) {
        self.metrics.count(failure.reason());
        tracing::debug!(%segment, address, error = failure as &dyn std::error::Error, "cannot read a segment from a worker");
        if matches!(failure, Failure::NoAnswer(_)) {
            if self.resting.len() >= MAX_RESTING {
                self.resting.clear();
            }
            self.resting.entry(address.to_owned()).or_default().failed(Instant::now(), self.poll);
        }
    }
}

/// Hashes and decodes where no request waits for the thread.
///
/// # Errors
/// `work` panicked, and the file is lost.
async fn off_thread<T: Send + 'static>(
    mut file: Unfinished,
    work: impl FnOnce(&mut Unfinished) -> T + Send + 'static,
) -> Result<(Unfinished, T), Reason> {
    let done = background::run(move || {
        let result = work(&mut file);
        (file, result)
    });
    done.await.map_err(|error| {
        tracing::error!(%error, "cannot verify a segment");
        Reason::Invalid
    })
}

/// `Some(false)`: it is the version held. `None`: it is older, or neither dominates the other.
fn is_newer(manifest: &Manifest, held: Option<&Manifest>) -> Option<bool> {
    let Some(held) = held.map(Manifest::version) else { return Some(true) };
    let found = manifest.version();
    match found.vector.partial_cmp(&held.vector)? {
        std::cmp::Ordering::Greater => Some(true),
        std::cmp::Ordering::Equal if found.epoch >= held.epoch => Some(found.epoch > held.epoch),
        _ => None,
    }
}
