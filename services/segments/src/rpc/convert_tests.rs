use prost::Message;

use super::*;
use crate::{
    manifest::{BLOCK_BYTES, encoded_bytes},
    rpc::LARGEST_REPORT_BYTES,
};

fn segment_3() -> SegmentId {
    SegmentId::new(3).unwrap()
}

fn state(bytes: &[u8]) -> CopyState {
    let version = Version { epoch: 4, vector: VersionVector::new([9; 16]) };
    let manifest = Manifest::of(segment_3(), version, bytes).unwrap();
    CopyState { blocks: vec![Some(Digest::of(bytes)), None], manifest: Some(manifest) }
}

fn complete(bytes: &[u8]) -> CopyState {
    CopyState { blocks: vec![Some(Digest::of(bytes))], ..state(bytes) }
}

fn report(segments: Vec<ReportedSegment>) -> BlockReport {
    BlockReport { worker: "w".into(), incarnation: 7, number: 2, table_epoch: 5, segments, ..BlockReport::default() }
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let no_manifest = CopyState { manifest: None, ..state(b"one") };
    let copies = [
        CopyReport { current: Some(state(b"one")), staged: None },
        CopyReport { current: Some(no_manifest), staged: Some(state(b"two")) },
        CopyReport { current: None, staged: Some(state(b"two")) },
        CopyReport { current: Some(complete(b"one")), staged: Some(complete(b"two")) },
        CopyReport {
            current: Some(CopyState { blocks: vec![Some(Digest::of(b"two"))], ..state(b"one") }),
            staged: None,
        },
        CopyReport { current: Some(CopyState { blocks: Vec::new(), ..state(b"one") }), staged: None },
    ];
    for copy in copies.iter().map(Some).chain([None]) {
        let read = ReadReport::try_from(report(vec![ReportedSegment::new(segment_3(), copy)])).unwrap();
        assert_eq!((&*read.worker, read.incarnation, read.number, read.table_epoch), ("w", 7, 2, 5));
        assert_eq!(read.copies, BTreeMap::from([(segment_3(), copy.cloned())]));
    }
}

#[test]
fn digests_are_sent_once_if_the_blocks_are_those_of_the_manifest() {
    let (good, damaged) = (CopyMessage::from(&complete(b"one")), CopyMessage::from(&state(b"one")));
    assert!(good.as_stated && good.blocks.is_empty());
    assert!(!damaged.as_stated && damaged.blocks.len() == 2 * Digest::BYTES);
}

#[test]
fn a_report_of_16_segments_of_64_mib_all_damaged_and_staged_fits() {
    let blocks = (64 << 20) / BLOCK_BYTES;
    let copy = CopyMessage {
        manifest: vec![1; encoded_bytes(blocks)].into(),
        blocks: vec![1; blocks * Digest::BYTES].into(),
        as_stated: false,
    };
    let of_segment = |segment: SegmentId| ReportedSegment {
        segment: segment.number().into(),
        current: Some(copy.clone()),
        staged: Some(copy.clone()),
    };
    let finished = vec![Finished { order: u64::MAX, error: "e".repeat(256), bytes: u64::MAX }; MAX_FINISHED];
    let report = BlockReport { finished, ..report(SegmentId::all().map(of_segment).collect()) };
    let length = report.encoded_len();
    assert!((LARGEST_REPORT_BYTES - (1 << 20)..LARGEST_REPORT_BYTES).contains(&length), "{length}");
}

#[test]
fn what_is_wrong_in_a_report_is_said() {
    let good = CopyReport { current: Some(state(b"one")), staged: None };
    let written = ReportedSegment::new(segment_3(), Some(&good));
    let read = |change: &dyn Fn(&mut ReportedSegment)| {
        let mut changed = written.clone();
        change(&mut changed);
        ReadReport::try_from(report(vec![changed])).map_or_else(|bad| bad.to_string(), |_| String::new())
    };
    assert_eq!(read(&|_| {}), "");
    assert_eq!(read(&|reported| reported.segment = 16), "there is no segment 16");
    assert!(read(&|reported| reported.segment = 4).contains("belongs to segment 3, not to segment 04"));
    let current = |change: &dyn Fn(&mut CopyMessage)| read(&|reported| change(reported.current.as_mut().unwrap()));
    assert!(current(&|copy| copy.manifest = b"wild".as_slice().into()).contains("cannot be read"));
    assert!(current(&|copy| copy.blocks = vec![7; 33].into()).contains("33 bytes"));
    let too_many = (MAX_BLOCKS as usize + 1) * Digest::BYTES;
    assert!(current(&|copy| copy.blocks = vec![7; too_many].into()).contains("above the limit"));
    let no_manifest = current(&|copy| (copy.manifest, copy.as_stated) = (Bytes::new(), true));
    assert!(no_manifest.contains("there is no manifest"), "{no_manifest}");
    assert!(current(&|copy| copy.as_stated = true).contains("there are other digests"));
    let staged = |reported: &mut ReportedSegment| reported.staged = Some(CopyMessage::default());
    assert_eq!(read(&staged), "the staged version of segment 03 has no manifest");
    let twice = ReadReport::try_from(report(vec![written.clone(), written.clone()]));
    assert_eq!(twice, Err(BadMessage::Twice(segment_3())));
    let finished = vec![Finished::default(); MAX_FINISHED + 1];
    let many = ReadReport::try_from(BlockReport { finished, ..report(vec![]) });
    assert_eq!(many, Err(BadMessage::TooManyFinished(MAX_FINISHED + 1)));
}

#[test]
fn an_order_is_read_as_it_was_written() {
    let version = Version { epoch: 4, vector: VersionVector::new([9; 16]) };
    let (content, from, address) = (Digest::of(b"one"), WorkerId::from("b"), "127.0.0.1:1".to_owned());
    let transfer = Step::Transfer { version, content, from, address, manifest: true, blocks: vec![0, 7] };
    for step in [transfer, Step::Rebuild { version }, Step::Remove] {
        let order = Order { id: 8, segment: segment_3(), step, traceparent: Some("00-…".into()) };
        let message = OrderMessage::from(&order);
        assert_eq!(Order::try_from(message.clone()), Ok(order));
        if message.transfer.is_some() {
            let mut short = message.clone();
            short.transfer.as_mut().unwrap().content = b"short".as_slice().into();
            assert_eq!(Order::try_from(short), Err(BadMessage::Content(5)));
        }
        let both = OrderMessage { removes: false, transfer: None, rebuild: None, ..message };
        assert_eq!(Order::try_from(both), Err(BadMessage::NoStep(8)));
    }
}
