//! `testbed status`.

use std::process::ExitCode;

use launcher::orphans::Found;
use serde_json::{Value, json};

use super::up;
use crate::cli::StatusArgs;

pub fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let stacks = launcher::orphans::find()?;
    if args.json {
        let up = stacks.iter().find(|found| found.name() == up::STACK && found.owner_alive);
        let gateway = up.and_then(|found| found.description.as_ref()?.endpoints.get("gateway"));
        let stacks: Vec<Value> = stacks.iter().map(as_json).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "gateway": gateway, "stacks": stacks }))?);
        return Ok(ExitCode::SUCCESS);
    }
    if stacks.is_empty() {
        println!("nothing is running; ./testbed up starts the stack");
    }
    for found in &stacks {
        print(found);
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(found: &Found) -> Value {
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

fn print(found: &Found) {
    println!("{} ({})", found.name(), state(found));
    if let Some(description) = &found.description {
        for (name, address) in &description.endpoints {
            println!("  {name:<14} {address}");
        }
        let alive = |pid: u32| found.processes.iter().any(|member| member.process.pid == pid);
        for child in &description.children {
            let pid = child.process.pid;
            let memory = mb(pid).map_or_else(String::new, |mb| format!("{mb:>6.0} MB"));
            println!("  {:<14} pid {pid:<8}{memory}{}", child.name, if alive(pid) { "" } else { "  ended" });
        }
    }
}

fn state(found: &Found) -> &'static str {
    match (found.is_orphaned(), found.processes.is_empty()) {
        (false, _) => "running",
        (true, false) => "orphaned: its owner was killed; ./testbed down ends it",
        (true, true) => "leftover directory; ./testbed down removes it",
    }
}

fn mb(pid: u32) -> Option<f64> {
    launcher::cpu::rss_bytes(pid).map(|bytes| bytes as f64 / f64::from(1 << 20))
}
