//! `testbed down`.

use std::process::ExitCode;

use super::up;
use crate::cli::DownArgs;

pub fn run(args: &DownArgs) -> anyhow::Result<ExitCode> {
    let mut nothing = true;
    let mut failed = false;
    for found in launcher::orphans::find()? {
        let ours = found.is_orphaned() || found.name() == up::STACK || args.all;
        let name = found.name().to_owned();
        if !ours {
            let owner = found.description.as_ref().map_or(0, |description| description.owner.pid);
            println!("{name}: still running (pid {owner}), not stopped; --all stops it");
            nothing = false;
            continue;
        }
        nothing = false;
        let what = if found.is_orphaned() { "leftovers of a killed command removed" } else { "stopped" };
        let processes = found.processes.len();
        match launcher::orphans::stop(&found) {
            Ok(_) => println!("{name}: {what}, {processes} processes ended"),
            Err(error) => {
                failed = true;
                eprintln!("{name}: {error:#}");
            }
        }
    }
    if nothing {
        println!("nothing is running");
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
