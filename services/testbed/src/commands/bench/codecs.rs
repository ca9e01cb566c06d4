//! `bench codecs`: the three ways to write a heartbeat, beside the article's figures.

pub use heartbeat::bench::codecs::BATCH;
use heartbeat::{
    bench::codecs::{BEATS, Run, run as measure},
    codec::CodecId,
};

use super::conditions;
use crate::{
    cli::BenchArgs,
    instruments::comparison::{self, Beside, Comparison, Figures, Side},
};

const REPEATS: u8 = 7;
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

pub async fn run(args: BenchArgs) -> anyhow::Result<Comparison> {
    let sides = sides(usize::from(args.repeat.unwrap_or(REPEATS))).await?;
    let [json, plain, packed] = &sides[..] else { anyhow::bail!("three codecs, not {}", sides.len()) };
    let ratios = vec![
        packed.over(plain, "batch_bytes"),
        packed.over(plain, "bytes"),
        plain.over(json, "bytes"),
        packed.over(plain, "encode_ns"),
        plain.over(json, "encode_ns"),
        plain.over(json, "decode_ns"),
    ];
    let of_article = sides.iter().zip(ARTICLE).flat_map(|(side, (bytes, ns))| {
        [("article_fields_bytes", bytes), ("encode_ns", ns)].map(|(f, value)| side.mark(f, Beside::Article(value)))
    });
    let saving = [Beside::Article(ARTICLE_SAVING_PCT), Beside::AtLeast(ARTICLE_SAVING_PCT)];
    let marks = of_article.chain(saving.map(|beside| packed.mark(SAVING, beside))).collect();
    let what = format!(
        "{BEATS} beats on one thread, and the same in batches of {BATCH} nodes (batch_*: per beat); {NODES} nodes beat once a \
         second, bandwidth with MAC, UDP and IPv4"
    );
    let remarks = vec![
        "The dictionary was trained on nodes that share no name with those judged.".into(),
        "Our beat has three fields more than the article's (sequence, incarnation, load): article_fields_bytes is without \
         them; the times are with them."
            .into(),
    ];
    Ok(Comparison::new("codecs", what, sides, ratios, conditions(&[], remarks))?.beside(marks))
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
