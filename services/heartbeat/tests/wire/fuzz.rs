//! Every decoder under mutated bytes: it returns, never panics, and accepts only valid values. `test` runs a fixed number of seeded
//! mutations, `test --full` a minute of new ones per decoder.

use std::{
    fmt::Debug,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use heartbeat::{
    assign::Table as Assigned,
    auth::{FrameKind, Header, Keys},
    clock::Clock,
    codec::{
        Codec, CodecId, Json, Protobuf, ProtobufZstd, codec,
        protobuf::{BatchRef, BeatRef},
    },
    detector::AnyDetector,
    frame::{self, Poll, sign_ack, verify_ack},
    ownership::Ownership,
    quality::{QualityMeter, Replay},
    registry::Registration,
    table::Table,
    trace::Trace,
    transport::{Ingest, Scratch, assignments::Assignments, probe::Question, tcp::FrameReader},
    vote::Ballot,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Semaphore;

const MUTATIONS: u32 = 3_000;
const MINUTE: Duration = Duration::from_secs(60);
const MAX_BYTES: usize = 4_096;

type Target = Box<dyn FnMut(&[u8])>;

/// Name and constructor.
type Decoder = (&'static str, fn() -> Target);

/// Decoders; each caller gets a new one.
const DECODERS: [Decoder; 10] = [
    ("json", || checked(CodecId::Json)),
    ("protobuf", || checked(CodecId::Protobuf)),
    ("protobuf+zstd", || checked(CodecId::ProtobufZstd)),
    ("borrowed protobuf", || Box::new(borrowed)),
    ("authenticated frame", || {
        let keys = Keys::new(b"corpus");
        Box::new(move |bytes| _ = keys.verify(bytes))
    }),
    ("ingest", ingest),
    ("stream of frames", || Box::new(frames)),
    ("ack", ack),
    ("control messages", || Box::new(control_message)),
    ("trace", || Box::new(trace)),
];

/// An accepted heartbeat or batch is valid and survives being encoded again.
fn checked(id: CodecId) -> Target {
    let mut codec = codec(id).unwrap();
    Box::new(move |bytes| {
        if let Ok(beat) = codec.decode(bytes) {
            beat.check().unwrap();
            let mut again = Vec::new();
            codec.encode(&beat, &mut again).unwrap();
            assert_eq!(codec.decode(&again).unwrap(), beat);
        }
        if let Ok(batch) = codec.decode_batch(bytes) {
            batch.check().unwrap();
        }
    })
}

/// Accepts what prost accepts, and reads the same.
fn borrowed(bytes: &[u8]) {
    let (owned, seen) = (Protobuf.decode(bytes), BeatRef::parse(bytes));
    assert_eq!(owned.is_ok(), seen.is_ok(), "{owned:?} {seen:?}");
    if let (Ok(owned), Ok(seen)) = (owned, seen) {
        let read = (seen.timestamp, seen.node_id, seen.sequence, seen.incarnation, seen.load);
        let &heartbeat::message::Beat { timestamp, ref node_id, sequence, incarnation, load, .. } = &owned;
        assert_eq!(read, (timestamp, node_id.as_str(), sequence, incarnation, load));
        assert_eq!(seen.to_beat().unwrap(), owned);
    }
    let mut beats = Vec::new();
    let (owned, seen) = (Protobuf.decode_batch(bytes), BatchRef::parse(bytes, &mut beats));
    // prost merges a repeated field; here it is a separate heartbeat. Both are valid.
    assert_eq!(owned.is_ok(), seen.is_ok(), "{owned:?} {seen:?}");
    if let (Ok(owned), Ok(seen)) = (owned, seen) {
        assert_eq!((owned.sender.as_str(), owned.beats.len()), (seen.sender, beats.len()));
    }
}

/// Behind the MAC: invalid bytes of a key holder.
fn ingest() -> Target {
    let keys = Keys::new(b"corpus");
    let sink: Arc<dyn heartbeat::transport::Sink> =
        Arc::new(|_, _, beat: heartbeat::message::Beat| beat.check().unwrap());
    let ingest = Ingest::new(Clock::start(), keys.clone(), Arc::new(Table::new(1_000)), Some(sink));
    let mut scratch = Scratch::default();
    let peer = "127.0.0.1:1".parse().unwrap();
    Box::new(move |bytes| {
        ingest.frame(&mut scratch, 1, peer, bytes).ok();
        for (kind, codec) in FrameKind::ALL.into_iter().flat_map(|kind| CodecId::ALL.map(|id| (kind, id))) {
            let mut frame = Vec::new();
            let header = Header { kind, codec, ack_wanted: true };
            keys.sign(header, &mut frame, |out| {
                out.extend_from_slice(bytes);
                Ok::<_, ()>(())
            })
            .unwrap();
            ingest.frame(&mut scratch, 1, peer, &frame).ok();
            frame::verify_control::<Ballot>(&keys, &frame).ok();
            frame::verify_control::<Registration>(&keys, &frame).ok();
            frame::verify_control::<Poll>(&keys, &frame).ok();
            frame::verify_reply::<Assignments>(&keys, kind, &frame, &frame).ok();
            Question::read(&keys, &frame).map(|question| question.alive(&keys, &frame));
        }
    })
}

/// Behind the MAC, as a probe or its answer.
fn ack() -> Target {
    let keys = Keys::new(b"corpus");
    Box::new(move |bytes| {
        verify_ack(&keys, bytes);
        let (mut frame, header) =
            (Vec::new(), Header { kind: FrameKind::Ack, codec: CodecId::Protobuf, ack_wanted: false });
        let sealed = keys.sign(header, &mut frame, |out| {
            out.extend_from_slice(bytes);
            Ok::<_, ()>(())
        });
        sealed.unwrap();
        if let Some(ack) = verify_ack(&keys, &frame) {
            frame.clear();
            sign_ack(&keys, &ack, &mut frame);
            assert_eq!(verify_ack(&keys, &frame), Some(ack));
        }
    })
}

/// Values from etcd and of polls: they survive being encoded again, and following them does not panic.
fn control_message(bytes: &[u8]) {
    again::<Ballot>(bytes);
    again::<Registration>(bytes);
    again::<Poll>(bytes);
    again::<Assigned>(bytes);
    if let Some(Assignments { table, .. }) = again(bytes) {
        let mut ownership = Ownership::new("worker-0".into());
        let (incarnation, process) =
            table.nodes.get("worker-0").map_or((0, 0), |membership| (membership.incarnation, membership.process));
        for fence in ownership.learn(table, incarnation, process) {
            ownership.fenced(fence);
            ownership.admit(fence.partition, Some(fence.epoch)).unwrap();
        }
    }
}

fn again<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let read = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&read).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&written).unwrap(), read);
    Some(read)
}

