//! The positive control of the counter check: a series on a store whose fences are switched off. A worker is stopped; others take its partitions
//! over and write. Then it continues, and finds requests that it admits under its old epoch. The check must find these writes.
//!
//! The experiment switches the fences off from outside: it sets the epoch of the rows to 0, so that writes of all epochs pass. The product
//! has no such switch. A trigger in the store would do the same, but MariaDB then reports no counter to the writer.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use contract::{ShardId, http::Counted};
use heartbeat::{assign::NodeId, history::CounterState};
use launcher::{Signal, Stack};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};
use stores::{Store, StoreConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    WORKERS,
    clients::{Monitors, is_level, of_primary},
    recorder::{Recorder, Write, rows},
};
use crate::stack::control_plane::{ControlPlane, Plan};

const INTERVAL_MS: u64 = 100;
/// A worker that continues may learn of the new table before it serves the requests: then the attempt provoked nothing.
const ATTEMPTS: usize = 10;
/// Requests to each partition of the stopped worker.
const REQUESTS: usize = 4;
const ANSWER: Duration = Duration::from_secs(5);
/// An answer of a worker is shorter.
const MAX_ANSWER_BYTES: u64 = 16 << 10;

#[derive(Debug, Clone, Serialize)]
pub struct FenceOff {
    pub attempts: usize,
    /// Acknowledged under an earlier epoch than a write before them.
    pub stale_writes: usize,
    pub found: bool,
    /// The check's findings, in words.
    pub violations: Vec<String>,
}

impl FenceOff {
    pub fn text(&self) -> String {
        let Self { attempts, stale_writes, found, .. } = self;
        let found = if *found { "found by the check" } else { "not found by the check" };
        format!("fences switched off: {stale_writes} stale writes in {attempts} attempts, {found}")
    }
}

/// Runs last on its store: it leaves rows without an epoch.
///
/// # Errors
/// A process cannot be started, or no worker takes over.
pub async fn measure(stack: &mut Stack, config: &StoreConfig, store: &Store) -> anyhow::Result<FenceOff> {
    let mut fences = Fences::connect(&config.catalogue).await.context("cannot connect to the store")?;
    let first = rows(store).await?;
    let plan = Plan { workers: WORKERS, interval_ms: INTERVAL_MS, ..Plan::default() };
    let control_plane = ControlPlane::start(stack, &plan, config).await?;
    let recorder = Arc::new(Recorder::start());
    let monitors = Monitors::follow(&control_plane, &recorder, Duration::from_millis(INTERVAL_MS))?;
    let (mut attempts, mut stale_writes) = (0, 0);
    while attempts < ATTEMPTS && stale_writes == 0 {
        monitors.until("the workers share the partitions evenly", is_level).await?;
        stale_writes = attempt(stack, &control_plane, &monitors, (&recorder, &mut fences), attempts % WORKERS).await?;
        attempts += 1;
    }
    control_plane.stop(stack).await?;
    // The rows have no epoch: only the writes are judged.
    let last: Vec<CounterState> =
        rows(store).await?.into_iter().map(|row| CounterState { epoch: u64::MAX, ..row }).collect();
    let check = recorder.check(&first, &last);
    Ok(FenceOff { attempts, stale_writes, found: check.found_stale_write, violations: check.violations })
}

/// The fences of all shards, for a client that is no worker.
struct Fences {
    connection: MySqlConnection,
    erase: String,
}

impl Fences {
    /// `address`: `host:port` of the server with all shards.
    async fn connect(address: &str) -> anyhow::Result<Self> {
        let mut connection = MySqlConnection::connect(&format!("mysql://root@{address}")).await?;
        let columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'ownership'";
        let columns: Vec<String> = sqlx::query_scalar(columns).fetch_all(&mut connection).await?;
        // Without an epoch, the owner must not matter either.
        let owner = if columns.iter().any(|column| column == "owner") { ", owner = 0" } else { "" };
        let erase = |shard: ShardId| format!("UPDATE {}.ownership SET epoch = 0{owner}", shard.schema());
        let erase = ShardId::all().map(erase).collect::<Vec<_>>().join("; ");
        Ok(Self { connection, erase })
    }

