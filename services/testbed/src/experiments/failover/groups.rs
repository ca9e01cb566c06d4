//! The same load and deaths with a plain consumer group instead of the workers.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use contract::SHARDS;
use launcher::{ChildId, Signal, Spec};
use rand::RngExt as _;
use tokio::time::sleep;

use super::{
    Servers, WORKERS,
    judgement::{Death, Group, Owners, Sample, Series},
    load::{Counted, Load},
    positions::Positions,
};
use crate::{roles::group_consumer, stack::service::own_program};

/// The longest session, and time for the others to notice.
const TIMEOUT: Duration = Duration::from_secs(90);
/// All members joined: a restarted member may wait for the session of its predecessor.
const LEVEL_TIMEOUT: Duration = Duration::from_secs(180);
const STEADY: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(200);
const LEAST_PARTITIONS: usize = 5;

type Settings = Vec<(&'static str, &'static str)>;

/// Of the client, and of the broker.
fn settings(group: Group) -> (Settings, Settings) {
    match group {
        Group::Default => (Vec::new(), Vec::new()),
        // The broker's `group.min.session.timeout.ms` is 6 s.
        Group::ShortSession => (vec![("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "2000")], Vec::new()),
        // The session of this protocol is a setting of the broker.
        Group::Kip848 => (vec![("group.protocol", "consumer")], Vec::new()),
        Group::Kip848Short => (
            vec![("group.protocol", "consumer")],
            vec![
                ("group.consumer.min.session.timeout.ms", "6000"),
                ("group.consumer.session.timeout.ms", "6000"),
                ("group.consumer.min.heartbeat.interval.ms", "1000"),
                ("group.consumer.heartbeat.interval.ms", "2000"),
            ],
        ),
    }
}

/// # Errors
/// A process cannot be started, or the group does not share the partitions evenly before a death.
pub async fn series(servers: &mut Servers, group: Group, deaths: usize) -> anyhow::Result<Series> {
    let (client, broker) = settings(group);
    servers.stack.reconfigure_kafka(&broker).await?;
    let owners = Owners::Group(group);
    let mut positions = Positions::open(&servers.stack.mysql()?, owners).await?;
    let mut members = Vec::new();
    for n in 0..WORKERS {
        members.push(Member::start(servers, group, n, &client)?);
    }
    let load = servers.load(false).await?;
    let mut samples = Vec::new();
    for n in 0..deaths {
        level(servers, &mut positions).await?;
        sleep(STEADY + Duration::from_millis(rand::rng().random_range(0..1_000))).await;
        let sample = one(servers, &mut positions, &load, &members[n % WORKERS]).await?;
        eprintln!("  {}", sample.text());
        samples.push(sample);
        members[n % WORKERS].restart(servers).await?;
    }
    for member in members {
        servers.stack.service.stack.stop_child(member.child).await?;
    }
    Ok(Series { owners, samples })
}

struct Member {
    name: String,
    child: ChildId,
    plan: std::path::PathBuf,
}

impl Member {
    fn start(servers: &mut Servers, group: Group, n: usize, client: &[(&str, &str)]) -> anyhow::Result<Self> {
        let name = format!("consumer-{n}");
        let plan = group_consumer::Plan {
            brokers: servers.stack.brokers()?.to_owned(),
            group: format!("{group:?}").to_lowercase(),
            name: name.clone(),
            mysql: servers.stack.mysql()?,
            settings: client.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
        };
        let file = servers.stack.service.stack.child_dir(&name)?.join("plan.json");
        std::fs::write(&file, serde_json::to_vec(&plan)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let child = spawn(servers, &name, &file)?;
        Ok(Self { name, child, plan: file })
    }

    async fn restart(&mut self, servers: &mut Servers) -> anyhow::Result<()> {
        servers.stack.service.stack.stop_child(self.child).await?;
        self.child = spawn(servers, &self.name, &self.plan)?;
        Ok(())
    }
}

fn spawn(servers: &mut Servers, name: &str, plan: &std::path::Path) -> anyhow::Result<ChildId> {
    let spec = Spec::new(name, own_program()?).args(["serve", "group-consumer"]).args([plan]).expendable();
    servers.stack.service.stack.spawn(spec)
}

/// Waits until each member writes the positions of its share.
async fn level(servers: &Servers, positions: &mut Positions) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let seen = positions.read().await?;
        let owners: BTreeSet<&str> = seen.iter().map(|position| position.owner.as_str()).collect();
        let share = |owner: &&str| seen.iter().filter(|position| position.owner == **owner).count();
        let is_level = owners.len() == WORKERS && owners.iter().all(|owner| share(owner) >= LEAST_PARTITIONS);
        if is_level && seen.len() == usize::from(SHARDS) {
            return Ok(());
        }
        servers.stack.service.stack.check()?;
        ensure!(begun.elapsed() < LEVEL_TIMEOUT, "the group does not share the partitions evenly: {seen:?}");
        sleep(PAUSE).await;
    }
}

async fn one(servers: &mut Servers, positions: &mut Positions, load: &Load, member: &Member) -> anyhow::Result<Sample> {
    let owned = positions.read().await?.into_iter().filter(|position| position.owner == member.name);
    let lost: Vec<usize> = owned.map(|position| position.partition).collect();
    let before = load.counted();
    let killed = Instant::now();
    load.mark(killed);
    servers.stack.service.stack.kill(member.child, Signal::SIGKILL)?;
    let consumed_s = positions.consumed_again(&lost, load, killed, TIMEOUT).await?;
    let Counted { events, failed_events, reads, failed_reads } = load.counted();
    Ok(Sample {
        death: Death::Kill,
        process: member.name.clone(),
        partitions: lost.len(),
        detected_s: None,
        consumed_s,
        fresh_s: None,
        stalest_s: 0.0,
        reads: reads - before.reads,
        failed_reads: failed_reads - before.failed_reads,
        events: events - before.events,
        failed_events: failed_events - before.failed_events,
    })
}
