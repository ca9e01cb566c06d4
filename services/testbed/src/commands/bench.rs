//! `testbed bench NAME`.

use std::{net::SocketAddr, process::ExitCode};

use faultproxy::{Law, bench};
use launcher::{Stack, mariadb};

use crate::{cli::BenchCommand, cluster};

pub async fn run(command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Faultproxy { json } => {
            let mut stack = Stack::create("bench")?;
            let server = mariadb::start(&mut stack, "mysql", &mariadb::Options::default()).await?;
            let proxy = cluster::start_proxy(&mut stack, std::slice::from_ref(&server), Law::None).await?;
            let direct = SocketAddr::from(([127, 0, 0, 1], server.port));
            let figures = bench::bench(direct, proxy.addresses[0], &bench::Options::default()).await?;
            stack.stop().await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&figures)?);
            } else {
                let line = |name: &str, spread: &bench::Spread, digits: usize| {
                    println!(
                        "{name:<22}{:>10.digits$} {:>10.digits$} {:>10.digits$}",
                        spread.median, spread.min, spread.max
                    );
                };
                let options = &figures.options;
                println!(
                    "{} on {} connections, {} runs of {} s each, both sides in turn, {}",
                    figures.command, options.connections, options.repeats, options.run_s, server.version
                );
                println!("{:<22}{:>10} {:>10} {:>10}", "", "median", "min", "max");
                line("direct, commands/s", &figures.direct_per_s, 0);
                line("faultproxy, commands/s", &figures.proxied_per_s, 0);
                line("ratio", &figures.ratio, 2);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