    async fn erase(&mut self) -> sqlx::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(self.erase.clone())).execute(&mut self.connection).await.map(drop)
    }

    /// Owners may set their fences again at any time.
    async fn keep_erased(&mut self) -> sqlx::Result<()> {
        loop {
            self.erase().await?;
        }
    }
}

/// Returns the number of stale writes that were acknowledged.
async fn attempt(
    stack: &mut Stack,
    control_plane: &ControlPlane,
    monitors: &Monitors,
    (recorder, fences): (&Recorder, &mut Fences),
    victim: usize,
) -> anyhow::Result<usize> {
    let (worker, before) = (&control_plane.workers[victim], monitors.latest());
    let name: NodeId = worker.name.as_str().into();
    let mut requests = Vec::new();
    for partition in of_primary(&before.table, &name) {
        for _ in 0..REQUESTS {
            requests.push(Request::connect(&worker.http, partition).await?);
        }
    }
    worker.kill(stack, Signal::SIGSTOP)?;
    monitors.until("others take the partitions over", |seen| !seen.table.is_online(&name)).await?;
    let after = monitors.latest();
    for partition in of_primary(&before.table, &name) {
        let owner = after.table.partitions[partition].primary.as_ref();
        let address = owner.and_then(|owner| after.addresses.get(owner)).context("a partition has no primary")?;
        monitors.counting(partition, address, &worker.http).await;
    }
    let client = recorder.client();
    let mut writes = Vec::new();
    for request in &mut requests {
        let write = recorder.begin(client, request.partition);
        // Into the buffer of the kernel: the worker reads it as soon as it continues.
        request.send().await?;
        writes.push(write);
    }
    fences.erase().await?;
    worker.kill(stack, Signal::SIGCONT)?;
    let answers = requests.into_iter().zip(writes).map(|(request, write)| request.answer(write));
    let acknowledged = tokio::select! {
        acknowledged = futures::future::join_all(answers) => acknowledged,
        erased = fences.keep_erased() => {
            erased.context("cannot switch the fences off")?;
            Vec::new()
        }
    };
    let is_stale = |counted: &Counted| counted.epoch < after.table.partitions[counted.partition].epoch;
    Ok(acknowledged.iter().flatten().filter(|counted| is_stale(counted)).count())
}

/// A request on its own connection. It follows no redirect and names no epoch.
struct Request {
    partition: usize,
    address: String,
    stream: TcpStream,
}

impl Request {
    async fn connect(address: &str, partition: usize) -> anyhow::Result<Self> {
        Ok(Self { partition, address: address.to_owned(), stream: TcpStream::connect(address).await? })
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let (partition, address) = (self.partition, &self.address);
        let request = format!(
            "POST /partitions/{partition}/count HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        Ok(self.stream.write_all(request.as_bytes()).await?)
    }

    async fn answer(self, write: Write<'_>) -> Option<Counted> {
        let mut answer = String::new();
        let mut limited = self.stream.take(MAX_ANSWER_BYTES);
        // No answer: the outcome is unknown.
        timeout(ANSWER, limited.read_to_string(&mut answer)).await.ok()?.ok()?;
        let counted = acknowledged(&answer)?;
        write.acknowledged(&counted);
        Some(counted)
    }
}

fn acknowledged(answer: &str) -> Option<Counted> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200 ").then(|| serde_json::from_str(body).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_acknowledgement_counts() {
        let body = r#"{"partition":3,"epoch":2,"counter":7,"worker":"worker-0"}"#;
        let counted =
            acknowledged(&format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{body}")).unwrap();
        assert_eq!((counted.partition, counted.epoch, counted.counter), (3, 2, 7));
        assert_eq!(acknowledged(&format!("HTTP/1.1 307 Temporary Redirect\r\n\r\n{body}")), None);
        assert_eq!(acknowledged("HTTP/1.1 200 OK\r\n\r\n{\"partition\":3"), None);
        assert_eq!(acknowledged(""), None);
    }
}
