//! The segments of real workers: folded, published, reported and served, with monitors that the test controls and a real store.

mod http;
mod orders;

use std::{collections::BTreeMap, fs, path::PathBuf};

use contract::{Event, EventKind, SegmentId, VersionVector, shard_of};
use heartbeat::registry::Registration;
use model::{Dataset, Fold, GenerateParams};
use prometheus::Registry;
use runtime::telemetry::Span;
use segments::{Found, Manifest, SegmentDirectory, encode, rpc::OrderMessage};
use stores::{ImportEvent, Store, StoreMetrics};
use tempfile::TempDir;

use crate::{
    care::Care,
    monitor::Monitor,
    relay::{BLACK_HOLES, until},
    support::{Stores, Worker, configure},
};

const ALL: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// No complete report and no second pass of the scrubber during a test: what is reported is reported because it changed.
const A_DAY_MS: u64 = 86_400_000;

/// A store with a log, and a monitor.
struct World {
    stores: Stores,
    monitor: Monitor,
    care: Care,
    /// The log, also while the worker cannot reach it.
    store: Store,
    root: TempDir,
    imported: u64,
}

impl World {
    /// One server. `None`: it is not installed, and the test counts as skipped.
    async fn start() -> Option<Self> {
        Self::with_servers(1).await
    }

    async fn with_servers(count: usize) -> Option<Self> {
        let stores = Stores::start(count).await?;
        let store = Store::new(stores.direct.clone(), &StoreMetrics::new(&Registry::new()).unwrap()).unwrap();
        let params = GenerateParams { users: 60, items: 300, clusters: 5, ..GenerateParams::default() };
        let imported = import(&store, &model::generate(&params).unwrap()).await;
        let (monitor, care) = (Monitor::start().await, Care::start().await);
        Some(Self { stores, monitor, care, store, root: TempDir::new().unwrap(), imported })
    }

    fn path(&self, worker: &str) -> PathBuf {
        self.root.path().join(worker)
    }

    fn directory(&self, worker: &str) -> SegmentDirectory {
        SegmentDirectory::of_another(self.path(worker))
    }

    fn worker(&self, id: &str, report_every_ms: u64) -> Worker {
        let mut config = configure(id, &self.monitor, &self.stores.config);
        config.monitors.get_mut("m0").unwrap().rpc = self.care.address.to_string();
        config.segments.dir = self.path(id).display().to_string();
        (config.segments.poll_ms, config.segments.publish_every_ms) = (10, 10);
        (config.segments.report_every_ms, config.segments.scrub_bytes_per_s) = (report_every_ms, 1 << 40);
        Worker::serve(config)
    }

    /// A worker that is the primary of these segments.
    async fn primary(&self, id: &str, partitions: &[usize], report_every_ms: u64) -> Worker {
        let worker = self.worker(id, report_every_ms);
        self.admit(id, partitions).await;
        worker
    }

    async fn admit(&self, id: &str, partitions: &[usize]) {
        until("admitted", async || self.monitor.admit(id, partitions)).await;
    }

    /// A worker of this name that does not run becomes the primary. Returns its address.
    fn give_to_another(&self, id: &str, partitions: &[usize]) -> String {
        let http = "127.0.0.1:9".to_owned();
        let node = Registration {
            id: id.into(),
            incarnation: 1,
            process: 1,
            http: http.clone(),
            udp: http.clone(),
            leaving: false,
        };
        self.monitor.register(node);
        self.monitor.assign(id, partitions);
        http
    }

    /// Manifests of the complete copies that the monitor knows.
    fn complete(&self, worker: &str) -> BTreeMap<SegmentId, Manifest> {
        let copies = self.care.copies(worker);
        let complete = copies.into_iter().filter_map(|(segment, copy)| {
            let current = copy.current?;
            let manifest = current.manifest.clone()?;
            current.is_complete(&manifest).then_some((segment, manifest))
        });
        complete.collect()
    }

    async fn fold(&self, until: Option<VersionVector>) -> Fold {
        let all: Vec<SegmentId> = SegmentId::all().collect();
        lists::fold_log(&self.store, &all, until).await.unwrap()
    }

