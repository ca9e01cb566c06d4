//! The owners of the partitions, by the monitors' tables.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use heartbeat::{
    assign::{NodeId, Table},
    transport::assignments::Assignments,
};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::stack::control_plane::ControlPlane;

const POLL_TIMEOUT: Duration = Duration::from_secs(12);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The newest table of any monitor, by long polls.
pub struct Monitors {
    newest: watch::Receiver<Arc<Table>>,
    _pollers: JoinSet<()>,
}

impl Monitors {
    /// # Errors
    /// No HTTP client can be built.
    pub fn follow(plane: &ControlPlane) -> anyhow::Result<Self> {
        let http = runtime::http::plain().timeout(POLL_TIMEOUT).build()?;
        let (tables, newest) = watch::channel(Arc::<Table>::default());
        let mut pollers = JoinSet::new();
        for monitor in &plane.monitors {
            let (url, http, tables) = (format!("http://{}/partitions", monitor.http), http.clone(), tables.clone());
            pollers.spawn(async move {
                loop {
                    let known = tables.borrow().epoch;
                    let poll = http.get(&url).query(&[("epoch", known), ("wait_ms", 10_000)]).send().await;
                    let seen = match poll {
                        Ok(answer) => answer.json::<Assignments>().await.ok(),
                        Err(_) => None,
                    };
                    match seen {
                        Some(seen) => {
                            _ = tables.send_if_modified(|newest| {
                                let is_newer = seen.table.epoch > newest.epoch;
                                if is_newer {
                                    *newest = seen.table.clone();
                                }
                                is_newer
                            })
                        }
                        None => sleep(RETRY_PAUSE).await,
                    }
                }
            });
        }
        Ok(Self { newest, _pollers: pollers })
    }

    pub fn newest(&self) -> Arc<Table> {
        Arc::clone(&self.newest.borrow())
    }

    /// # Errors
    /// The condition is not met in this time.
    pub async fn until(&self, what: &str, limit: Duration, is_met: impl Fn(&Table) -> bool) -> anyhow::Result<()> {
        let mut newest = self.newest.clone();
        let met = newest.wait_for(|table| is_met(table));
        let met = tokio::time::timeout(limit, met).await.with_context(|| format!("not within {limit:?}: {what}"))?;
        met.map(drop).context("the pollers of the monitors have ended")
    }
}

/// The partitions of the worker.
pub fn of_worker(table: &Table, worker: &str) -> Vec<usize> {
    let is_primary = |n: &usize| table.partitions[*n].primary.as_deref() == Some(worker);
    (0..table.partitions.len()).filter(is_primary).collect()
}

/// Whether so many workers are online, and each has at least `least` partitions.
pub fn is_level(table: &Table, workers: usize, least: usize) -> bool {
    let online: Vec<&NodeId> = table.nodes.iter().filter(|(_, node)| node.online).map(|(id, _)| id).collect();
    online.len() == workers && online.iter().all(|worker| of_worker(table, worker).len() >= least)
}
