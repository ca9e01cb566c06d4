//! `testbed fault`: talks to the faultproxy of the running stack.

use std::process::ExitCode;

use anyhow::Context;
use faultproxy::{Client, DEFAULT_SEED, Fault, FaultSpec, Law};

use crate::cli::FaultCommand;

pub async fn run(command: FaultCommand) -> anyhow::Result<ExitCode> {
    let stack = super::running_stack()?;
    let address = stack.endpoints.get("faultproxy").context("the running stack has no faultproxy")?;
    let client = Client::new(address)?;
    match command {
        FaultCommand::Show { json } => {
            let state = client.state().await?;
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
            client.set_law(law).await?;
            println!("law: {law}");
        }
        FaultCommand::Add { kind, ms, pct, seed, lasting } => {
            let fault = match kind.as_str() {
                "loss" => Fault::Loss { pct: pct.unwrap_or_default(), seed: seed.unwrap_or(DEFAULT_SEED) },
                "latency" => Fault::Latency { ms: ms.unwrap_or_default(), jitter_ms: 0.0 },
                "stall" => Fault::Stall,
                "reset" => Fault::Reset,
                _ => Fault::Refuse,
            };
            client.add_fault(FaultSpec { fault, for_ms: lasting.map(|time| time.as_millis() as u64) }).await?;
            println!(
                "{kind} is in force{}",
                lasting.map_or_else(|| ": ./testbed fault clear lifts it".into(), |time| format!(" for {time:?}"))
            );
        }
        FaultCommand::Clear => {
            client.clear().await?;
            println!("no faults; the law stays");
        }
    }
    Ok(ExitCode::SUCCESS)
}