    /// Waits until the monitor knows complete copies of these segments that have all events of the logs.
    async fn reported(&self, worker: &str, segments: &[usize]) {
        let ends = *self.fold(None).await.version();
        until("reported", async || {
            let known = self.complete(worker);
            let is_there = |number: &usize| {
                let manifest = known.get(&segment(*number));
                manifest.is_some_and(|manifest| manifest.version().vector == ends)
            };
            segments.iter().all(is_there)
        })
        .await;
    }

    async fn append(&self, user: &str, item: &str, at_ms: i64) {
        let (user_id, item_id) = (user.parse().unwrap(), item.parse().unwrap());
        let event = Event { user_id, item_id, kind: EventKind::View, at_ms, weight: 1.0 };
        self.store.append(&[event], at_ms, &Span::NONE).await.unwrap();
    }

    /// Every file that the worker serves is the fold of the logs at the version that its manifest states.
    async fn serves_the_fold(&self, worker: &Worker) {
        for of in SegmentId::all() {
            let (manifest, bytes) = fetch(worker, of).await;
            let fold = self.fold(Some(manifest.version().vector)).await;
            assert!(bytes == encode(&fold.publish(of).unwrap()), "segment {of}");
        }
    }

    async fn stop(self) {
        self.stores.stop().await;
    }
}

async fn import(store: &Store, data: &Dataset) -> u64 {
    let row = |event: &model::Interaction| ImportEvent {
        user_id: &data.users[event.user as usize],
        item_id: &data.items[event.item as usize],
        kind: event.kind,
        at_ms: event.at_ms,
        weight: event.weight,
    };
    store.import(data.events.iter().map(row).collect(), |_| ()).await.unwrap().added
}

fn segment(number: usize) -> SegmentId {
    SegmentId::all().nth(number).unwrap()
}

/// Manifest and file over HTTP.
async fn fetch(worker: &Worker, of: SegmentId) -> (Manifest, Vec<u8>) {
    let number = of.number();
    let response = worker.get(&format!("/segments/{number}/manifest"), &[]).await;
    assert_eq!(response.status(), 200);
    let manifest = Manifest::decode(&response.bytes().await.unwrap(), of).unwrap();
    let range = format!("bytes=0-{}", manifest.length() - 1);
    let path = format!("/segments/{number}/blocks/{}", manifest.content());
    let response = worker.get(&path, &[("range", &range)]).await;
    assert_eq!(response.status(), 206);
    (manifest, response.bytes().await.unwrap().to_vec())
}

