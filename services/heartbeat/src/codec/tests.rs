use proptest::prelude::*;

use super::{protobuf::*, *};
use crate::message::{Complaint, MAX_BATCH, MAX_COMPLAINTS, MAX_SERVICES, WorkerReport};

fn codecs() -> [Box<dyn Codec>; 3] {
    [Box::new(Json), Box::new(Protobuf), Box::new(ProtobufZstd::new().unwrap())]
}

fn beat() -> impl Strategy<Value = Beat> {
    let id = "[a-zA-Z0-9._ ä\u{1F9C0}-]{1,16}";
    let services = prop::collection::vec(id, 0..5);
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), 0.0..10.0_f32);
    (id, services, numbers, prop::option::of(report())).prop_map(
        |(node_id, services, (timestamp, sequence, incarnation, load), report)| Beat {
            timestamp,
            node_id,
            services,
            sequence,
            incarnation,
            load,
            report,
        },
    )
}

fn report() -> impl Strategy<Value = WorkerReport> {
    let complaint =
        ("[a-z0-9-]{1,16}", any::<u32>()).prop_map(|(node_id, partitions)| Complaint { node_id, partitions });
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    (numbers, any::<[u32; 3]>(), prop::collection::vec(complaint, 0..4)).prop_map(
        |((process, history, epoch, overruled_by), [serving, failing, store_age_ms], complaints)| WorkerReport {
            process,
            history,
            epoch,
            serving,
            failing,
            store_age_ms,
            overruled_by,
            complaints,
        },
    )
}

