//! `testbed doctor`.

mod url;

use std::process::ExitCode;

use launcher::{etcd, kafka, mariadb, nginx, prometheus, redis};
use serde::Serialize;

use crate::{cli::DoctorArgs, instruments::machine};

#[derive(Serialize)]
struct Check {
    name: &'static str,
    found: String,
    ok: bool,
    /// What to do if the check fails.
    advice: String,
}

pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    if let Some(url) = &args.url {
        return url::ask(url);
    }
    let checks = checks()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        for check in &checks {
            println!("{} {:<15} {}", if check.ok { "ok  " } else { "FAIL" }, check.name, check.found);
            if !check.ok {
                println!("     {}", check.advice);
            }
        }
    }
    let all = checks.iter().all(|check| check.ok);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn checks() -> anyhow::Result<Vec<Check>> {
    let program = |name, names: &[&str], package: &str| {
        let found = launcher::find_program(names);
        Check {
            name,
            ok: found.is_some(),
            found: found.map_or_else(|| "not installed".into(), |path| path.display().to_string()),
            advice: format!("./testbed setup installs it with apt; without apt, install {package}"),
        }
    };
    let machine = machine::read();
    let files = launcher::raise_nofile_limit()?;
    Ok(vec![
        program("redis-server", redis::PROGRAMS, "redis"),
        program("mysql server", mariadb::PROGRAMS, "mariadb-server or mysql-server"),
        program("nginx", nginx::PROGRAMS, "nginx"),
        // Optional: without it, the metrics of a stack of `up` are not stored.
        program("prometheus", prometheus::PROGRAMS, "prometheus"),
        program("etcd", etcd::PROGRAMS, "etcd-server"),
        // Optional: `up --without events` needs no Kafka.
        program("java, for Kafka", kafka::PROGRAMS, "default-jre-headless"),
        Check {
            name: "open files",
            found: format!("{files}"),
            // One nginx worker has two connections for each of 5000 users, and its log.
            ok: files >= 12_000,
            advice:
                "5000 users need 12,000 in nginx: raise the hard limit (ulimit -Hn, limits.conf), or use fewer users"
                    .into(),
        },
        Check {
            name: "cores",
            found: machine.cores.to_string(),
            ok: machine.cores >= 2,
            advice: "the load generator and the service share the machine: with one core the upper steps are invalid"
                .into(),
        },
        Check {
            name: "memory",
            found: format!("{:.1} GB", machine.memory_gb),
            ok: machine.memory_gb >= 3.5,
            advice: "the scenario article needs about 2 GB: use a machine with at least 4 GB".into(),
        },
        Check {
            name: "memory read",
            found: format!("{:.0} ns", machine.memory_latency_ns.unwrap_or_default()),
            // Never fails: steps that are too slow are marked invalid during a run.
            ok: true,
            advice: String::new(),
        },
    ])
}
