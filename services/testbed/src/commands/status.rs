//! `testbed status`: once, or every second while monitors respond.

mod autoscaler;
mod events;
mod heartbeats;
mod segments;

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use launcher::{Description, orphans::FoundStack};
use serde_json::{Value, json};

use super::up;
use crate::cli::StatusArgs;

const AGAIN: Duration = Duration::from_secs(1);
/// Moves the cursor home and clears what is below it: no flicker, unlike clearing the screen.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Ctrl-C ends the refreshing display with exit code 0.
pub fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        tokio::select! {
            shown = show(args) => shown,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
        }
    })
}

async fn show(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let live = !args.once && !args.json && std::io::stdout().is_terminal();
    loop {
        // Only the addresses of a stack elsewhere are known; its processes may be on other machines.
        let elsewhere = crate::stack::endpoints::elsewhere()?;
        let stacks = if elsewhere.is_some() { Vec::new() } else { launcher::orphans::find()? };
        let up = stacks.iter().find(|found| found.name() == up::STACK && found.owner_alive);
        let description = elsewhere.as_ref().or_else(|| up?.description.as_ref());
        let endpoints = description.map(|description| &description.endpoints);
        let (beats, events, scaling) = match endpoints {
            Some(endpoints) => {
                tokio::try_join!(heartbeats::read(endpoints), events::read(endpoints), autoscaler::read(endpoints))?
            }
            None => (None, None, None),
        };
        if args.json {
            let gateway = endpoints.and_then(|endpoints| endpoints.get("gateway"));
            let stacks: Vec<Value> = stacks.iter().map(as_json).collect();
            let all = json!({
                "gateway": gateway, "stacks": stacks, "heartbeats": beats, "events": events, "autoscaler": scaling
            });
            println!("{}", serde_json::to_string_pretty(&all)?);
            return Ok(ExitCode::SUCCESS);
        }
        let mut page = match &elsewhere {
            Some(elsewhere) => addresses(elsewhere),
            None if stacks.is_empty() => "nothing is running; ./testbed up starts the stack\n".to_owned(),
            None => stacks.iter().map(text).collect(),
        };
        match &beats {
            Some(beats) => page += &(heartbeats::table(beats) + &segments::table(&beats.segments)),
            None if elsewhere.is_some() => page += "no monitor responds\n",
            None => {}
        }
        if let Some(scaling) = &scaling {
            page += &autoscaler::table(scaling);
        }
        if let Some(events) = &events {
            page += &events::table(events);
        }
        if !live || beats.is_none() {
            print!("{page}");
            return Ok(ExitCode::SUCCESS);
        }
        print!("{REDRAW}{page}");
        std::io::stdout().flush()?;
        tokio::time::sleep(AGAIN).await;
    }
}

/// Name of the worker that is the primary of a partition; `None`: there is none, or no monitor responds.
///
/// # Errors
/// The HTTP client cannot be built.
pub async fn primary(endpoints: &BTreeMap<String, String>, partition: usize) -> anyhow::Result<Option<String>> {
    let beats = heartbeats::read(endpoints).await?;
    Ok(beats.and_then(|beats| Some(beats.partitions.get(partition)?.primary.as_ref()?.to_string())))
}

fn addresses(stack: &Description) -> String {
    let lines = stack.endpoints.iter().map(|(name, address)| format!("  {name:<14} {address}\n"));
    std::iter::once(format!("{}\n", stack.name)).chain(lines).collect()
}

fn as_json(found: &FoundStack) -> Value {
    let processes = found.processes.iter().map(|member| {
        let pid = member.process.pid;
        json!({ "pid": pid, "command": member.command, "rss_mb": mb(pid), "open_files": launcher::cpu::open_fds(pid) })
    });
    json!({
        "name": found.name(),
        "state": state(found),
        "endpoints": found.description.as_ref().map(|description| &description.endpoints),
        "processes": processes.collect::<Vec<_>>(),
    })
}

fn text(found: &FoundStack) -> String {
    let mut lines = vec![format!("{} ({})", found.name(), state(found))];
    if let Some(description) = &found.description {
        lines.extend(addresses(description).lines().skip(1).map(str::to_owned));
        let alive = |pid: u32| found.processes.iter().any(|member| member.process.pid == pid);
        lines.extend(description.children.iter().map(|child| {
            let pid = child.process.pid;
            let memory = mb(pid).map_or_else(String::new, |mb| format!("{mb:>6.0} MB"));
            format!("  {:<14} pid {pid:<8}{memory}{}", child.name, if alive(pid) { "" } else { "  ended" })
        }));
    }
    lines.join("\n") + "\n"
}

fn state(found: &FoundStack) -> &'static str {
    match (found.is_orphaned(), found.processes.is_empty()) {
        (false, _) => "running",
        (true, false) => "leftover: its owner was killed; ./testbed down stops it",
        (true, true) => "leftover: only its directory; ./testbed down removes it",
    }
}

fn mb(pid: u32) -> Option<f64> {
    launcher::cpu::rss_bytes(pid).map(|bytes| bytes as f64 / f64::from(1 << 20))
}
