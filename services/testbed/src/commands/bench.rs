//! `testbed bench NAME`.

use std::process::ExitCode;

use launcher::{Stack, mariadb};

use crate::cli::BenchCommand;

pub async fn run(command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Faultproxy { json } => {
            let mut stack = Stack::create("bench")?;
            let server = mariadb::start(&mut stack, "mysql", &mariadb::Options::default()).await?;
            let upstream = std::net::SocketAddr::from(([127, 0, 0, 1], server.port));
            let figures = faultproxy::bench::run(upstream).await?;
            stack.stop().await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&figures)?);
            } else {
                println!("{figures}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
