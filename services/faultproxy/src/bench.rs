//! Commands per second through a proxy beside those of the same server directly, measured in turns: a machine that slows
//! down in between slows both.

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
    /// Each with one command outstanding, always.
    pub connections: usize,
    /// Length of one run on one side.
    pub run_s: f64,
    /// Runs per side.
    pub repeats: usize,
    /// Has no password.
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
    /// Commands per second.
    pub direct_per_s: Spread,
    /// Commands per second.
    pub proxied_per_s: Spread,
    /// Proxied over direct, pair by pair.
    pub ratio: Spread,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// In the order measured.
    pub runs: Vec<f64>,
}

impl Spread {
    /// `runs` must not be empty.
    fn of(runs: Vec<f64>) -> Self {
        let mut sorted = runs.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |n: usize| sorted[n.min(sorted.len() - 1)];
        let median = (at(sorted.len() / 2) + at((sorted.len() - 1) / 2)) / 2.0;
        Self { median, min: at(0), max: at(sorted.len() - 1), runs }
    }
}

/// COM_PING by a minimal client, alternately on `direct` (the server) and `proxied` (a proxy in front of it).
///
/// # Errors
/// Options out of range; a side that cannot be reached or answers wrongly.
pub async fn bench(direct: &Endpoint, proxied: &Endpoint, options: &Options) -> anyhow::Result<Report> {
    ensure!((1..=4096).contains(&options.connections), "connections must lie within 1 and 4096");
    ensure!((1..=1000).contains(&options.repeats), "repeats must lie within 1 and 1000");
    ensure!((0.01..=600.0).contains(&options.run_s), "run_s must lie within 0.01 and 600");
    let mut direct_clients = connect(direct, options).await.context("direct connection")?;
    let mut proxied_clients = connect(proxied, options).await.context("connection through the proxy")?;
    let length = Duration::from_secs_f64(options.run_s);
    // Buffers and threads of both sides wake up.
    run(&mut direct_clients, length / 4).await?;
    run(&mut proxied_clients, length / 4).await?;
    let (mut direct_per_s, mut proxied_per_s) = (Vec::new(), Vec::new());
    for turn in 0..options.repeats {
        // Whoever is second finds a warmer machine: the sides change places.
        if turn % 2 == 0 {
            direct_per_s.push(run(&mut direct_clients, length).await?);
            proxied_per_s.push(run(&mut proxied_clients, length).await?);
        } else {
            proxied_per_s.push(run(&mut proxied_clients, length).await?);
            direct_per_s.push(run(&mut direct_clients, length).await?);
        }
    }
    let ratio = std::iter::zip(&proxied_per_s, &direct_per_s).map(|(proxied, direct)| proxied / direct).collect();
    Ok(Report {
        options: options.clone(),
        command: "COM_PING".into(),
        direct_per_s: Spread::of(direct_per_s),
        proxied_per_s: Spread::of(proxied_per_s),
        ratio: Spread::of(ratio),
    })
}

async fn connect(address: &Endpoint, options: &Options) -> anyhow::Result<Vec<RawClient>> {
    let mut clients = Vec::with_capacity(options.connections);
    for _ in 0..options.connections {
        clients.push(RawClient::login(address, &options.user, raw::CAPABILITIES).await?);
    }
    Ok(clients)
}

/// Commands per second of all clients together.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_odd_and_even() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }
}
