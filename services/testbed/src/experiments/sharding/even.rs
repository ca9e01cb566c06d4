//! Reads, and event writes, on 1 to 16 servers, with the same number of clients for each shard: real servers with a CPU quota each, and
//! instances of the modelled store.

use std::sync::Arc;

use anyhow::Context as _;
use contract::{SHARDS, ShardId, UserId};
use faultproxy::Law;
use rand::{SeedableRng as _, rngs::SmallRng};
use serde::Serialize;
use statistics::seed::mixed;

use super::{
    clients::ShardClient,
    rounds::{Rounds, Run},
    servers::Servers,
    window::measure,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// A user's history.
    Reads,
    /// One event, which is one transaction.
    Writes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Variant {
    pub operation: Operation,
    pub servers: u16,
}

impl Operation {
    pub const ALL: [Self; 2] = [Self::Reads, Self::Writes];

    pub fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Writes => "event writes",
        }
    }
}

impl Variant {
    /// `reads, 4 servers`
    pub fn name(self) -> String {
        let servers = if self.servers == 1 { "1 server".into() } else { format!("{} servers", self.servers) };
        format!("{}, {servers}", self.operation.name())
    }
}

/// What is measured: each operation on each count of servers.
pub fn variants(counts: &[u16]) -> Vec<Variant> {
    let of = |operation| counts.iter().map(move |&servers| Variant { operation, servers });
    Operation::ALL.into_iter().flat_map(of).collect()
}

/// What the clients work with.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// To all servers together, one for each client.
    pub connections: u32,
    /// Of each server; `None`: its real speed.
    pub law: Option<Law>,
}

/// # Errors
/// A layout cannot be opened or closed.
pub async fn run(servers: &Servers, counts: &[u16], load: Load, rounds: Rounds) -> anyhow::Result<Vec<Run<Variant>>> {
    let users: Vec<Arc<[UserId]>> = servers.users.iter().map(|users| users.as_slice().into()).collect();
    let mut runs = Vec::new();
    for (round, variant) in rounds.order(&variants(counts)) {
        let layout = servers.open(variant.servers, load.connections, load.law).await?;
        let client = |shard: ShardId, number: u32| {
            let store = layout.store.clone();
            match variant.operation {
                Operation::Reads => {
                    let stream = [u64::from(round), shard.index() as u64, u64::from(number)];
                    let random = SmallRng::seed_from_u64(mixed(rounds.seed, &stream));
                    Ok(ShardClient::Reader { store, shard, users: Arc::clone(&users[shard.index()]), random })
                }
                Operation::Writes => ShardClient::writer(store, shard, number),
            }
        };
        let of_shard = load.connections / u32::from(SHARDS);
        let clients = ShardId::all().flat_map(|shard| (0..of_shard).map(move |number| (shard, number)));
        let clients = clients.map(|(shard, number)| client(shard, number)).collect::<anyhow::Result<Vec<_>>>()?;
        let window = measure(clients, &layout.pids, rounds.length).await?;
        eprintln!("round {round}, {}: {:.0}/s {}", variant.name(), window.per_s(), window.validity.note());
        layout.close().await.with_context(|| variant.name())?;
        runs.push(Run { variant, round, window });
    }
    Ok(runs)
}