/// A trace file of a user. Measuring an accepted one must not panic.
fn trace(bytes: &[u8]) {
    let Ok(trace) = Trace::read(bytes, None) else { return };
    let mut written = Vec::new();
    trace.write(&mut written).unwrap();
    assert_eq!(Trace::read(written.as_slice(), Some(trace.interval)).unwrap(), trace);
    let replay = Replay::with_crashes(&trace, 3, 1);
    let detector = AnyDetector::named("fixed", trace.interval, &[]).unwrap();
    QualityMeter::default().run(&replay, detector, u64::MAX);
}

fn frames(bytes: &[u8]) {
    // All bytes are available: no read waits.
    futures_now(async {
        let (mut reader, mut stream, mut taken) = (FrameReader::new(Arc::new(Semaphore::new(1 << 17))), bytes, 0);
        reader.accept_long_frames();
        while let Ok(Some(frame)) = reader.next(&mut stream).await {
            taken += 2 + frame.len();
        }
        assert!(taken <= bytes.len());
    });
}

fn futures_now(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

fn corpus() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// A few mutations that are hard for decoders.
fn mutated(corpus: &[Vec<u8>], random: &mut SmallRng) -> Vec<u8> {
    const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\\', 0xc3];
    let mut bytes = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = EDGES[random.random_range(0..EDGES.len())],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.random()),
            4 if at < bytes.len() => _ = bytes.remove(at),
            5 => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => {
                // Repeats a piece: repeated fields, growing lists.
                let piece = bytes[at..bytes.len().min(at + random.random_range(0..64))].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

#[test]
fn the_corpus_is_read_by_its_decoders() {
    let corpus = corpus();
    let read = |codec: &mut dyn Codec| {
        corpus.iter().filter(|bytes| codec.decode(bytes).is_ok() || codec.decode_batch(bytes).is_ok()).count()
    };
    let counts = [read(&mut Json), read(&mut Protobuf), read(&mut ProtobufZstd::new().unwrap())];
    assert!(counts.iter().all(|&count| count == 4) && corpus.len() == 22, "{counts:?} of {}", corpus.len());
    let keys = Keys::new(b"corpus");
    assert_eq!(corpus.iter().filter(|bytes| keys.verify(bytes).is_ok()).count(), 4);
    assert_eq!(corpus.iter().filter(|bytes| verify_ack(&keys, bytes).is_some()).count(), 1);
    assert_eq!(corpus.iter().filter(|bytes| again::<Ballot>(bytes).is_some()).count(), 1);
    assert_eq!(corpus.iter().filter(|bytes| again::<Poll>(bytes).is_some()).count(), 1);
    assert_eq!(corpus.iter().filter(|bytes| again::<Registration>(bytes).is_some()).count(), 1);
    assert_eq!(corpus.iter().filter(|bytes| again::<Assignments>(bytes).is_some()).count(), 1);
    assert_eq!(corpus.iter().filter(|bytes| Trace::read(bytes.as_slice(), None).is_ok()).count(), 1);
}

#[test]
fn no_decoder_trips_over_mutations() {
    let corpus = corpus();
    for (n, (name, decoder)) in DECODERS.into_iter().enumerate() {
        let (mut decode, mut random) = (decoder(), SmallRng::seed_from_u64(n as u64));
        corpus.iter().for_each(|bytes| decode(bytes));
        for _ in 0..MUTATIONS {
            run(name, &mut decode, &mutated(&corpus, &mut random));
        }
    }
}

#[test]
fn no_decoder_trips_within_a_minute() {
    if !launcher::testing::full() {
        return;
    }
    let corpus = corpus();
    for (name, decoder) in DECODERS {
        let seed: u64 = rand::random();
        let (mut decode, mut random) = (decoder(), SmallRng::seed_from_u64(seed));
        let (start, mut mutations) = (Instant::now(), 0_u64);
        while start.elapsed() < MINUTE {
            for _ in 0..100 {
                run(name, &mut decode, &mutated(&corpus, &mut random));
            }
            mutations += 100;
        }
        println!("{name}: {mutations} mutations from seed {seed}");
    }
}

/// Shows the input on which a decoder failed.
fn run(name: &str, decode: &mut Target, bytes: &[u8]) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| decode(bytes)));
    assert!(result.is_ok(), "{name} trips over {bytes:02x?}");
}