fn folded(worker: &Worker) -> impl Future<Output = Option<f64>> {
    worker.metric("testbed_worker_segment_events_folded_total")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_publishes_the_fold_and_no_complete_report_lacks_a_copy_that_is_on_the_disk() {
    let Some(world) = World::start().await else { return };
    world.care.refuse(true);
    let worker = world.primary("w", &ALL, 200).await;
    let are_published = async |events: u64| {
        for number in 0..16 {
            let sum = worker.metric(&format!("testbed_worker_segment_version{{segment=\"{number}\"}}")).await;
            if sum != Some(events as f64) {
                return false;
            }
        }
        true
    };
    until("published", async || are_published(world.imported).await).await;
    // The second publication begins after the first one has ended.
    world.append("new", "i-new", 1_900_000_000_000).await;
    until("published again", async || are_published(world.imported + 1).await).await;
    until("a report is refused", async || world.care.refused() > 0).await;
    world.care.refuse(false);
    until("accepted", async || !world.care.accepted().is_empty()).await;
    let first = world.care.accepted().swap_remove(0);
    assert_eq!((first.complete, first.copies.len()), (true, 16));
    world.reported("w", &ALL).await;
    assert_eq!(folded(&worker).await, Some((world.imported + 1) as f64), "no event is folded twice");
    world.serves_the_fold(&worker).await;
    let before = world.complete("w");

    worker.stop().await;
    let heard = world.care.accepted().len();
    let worker = world.worker("w", 200);
    let complete = || {
        let new = world.care.accepted().split_off(heard);
        new.into_iter().filter(|report| report.complete).collect::<Vec<_>>()
    };
    until("reports before it is admitted", async || complete().len() >= 2).await;
    assert_eq!(world.complete("w"), before);
    world.admit("w", &[]).await;
    world.append("newer", "i-new", 1_900_000_000_000).await;
    world.reported("w", &ALL).await;
    let seen = complete().len();
    until("further reports", async || complete().len() > seen + 1).await;
    for report in complete() {
        let there = report.copies.values().flatten().filter(|copy| copy.current.is_some()).count();
        assert_eq!(there, 16, "report {}", report.number);
    }
    world.serves_the_fold(&worker).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fold_goes_on_after_the_store_was_down_and_no_version_goes_back() {
    let Some(world) = World::start().await else { return };
    let worker = world.primary("w", &ALL, A_DAY_MS).await;
    world.reported("w", &ALL).await;
    for (n, fault) in BLACK_HOLES.into_iter().enumerate() {
        world.stores.relays[0].vanish(fault).await;
        let is_served = || world.monitor.report("w").is_some_and(|report| report.serving != 0);
        until("the partitions are not served", async || !is_served()).await;
        // Any holder serves what it has.
        let (manifest, _) = fetch(&worker, segment(2)).await;
        assert_eq!(manifest, world.complete("w")[&segment(2)]);
        world.stores.relays[0].come_back().await;
        world.append("late", &format!("i-late{n}"), 1_900_000_000_000 + n as i64).await;
        world.reported("w", &ALL).await;
        assert_eq!(folded(&worker).await, Some((world.imported + n as u64 + 1) as f64), "no event is folded again");
    }
    world.serves_the_fold(&worker).await;
    let mut newest = BTreeMap::new();
    for report in world.care.accepted() {
        for (of, copy) in report.copies {
            let vector = copy.unwrap().current.unwrap().manifest.unwrap().version().vector;
            let before = newest.insert(of, vector);
            assert!(before.is_none_or(|before| before <= vector), "segment {of} goes back");
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_has_is_published_while_another_one_is_down() {
    let Some(world) = World::with_servers(2).await else { return };
    let worker = world.primary("w", &ALL, A_DAY_MS).await;
    world.reported("w", &ALL).await;
    world.stores.relays[1].vanish(BLACK_HOLES[0]).await;
    let even = ALL.map(|number| number & !1);
    until("the partitions of one server are served", async || {
        world.monitor.report("w").is_some_and(|report| report.serving == 0x5555)
    })
    .await;
    let user = (0..).map(|n| format!("late{n}")).find(|user| shard_of(user).index() == 0).unwrap();
    world.append(&user, "i-late", 1_900_000_000_000).await;
    world.reported("w", &even).await;
    world.stores.relays[1].come_back().await;
    // Without a further event.
    world.reported("w", &ALL).await;
    assert_eq!(folded(&worker).await, Some((world.imported + 1) as f64), "no event is folded again");
    world.serves_the_fold(&worker).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_comes_back_after_its_copy_was_removed_is_published_again() {
    let Some(world) = World::start().await else { return };
    let worker = world.primary("w", &ALL, A_DAY_MS).await;
    world.reported("w", &ALL).await;
    world.give_to_another("v", &[3]);
    let primaries = || worker.metric("testbed_worker_segments_primary");
    until("it has lost one", async || primaries().await == Some(15.0)).await;
    world.care.order("w", [OrderMessage { id: 1, segment: 3, removes: true, ..OrderMessage::default() }]);
    assert_eq!(world.care.ended(1).await.error, "");
    assert!(matches!(world.directory("w").find(segment(3)), Ok(Found::Nothing)));
    world.monitor.assign("w", &[3]);
    // Without a new event.
    world.reported("w", &ALL).await;
    assert_eq!(world.complete("w")[&segment(3)].version().epoch, world.monitor.table().epoch);
    world.serves_the_fold(&worker).await;
    world.stop().await;
}

/// Changes one byte of a file of the worker.
fn flip(path: &std::path::Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}
