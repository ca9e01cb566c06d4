//! Orders of the monitor.

use std::{fs, os::unix::fs::MetadataExt, sync::atomic::Ordering};

use bytes::Bytes;
use contract::ShardId;
use segments::{
    Digest, Version,
    rpc::{Finished, Order, OrderId, Step, TransferMessage},
};

use super::*;
use crate::segment_server::{Fault, SegmentServer};

fn transfer(id: OrderId, of: SegmentId, manifest: &Manifest, address: &str) -> OrderMessage {
    let step = Step::Transfer {
        version: manifest.version(),
        content: manifest.content(),
        from: "source".into(),
        address: address.to_owned(),
        manifest: true,
        blocks: (0..manifest.blocks().len() as u32).collect(),
    };
    OrderMessage::from(&Order { id, segment: of, step, traceparent: None })
}

fn rebuild(id: OrderId, of: SegmentId, version: Version) -> OrderMessage {
    OrderMessage::from(&Order { id, segment: of, step: Step::Rebuild { version }, traceparent: None })
}

fn remove(id: OrderId, of: SegmentId) -> OrderMessage {
    OrderMessage::from(&Order { id, segment: of, step: Step::Remove, traceparent: None })
}

/// Orders that were carried out, and that failed.
async fn counted(worker: &Worker) -> [Option<f64>; 2] {
    let of =
        async |outcome| worker.metric(&format!("testbed_worker_segment_orders_total{{outcome=\"{outcome}\"}}")).await;
    [of("done").await, of("failed").await]
}

#[track_caller]
fn failed_with(ended: &Finished, reason: &str) {
    assert!(ended.error.contains(reason), "{:?} instead of {reason:?}", ended.error);
}

