//! `experiment decoupling`: a miss that ranks the raw log beside one that reads prepared features, while events come in; how old lists are;
//! and a backlog after all workers were away.

mod backlog;
mod first_reads;
mod judgement;
mod misses;
mod rows;
mod servers;
mod words;

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::{Args, FromArgMatches};
use launcher::cpu;
use loadtest::event_load::{self, EventLoad};

use self::{
    judgement::{EVENTS_PER_S, EventPath, Freshness, Ingest, Measured, StoreLaw},
    misses::Readers,
    servers::Servers,
};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "decoupling",
    about: "A miss with features from the raw log and with prepared features, under 2,000 events/s: latency, rows read, age of lists; and how \
            fast a backlog is drained",
    examples:
        "Examples:
  ./testbed experiment decoupling                    without a law and with the modelled one (about 12 minutes)
  ./testbed experiment decoupling --quick            the same in about 4 minutes, not judged
  ./testbed experiment decoupling --law none --json | jq '.sections[0].measured[] | {path, misses, freshness, backlog}'",
    args: DecouplingArgs::augment_args,
    run: |matches| Box::pin(async move { run(&DecouplingArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct DecouplingArgs {
    /// Only with these response times of the store [default: both]
    #[arg(long, value_name = "none|modelled")]
    law: Option<StoreLaw>,
    #[command(flatten)]
    run: RunArgs,
}

/// Of one run.
#[derive(Debug, Clone, Copy)]
struct Length {
    users: u32,
    load: Duration,
    /// All workers are away.
    away: Duration,
    /// Time to drain the backlog.
    drain_limit: Duration,
}

const ITEMS: u32 = 2_000;
/// Open connections, compiled code paths of MySQL and a warm buffer pool.
const WARM_UP: Duration = Duration::from_secs(3);
const SEED: u64 = 17;
const FRESHNESS: &str = "testbed_worker_event_freshness_seconds";

impl Length {
    fn of(quick: bool) -> Self {
        let seconds = Duration::from_secs;
        if quick {
            Self { users: 4_000, load: seconds(10), away: seconds(10), drain_limit: seconds(60) }
        } else {
            Self { users: 20_000, load: seconds(60), away: seconds(60), drain_limit: seconds(180) }
        }
    }
}

async fn run(args: &DecouplingArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let length = Length::of(args.run.quick);
    let laws = args.law.map_or_else(|| vec![StoreLaw::None, StoreLaw::Modelled], |law| vec![law]);
    let mut all = Vec::new();
    for law in laws {
        // With the law, direct writes of so many events need more connections than the store has.
        let paths: &[EventPath] =
            if law == StoreLaw::None { &[EventPath::Direct, EventPath::Kafka] } else { &[EventPath::Kafka] };
        for &path in paths {
            let measured = one(law, path, length).await.with_context(|| format!("law {law:?}, events {path:?}"))?;
            eprintln!("{}", words::line(&measured));
            all.push(measured);
        }
    }
    let found = Found {
        what: format!(
            "{} users and {ITEMS} items of the generator, {EVENTS_PER_S} events/s for {} s. A replica with usual caches takes the events. \
             Two replicas without lists in their cache take the same {} reads/s each, one with features=inline, one with features=kafka. \
             Every user has prepared features. Three workers consume the events. The modelled law is that of the scenario overload without its \
             random spread: the store then answers every command after the same time, by the number of commands in flight.",
            length.users,
            length.load.as_secs(),
            misses::PER_S
        ),
        sections: vec![words::section(&all)?],
        verdicts: judgement::verdicts(&all),
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

/// # Errors
/// A server cannot be started, or events are not consumed.
async fn one(law: StoreLaw, path: EventPath, length: Length) -> anyhow::Result<Measured> {
    let mut servers = Servers::start(law, path, length.users).await?;
    let readers = Readers::new(&servers.users, SEED)?;
    readers.read(&servers.misses, WARM_UP).await?;
    let fresh_before = servers.worker_metrics().await?;
    let cpu_before = cpu::machine();
    let load = planned_events(&servers, length.load);
    let (ingest, reads, first_reads) = tokio::try_join!(
        event_load::run(&load, |_| ()),
        readers.read(&servers.misses, length.load),
        first_reads::run(&servers.events, &servers.probed, length.load),
    )?;
    let cpu_pct = cpu::machine().zip(cpu_before).map_or(0.0, |(now, then)| 100.0 * now.busy_share_since(then));
    servers.drained().await?;
    let fresh_after = servers.worker_metrics().await?;
    let mut misses = Vec::new();
    for (target, latencies) in servers.misses.iter().zip(reads) {
        let rows = rows::per_miss(&servers.stack, &readers, target).await?;
        misses.push(latencies.summary(target.features, rows));
    }
    let (freshness, backlog) = match path {
        EventPath::Direct => (None, None),
        EventPath::Kafka => {
            let freshness = freshness(&fresh_before, &fresh_after);
            (Some(freshness), Some(backlog::run(&mut servers, length).await?))
        }
    };
    servers.stop().await?;
    let ingest = Ingest {
        offered_per_s: ingest.offered as f64 / length.load.as_secs_f64(),
        accepted_per_s: ingest.accepted as f64 / length.load.as_secs_f64().max(ingest.seconds),
        p99_ms: ingest.latency.map(|latency| latency.p99_ms),
        errors: ingest.errors,
    };
    Ok(Measured { law, path, ingest, misses, first_reads, freshness, backlog, cpu_pct })
}

fn planned_events(servers: &Servers, lasting: Duration) -> EventLoad {
    EventLoad {
        gateway: servers.events.clone(),
        per_s: EVENTS_PER_S,
        lasting,
        seed: SEED,
        users: servers.users.join("\n"),
        items: servers.items.clone(),
        timestamps: false,
    }
}

/// Of the events between two readings of the workers' metrics.
fn freshness(before: &crate::instruments::scrape::Reading, after: &crate::instruments::scrape::Reading) -> Freshness {
    let bucket = format!("{FRESHNESS}_bucket");
    let bound = |label: &String| if label == "+Inf" { Some(f64::INFINITY) } else { label.parse().ok() };
    let mut buckets: Vec<(f64, f64)> = after
        .labels(&bucket, "le")
        .iter()
        .filter_map(|le| Some((bound(le)?, after.since(before, &bucket, &[&format!("le=\"{le}\"")]))))
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let events = buckets.last().map_or(0.0, |(_, count)| *count);
    let within = buckets.iter().rev().find(|(bound, _)| *bound <= judgement::FRESH_WITHIN_S);
    Freshness {
        events: events as u64,
        p50_s: judgement::histogram_quantile(&buckets, 0.5),
        p99_s: judgement::histogram_quantile(&buckets, 0.99),
        within_pct: 100.0 * within.map_or(0.0, |(_, count)| *count) / events.max(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruments::scrape::Reading;

    #[test]
    fn freshness_is_that_of_the_events_between_two_readings() {
        let text = |within: u32, all: u32| {
            format!(
                "{FRESHNESS}_bucket{{le=\"0.5\"}} {within}\n{FRESHNESS}_bucket{{le=\"2\"}} {within}\n\
                 {FRESHNESS}_bucket{{le=\"10\"}} {all}\n{FRESHNESS}_bucket{{le=\"+Inf\"}} {all}\n{FRESHNESS}_count {all}\n"
            )
        };
        let (before, after) = (text(100, 100), text(280, 300));
        let fresh = freshness(&Reading::of([&*before]), &Reading::of([&*after]));
        assert_eq!((fresh.events, fresh.within_pct), (200, 90.0));
        assert!(fresh.p50_s > 0.2 && fresh.p50_s < 0.3 && fresh.p99_s > 2.0 && fresh.p99_s <= 10.0, "{fresh:?}");
        assert_eq!(freshness(&Reading::default(), &Reading::default()).events, 0);
    }
}
