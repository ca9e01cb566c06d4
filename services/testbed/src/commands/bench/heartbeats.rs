//! `bench heartbeats`: how many a monitor handles, up to its observer, and the cost of the table of known nodes.

use std::time::Duration;

use heartbeat::bench::{self, Mode};

use super::conditions;
use crate::{
    cli::BenchArgs,
    instruments::comparison::{self, Comparand, Comparison, Figures, Reference, Side},
};

const REPEATS: u8 = 5;
const RUN: Duration = Duration::from_secs(1);
const SENDING_NODES: u64 = 10_000;
const TABLE_NODES: u64 = 1_000_000;
/// Beats of each node, in groups and again alone.
const TABLE_ROUNDS: u64 = 1;
const TABLE: &str = "table of 1,000,000 nodes";

const SINGLE_PER_S: f64 = 120_000.0;
const BATCHED_PER_S: f64 = 1_000_000.0;
const NODE_BYTES: f64 = 256.0;
const BEAT_NS: f64 = 150.0;

pub async fn run(args: BenchArgs) -> anyhow::Result<Comparison> {
    let repeats = usize::from(args.repeat.unwrap_or(REPEATS));
    let modes = Mode::available()?;
    let runs = comparison::in_turns(modes.len() + 1, repeats, async |side| {
        let mode = modes.get(side).copied();
        // Off the runtime's threads, so that Ctrl-C is heard.
        tokio::task::spawn_blocking(move || mode.map_or_else(table, ingest)).await?
    })
    .await?;
    let names = modes.iter().map(|mode| mode.name()).chain([TABLE]);
    let sides: Vec<Side> = names.zip(&runs).map(|(name, runs)| Side::new(name, runs)).collect();
    let single = &sides[0];
    let ratios = sides[1..modes.len()].iter().map(|side| side.over(single, "beats_per_s")).collect();
    let marks = modes.iter().zip(&sides).map(|(mode, side)| rate(*mode, side));
    let marks = marks.chain(sides.last().into_iter().flat_map(memory)).collect();
    let what = format!(
        "{SENDING_NODES} nodes' beats, sealed, sent over UDP on loopback, authenticated, decoded, recorded in the table and handled by \
         the observer, as in a monitor; all threads on the same two cores, {} s a run",
        RUN.as_secs()
    );
    let mut remarks = vec![
        "The table is filled by single calls (ns_per_beat_alone) and in groups of 512, as a receiver has them (ns_per_beat); \
         nodes in random order, ids hashed."
            .into(),
    ];
    if modes.len() < Mode::ALL.len() {
        remarks.push("This kernel has no UDP_SEGMENT or no UDP_GRO.".into());
    }
    Ok(Comparison::new("heartbeats", what, sides, ratios, conditions(&[], remarks))?.beside(marks))
}

fn ingest(mode: Mode) -> anyhow::Result<Figures> {
    let run = bench::ingest(mode, RUN, SENDING_NODES)?;
    Ok(Figures::from([
        ("beats_per_s", run.beats_per_s),
        ("beats_per_datagram", run.beats_per_datagram),
        ("bytes_per_beat", run.bytes_per_beat),
        ("lost_pct", run.lost_pct),
    ]))
}

fn table() -> anyhow::Result<Figures> {
    let run = bench::table(TABLE_NODES, TABLE_ROUNDS)?;
    Ok(Figures::from([
        ("bytes_per_node", run.bytes_per_node),
        ("ns_per_beat", run.ns_per_beat),
        ("ns_per_beat_alone", run.ns_per_beat_alone),
    ]))
}

fn rate(mode: Mode, side: &Side) -> Comparand {
    let least = match mode {
        Mode::Single | Mode::SingleSegmented => SINGLE_PER_S,
        Mode::Batched | Mode::BatchedSegmented => BATCHED_PER_S,
    };
    side.mark("beats_per_s", Reference::AtLeast(least))
}

fn memory(table: &Side) -> [Comparand; 3] {
    [("bytes_per_node", NODE_BYTES), ("ns_per_beat", BEAT_NS), ("ns_per_beat_alone", BEAT_NS)]
        .map(|(figure, most)| table.mark(figure, Reference::AtMost(most)))
}
