//! `testbed fault`: faults of the store by faultproxy, signals to Redis, Kafka, workers and replicas, damage to copies
//! of segments, and the restart of heartbeats.

mod process;
mod segment;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use faultproxy::{Client, DEFAULT_SEED, Direction, Fault, FaultKind, FaultSpec, Law, Scope, WriteError};
use launcher::Description;
use worker::beats::ResumeOutcome;

use crate::{
    cli::{AddFaultArgs, FaultCommand, LawArgs},
    exit,
    stack::endpoints,
};

const TIMEOUT: Duration = Duration::from_secs(2);

pub async fn run(command: FaultCommand) -> anyhow::Result<ExitCode> {
    match command {
        FaultCommand::Show { json } => show(json).await?,
        FaultCommand::Law(args) => law(args).await?,
        FaultCommand::Add(args) => add(args).await?,
        FaultCommand::Clear { link: None } => {
            proxy(&super::running_stack()?)?.clear().await?;
            println!("no faults; the law stays");
        }
        FaultCommand::Clear { link: Some(link) } => {
            proxy(&super::running_stack()?)?.clear_link(&link).await?;
            println!("no faults of --link {link}; those of other links stay");
        }
        FaultCommand::Redis { action } => process::redis(action)?,
        FaultCommand::Kafka { action } => process::kafka(action)?,
        FaultCommand::Worker { number, action } => process::worker(number, action)?,
        FaultCommand::Replica { number, action } => process::replica(number, action)?,
        FaultCommand::Segment { action, segment, worker, block } => {
            segment::run(action, segment, worker, block).await?;
        }
        FaultCommand::Resume { workers } => return resume(&super::running_stack()?.endpoints, &workers).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn proxy(stack: &Description) -> anyhow::Result<Client> {
    let address = stack.endpoints.get("faultproxy").context("the running stack has no faultproxy")?;
    Ok(Client::new(address)?)
}

async fn show(json: bool) -> anyhow::Result<()> {
    let state = proxy(&super::running_stack()?)?.state().await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&state)?);
        return Ok(());
    }
    println!("law: {}\ncommands in flight: {}", state.law, state.in_flight);
    let links = state.listeners.iter().map(|each| &each.name).chain(state.links.iter().map(|each| &each.link.name));
    println!("links: {}", links.map(String::as_str).collect::<Vec<_>>().join(", "));
    for fault in &state.faults {
        println!("fault: {}", serde_json::to_string(fault)?);
    }
    Ok(())
}

async fn law(args: LawArgs) -> anyhow::Result<()> {
    let slope_ms = args.slope.or(args.slope_ms).unwrap_or_default();
    let law = match args.base.or(args.base_ms) {
        Some(base_ms) => Law::Linear { base_ms, slope_ms, crosstalk_ms: args.crosstalk, spread: args.spread },
        None => Law::None,
    };
    proxy(&super::running_stack()?)?.set_law(law).await?;
    println!("law: {law}");
    Ok(())
}

async fn add(args: AddFaultArgs) -> anyhow::Result<()> {
    let spec = FaultSpec {
        fault: fault(&args)?,
        scope: scope(&args)?,
        for_ms: args.lasting.map(|time| time.as_millis() as u64),
    };
    proxy(&super::running_stack()?)?.add_fault(spec).await?;
    let end = match args.lasting {
        Some(time) => format!("for {}", humantime::format_duration(time)),
        None => "until ./testbed fault clear".into(),
    };
    println!("{} is active {end}", args.kind);
    Ok(())
}

/// # Errors
/// A flag is missing, or does not belong to this kind of fault.
fn fault(args: &AddFaultArgs) -> anyhow::Result<Fault> {
    let kind = args.kind.as_str();
    let delay = args.delay.or(args.ms);
    let belongs: [(_, _, &[&str]); 5] = [
        ("--delay", delay.is_some(), &["latency"]),
        ("--pct", args.pct.is_some(), &["loss", "fail-writes"]),
        ("--seed", args.seed.is_some(), &["loss", "fail-writes"]),
        ("--drop-syn", args.drop_syn, &["blackhole"]),
        ("--error", args.error.is_some(), &["fail-writes"]),
    ];
    if let Some((flag, _, owners)) = belongs.into_iter().find(|(_, given, owners)| *given && !owners.contains(&kind)) {
        return Err(exit::usage(format!("{flag} cannot be used with {kind}: it belongs to {}", owners.join(" and "))));
    }
    let (pct, seed) = (args.pct.unwrap_or_default(), args.seed.unwrap_or(DEFAULT_SEED));
    Ok(match kind {
        "loss" => Fault::Loss { pct, seed },
        "latency" => {
            let ms = delay.ok_or_else(|| exit::usage("latency needs --delay, e.g. --delay 100ms"))?;
            Fault::Latency { ms, jitter_ms: 0.0 }
        }
        "fail-writes" => {
            let is_full = args.error.as_deref() == Some("disk-full");
            Fault::FailWrites { pct, seed, error: if is_full { WriteError::DiskFull } else { WriteError::ReadOnly } }
        }
        "stall-writes" => Fault::StallWrites,
        "stall" => Fault::Stall,
        "reset" => Fault::Reset,
        "blackhole" => Fault::Blackhole { drop_syn: args.drop_syn },
        _ => Fault::Refuse,
    })
}

/// # Errors
/// This kind of fault has no direction.
fn scope(args: &AddFaultArgs) -> anyhow::Result<Scope> {
    let has_direction = FaultKind::ALL.iter().any(|kind| kind.as_str() == args.kind && kind.has_direction());
    if args.direction.is_some() && (!has_direction || args.drop_syn) {
        return Err(exit::usage("--direction belongs to latency, stall, loss, and to blackhole without --drop-syn"));
    }
    let toward = |direction: &str| Direction::BOTH.into_iter().find(|each| each.as_str() == direction);
    Ok(Scope { link: args.link.clone(), direction: args.direction.as_deref().and_then(toward) })
}

/// Makes the named workers, or all of them, send heartbeats again at once.
async fn resume(endpoints: &BTreeMap<String, String>, named: &[String]) -> anyhow::Result<ExitCode> {
    let known: BTreeMap<&str, &str> = endpoints::numbered(endpoints, "worker").collect();
    if let Some(unknown) = named.iter().find(|name| !known.contains_key(name.as_str())) {
        let known: Vec<&str> = known.into_keys().collect();
        bail!("the running stack has no worker {unknown}; it has: {}", known.join(", "));
    }
    let http = runtime::http::plain().timeout(TIMEOUT).build()?;
    let mut all_answered = true;
    for (name, url) in known.into_iter().filter(|(name, _)| named.is_empty() || named.iter().any(|named| named == name))
    {
        let answer = http.post(format!("{url}/beats/resume")).send().await;
        let senders = match answer.and_then(reqwest::Response::error_for_status) {
            Ok(answer) => answer.json::<BTreeMap<String, ResumeOutcome>>().await,
            Err(error) => Err(error),
        };
        match senders {
            Ok(senders) if senders.is_empty() => println!("{name}: sends over UDP, which never stops"),
            Ok(senders) => {
                for (monitor, ResumeOutcome { was, resumed }) in senders {
                    println!("{name} to {monitor}: {was}{}", if resumed { ", sends again now" } else { "" });
                }
            }
            Err(error) => {
                all_answered = false;
                eprintln!("{name} does not respond: {error}");
            }
        }
    }
    Ok(if all_answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
