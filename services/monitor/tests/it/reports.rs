//! Reports and polls that are refused, each with a code and a message that says what to do.

use contract::SegmentId;
use heartbeat::{
    auth::{FrameKind, Keys},
    frame::sign_protobuf,
};
use launcher::testing;
use segments::{
    CopyReport, CopyState, Digest, Manifest, Version,
    rpc::{BlockReport, CopyMessage, MAX_MESSAGE_BYTES, ReportedSegment},
};
use tonic::{Code, Status};

use crate::{
    holders::{Care, version},
    support::{Monitors, eventually},
};

fn copy(segment: SegmentId, version: Version) -> CopyReport {
    let bytes = b"a segment";
    let manifest = Manifest::of(segment, version, bytes).unwrap();
    CopyReport {
        current: Some(CopyState { manifest: Some(manifest), blocks: vec![Some(Digest::of(bytes))] }),
        staged: None,
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn bad_reports_and_polls_are_refused_with_a_reason_and_nothing_is_lost() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let monitors = Monitors::start("test-reports", 1).await;
    let worker = monitors.worker("a").await;
    let incarnation = worker.registration.incarnation;
    let is_alone = |status: &monitor::status::Status| status.table.partitions.iter().all(|of| of.primary.is_some());
    let epoch = monitors.until(0, "a has all partitions", is_alone).await.table.epoch;
    let care = Care::new(&monitors, 0, "a", incarnation);
    let (three, four) = (SegmentId::new(3).unwrap(), SegmentId::new(4).unwrap());
    let written = ReportedSegment::new(three, Some(&copy(three, version(epoch, 7))));
    let report = |number: u64, complete: bool, segments: Vec<ReportedSegment>| BlockReport {
        worker: "a".into(),
        incarnation,
        number,
        table_epoch: epoch,
        complete,
        segments,
        finished: Vec::new(),
    };

    // Without the key.
    let forger = Care { keys: Keys::new(b"another key"), ..care.clone() };
    let (code, message) = refused(forger.report(&report(1, true, vec![])).await);
    assert_eq!(code, Code::Unauthenticated);
    assert!(message.contains("node.key"), "{message}");
    assert_eq!(refused(forger.orders(0).await).0, Code::Unauthenticated);

    // Not admitted.
    let strange = BlockReport { worker: "stranger".into(), ..report(1, true, vec![]) };
    let (code, message) = refused(care.report(&strange).await);
    assert_eq!(code, Code::PermissionDenied);
    assert!(message.contains("registers"), "{message}");
    let stranger = Care { id: "stranger".into(), ..care.clone() };
    assert_eq!(refused(stranger.orders(0).await).0, Code::PermissionDenied);
    let earlier = BlockReport { incarnation: incarnation - 1, ..report(1, true, vec![]) };
    // The care of segments follows the table a moment later than the status.
    eventually("the table is known", async || refused(care.report(&earlier).await).0 == Code::FailedPrecondition).await;
    assert!(refused(care.report(&earlier).await).1.contains("send a complete report"));
    let earlier = Care { incarnation: incarnation - 1, ..care.clone() };
    assert_eq!(refused(earlier.orders(0).await).0, Code::FailedPrecondition);

    // Not readable.
    let foreign = ReportedSegment { segment: 4, ..written.clone() };
    let unknown = ReportedSegment { segment: 16, ..written.clone() };
    let of_bytes = |manifest: &[u8], blocks: &[u8]| ReportedSegment {
        current: Some(CopyMessage {
            manifest: manifest.to_vec().into(),
            blocks: blocks.to_vec().into(),
            as_stated: false,
        }),
        ..written.clone()
    };
    for (bad, part) in [
        (foreign, "not to segment 04"),
        (unknown, "no segment 16"),
        (of_bytes(b"wild", b""), "cannot be read"),
        (of_bytes(&[1; 5_000], b""), "cannot be read"),
        (of_bytes(b"", &[1; 33]), "33 bytes"),
    ] {
        let (code, message) = refused(care.report(&report(1, true, vec![bad])).await);
        assert_eq!(code, Code::InvalidArgument, "{message}");
        assert!(message.contains(part), "{message}");
    }

    // Out of order.
    let (code, message) = refused(care.report(&report(1, false, vec![written.clone()])).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("complete report is wanted"), "{message}");
    assert!(care.report(&report(5, true, vec![written.clone()])).await.is_ok());
    let wild = BlockReport { table_epoch: u64::MAX, ..report(6, true, vec![]) };
    assert_eq!(refused(care.report(&wild).await).0, Code::InvalidArgument);
    for late in [report(5, true, vec![]), report(4, false, vec![])] {
        let (code, message) = refused(care.report(&late).await);
        assert_eq!(code, Code::FailedPrecondition);
        assert!(message.contains("after a later one"), "{message}");
    }
    let old = BlockReport { table_epoch: epoch - 1, ..report(6, true, vec![]) };
    let (code, message) = refused(care.report(&old).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("table epoch"), "{message}");

    // Too long.
    let endless = report(6, true, vec![of_bytes(b"", &vec![1; MAX_MESSAGE_BYTES + 4096])]);
    assert_eq!(refused(care.report(&endless).await).0, Code::ResourceExhausted);

    // What was reported is still known, and a change of one segment is taken.
    let segment = monitors.until(0, "it has a version", |status| !status.segments.is_empty()).await.segments.remove(0);
    assert_eq!((segment.segment, segment.version, segment.epoch), (3, 16 * 7, epoch));
    assert_eq!((segment.good, segment.holders), (1, 1));
    let of_four = ReportedSegment::new(four, Some(&copy(four, version(epoch, 8))));
    care.report(&report(6, false, vec![of_four])).await.unwrap();
    monitors.until(0, "both are known", |status| status.segments.len() == 2).await;

    // One poll at a time.
    let older = tokio::spawn({
        let care = care.clone();
        async move { care.orders(10_000).await }
    });
    let mut newer = care.orders(0).await;
    eventually("the newer poll replaces the older one", async || {
        newer = care.orders(0).await;
        older.is_finished()
    })
    .await;
    assert_eq!(refused(older.await.unwrap()).0, Code::Aborted);
    let newer = newer.unwrap();
    assert!(newer.orders.is_empty());

    for (outcome, at_least) in
        [("accepted", 2), ("unauthenticated", 1), ("invalid", 6), ("not_admitted", 2), ("late", 3), ("incomplete", 1)]
    {
        let prefix = format!("testbed_segment_reports_total{{outcome=\"{outcome}\"}} ");
        let metrics = monitors.metrics(0).await;
        let line = metrics.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
        assert!(line.parse::<u64>().unwrap() >= at_least, "{prefix}{line}");
    }
    // A frame of another kind is no report.
    let mut frame = Vec::new();
    sign_protobuf(&care.keys, FrameKind::OrdersWanted, &report(9, true, vec![]), &mut frame);
    assert_eq!(refused(care.send(frame).await).0, Code::Unauthenticated);
    monitors.stop().await;
}
