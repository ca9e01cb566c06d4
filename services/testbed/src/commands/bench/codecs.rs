//! `bench codecs`: the three ways to write a heartbeat, beside the article's figures.

use super::conditions;
use crate::{
    cli::BenchArgs,
    instruments::codecs::{self, ARTICLE, ARTICLE_SAVING_PCT, BATCH, BEATS, NODES, SAVING},
    instruments::comparison::{Comparison, Reference},
};

const REPEATS: u8 = 7;

pub async fn run(args: BenchArgs) -> anyhow::Result<Comparison> {
    let sides = codecs::sides(usize::from(args.repeat.unwrap_or(REPEATS))).await?;
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
        [("article_fields_bytes", bytes), ("encode_ns", ns)].map(|(f, value)| side.mark(f, Reference::Article(value)))
    });
    let saving = [Reference::Article(ARTICLE_SAVING_PCT), Reference::AtLeast(ARTICLE_SAVING_PCT)];
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
