//! Rows that MySQL reads for a miss, by its own counter.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use sqlx::{Connection as _, Row as _, mysql::MySqlConnectOptions};
use tokio::time::{Instant, sleep};

use super::{misses::Readers, servers::Target};
use crate::stack::event_stack::EventStack;

/// Reads, one after the other.
const READS: usize = 300;
/// Ends of the counters' names.
const BY_INDEX: [&str; 5] = ["first", "key", "last", "next", "prev"];
/// Without reads, for the rows that the workers' checks of their fences read.
const IDLE: Duration = Duration::from_secs(2);

/// # Errors
/// MySQL cannot be asked, or a read is no miss.
pub(super) async fn per_miss(stack: &EventStack, readers: &Readers, target: &Target) -> anyhow::Result<f64> {
    let server = stack.service.servers.first().context("there is no MySQL server")?;
    let options = MySqlConnectOptions::new().host("127.0.0.1").port(server.port).username("root");
    let mut mysql = sqlx::MySqlConnection::connect_with(&options).await?;
    let idle = rows_read(&mut mysql).await?;
    sleep(IDLE).await;
    let (before, begun) = (rows_read(&mut mysql).await?, Instant::now());
    let idle_per_s = (before - idle) / IDLE.as_secs_f64();
    readers.read_each(target, READS).await?;
    let read = rows_read(&mut mysql).await? - before - idle_per_s * begun.elapsed().as_secs_f64();
    mysql.close().await?;
    Ok(read.max(0.0) / READS as f64)
}

/// Rows read by an index, which no statement of a miss does without. A statement that shows counters reads rows of another kind.
async fn rows_read(mysql: &mut sqlx::MySqlConnection) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for row in sqlx::raw_sql("SHOW GLOBAL STATUS LIKE 'Handler\\_read\\_%'").fetch_all(mysql).await? {
        let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if BY_INDEX.contains(&name.trim_start_matches("Handler_read_")) {
            sum += value.parse::<f64>().with_context(|| format!("{name} is no number"))?;
        }
    }
    ensure!(sum > 0.0, "MySQL does not count the rows that it reads");
    Ok(sum)
}
