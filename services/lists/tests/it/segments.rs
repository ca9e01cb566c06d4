//! The model from segments, by real HTTP servers with faults: it is never a wrong one, and it switches as soon as a version is complete.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use contract::{SegmentId, VersionVector};
use lists::{Model, ModelMetrics, ModelView, SegmentReader};
use model::{NeighbourModel, PublishedSegment};
use prometheus::Registry;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::segment_server::{Fault, Folded, SegmentServer};

const POLL: Duration = Duration::from_millis(10);

struct Following {
    model: Model,
    registry: Registry,
    task: JoinHandle<()>,
}

impl Following {
    async fn start(servers: &[&SegmentServer]) -> Self {
        let addresses = servers.iter().map(|server| server.address.clone()).collect();
        let (mut reader, registry) = reader(addresses);
        let model = reader.first(|_waiting| {}).await;
        let task = tokio::spawn(reader.run(model.clone()));
        Self { model, registry, task }
    }

    /// Value of the series, or sum over its labels.
    fn metric(&self, name: &str) -> f64 {
        metric(&self.registry, name, None)
    }

    fn failures(&self, reason: &str) -> f64 {
        metric(&self.registry, "model_fetch_failures_total", Some(reason))
    }

    async fn shows(&self, expected: &Folded) {
        let expected = view(expected);
        wait_until("the model is the fold", || self.model.current().version == expected.version).await;
        assert!(self.model.current().neighbours == expected.neighbours);
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn reader(workers: Vec<String>) -> (SegmentReader, Registry) {
    let registry = Registry::new();
    (SegmentReader::new(workers, POLL, ModelMetrics::new(&registry).unwrap()).unwrap(), registry)
}

fn metric(registry: &Registry, name: &str, label: Option<&str>) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    let wanted = |metric: &&prometheus::proto::Metric| {
        label.is_none_or(|label| metric.get_label().iter().any(|pair| pair.value() == label))
    };
    family.get_metric().iter().filter(wanted).map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum()
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn view(folded: &Folded) -> ModelView {
    ModelView::of_segments(&folded.published().into_values().collect::<Vec<_>>())
}

/// All events but the last 300, in epoch 1.
async fn primary() -> (SegmentServer, Folded) {
    let (server, mut folded) = (SegmentServer::start().await, Folded::generate());
    folded.add_all_but(300);
    server.worker.publish_all(&folded.fold, 1);
    (server, folded)
}

#[tokio::test]
async fn the_first_model_waits_for_all_segments_and_later_versions_replace_it() {
    let (server, mut folded) = (SegmentServer::start().await, Folded::generate());
    folded.add_all_but(300);
    let mut late = Vec::new();
    for (segment, published) in folded.published() {
        if [3, 7].contains(&segment.number()) { late.push(published) } else { server.worker.publish(&published, 1) }
    }
    let (mut reader, registry) = reader(vec![server.address.clone()]);
    let mut heard = Vec::new();
    let worker = Arc::clone(&server.worker);
    let model = reader
        .first(|waiting| {
            heard.push(waiting);
            late.drain(..).for_each(|published| worker.publish(&published, 1));
        })
        .await;
    assert_eq!(heard[0], "waiting for segments 3, 7 from the workers");
    assert!(model.current().neighbours == view(&folded).neighbours);
    assert_eq!(metric(&registry, "model_version", None), view(&folded).version as f64);
    let following = Following { task: tokio::spawn(reader.run(model.clone())), model, registry };
    let before = following.model.current();
    for _ in 0..3 {
        folded.add(100);
        server.worker.publish_all(&folded.fold, 1);
        following.shows(&folded).await;
    }
    assert!(before.version < following.model.current().version);
    assert!(before.neighbours.items().len() > 100, "a request keeps the version that it began with");
    assert!(following.metric("model_switches_total") >= 3.0);
    for reason in ["damaged", "invalid", "unavailable"] {
        assert_eq!(following.failures(reason), 0.0, "{reason}");
    }
}

#[tokio::test]
async fn segments_without_rows_are_a_model() {
    let (server, folded) = (SegmentServer::start().await, Folded::generate());
    server.worker.publish_all(&folded.fold, 1);
    let following = Following::start(&[&server]).await;
    let view = following.model.current();
    assert_eq!((view.version, view.neighbours.items().len(), view.neighbours.popular().len()), (0, 0, 0));
}

#[tokio::test]
async fn what_is_not_newer_is_ignored_and_a_later_epoch_is_no_switch() {
    let (server, mut folded) = primary().await;
    let following = Following::start(&[&server]).await;
    let fetched = following.metric("model_fetch_bytes_total");
    let unchanged = |server: &SegmentServer| server.worker.unchanged.load(Ordering::SeqCst);
    wait_until("two rounds without news", || unchanged(&server) > 32).await;
    server.worker.publish_all(&folded.fold, 2);
    let seen = unchanged(&server);
    wait_until("the later epoch is held", || unchanged(&server) > seen + 32).await;
    // A worker that has lost its newest version, and one whose version is incomparable.
    let (older, mut incomparable) = (Folded::generate(), folded.published());
    let stale = SegmentServer::start().await;
    stale.worker.publish_all(&older.fold, 9);
    for published in incomparable.values_mut() {
        let mut positions = *published.version.positions();
        (positions[0], positions[1]) = (0, positions[1] + 1_000_000);
        published.version = VersionVector::new(positions);
    }
    let strange = SegmentServer::start().await;
    incomparable.values().for_each(|published| strange.worker.publish(published, 9));
    for other in [&stale, &strange] {
        server.redirects_to(other);
        let asked = other.worker.manifests.load(Ordering::SeqCst);
        wait_until("asked", || other.worker.manifests.load(Ordering::SeqCst) > asked + 32).await;
    }
    assert_eq!(following.metric("model_fetch_bytes_total"), fetched, "no block was fetched again");
    assert_eq!(following.metric("model_switches_total"), 0.0);
    following.shows(&folded).await;
    // The primary is back.
    *server.worker.primary.lock().unwrap() = None;
    folded.add(100);
    server.worker.publish_all(&folded.fold, 2);
    following.shows(&folded).await;
}

#[tokio::test]
async fn a_redirect_leads_to_the_primary_and_a_dead_primary_to_the_other_copies() {
    let (primary, mut folded) = primary().await;
    let other = SegmentServer::start().await;
    other.redirects_to(&primary);
    other.worker.publish_all(&folded.fold, 1);
    // Only the other worker is configured.
    let following = Following::start(&[&other]).await;
    folded.add(100);
    primary.worker.publish_all(&folded.fold, 1);
    following.shows(&folded).await;
    drop(primary);
    folded.add(100);
    other.worker.publish_all(&folded.fold, 1);
    following.shows(&folded).await;
}

/// Each of these faults of the primary costs an attempt, and another holder gives the blocks.
#[tokio::test]
async fn bad_answers_are_refused_and_other_holders_asked() {
    let faults = [
        (Fault::DamagedBlock, "damaged"),
        (Fault::WrongByte, "damaged"),
        (Fault::Truncated, "unavailable"),
        (Fault::TooShort, "invalid"),
        (Fault::Unavailable, "unavailable"),
        (Fault::NotASegment, "invalid"),
        (Fault::Hangs, "unavailable"),
    ];
    for (fault, reason) in faults {
        let (primary, mut folded) = primary().await;
        let replica = SegmentServer::start().await;
        replica.redirects_to(&primary);
        replica.worker.publish_all(&folded.fold, 1);
        let following = Following::start(&[&primary, &replica]).await;
        primary.fault(fault);
        folded.add(100);
        for server in [&primary, &replica] {
            server.worker.publish_all(&folded.fold, 1);
        }
        following.shows(&folded).await;
        assert!(following.failures(reason) > 0.0, "{fault:?}");
        // The first model of a process, too.
        let second = Following::start(&[&primary, &replica]).await;
        second.shows(&folded).await;
    }
}

#[tokio::test]
async fn without_a_good_copy_the_model_in_use_stays_until_there_is_one() {
    let (server, mut folded) = primary().await;
    let following = Following::start(&[&server]).await;
    let before = following.model.current();
    folded.add(100);
    for fault in [Fault::WrongByte, Fault::DamagedBlock] {
        let failed = following.failures("damaged");
        server.fault(fault);
        server.worker.publish_all(&folded.fold, 1);
        wait_until("refused", || following.failures("damaged") > failed + 3.0).await;
        assert_eq!(following.model.current().version, before.version);
    }
    assert!(following.model.current().neighbours == before.neighbours);
    server.fault(Fault::None);
    following.shows(&folded).await;
}

#[tokio::test]
async fn a_version_that_is_replaced_while_it_is_fetched_costs_an_attempt() {
    let (server, mut folded) = primary().await;
    let following = Following::start(&[&server]).await;
    folded.add(100);
    let middle = folded.published();
    folded.add(100);
    let (first, last) = (SegmentId::new(0).unwrap(), folded.published());
    let newer = last[&first].clone();
    *server.worker.before_range.lock().unwrap() = Some(Box::new(move |worker| worker.publish(&newer, 1)));
    server.worker.publish(&middle[&first], 1);
    wait_until("the version is gone", || following.failures("not_found") > 0.0).await;
    last.values().skip(1).for_each(|published| server.worker.publish(published, 1));
    following.shows(&folded).await;
}

/// The file says another version vector than its manifest: both have right digests.
#[tokio::test]
async fn a_file_that_is_not_of_the_manifest_s_version_is_refused() {
    let (server, mut folded) = primary().await;
    let following = Following::start(&[&server]).await;
    let before = following.model.current().version;
    let segment = SegmentId::new(5).unwrap();
    folded.add(50);
    let old = folded.fold.publish(segment).unwrap();
    folded.add(50);
    let vector = *folded.fold.version();
    server.worker.publish_as(&old, segments::Version { epoch: 1, vector });
    wait_until("refused", || following.failures("invalid") > 0.0).await;
    let ranges = server.worker.ranges.load(Ordering::SeqCst);
    wait_until("refused again", || following.failures("invalid") > 2.0).await;
    assert_eq!(server.worker.ranges.load(Ordering::SeqCst), ranges, "what is known to be wrong is not fetched again");
    assert_eq!(following.model.current().version, before);
}

/// Versions are published segment by segment, while readers use the model: each one that they see is that of its segments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_one_version_each_while_it_is_switched() {
    let (server, mut folded) = primary().await;
    let following = Following::start(&[&server]).await;
    let mut segments: Vec<PublishedSegment> = folded.published().into_values().collect();
    let mut expected = vec![ModelView::of_segments(&segments)];
    // The reader ends when the test has dropped this, also by a panic.
    let reading = Arc::new(());
    let (model, wanted) = (following.model.clone(), Arc::clone(&reading));
    let seen = tokio::task::spawn_blocking(move || {
        let mut seen: Vec<Arc<ModelView>> = Vec::new();
        while Arc::strong_count(&wanted) > 1 {
            let view = model.current();
            if seen.last().is_none_or(|last| !Arc::ptr_eq(last, &view)) {
                seen.push(view);
            }
        }
        seen
    });
    folded.add(100);
    for (segment, published) in folded.published() {
        segments[segment.index()] = published.clone();
        expected.push(ModelView::of_segments(&segments));
        server.worker.publish(&published, 1);
        let version = expected.last().unwrap().version;
        wait_until("switched", || following.model.current().version == version).await;
    }
    drop(reading);
    let seen = seen.await.unwrap();
    assert!(seen.len() > 3, "{} versions", seen.len());
    for view in &seen {
        let expected: &NeighbourModel =
            &expected.iter().find(|expected| expected.version == view.version).unwrap().neighbours;
        assert!(view.neighbours == *expected);
    }
    assert!(seen.is_sorted_by_key(|view| view.version), "it never goes back");
}

#[tokio::test]
async fn a_worker_that_does_not_listen_is_passed_over() {
    let (server, folded) = primary().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let (mut reader, registry) = reader(vec![dead, server.address.clone()]);
    let model = reader.first(|_waiting| {}).await;
    assert!(model.current().neighbours == view(&folded).neighbours);
    assert!(metric(&registry, "model_fetch_failures_total", Some("unavailable")) > 0.0);
}
