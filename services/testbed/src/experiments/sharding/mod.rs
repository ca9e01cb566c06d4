//! `experiment sharding`: what 1 to 16 MySQL servers give: real ones with equal CPU quotas, modelled ones at equal connections in all, and
//! under users of unequal popularity, without and behind Redis.
//!
//! `even` runs the first two parts and `skew` the third one, on the `servers`; their `clients` work within a `window`, in `rounds`. Predictions
//! (`modelled`, `popularity`), `amdahl`, `judgement` and `words` are pure.

mod amdahl;
mod clients;
mod even;
mod judgement;
mod modelled;
mod popularity;
mod rounds;
mod servers;
mod skew;
mod window;
mod words;

use std::{
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use clap::{Args, FromArgMatches};
use contract::SHARDS;
use launcher::Cores;
use serde::Serialize;
use statistics::seed::mixed;

use self::{
    even::Load,
    modelled::ModelledStore,
    rounds::{Rounds, Run},
    servers::Servers,
    skew::Skew,
    window::Length,
};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "sharding",
    about: "1, 2, 4, 8 and 16 MySQL servers: gain of real servers with equal CPU quotas, of modelled ones at equal connections, and what skewed \
            users leave of it, without and behind Redis",
    examples: "Examples:
  ./testbed experiment sharding                            three rounds (about 16 minutes)
  ./testbed experiment sharding --quick                    one short round, not judged (under 3 minutes)
  ./testbed experiment sharding --part law --servers 4     one part, with 1, 2 and 4 servers
  ./testbed experiment sharding --json | jq '.sections[].measured.gains'",
    args: ShardingArgs::augment_args,
    run: |matches| Box::pin(async move { run(&ShardingArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct ShardingArgs {
    /// Only this part (repeatable) [default: all]
    #[arg(long = "part", value_name = "PART")]
    parts: Vec<Part>,
    /// Most MySQL servers
    #[arg(long, default_value = "16", value_name = "N", value_parser = ["2", "4", "8", "16"])]
    servers: String,
    /// Rounds; the variants of a round run in random order [default: 3; quick: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20))]
    repeat: Option<u32>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Real servers with equal CPU quotas, where the kernel enforces them
    Quota,
    /// Modelled instances at equal connections in all
    Law,
    /// Users of unequal popularity, without and behind Redis
    Skew,
}

/// 16 servers and their clients leave a third of two cores idle. An unoptimised client takes more CPU: its servers get less.
const QUOTA_CORES: f64 = if cfg!(debug_assertions) { 0.02 } else { 0.04 };
/// To real servers, of each shard: enough that 16 servers are busy too.
const CLIENTS_OF_SHARD: u32 = 4;
/// The modelled store is the article's on this scale (`ModelledStore::article`).
const SCALE: u32 = if cfg!(debug_assertions) { 10 } else { 5 };

/// All that is judged and shown. A part that was not asked for is null.
struct Measured {
    /// Of servers, ascending, from 1.
    counts: Vec<u16>,
    quota: Option<ByQuota>,
    law: Option<ByLaw>,
    skew: Option<Skew>,
}

#[derive(Debug, Default, Serialize)]
struct ByQuota {
    /// How the kernel enforces them.
    quotas: String,
    /// Why nothing was measured.
    skipped: Option<String>,
    /// Of each server.
    cores: f64,
    /// To all servers together, one for each client.
    connections: u32,
    runs: Vec<Run<even::Variant>>,
}

#[derive(Debug, Serialize)]
struct ByLaw {
    store: ModelledStore,
    runs: Vec<Run<even::Variant>>,
}

async fn run(args: &ShardingArgs) -> anyhow::Result<ExitCode> {
    let (begun, started) = (SystemTime::now(), Instant::now());
    let counts = counts(args.servers.parse()?);
    let count = args.repeat.unwrap_or(if args.run.quick { 1 } else { 3 });
    let rounds = |part: Part| Rounds {
        count,
        seed: mixed(loadtest::plan::DEFAULT_RUN_SEED, &[part as u64]),
        length: length(part, args.run.quick),
    };
    let is_chosen = |part: Part| args.parts.is_empty() || args.parts.contains(&part);
    let store = ModelledStore::article(SCALE)?;
    let most = counts.last().copied().unwrap_or(1);
    let mut measured = Measured {
        quota: is_chosen(Part::Quota).then(ByQuota::default),
        law: is_chosen(Part::Law).then(|| ByLaw { store, runs: Vec::new() }),
        skew: is_chosen(Part::Skew).then(|| Skew::predicted(&store, most)).transpose()?,
        counts,
    };
    words::predictions(&measured).iter().for_each(|line| eprintln!("{line}"));
    eprintln!("starting {most} MySQL servers");
    let servers = Servers::start(&measured.counts).await?;
    if let Some(quota) = &mut measured.quota {
        let found = by_quota(&servers, &measured.counts, rounds(Part::Quota)).await;
        *quota = found.context("servers with equal quotas")?;
    }
    if let Some(law) = &mut measured.law {
        let load = Load { connections: store.connections, law: Some(store.law()) };
        let runs = even::run(&servers, &measured.counts, load, rounds(Part::Law)).await;
        law.runs = runs.context("modelled instances")?;
    }
    if let Some(skew) = &mut measured.skew {
        skew.run(&servers, &store, rounds(Part::Skew)).await.context("skewed users")?;
    }
    let version = servers.version();
    servers.stop().await?;
    let mut remarks = words::remarks(&measured);
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    remarks.push(format!("{version}. The whole experiment took {minutes:.1} minutes."));
    let found = Found {
        what: words::what(&measured),
        sections: words::sections(&measured)?,
        verdicts: judgement::verdicts(&measured),
        validity: judgement::validity(&measured),
        remarks,
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

/// With the quotas lifted at its end.
async fn by_quota(servers: &Servers, counts: &[u16], rounds: Rounds) -> anyhow::Result<ByQuota> {
    let connections = CLIENTS_OF_SHARD * u32::from(SHARDS);
    let mut found = ByQuota { cores: QUOTA_CORES, connections, ..ByQuota::default() };
    match servers.quotas() {
        Ok(quotas) => found.quotas = quotas,
        Err(reason) => {
            eprintln!("no servers with equal quotas: {reason}");
            found.skipped = Some(reason);
            return Ok(found);
        }
    }
    servers.set_quota(Some(Cores::new(QUOTA_CORES)?))?;
    found.runs = even::run(servers, counts, Load { connections, law: None }, rounds).await?;
    servers.set_quota(None)?;
    Ok(found)
}

/// 1, 2, 4, … `most`.
fn counts(most: u16) -> Vec<u16> {
    std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|count| *count <= most).collect()
}

/// The clients of skewed users gather at the busiest server first. Those of the law begin together, and need some response times until they
/// are spread.
fn length(part: Part, quick: bool) -> Length {
    let (warm_up, measured) = match (part, quick) {
        (Part::Quota, true) => (500, 1_000),
        (Part::Quota, false) => (2_000, 6_000),
        (Part::Law, true) => (1_000, 1_500),
        (Part::Law, false) => (2_000, 6_000),
        (Part::Skew, true) => (4_000, 1_500),
        (Part::Skew, false) => (6_000, 8_000),
    };
    Length { warm_up: Duration::from_millis(warm_up), measured: Duration::from_millis(measured) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_powers_of_two() {
        assert_eq!(counts(16), [1, 2, 4, 8, 16]);
        assert_eq!(counts(2), [1, 2]);
    }
}
