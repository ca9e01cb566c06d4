//! The commands: one file or folder each.

mod bench;
mod data;
mod docs;
mod doctor;
mod down;
mod evaluate;
mod experiment;
mod fault;
mod load;
mod plan;
mod report;
mod serve;
mod shell;
pub mod status;
mod trace;
pub mod up;

use std::{process::ExitCode, time::Duration};

use crate::{cli::Command, exit, instruments::machine};

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if matches!(self, Self::Evaluate(_) | Self::Experiment(_) | Self::Load(_) | Self::Bench(_)) {
            // Read before the work: at its end the clone may be at another commit.
            machine::revision();
        }
        match self {
            Self::Evaluate(args) => interruptible(evaluate::run(*args)),
            Self::Experiment(command) => interruptible(experiment::run(command)),
            Self::Up(args) => interruptible(up::run(args)),
            Self::Down(args) => down::run(&args),
            Self::Status(args) => status::run(&args),
            Self::Doctor(args) => doctor::run(&args),
            Self::Data(command) => data::run(command),
            Self::Load(args) => interruptible(load::run(args)),
            Self::Fault(command) => interruptible(fault::run(command)),
            Self::Trace(args) => interruptible(trace::run(args)),
            Self::Bench(command) => interruptible(bench::run(command)),
            Self::Report(args) => report::run(&args),
            Self::Plan(args) => plan::run(&args),
            Self::Completions(args) => shell::completions(args.shell),
            Self::Man(args) => shell::man(args.dir.as_deref()),
            Self::Serve(command) => serve::run(command),
            Self::Test(_) => Err(in_script("test")),
            Self::Setup(_) => Err(in_script("setup")),
            Self::Docs(command) => docs::run(&command),
        }
    }
}

fn in_script(command: &str) -> anyhow::Error {
    exit::usage(format!(
        "`{command}` needs the sources: run ./testbed {command} in the root of the repository, where `testbed` is a script"
    ))
}

/// Timeout for blocking threads at the end of a command. Dropping a runtime waits for them without a limit.
pub const END_OF_THREADS: Duration = Duration::from_secs(2);

/// Runs until the work is done, SIGINT or SIGTERM. When interrupted, the work is dropped, which ends the processes it has started.
fn interruptible(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let stop = runtime::lifecycle::shutdown_on_signal()?;
        tokio::select! {
            result = work => result,
            () = stop.cancelled() => {
                eprintln!("\ninterrupted: stopping the processes of this command");
                Ok(ExitCode::from(exit::INTERRUPTED))
            }
        }
    });
    runtime.shutdown_timeout(END_OF_THREADS);
    result
}

/// The stack to work on: the one that TESTBED_ENDPOINTS describes, or else the one that `up` started.
pub fn running_stack() -> anyhow::Result<launcher::Description> {
    match crate::stack::endpoints::elsewhere()? {
        Some(stack) => Ok(stack),
        None => own_stack(),
    }
}

/// The stack that `up` started, as its `stack.json` describes it.
pub fn own_stack() -> anyhow::Result<launcher::Description> {
    let found = launcher::orphans::find()?;
    let up = found.into_iter().find(|found| found.name() == up::STACK && found.owner_alive);
    up.and_then(|found| found.description)
        .filter(|description| description.endpoints.contains_key(up::READY))
        .ok_or_else(|| anyhow::anyhow!("no stack is running: start one with ./testbed up"))
}
