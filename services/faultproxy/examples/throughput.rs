//! Measures the proxy's throughput beside the server's, and the accuracy of its delays; JSON on stdout. `cargo run --release -p faultproxy
//! --example throughput` starts a MariaDB and a separate proxy process.

use std::{net::SocketAddr, process::Stdio, time::Instant};

use anyhow::Context;
use faultproxy::{
    Client, Config, Fault, Law, Route,
    bench::{Options, RawClient, bench},
};
use launcher::{Stack, mariadb};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // In the child process: the proxy under test.
    if let Some(config) = std::env::args().nth(1) {
        let config: Config = serde_json::from_str(&config).context("configuration")?;
        return faultproxy::serve(config, CancellationToken::new()).await;
    }
    let mut stack = Stack::create("throughput")?;
    let options = mariadb::Options { max_connections: 500, ..mariadb::Options::default() };
    let server = mariadb::start(&mut stack, "mariadb", &options).await?;
    let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let (direct, proxied, admin) =
        (loopback(server.port), loopback(launcher::free_port()?), loopback(launcher::free_port()?));
    let listeners = vec![Route::new(proxied, direct)];
    let config = Config { listeners, links: Vec::new(), admin, law: Law::None, max_connections: 1000 };
    let mut proxy = tokio::process::Command::new(std::env::current_exe()?)
        .arg(serde_json::to_string(&config)?)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let client = Client::new(&format!("http://{admin}"))?;
    let deadline = Instant::now() + std::time::Duration::from_secs(10);
    while client.state().await.is_err() {
        anyhow::ensure!(Instant::now() < deadline && proxy.try_wait()?.is_none(), "the proxy did not start");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let report = bench(&direct.into(), &proxied.into(), &Options::default()).await?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    for connections in [1, 64, 400] {
        for ms in [0.3, 2.0, 74.0] {
            println!("{}", exactness(&client, proxied, connections, ms).await?);
        }
    }
    proxy.kill().await?;
    stack.stop().await
}

/// Mean added delay beside the requested one.
async fn exactness(client: &Client, proxied: SocketAddr, connections: usize, ms: f64) -> anyhow::Result<String> {
    // A little jitter keeps the commands from synchronising.
    client.add_fault(Fault::Latency { ms, jitter_ms: 0.2 }).await?;
    let before = sums(&client.metrics().await?)?;
    let mut tasks = tokio::task::JoinSet::new();
    let commands = (3_000.0 / ms) as usize;
    for _ in 0..connections {
        tasks.spawn(async move {
            let mut raw = RawClient::login(&proxied.into(), "root", 1 | 1 << 9 | 1 << 15 | 1 << 19).await?;
            let mut spent = std::time::Duration::ZERO;
            for _ in 0..commands {
                let start = Instant::now();
                raw.ping().await?;
                spent += start.elapsed();
            }
            Ok::<_, anyhow::Error>(spent.as_secs_f64() * 1000.0 / commands as f64)
        });
    }
    let mut client_ms = 0.0;
    while let Some(spent) = tasks.join_next().await {
        client_ms += spent?? / connections as f64;
    }
    let after = sums(&client.metrics().await?)?;
    client.clear().await?;
    let added_ms = 1000.0 * (after.0 - before.0) / (after.1 - before.1);
    let store_ms = 1000.0 * (after.2 - before.2) / (after.1 - before.1);
    Ok(serde_json::json!({
        "connections": connections, "asked_ms": ms, "added_ms": added_ms, "error_ms": added_ms + store_ms - ms,
        "store_ms": store_ms, "client_ms": client_ms,
    })
    .to_string())
}

/// Sum of delays (s), commands, sum of upstream times (s).
fn sums(metrics: &str) -> anyhow::Result<(f64, f64, f64)> {
    let value = |name: &str| -> anyhow::Result<f64> {
        let line = metrics.lines().find(|line| line.starts_with(name)).context("no such metric")?;
        Ok(line.rsplit(' ').next().context("no value")?.parse()?)
    };
    Ok((
        value("faultproxy_added_delay_seconds_sum")?,
        value("faultproxy_added_delay_seconds_count")?,
        value("faultproxy_upstream_seconds_sum")?,
    ))
}
