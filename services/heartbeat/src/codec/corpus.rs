//! Generated heartbeats of a cluster, deterministic: one set of nodes to train the dictionary on, another to measure with.

use std::io;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Codec, Protobuf};
use crate::message::{Batch, Beat};

/// Nodes below are for training, nodes above are held out. They share roles but no names.
const FIRST_HELD_OUT: u64 = 1 << 32;
const TRAINED_NODES: u64 = 4_000;
/// Training messages of two sizes: the dictionary serves single heartbeats and batches.
const TRAINED_BATCH: u64 = 16;
const DICTIONARY_BYTES: usize = 4 * 1024;
/// Thu 1 Jan 2026.
const EPOCH_MS: u64 = 1_767_225_600_000;
const DAY_MS: u64 = 86_400_000;
const BEAT_MS: u64 = 1_000;

const ROLES: [(&str, &[&str]); 5] = [
    ("api", &["recommendation-api", "health"]),
    ("worker", &["event-consumer", "feature-fold", "segment-primary", "health"]),
    ("worker", &["event-consumer", "feature-fold", "segment-replica", "health"]),
    ("chunkserver", &["block-store", "block-report", "replication", "health"]),
    ("gateway", &["http-gateway", "metrics", "health"]),
];
const ZONES: [&str; 3] = ["eu-west-1a", "eu-west-1b", "us-east-1c"];
/// Kubernetes' alphabet for random names.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A counter-based random generator: the corpus does not depend on a library's version.
struct CounterRng {
    seed: u64,
    drawn: u64,
}

impl CounterRng {
    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        xxh3_64_with_seed(&self.drawn.to_le_bytes(), self.seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(limit)) >> 64) as u64
    }

    fn letters(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(LETTERS[self.below(LETTERS.len() as u64) as usize])).collect()
    }
}

/// Nodes at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Corpus {
    first: u64,
    moment_ms: u64,
}

impl Corpus {
    /// Nodes that the dictionary was not trained on.
    pub fn held_out() -> Self {
        Self { first: FIRST_HELD_OUT, moment_ms: EPOCH_MS + 200 * DAY_MS }
    }

    fn training(moment: u64) -> Self {
        Self { first: 0, moment_ms: EPOCH_MS + 90 * DAY_MS + moment * (3 * DAY_MS + 12_345) }
    }

    /// The heartbeat of node `n`. Times, counters, loads and names are random within realistic ranges; the load's mantissa is
    /// incompressible, as a real one is.
    pub fn beat(&self, n: u64) -> Beat {
        let mut node = CounterRng { seed: self.first + n, drawn: 0 };
        let (role, services) = ROLES[node.below(ROLES.len() as u64) as usize];
        let node_id = if node.below(2) == 0 {
            // Two deployments per role; their pods share a hash.
            let mut deployment = CounterRng { seed: self.first ^ (role.len() as u64) ^ (node.below(2) << 8), drawn: 0 };
            format!("{role}-{}-{}", deployment.letters(10), node.letters(5))
        } else {
            let zone = ZONES[node.below(ZONES.len() as u64) as usize];
            format!("{role}-{zone}-r{:02}-{:05}", node.below(40), node.below(100_000))
        };
        let up_ms = node.below(30 * DAY_MS);
        let mut now = CounterRng { seed: self.first + n, drawn: self.moment_ms };
        Beat {
            timestamp: self.moment_ms + now.below(BEAT_MS),
            node_id,
            services: services.iter().map(|&name| name.to_owned()).collect(),
            sequence: 1 + up_ms / BEAT_MS,
            incarnation: self.moment_ms - up_ms,
            load: (now.below(1 << 24) as f32) / (1 << 24) as f32,
            report: None,
        }
    }

    /// Batch number `n` of `size` nodes.
    pub fn batch(&self, n: u64, size: u64) -> Batch {
        Batch {
            beats: (n * size..(n + 1) * size).map(|node| self.beat(node)).collect(),
            sender: format!("agent-{}", CounterRng { seed: self.first + n, drawn: 0 }.letters(5)),
            sequence: 1 + n,
            incarnation: self.moment_ms - DAY_MS,
        }
    }
}

/// Trains the dictionary. Deterministic.
///
/// # Errors
/// The samples are not sufficient.
pub fn train() -> io::Result<Vec<u8>> {
    let mut samples = Vec::new();
    for n in 0..TRAINED_NODES {
        let mut sample = Vec::new();
        // Several moments: timestamps of a single day must not get into the dictionary.
        let corpus = Corpus::training(n % 20);
        let encoded = if n % 4 == 0 {
            Protobuf.encode_batch(&corpus.batch(n, TRAINED_BATCH), &mut sample)
        } else {
            Protobuf.encode(&corpus.beat(n), &mut sample)
        };
        encoded.map_err(io::Error::other)?;
        samples.push(sample);
    }
    zstd::dict::from_samples(&samples, DICTIONARY_BYTES)
}
