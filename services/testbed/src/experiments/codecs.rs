//! `experiment codecs`: bytes, time and bandwidth of a heartbeat as JSON, Protobuf and Protobuf+Zstd, beside the article's table.

use std::{process::ExitCode, time::SystemTime};

use report::Table;

use super::findings::{self, Found, table, verdict};
use crate::{
    cli::FindingsArgs,
    commands::bench::codecs::{self, ARTICLE, ARTICLE_SAVING_PCT, BATCH, NODES, SAVING},
    instruments::comparison::Side,
};

const REPEATS: usize = 7;
const QUICK_REPEATS: usize = 1;

pub async fn run(args: FindingsArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let sides = codecs::sides(if args.quick { QUICK_REPEATS } else { REPEATS }).await?;
    let saving = sides.last().map_or(f64::NAN, |packed| median(packed, SAVING));
    let found = Found {
        what: format!(
            "The same beats of a cluster's nodes in three codecs, in turns on one thread, one by one and in batches of {BATCH} nodes. \
             The dictionary of Zstandard was trained on nodes that share no name with these."
        ),
        tables: vec![beats(&sides), batches(&sides)],
        charts: Vec::new(),
        measured: serde_json::to_value(&sides)?,
        verdicts: vec![verdict(
            "Protobuf+Zstd batches beside plain Protobuf",
            format!("≥ {ARTICLE_SAVING_PCT} % fewer bytes"),
            format!("{saving:.1} %"),
            saving >= ARTICLE_SAVING_PCT,
            "payload; the article's figure at 10,000 nodes",
        )],
        remarks: vec![
            "Our beat has three fields more than the article's (sequence, incarnation, load), and longer names: the second column is \
             without these fields."
                .into(),
            "The article does not say on what machine its times were taken.".into(),
        ],
    };
    findings::publish("codecs", begun, found, &args)
}

fn median(side: &Side, figure: &str) -> f64 {
    side.figures.get(figure).map_or(f64::NAN, |spread| spread.median)
}

fn beats(sides: &[Side]) -> Table {
    let micros = |side: &Side, figure| format!("{:.2}", median(side, figure) / 1e3);
    let row = |(side, (bytes, ns)): (&Side, (f64, f64))| {
        vec![
            side.name.clone(),
            format!("{:.0}", median(side, "bytes")),
            format!("{:.0}", median(side, "article_fields_bytes")),
            format!("{bytes:.0}"),
            micros(side, "encode_ns"),
            format!("{:.1}", ns / 1e3),
            micros(side, "decode_ns"),
        ]
    };
    table(
        "One beat",
        "Bytes of the payload and µs of one core, medians; the article's columns are its table in 4.1.",
        &["codec", "bytes", "its three fields", "article, bytes", "encode, µs", "article, µs", "decode, µs"],
        sides.iter().zip(ARTICLE).map(row).collect(),
    )
}

fn batches(sides: &[Side]) -> Table {
    let mbit = |side: &Side, figure| format!("{:.2}", median(side, figure));
    let row = |side: &Side| {
        vec![
            side.name.clone(),
            format!("{:.1}", median(side, "batch_bytes")),
            format!("{:.2}", median(side, "batch_encode_ns") / 1e3),
            format!("{:.2}", median(side, "batch_decode_ns") / 1e3),
            mbit(side, "10k_mbit_per_s"),
            mbit(side, "10k_batch_mbit_per_s"),
        ]
    };
    let meaning = format!(
        "Batches of {BATCH} nodes, per beat; bandwidth of {NODES} nodes that beat once a second, MAC, UDP and IPv4 included."
    );
    table(
        "In batches, and on the wire",
        &meaning,
        &["codec", "bytes", "encode, µs", "decode, µs", "one by one, Mbit/s", "batches, Mbit/s"],
        sides.iter().map(row).collect(),
    )
}
