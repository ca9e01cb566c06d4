//! Measures commands per second through a proxy and directly, in turns, so that a slower machine slows both.

mod raw;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use runtime::Endpoint;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

pub use self::raw::RawClient;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Number of connections. Each has one command in flight all the time.
    pub connections: usize,
    /// Duration of one run of one side, in seconds.
    pub run_s: f64,
    /// Runs per side.
    pub repeats: usize,
    /// User without a password.
    pub user: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { connections: 64, run_s: 2.0, repeats: 7, user: "root".into() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub options: Options,
    pub command: String,
    /// Commands per second of each run, in order. Run n of both sides are adjacent in time.
    pub direct_per_s: Vec<f64>,
    /// The same through the proxy.
    pub proxied_per_s: Vec<f64>,
}

/// Sends COM_PING alternately to `direct` (the server) and `proxied` (a proxy in front of it).
///
/// # Errors
/// An option is out of range, or a side cannot be reached or answers wrongly.
pub async fn bench(direct: &Endpoint, proxied: &Endpoint, options: &Options) -> anyhow::Result<Report> {
    ensure!((1..=4096).contains(&options.connections), "connections must be between 1 and 4096");
    ensure!((1..=1000).contains(&options.repeats), "repeats must be between 1 and 1000");
    ensure!((0.01..=600.0).contains(&options.run_s), "run_s must be between 0.01 and 600");
    let mut direct_clients = connect(direct, options).await.context("direct connection")?;
    let mut proxied_clients = connect(proxied, options).await.context("connection through the proxy")?;
    let length = Duration::from_secs_f64(options.run_s);
    // Warm-up of both sides.
    run(&mut direct_clients, length / 4).await?;
    run(&mut proxied_clients, length / 4).await?;
    let (mut direct_per_s, mut proxied_per_s) = (Vec::new(), Vec::new());
    for turn in 0..options.repeats {
        // The second side of a pair finds a warmer machine, so the order alternates.
        if turn % 2 == 0 {
            direct_per_s.push(run(&mut direct_clients, length).await?);
            proxied_per_s.push(run(&mut proxied_clients, length).await?);
        } else {
            proxied_per_s.push(run(&mut proxied_clients, length).await?);
            direct_per_s.push(run(&mut direct_clients, length).await?);
        }
    }
    Ok(Report { options: options.clone(), command: "COM_PING".into(), direct_per_s, proxied_per_s })
}

async fn connect(address: &Endpoint, options: &Options) -> anyhow::Result<Vec<RawClient>> {
    let mut clients = Vec::with_capacity(options.connections);
    for _ in 0..options.connections {
        clients.push(RawClient::login(address, &options.user, raw::CAPABILITIES).await?);
    }
    Ok(clients)
}

/// Commands per second of all clients.
async fn run(clients: &mut Vec<RawClient>, length: Duration) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients.drain(..) {
        tasks.spawn(async move {
            let mut commands = 0_u64;
            while start.elapsed() < length {
                client.ping().await?;
                commands += 1;
            }
            Ok::<_, anyhow::Error>((client, commands))
        });
    }
    let mut commands = 0;
    while let Some(done) = tasks.join_next().await {
        let (client, count) = done.context("a client ended")??;
        clients.push(client);
        commands += count;
    }
    Ok(commands as f64 / start.elapsed().as_secs_f64())
}