#[test]
fn a_report_with_too_many_complaints_or_a_nameless_one_is_refused_by_both_readers() {
    let complaint = |name: &str| Complaint { node_id: name.into(), partitions: 1 };
    let beat = |complaints: Vec<Complaint>| {
        let report = Some(WorkerReport { complaints, ..WorkerReport::default() });
        let mut bytes = Vec::new();
        Protobuf.encode(&Beat { node_id: "w".into(), report, ..Beat::default() }, &mut bytes).unwrap();
        bytes
    };
    for (bytes, is_valid) in [
        (beat(vec![complaint("v"); MAX_COMPLAINTS]), true),
        (beat(vec![complaint("v"); MAX_COMPLAINTS + 1]), false),
        (beat(vec![complaint("")]), false),
    ] {
        assert_eq!((Protobuf.decode(&bytes).is_ok(), BeatRef::parse(&bytes).is_ok()), (is_valid, is_valid));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(beats in prop::collection::vec(beat(), 1..20), sequence: u64) {
        let batch = Batch { beats, sender: "agent".into(), sequence, incarnation: 7 };
        for mut codec in codecs() {
            let mut bytes = Vec::new();
            codec.encode(&batch.beats[0], &mut bytes).unwrap();
            prop_assert_eq!(&codec.decode(&bytes).unwrap(), &batch.beats[0]);
            bytes.clear();
            codec.encode_batch(&batch, &mut bytes).unwrap();
            prop_assert_eq!(&codec.decode_batch(&bytes).unwrap(), &batch);
        }
    }

    /// A batch written heartbeat by heartbeat equals one written whole, and both decoders agree.
    #[test]
    fn the_two_writers_and_readers_agree(beats in prop::collection::vec(beat(), 0..20)) {
        let batch = Batch { beats, sender: "agent".into(), sequence: 3, incarnation: 7 };
        let mut bytes = Vec::new();
        batch.beats.iter().for_each(|beat| append_to_batch(beat, &mut bytes));
        finish_batch("agent", 7, 3, &mut bytes);
        prop_assert_eq!(&Protobuf.decode_batch(&bytes).unwrap(), &batch);
        let mut read = Vec::new();
        let head = BatchRef::parse(&bytes, &mut read).unwrap();
        prop_assert_eq!(head, BatchRef { sender: "agent", sequence: 3, incarnation: 7 });
        let read: Vec<Beat> = read.iter().map(|beat| beat.to_beat().unwrap()).collect();
        prop_assert_eq!(read, batch.beats);
    }
}

#[test]
fn padding_fills_to_the_byte_and_is_passed_over() {
    let batch = Corpus::held_out().batch(1, 3);
    let mut plain = Vec::new();
    Protobuf.encode_batch(&batch, &mut plain).unwrap();
    // 130 bytes are one too many for one length byte and one too few for two; a single byte holds no field.
    for missing in (0..300).filter(|missing| ![1, 130].contains(missing)) {
        let mut bytes = plain.clone();
        pad_batch(plain.len() + missing, &mut bytes);
        assert!(bytes.len() == plain.len() + missing, "{missing}");
        assert_eq!(Protobuf.decode_batch(&bytes).unwrap(), batch);
        assert!(BatchRef::parse(&bytes, &mut Vec::new()).is_ok());
    }
}

#[test]
fn json_has_the_articles_fields_and_may_lack_ours() {
    let text = br#"{"timestamp":5,"node_id":"n1","services":["api"]}"#;
    let beat = Json.decode(text).unwrap();
    assert_eq!((beat.timestamp, beat.node_id.as_str(), beat.services.as_slice()), (5, "n1", &["api".to_owned()][..]));
    assert_eq!((beat.sequence, beat.incarnation, beat.load), (0, 0, 0.0));
}

#[test]
fn rules_are_kept_by_every_decoder() {
    let good = Corpus::held_out().beat(1);
    let with = |change: &dyn Fn(&mut Beat)| {
        let mut beat = good.clone();
        change(&mut beat);
        beat
    };
    let broken = [
        with(&|beat| beat.node_id.clear()),
        with(&|beat| beat.node_id = "x".repeat(65)),
        with(&|beat| beat.node_id = "a\nb".into()),
        with(&|beat| beat.services = vec![String::new()]),
        with(&|beat| beat.services = vec!["s".into(); MAX_SERVICES + 1]),
        with(&|beat| beat.load = -1.0),
        with(&|beat| beat.load = f32::NAN),
    ];
    for mut codec in codecs() {
        for beat in &broken {
            let mut bytes = Vec::new();
            codec.encode(beat, &mut bytes).unwrap();
            // JSON writes a NaN as null, which is not a number.
            let error = codec.decode(&bytes).unwrap_err();
            assert!(matches!(error, DecodeError::Invalid(_)) || codec.id() == CodecId::Json, "{beat:?}: {error}");
        }
        let many =
            Batch { beats: vec![good.clone(); MAX_BATCH + 1], sender: "agent".into(), sequence: 1, incarnation: 1 };
        let nobody = Batch { sender: String::new(), beats: vec![good.clone()], ..many.clone() };
        for batch in [many, nobody] {
            let mut bytes = Vec::new();
            codec.encode_batch(&batch, &mut bytes).unwrap();
            assert!(codec.decode_batch(&bytes).is_err(), "{}", codec.id().name());
        }
    }
}

#[test]
fn a_small_message_cannot_become_a_large_one() {
    let bomb = ::zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
    assert!(bomb.len() < MAX_PAYLOAD_BYTES);
    let mut codec = ProtobufZstd::new().unwrap();
    assert!(matches!(codec.decode(&bomb), Err(DecodeError::Zstd(_))));
    // The codec still works afterwards.
    let (beat, mut bytes) = (Corpus::held_out().beat(1), Vec::new());
    codec.encode(&beat, &mut bytes).unwrap();
    assert_eq!(codec.decode(&bytes).unwrap(), beat);
    for codec in &mut codecs() {
        assert!(matches!(codec.decode(&vec![b' '; MAX_PAYLOAD_BYTES + 1]), Err(DecodeError::TooLong(_))));
    }
}

#[test]
fn the_dictionary_is_what_the_command_makes() {
    assert!(train().unwrap() == DICTIONARY, "run: cargo run -p heartbeat --example train_dictionary");
}

#[test]
fn batches_of_nodes_never_trained_on_are_little_more_than_half() {
    let (mut plain, mut packed) = (Vec::new(), Vec::new());
    let mut zstd = ProtobufZstd::new().unwrap();
    for n in 0..50 {
        let batch = Corpus::held_out().batch(n, 16);
        Protobuf.encode_batch(&batch, &mut plain).unwrap();
        zstd.encode_batch(&batch, &mut packed).unwrap();
    }
    assert!(100 * packed.len() <= 55 * plain.len(), "{} of {}", packed.len(), plain.len());
}
