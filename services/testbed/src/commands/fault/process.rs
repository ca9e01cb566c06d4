//! `fault redis`, `fault kafka`, `fault worker` and `fault replica`: signals to processes of the stack that `up` started.

use anyhow::{Context, bail};
use launcher::{Description, ProcessIdentity, Signal};

use crate::{
    cli::ProcessAction,
    commands::{own_stack, up},
    stack::endpoints,
};

/// The project's name in compose.yaml.
const COMPOSE_PROJECT: &str = "recommendation-testbed";

pub fn redis(action: ProcessAction) -> anyhow::Result<()> {
    refuse_elsewhere("Redis", &format!("docker compose {} redis", of_docker(action)))?;
    send("redis", action)
}

pub fn kafka(action: ProcessAction) -> anyhow::Result<()> {
    refuse_elsewhere("Kafka", &format!("docker compose {} kafka", of_docker(action)))?;
    send("kafka", action)
}

pub fn worker(number: u16, action: ProcessAction) -> anyhow::Result<()> {
    let name = format!("worker-{number}");
    refuse_elsewhere(&name, &format!("docker compose {} {name}", of_docker(action)))?;
    send(&name, action)
}

/// Docker's command with the same effect.
fn of_docker(action: ProcessAction) -> &'static str {
    match action {
        ProcessAction::Kill => "kill",
        ProcessAction::Stop => "pause",
        ProcessAction::Resume => "unpause",
    }
}

pub fn replica(number: u16, action: ProcessAction) -> anyhow::Result<()> {
    // Compose counts from 1.
    let container = format!("{COMPOSE_PROJECT}-api-{}", u32::from(number) + 1);
    refuse_elsewhere(&format!("replica {number}"), &format!("docker {} {container}", of_docker(action)))?;
    send(&format!("api-{number}"), action)
}

/// The processes of a stack elsewhere cannot be reached by signals.
fn refuse_elsewhere(what: &str, docker: &str) -> anyhow::Result<()> {
    if endpoints::elsewhere()?.is_some() {
        bail!(
            "cannot send a signal to {what}: {} describes a stack that `up` has not started; for Docker Compose use: {docker}",
            endpoints::VARIABLE
        );
    }
    Ok(())
}

fn send(name: &str, action: ProcessAction) -> anyhow::Result<()> {
    let process = find(&own_stack()?, name)?;
    let signal = match action {
        ProcessAction::Kill => Signal::SIGKILL,
        ProcessAction::Stop => Signal::SIGSTOP,
        ProcessAction::Resume => Signal::SIGCONT,
    };
    // Compares the start time first: the pid may belong to another process by now.
    if !process.signal(signal) {
        bail!("{name} (pid {}) is not running: `up` starts it again after {} s", process.pid, up::DEAD_FOR.as_secs());
    }
    match action {
        ProcessAction::Kill => {
            println!("{name} (pid {}) is killed; `up` starts it again after {} s", process.pid, up::DEAD_FOR.as_secs());
        }
        ProcessAction::Stop => println!("{name} (pid {}) is stopped; `resume` continues it", process.pid),
        ProcessAction::Resume => println!("{name} (pid {}) runs", process.pid),
    }
    Ok(())
}

fn find(stack: &Description, name: &str) -> anyhow::Result<ProcessIdentity> {
    let child = stack.children.iter().find(|child| child.name == name).map(|child| child.process);
    child.with_context(|| {
        let names = stack.children.iter().map(|child| child.name.as_str());
        let names: Vec<&str> = names.filter(|name| is_target(name)).collect();
        format!("the running stack has no process {name}; it has: {}", names.join(", "))
    })
}

/// Whether a command of `fault` signals processes of this name.
fn is_target(name: &str) -> bool {
    ["redis", "kafka"].contains(&name) || name.starts_with("api-") || name.starts_with("worker-")
}

#[cfg(test)]
mod tests {
    use launcher::DescribedChild;

    use super::*;

    fn stack(process: ProcessIdentity) -> Description {
        let child = |name: &str| DescribedChild { name: name.into(), process };
        Description {
            name: "up".into(),
            owner: ProcessIdentity::current(),
            created_ms: 0,
            endpoints: Default::default(),
            sockets: Default::default(),
            cgroups: Vec::new(),
            children: ["redis", "kafka", "mysql-00", "api-0", "worker-0"].map(child).into(),
        }
    }

    #[test]
    fn processes_are_found_by_name() {
        let own = ProcessIdentity::current();
        assert_eq!(find(&stack(own), "api-0").unwrap(), own);
        let error = find(&stack(own), "api-8").unwrap_err().to_string();
        assert!(error.ends_with("no process api-8; it has: redis, kafka, api-0, worker-0"), "{error}");
    }

    #[test]
    fn a_pid_of_another_process_gets_no_signal() {
        let own = ProcessIdentity::current();
        let recycled = ProcessIdentity { start_ticks: own.start_ticks + 1, ..own };
        // SIGKILL would end this test.
        assert!(!find(&stack(recycled), "redis").unwrap().signal(Signal::SIGKILL));
    }
}
