//! `experiment failover`: owners of event partitions are killed and stopped under load. Measures the time until their partitions are consumed
//! again, and until events reach the lists in Redis as fast as before; beside it with plain consumer groups.
//!
//! Begin with [`measure`]: `deaths` is the series with workers, `groups` the one with consumer groups. `load` sends events, reads, and measures
//! freshness. `judgement` and `words` are pure.

mod deaths;
mod groups;
mod judgement;
mod load;
mod owners;
mod positions;
mod row_lock;
mod words;

use std::{process::ExitCode, time::SystemTime};

use api::Profile;
use clap::{Args, FromArgMatches};
use model::Dataset;

use self::{
    judgement::{Group, Owners, Series},
    load::{Load, Target},
};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::{
    data,
    stack::event_stack::{self, EventStack},
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "failover",
    about: "Owners of event partitions killed and stopped under load: time until others consume, freshness of the lists, reads; beside it \
            plain consumer groups of Kafka",
    examples: "Examples:
  ./testbed experiment failover            workers at 1 s and 100 ms beats, four consumer groups, 3 deaths of each kind (about 20 minutes)
  ./testbed experiment failover --quick    1 death of each kind, the groups with short sessions only, not judged (about 4 minutes)
  ./testbed experiment failover --beat-ms 100 --group short-session
  ./testbed experiment failover --json | jq '.sections[0].measured[] | {owners, consumed_s: [.samples[].consumed_s]}'",
    args: FailoverArgs::augment_args,
    run: |matches| Box::pin(async move { run(FailoverArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct FailoverArgs {
    /// Only this interval of the heartbeats (repeatable) [default: 1000 and 100]
    #[arg(long = "beat-ms", value_name = "MS", value_parser = clap::value_parser!(u64).range(50..=10_000))]
    beats_ms: Vec<u64>,
    /// Only this consumer group (repeatable) [default: all, or those with short sessions with --quick]
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<Group>,
    /// Deaths of each kind [default: 3, or 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    kills: Option<u16>,
    #[command(flatten)]
    run: RunArgs,
}

const WORKERS: usize = 3;
const BEATS_MS: [u64; 2] = [1_000, 100];
const KILLS: u16 = 3;
const QUICK_KILLS: u16 = 1;
const USERS: u32 = 5_000;
const QUICK_USERS: u32 = 1_000;
const ITEMS: u32 = 2_000;
const SEED: u64 = 17;

async fn run(args: FailoverArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let quick = args.run.quick;
    let beats_ms = if args.beats_ms.is_empty() { BEATS_MS.to_vec() } else { args.beats_ms };
    let groups = match (args.groups.is_empty(), quick) {
        (false, _) => args.groups,
        (true, true) => vec![Group::ShortSession, Group::Kip848Short],
        (true, false) => Group::ALL.to_vec(),
    };
    let kills = args.kills.unwrap_or(if quick { QUICK_KILLS } else { KILLS }).into();
    let all = measure(&beats_ms, &groups, kills, if quick { QUICK_USERS } else { USERS }).await?;
    let found = Found {
        what: format!(
            "{WORKERS} workers, three monitors and two replicas; 1,000 events/s and 200 reads/s. Workers are killed and stopped in turns, {kills} \
             times in each way. Then {WORKERS} members of a plain consumer group consume the same topic, and are killed."
        ),
        sections: vec![words::section(&all)?],
        verdicts: judgement::verdicts(&all),
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

/// What all series share.
struct Servers {
    stack: EventStack,
    dataset: Dataset,
}

impl Servers {
    /// `publishes`: the owners write lists to Redis, so that freshness is measured.
    async fn load(&self, publishes: bool) -> anyhow::Result<Load> {
        let mut arrival_bases = Vec::new();
        let store = self.stack.store()?;
        for shard in contract::ShardId::all() {
            arrival_bases.push(store.event_position(shard).await?.arrival_base);
        }
        let target = Target {
            gateway: self.stack.gateway().to_owned(),
            users: self.dataset.users.clone(),
            items: self.dataset.items.clone(),
            arrival_bases,
        };
        let redis = if publishes { Some(self.stack.service.redis_for_tools()?) } else { None };
        Load::start(target, redis)
    }
}

/// # Errors
/// A server cannot be started, or an owner does not come back.
async fn measure(beats_ms: &[u64], groups: &[Group], kills: usize, users: u32) -> anyhow::Result<Vec<Series>> {
    let dataset = model::generate(&data::generator(users, Some(ITEMS), SEED))?;
    let mut stack = EventStack::start(event_stack::Plan::new("failover"), &dataset).await?;
    stack.service.start_replicas(Profile::Protected, &[]).await?;
    let mut servers = Servers { stack, dataset };
    let mut all = Vec::new();
    for &interval_ms in beats_ms {
        eprintln!("{}", words::name(Owners::Workers { interval_ms }));
        all.push(deaths::series(&mut servers, interval_ms, kills).await?);
    }
    for &group in groups {
        eprintln!("{}", words::name(Owners::Group(group)));
        all.push(groups::series(&mut servers, group, kills).await?);
    }
    servers.stack.stop().await?;
    Ok(all)
}
