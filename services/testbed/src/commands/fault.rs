//! `testbed fault`: talks to the faultproxy of the running stack, and to workers whose heartbeats have stopped.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context, bail, ensure};
use faultproxy::{Client, DEFAULT_SEED, Fault, FaultSpec, Law};
use worker::beats::ResumeOutcome;

use crate::{cli::FaultCommand, stack::endpoints};

const PATIENCE: Duration = Duration::from_secs(2);

pub async fn run(command: FaultCommand) -> anyhow::Result<ExitCode> {
    let stack = super::running_stack()?;
    let proxy = || {
        let address = stack.endpoints.get("faultproxy").context("the running stack has no faultproxy")?;
        anyhow::Ok(Client::new(address)?)
    };
    match command {
        FaultCommand::Show { json } => {
            let state = proxy()?.state().await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&state)?);
                return Ok(ExitCode::SUCCESS);
            }
            println!("law: {}\ncommands in flight: {}", state.law, state.in_flight);
            for fault in &state.faults {
                println!("fault: {}", serde_json::to_string(fault)?);
            }
        }
        FaultCommand::Law { none: _, base_ms, slope_ms, spread } => {
            let law = base_ms.map_or(Law::None, |base_ms| Law::Linear { base_ms, slope_ms, spread });
            proxy()?.set_law(law).await?;
            println!("law: {law}");
        }
        FaultCommand::Add { kind, ms, pct, seed, drop_syn, lasting } => {
            ensure!(!drop_syn || kind == "blackhole", "--drop-syn belongs to blackhole only");
            let fault = match kind.as_str() {
                "loss" => Fault::Loss { pct: pct.unwrap_or_default(), seed: seed.unwrap_or(DEFAULT_SEED) },
                "latency" => Fault::Latency { ms: ms.unwrap_or_default(), jitter_ms: 0.0 },
                "stall" => Fault::Stall,
                "reset" => Fault::Reset,
                "blackhole" => Fault::Blackhole { drop_syn },
                _ => Fault::Refuse,
            };
            proxy()?.add_fault(FaultSpec { fault, for_ms: lasting.map(|time| time.as_millis() as u64) }).await?;
            println!(
                "{kind} is in force{}",
                lasting.map_or_else(|| ": ./testbed fault clear lifts it".into(), |time| format!(" for {time:?}"))
            );
        }
        FaultCommand::Clear => {
            proxy()?.clear().await?;
            println!("no faults; the law stays");
        }
        FaultCommand::Resume { workers } => return resume(&stack.endpoints, &workers).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts the senders of heartbeats of these workers again, of all of them if none is named.
async fn resume(endpoints: &BTreeMap<String, String>, named: &[String]) -> anyhow::Result<ExitCode> {
    let known: BTreeMap<&str, &str> = endpoints::numbered(endpoints, "worker").collect();
    if let Some(stranger) = named.iter().find(|name| !known.contains_key(name.as_str())) {
        let known: Vec<&str> = known.into_keys().collect();
        bail!("the running stack has no worker {stranger}; it has: {}", known.join(", "));
    }
    let http = runtime::http::plain().timeout(PATIENCE).build()?;
    let mut all_answered = true;
    for (name, url) in known.into_iter().filter(|(name, _)| named.is_empty() || named.iter().any(|named| named == name))
    {
        let answer = http.post(format!("{url}/beats/resume")).send().await;
        let senders = match answer.and_then(reqwest::Response::error_for_status) {
            Ok(answer) => answer.json::<BTreeMap<String, ResumeOutcome>>().await,
            Err(error) => Err(error),
        };
        match senders {
            Ok(senders) if senders.is_empty() => println!("{name}: over UDP, which gives nobody up"),
            Ok(senders) => {
                for (monitor, ResumeOutcome { was, resumed }) in senders {
                    println!("{name} to {monitor}: {was}{}", if resumed { ", tries again now" } else { "" });
                }
            }
            Err(error) => {
                all_answered = false;
                eprintln!("{name} does not answer: {error}");
            }
        }
    }
    Ok(if all_answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
