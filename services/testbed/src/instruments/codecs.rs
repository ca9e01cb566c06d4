//! A heartbeat in each codec: bytes and times, and the article's figures to compare with.

pub use heartbeat::bench::codecs::{BATCH, BEATS};
use heartbeat::{
    bench::codecs::{Run, run as measure},
    codec::CodecId,
};

use super::comparison::{self, Figures, Side};

/// The size at which the article gives its bandwidth.
pub const NODES: u32 = 10_000;
/// The article's: bytes, and nanoseconds to serialise, in the order of `CodecId::ALL`.
pub const ARTICLE: [(f64, f64); 3] = [(187.0, 2_100.0), (73.0, 900.0), (41.0, 1_300.0)];
pub const ARTICLE_SAVING_PCT: f64 = 45.0;
pub const SAVING: &str = "batch_saving_pct";

/// One per codec, in the order of `CodecId::ALL`.
pub async fn sides(repeats: usize) -> anyhow::Result<Vec<Side>> {
    let mut runs = comparison::in_turns(CodecId::ALL.len(), repeats, async |side| {
        // Ctrl-C is heard here at the latest.
        tokio::task::yield_now().await;
        Ok(figures(&measure(CodecId::ALL[side])?))
    })
    .await?;
    let [_, plain, packed] = &mut runs[..] else { anyhow::bail!("three codecs, not {}", runs.len()) };
    for (packed, plain) in packed.iter_mut().zip(plain) {
        packed.insert(SAVING, 100.0 * (1.0 - packed["batch_bytes"] / plain["batch_bytes"]));
    }
    Ok(CodecId::ALL.iter().zip(&runs).map(|(id, runs)| Side::new(id.name(), runs)).collect())
}

fn figures(run: &Run) -> Figures {
    let mbit = |bytes_per_s: f64| bytes_per_s * 8.0 / 1e6;
    Figures::from([
        ("bytes", run.bytes),
        ("article_fields_bytes", run.article_fields_bytes),
        ("encode_ns", run.encode_ns),
        ("decode_ns", run.decode_ns),
        ("batch_bytes", run.batch_bytes),
        ("batch_encode_ns", run.batch_encode_ns),
        ("batch_decode_ns", run.batch_decode_ns),
        ("10k_mbit_per_s", mbit(run.bytes_per_s(NODES))),
        ("10k_batch_mbit_per_s", mbit(run.batch_bytes_per_s(NODES))),
    ])
}