fn found(directory: &SegmentDirectory, of: SegmentId) -> Option<(Version, Vec<u8>)> {
    match directory.find(of).unwrap() {
        Found::Version(file) => Some((file.manifest().version(), file.all().unwrap())),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_takes_the_right_bytes_only_and_only_once() {
    let Some(world) = World::start().await else { return };
    let source = SegmentServer::start().await;
    let fold = world.fold(None).await;
    source.worker.publish_all(&fold, 1);
    let worker = world.primary("w", &[0], A_DAY_MS).await;
    world.reported("w", &[0]).await;
    let (three, directory) = (segment(3), world.directory("w"));
    let bytes = encode(&fold.publish(three).unwrap());
    let version = Version { epoch: 1, vector: *fold.version() };
    let manifest = Manifest::of(three, version, &bytes).unwrap();
    let ranges = || source.worker.ranges.load(Ordering::SeqCst);

    for (id, fault, reason) in [(1, Fault::NotASegment, "manifest"), (2, Fault::Unavailable, "answered 503")] {
        source.fault(fault);
        world.care.order("w", [transfer(id, three, &manifest, &source.address)]);
        failed_with(&world.care.ended(id).await, reason);
        assert_eq!(directory.report(three).unwrap(), None, "nothing of it is on the disk");
    }
    for (id, fault, reason) in [
        (3, Fault::WrongByte, "a block of segment 03 from"),
        (4, Fault::TooShort, " bytes"),
        (5, Fault::DamagedBlock, "answered 503"),
    ] {
        source.fault(fault);
        world.care.order("w", [transfer(id, three, &manifest, &source.address)]);
        failed_with(&world.care.ended(id).await, reason);
        let copy = directory.report(three).unwrap().unwrap();
        let staged = copy.staged.unwrap();
        assert_eq!(copy.current, None);
        assert!(
            staged.is_of(&manifest) && (0..).zip(manifest.blocks()).all(|(block, _)| !staged.has(&manifest, block))
        );
    }
    // Nobody listens there.
    world.care.order("w", [transfer(6, three, &manifest, "127.0.0.1:9")]);
    failed_with(&world.care.ended(6).await, "the source does not answer");

    source.fault(Fault::None);
    let right = transfer(7, three, &manifest, &source.address);
    world.care.order("w", [right.clone()]);
    // Its manifest came with an order before.
    let done = Finished { order: 7, error: String::new(), bytes: manifest.length() };
    assert_eq!(world.care.ended(7).await, done);
    assert_eq!(found(&directory, three), Some((version, bytes.clone())));
    let copies = world.complete("w");
    assert_eq!(copies.get(&three), Some(&manifest), "reported with the order's end");

    let moved = ranges();
    world.care.order("w", [right, transfer(8, three, &manifest, &source.address)]);
    assert_eq!(world.care.ended(8).await, Finished { order: 8, ..Finished::default() });
    assert_eq!(ranges(), moved);
    assert_eq!(counted(&worker).await, [Some(2.0), Some(6.0)], "the order that was handed out twice counts once");
    assert_eq!(worker.metric("testbed_worker_segments_primary").await, Some(1.0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_folds_exactly_the_version_of_the_order_and_once() {
    let Some(world) = World::start().await else { return };
    let worker = world.primary("w", &[0], A_DAY_MS).await;
    world.reported("w", &[0]).await;
    let (six, directory) = (segment(6), world.directory("w"));
    let ends = *world.fold(None).await.version();
    let vector = VersionVector::new(ends.positions().map(|position| position / 2));
    let version = Version { epoch: 1, vector };
    let expected = encode(&world.fold(Some(vector)).await.publish(six).unwrap());
    world.care.order("w", [rebuild(1, six, version)]);
    assert_eq!(world.care.ended(1).await.error, "");
    assert_eq!(found(&directory, six), Some((version, expected.clone())));
    // A file that is written again is another file.
    let inode = || fs::metadata(world.path("w").join("segment-06.manifest")).unwrap().ino();
    let before = inode();
    world.care.order("w", [rebuild(1, six, version), rebuild(2, six, version)]);
    assert_eq!(world.care.ended(2).await.error, "");
    assert_eq!((inode(), found(&directory, six)), (before, Some((version, expected.clone()))));
    assert_eq!(counted(&worker).await, [Some(2.0), Some(0.0)]);

    // Damage: the same version is folded again.
    flip(&world.path("w").join(world.complete("w")[&six].file_name()), 5);
    world.care.order("w", [rebuild(3, six, version)]);
    assert_eq!(world.care.ended(3).await.error, "");
    assert_eq!(found(&directory, six), Some((version, expected)));

    let mut beyond = ends;
    let log = ShardId::all().next().unwrap();
    beyond.set(log, ends.position(log) + 1);
    world.care.order("w", [rebuild(4, six, Version { epoch: 1, vector: beyond })]);
    failed_with(&world.care.ended(4).await, "the log of shard 0 has arrival numbers up to");
    assert_eq!(found(&directory, six).unwrap().0, version, "what was there is still there");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_must_not_or_cannot_be_carried_out_are_reported_as_failed() {
    let Some(world) = World::start().await else { return };
    let worker = world.primary("w", &[0, 1], A_DAY_MS).await;
    world.reported("w", &[0, 1]).await;
    let before = world.complete("w");
    world.care.order("w", [remove(1, segment(0))]);
    let detail = format!("this worker holds segment 00 in epoch {}", world.monitor.table().epoch);
    assert_eq!(world.care.ended(1).await.error, detail);
    let empty = OrderMessage { id: 2, segment: 0, ..OrderMessage::default() };
    let foreign = OrderMessage { id: 3, segment: 16, removes: true, ..OrderMessage::default() };
    let version = Version { epoch: 1, vector: VersionVector::default() };
    let both = OrderMessage { transfer: Some(TransferMessage::default()), ..rebuild(4, segment(0), version) };
    let of_another_length =
        TransferMessage { content: Bytes::from_static(b"short"), version: Some(version.into()), ..Default::default() };
    let wrong = OrderMessage { id: 5, segment: 0, transfer: Some(of_another_length), ..OrderMessage::default() };
    world.care.order("w", [empty, foreign, both, wrong]);
    for (id, detail) in [
        (2, "the order 2 does not say what to do"),
        (3, "there is no segment 16"),
        (4, "the order 4 does not say what to do"),
        (5, "a content has 5 bytes instead of 32"),
    ] {
        assert_eq!(world.care.ended(id).await.error, detail);
    }
    // More blocks than the version has, and a block of which only the manifest is there.
    let manifest = &before[&segment(0)];
    let other = Manifest::of(segment(0), manifest.version(), b"other bytes").unwrap();
    assert_ne!(Digest::of(b"other bytes"), manifest.content());
    let message = transfer(6, segment(0), &other, &worker.http.to_string());
    world.care.order("w", [message]);
    failed_with(&world.care.ended(6).await, "answered 404");
    assert_eq!((world.complete("w"), counted(&worker).await), (before, [Some(0.0), Some(6.0)]));

    // It holds this one no more.
    world.give_to_another("v", &[1]);
    until("it has lost one", async || worker.metric("testbed_worker_segments_primary").await == Some(1.0)).await;
    world.care.order("w", [remove(7, segment(1))]);
    assert_eq!(world.care.ended(7).await.error, "");
    assert_eq!(world.directory("w").report(segment(1)).unwrap(), None);
    assert_eq!(world.complete("w").into_keys().collect::<Vec<_>>(), [segment(0)]);
    world.stop().await;
}
