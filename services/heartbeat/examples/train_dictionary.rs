//! Writes the dictionary of Protobuf+Zstd, and the corpus that the fuzz tests mutate, anew:
//! `cargo run -p heartbeat --example train_dictionary`.

use std::{fs, io, path::Path};

use heartbeat::{
    auth::{Header, Keys, Kind},
    codec::{Codec, CodecId, Corpus, Json, Protobuf, ProtobufZstd, train},
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
    let keys = Keys::new(1, b"corpus");
    let codecs: [(&str, Box<dyn Codec>); 3] =
        [("json", Box::new(Json)), ("pb", Box::new(Protobuf)), ("zst", Box::new(ProtobufZstd::new()?))];
    for (extension, mut codec) in codecs {
        let id = codec.id();
        for n in 0..3 {
            let mut bytes = Vec::new();
            codec.encode(&Corpus::judged().beat(n), &mut bytes).map_err(io::Error::other)?;
            fs::write(dir.join(format!("beat-{n}.{extension}")), &bytes)?;
        }
        let mut bytes = Vec::new();
        codec.encode_batch(&Corpus::judged().batch(0, 4), &mut bytes).map_err(io::Error::other)?;
        fs::write(dir.join(format!("batch.{extension}")), &bytes)?;
        let (header, mut frame) =
            (Header { kind: Kind::Batch, codec: id, ack_wanted: id == CodecId::Json }, Vec::new());
        keys.seal(header, &mut frame, |out| {
            out.extend_from_slice(&bytes);
            Ok::<_, io::Error>(())
        })?;
        fs::write(dir.join(format!("batch-{extension}.sealed")), &frame)?;
    }
    Ok(())
}
