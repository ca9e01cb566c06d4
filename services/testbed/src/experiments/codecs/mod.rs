//! `experiment codecs`: bytes, time and bandwidth of a heartbeat as JSON, Protobuf and Protobuf+Zstd, compared with the article's table.

use std::{process::ExitCode, time::SystemTime};

use clap::{Args, FromArgMatches};
use report::{Section, Table, Verdict};

use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::instruments::{
    codecs::{self, ARTICLE, ARTICLE_SAVING_PCT, BATCH, NODES, SAVING},
    comparison::Side,
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "codecs",
    about: "A heartbeat as JSON, Protobuf and Protobuf+Zstd: bytes, time, bandwidth of 10,000 nodes",
    examples: "Examples:
  ./testbed experiment codecs
  ./testbed experiment codecs --json | jq '.sections[0].measured[] | {name, bytes: .figures.bytes.median}'",
    args: RunArgs::augment_args,
    run: |matches| Box::pin(async move { run(&RunArgs::from_arg_matches(&matches)?).await }),
};

const REPEATS: usize = 7;
const QUICK_REPEATS: usize = 1;

async fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let sides = codecs::sides(if args.quick { QUICK_REPEATS } else { REPEATS }).await?;
    let saving = sides.last().map_or(f64::NAN, |packed| median(packed, SAVING));
    let found = Found {
        what: format!(
            "The same heartbeats of many nodes in three codecs, in turns on one thread, one by one and in batches of {BATCH} nodes. The \
             dictionary of Zstandard was trained on nodes whose names do not occur here."
        ),
        sections: vec![
            Section::new("Bytes, time and bandwidth", "", serde_json::to_value(&sides)?)
                .with_tables(vec![beats(&sides), batches(&sides)]),
        ],
        verdicts: vec![Verdict::new(
            "Protobuf+Zstd batches compared with plain Protobuf",
            format!("≥ {ARTICLE_SAVING_PCT} % fewer bytes"),
            format!("{saving:.1} %"),
            saving >= ARTICLE_SAVING_PCT,
            "payload; the article's figure at 10,000 nodes",
        )],
        remarks: vec![
            "Our heartbeat has three more fields than the article's (sequence, incarnation, load), and longer names. The second column is \
             without these fields."
                .into(),
            "The article does not name the machine of its measurements.".into(),
        ],
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, args)
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
    Table::new(
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
    Table::new(
        "In batches, and on the network",
        &meaning,
        &["codec", "bytes", "encode, µs", "decode, µs", "one by one, Mbit/s", "batches, Mbit/s"],
        sides.iter().map(row).collect(),
    )
}
