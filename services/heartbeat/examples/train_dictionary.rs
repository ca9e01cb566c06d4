//! Writes the dictionary of Protobuf+Zstd and the corpus of the fuzz tests: `cargo run -p heartbeat --example train_dictionary`.

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use heartbeat::{
    assign::{Membership, Table},
    auth::{FrameKind, Header, Keys},
    codec::{Codec, CodecId, Corpus, Json, Protobuf, ProtobufZstd, train},
    frame::{self, Poll, sign_ack},
    message::Ack,
    registry::Registration,
    trace::Condition,
    transport::assignments::Assignments,
    vote::Ballot,
};

fn main() -> io::Result<()> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dictionary = train()?;
    let file = crate_dir.join("src/codec/beats.dict");
    let changed = fs::read(&file).map_or(true, |old| old != dictionary);
    fs::write(&file, &dictionary)?;
    println!("{} bytes to {}", dictionary.len(), file.display());
    if changed {
        println!("run it once more: the corpus is written with the dictionary that was compiled in");
    }
    write_corpus(&crate_dir.join("tests/corpus"))
}

fn write_corpus(dir: &Path) -> io::Result<()> {
    let keys = Keys::new(b"corpus");
    let codecs: [(&str, Box<dyn Codec>); 3] =
        [("json", Box::new(Json)), ("pb", Box::new(Protobuf)), ("zst", Box::new(ProtobufZstd::new()?))];
    for (extension, mut codec) in codecs {
        let id = codec.id();
        for n in 0..3 {
            let mut bytes = Vec::new();
            codec.encode(&Corpus::held_out().beat(n), &mut bytes).map_err(io::Error::other)?;
            fs::write(dir.join(format!("beat-{n}.{extension}")), &bytes)?;
        }
        let mut bytes = Vec::new();
        codec.encode_batch(&Corpus::held_out().batch(0, 4), &mut bytes).map_err(io::Error::other)?;
        fs::write(dir.join(format!("batch.{extension}")), &bytes)?;
        let (header, mut frame) =
            (Header { kind: FrameKind::Batch, codec: id, ack_wanted: id == CodecId::Json }, Vec::new());
        keys.sign(header, &mut frame, |out| {
            out.extend_from_slice(&bytes);
            Ok::<_, io::Error>(())
        })?;
        fs::write(dir.join(format!("batch-{extension}.frame")), &frame)?;
    }
    let ack = Ack { of: "worker-0".into(), incarnation: 1_767_225_600_000, sequence: 7 };
    let mut frame = Vec::new();
    sign_ack(&keys, &ack, &mut frame);
    write_payload(dir, "ack.pb", &keys, &frame)?;
    fs::write(dir.join("ack.frame"), &frame)?;
    write_control_messages(dir, &keys)?;
    let mut trace = Condition::Wan.trace(1_000_000_000, 30_000_000_000, 1);
    trace.beats[7].received = None;
    trace.write(fs::File::create(dir.join("trace.csv"))?)
}

/// The payload of a frame: mutated and signed again, it gets past the MAC.
fn write_payload(dir: &Path, name: &str, keys: &Keys, frame: &[u8]) -> io::Result<()> {
    let (_, payload) = keys.verify(frame).map_err(|reason| io::Error::other(reason.label()))?;
    fs::write(dir.join(name), payload)
}

fn write_control_messages(dir: &Path, keys: &Keys) -> io::Result<()> {
    let incarnation = 1_767_225_600_000;
    let (http, udp) = ("127.0.0.1:7500".to_owned(), "127.0.0.1:7501".to_owned());
    let registration =
        Registration { id: "worker-0".into(), incarnation, process: 1, http: http.clone(), udp, leaving: true };
    let ballot = Ballot {
        session: 1,
        monitors_version: 1,
        from: "m0".into(),
        round: incarnation + 7,
        seen: BTreeMap::from([("m1".into(), incarnation + 3)]),
        failed: BTreeMap::from([("worker-1".into(), incarnation + 1)]),
        fit: BTreeMap::from([("worker \"2\"".into(), incarnation + 2)]),
    };
    let online = Membership { incarnation, process: 1, online: true };
    let nodes =
        BTreeMap::from([("worker-0".into(), online), ("worker-1".into(), Membership { online: false, ..online })]);
    let mut table = Table { epoch: 3, nodes, ..Table::default() };
    for (assignment, epoch) in table.partitions.iter_mut().zip(1..) {
        (assignment.epoch, assignment.primary) = (epoch % 4, Some("worker-0".into()));
    }
    table.partitions[0].replicas = vec!["worker-1".into()];
    table.traceparent = Some("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01".into());
    let addresses = BTreeMap::from([("worker-0".into(), http)]);
    let assignments = Assignments { table: Arc::new(table), addresses };
    let poll = Poll { node: "worker-0".into(), epoch: 3, wait_ms: 10_000, nonce: 7 };
    let messages = [
        ("registration.control", frame::sign_control(keys, &registration)?),
        ("ballot.control", frame::sign_control(keys, &ballot)?),
        ("poll.control", frame::sign_control(keys, &poll)?),
    ];
    for (name, frame) in messages {
        write_payload(dir, name, keys, &frame)?;
    }
    fs::write(dir.join("assignments.control"), serde_json::to_vec(&assignments)?)
}
