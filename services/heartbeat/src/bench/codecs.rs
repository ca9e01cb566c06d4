//! Benchmarks behind `testbed bench codecs`: bytes and nanoseconds of a codec, for nodes that the dictionary was not trained on.

use std::{hint::black_box, io, time::Instant};

use serde::Serialize;

use crate::{
    auth::{HEADER_BYTES, MAC_BYTES},
    codec::{Codec, CodecId, Corpus, codec},
    message::{Batch, Beat},
    sender::DATAGRAM_BYTES,
};

/// Number of nodes.
pub const BEATS: u64 = 1_024;
/// Nodes per batch.
pub const BATCH: u64 = 16;
/// A pass takes some milliseconds; many passes average out short disturbances.
const PASSES: u32 = 40;
/// Headers of UDP and IPv4 per datagram.
const NETWORK_BYTES: f64 = 28.0;

/// Result of one codec; bytes and times are per heartbeat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    pub bytes: f64,
    /// With the article's three fields only.
    pub article_fields_bytes: f64,
    pub encode_ns: f64,
    /// Into an owned, checked heartbeat.
    pub decode_ns: f64,
    /// In batches of `BATCH` nodes, as the two below.
    pub batch_bytes: f64,
    pub batch_encode_ns: f64,
    pub batch_decode_ns: f64,
}

impl Run {
    /// Bytes per second of `nodes` at a heartbeat a second, each in its own datagram; frame, MAC, UDP and IPv4 included.
    pub fn bytes_per_s(&self, nodes: u32) -> f64 {
        f64::from(nodes) * (self.bytes + per_datagram())
    }

    /// The same in batches, split into as many datagrams as needed.
    pub fn batch_bytes_per_s(&self, nodes: u32) -> f64 {
        let batch = self.batch_bytes * BATCH as f64;
        let datagrams = (batch / (DATAGRAM_BYTES - HEADER_BYTES - MAC_BYTES) as f64).ceil();
        f64::from(nodes) / BATCH as f64 * (batch + datagrams * per_datagram())
    }
}

fn per_datagram() -> f64 {
    (HEADER_BYTES + MAC_BYTES) as f64 + NETWORK_BYTES
}

/// Encodes and decodes the corpus in one codec.
///
/// # Errors
/// Out of memory, or the codec cannot read what it wrote.
pub fn run(id: CodecId) -> io::Result<Run> {
    let mut codec = codec(id)?;
    let beats: Vec<Beat> = (0..BEATS).map(|n| Corpus::held_out().beat(n)).collect();
    let batches: Vec<Batch> = (0..BEATS / BATCH).map(|n| Corpus::held_out().batch(n, BATCH)).collect();
    let single = measure(&mut *codec, &beats, |codec, beat, out| codec.encode(beat, out), |c, bytes| c.decode(bytes))?;
    let batch = measure(
        &mut *codec,
        &batches,
        |codec, batch, out| codec.encode_batch(batch, out),
        |codec, bytes| codec.decode_batch(bytes),
    )?;
    let article = beats.iter().map(|beat| article_fields(&mut *codec, beat)).sum::<io::Result<usize>>()?;
    let per_beat = |total: f64| total / BEATS as f64;
    Ok(Run {
        bytes: per_beat(single.bytes),
        article_fields_bytes: per_beat(article as f64),
        encode_ns: per_beat(single.encode_ns),
        decode_ns: per_beat(single.decode_ns),
        batch_bytes: per_beat(batch.bytes),
        batch_encode_ns: per_beat(batch.encode_ns),
        batch_decode_ns: per_beat(batch.decode_ns),
    })
}

/// Totals of one pass over all messages.
struct Totals {
    bytes: f64,
    encode_ns: f64,
    decode_ns: f64,
}

fn measure<M, E: Into<Failed>, D: Into<Failed>>(
    codec: &mut dyn Codec,
    messages: &[M],
    encode: impl Fn(&mut dyn Codec, &M, &mut Vec<u8>) -> Result<(), E>,
    decode: impl Fn(&mut dyn Codec, &[u8]) -> Result<M, D>,
) -> io::Result<Totals> {
    let (mut out, mut ends) = (Vec::new(), Vec::with_capacity(messages.len()));
    let start = Instant::now();
    for _ in 0..PASSES {
        out.clear();
        ends.clear();
        for message in messages {
            encode(codec, black_box(message), &mut out).map_err(failed)?;
            ends.push(out.len());
        }
    }
    let encoded = start.elapsed();
    let start = Instant::now();
    for _ in 0..PASSES {
        let mut from = 0;
        for &end in &ends {
            black_box(decode(codec, black_box(&out[from..end])).map_err(failed)?);
            from = end;
        }
    }
    let decoded = start.elapsed();
    let per_pass = |time: std::time::Duration| time.as_secs_f64() * 1e9 / f64::from(PASSES);
    Ok(Totals { bytes: out.len() as f64, encode_ns: per_pass(encoded), decode_ns: per_pass(decoded) })
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn failed(error: impl Into<Failed>) -> io::Error {
    io::Error::other(error)
}

/// The article's message.
#[derive(Serialize)]
struct ArticleBeat<'a> {
    timestamp: u64,
    node_id: &'a str,
    services: &'a [String],
}

fn article_fields(codec: &mut dyn Codec, beat: &Beat) -> io::Result<usize> {
    // Protobuf leaves out what is zero.
    let only = Beat { sequence: 0, incarnation: 0, load: 0.0, ..beat.clone() };
    let mut out = Vec::new();
    if codec.id() == CodecId::Json {
        let Beat { timestamp, ref node_id, ref services, .. } = only;
        serde_json::to_writer(&mut out, &ArticleBeat { timestamp, node_id, services })?;
    } else {
        codec.encode(&only, &mut out).map_err(failed)?;
    }
    Ok(out.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_shrink_from_codec_to_codec_and_batches_halve_them() {
        let [json, protobuf, zstd] = CodecId::ALL.map(|id| run(id).unwrap());
        assert!(json.bytes > protobuf.bytes && protobuf.bytes > zstd.bytes, "{json:?} {protobuf:?} {zstd:?}");
        for run in [json, protobuf, zstd] {
            assert!(run.article_fields_bytes < run.bytes && run.encode_ns > 0.0 && run.decode_ns > 0.0, "{run:?}");
            assert!(run.batch_bytes_per_s(10_000) < run.bytes_per_s(10_000), "{run:?}");
        }
        assert!(zstd.batch_bytes <= 0.55 * protobuf.batch_bytes, "{zstd:?} {protobuf:?}");
    }
}
