//! The monitors' view during a fault: their tables as they are published, and afterwards the changes that they logged.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use heartbeat::{
    assign::{NodeId, Table},
    observer::Source,
    transport::assignments::Assignments,
};
use monitor::status::{Event, Status};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::judgement::{Evidence, Sign};
use crate::stack::control_plane::ControlPlane;

const POLL_TIMEOUT: Duration = Duration::from_secs(12);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Tables in order of their epochs, with the time of their publication.
type Tables = Arc<Mutex<Vec<(Instant, Arc<Table>)>>>;

pub struct Monitors {
    tables: Tables,
    latest: watch::Receiver<u64>,
    statuses: Vec<String>,
    http: reqwest::Client,
    _pollers: JoinSet<()>,
}

impl Monitors {
    /// Polls all monitors, past the links.
    ///
    /// # Errors
    /// No HTTP client can be built.
    pub fn follow(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        let http = runtime::http::plain().timeout(POLL_TIMEOUT).build()?;
        let (tables, (epoch, latest)) = (Tables::default(), watch::channel(0));
        let mut pollers = JoinSet::new();
        for monitor in &control_plane.monitors {
            let url = format!("http://{}/partitions", monitor.http);
            let (http, tables, epoch) = (http.clone(), Arc::clone(&tables), epoch.clone());
            pollers.spawn(async move {
                loop {
                    let known = *epoch.borrow();
                    match poll(&http, &url, known).await {
                        Ok(seen) => record(&tables, &epoch, &seen.table),
                        Err(_) => sleep(RETRY_PAUSE).await,
                    }
                }
            });
        }
        let statuses = control_plane.monitors.iter().map(|monitor| format!("http://{}/status", monitor.http)).collect();
        Ok(Self { tables, latest, statuses, http, _pollers: pollers })
    }

    /// # Errors
    /// The condition is not met in this time.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        is_met: impl Fn(&Table) -> bool,
    ) -> anyhow::Result<Arc<Table>> {
        let mut latest = self.latest.clone();
        let met = async {
            loop {
                latest.borrow_and_update();
                let newest = self.tables().last().map(|(_, table)| Arc::clone(table));
                if let Some(table) = newest.filter(|table| is_met(table)) {
                    return anyhow::Ok(table);
                }
                latest.changed().await.context("the pollers of the monitors have ended")?;
            }
        };
        tokio::time::timeout(limit, met).await.with_context(|| format!("not within {limit:?}: {what}"))?
    }

    pub fn tables(&self) -> Vec<(Instant, Arc<Table>)> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first sign against each worker in the monitors' logs, by time since `begun_ms` (Unix time).
    pub async fn signs(&self, begun_ms: u64) -> BTreeMap<NodeId, Sign> {
        let mut signs = BTreeMap::<NodeId, Sign>::new();
        for url in &self.statuses {
            let Ok(status) = self.status(url).await else { continue };
            for event in status.changes.into_iter().filter(|event| event.at_ms >= begun_ms) {
                let (node, evidence) = match event.event {
                    Event::Offline { node, .. } => (node, Evidence::Heartbeats),
                    Event::Unserved { node, evidence: Source::Report, .. } => (node, Evidence::Report),
                    Event::Unserved { node, evidence: Source::Requesters, .. } => (node, Evidence::Requesters),
                    _ => continue,
                };
                let sign = Sign { after_s: (event.at_ms - begun_ms) as f64 / 1e3, evidence };
                let first = signs.entry(node).or_insert(sign);
                if sign.after_s < first.after_s {
                    *first = sign;
                }
            }
        }
        signs
    }

    async fn status(&self, url: &str) -> reqwest::Result<Status> {
        self.http.get(url).send().await?.error_for_status()?.json().await
    }
}

fn record(tables: &Tables, epoch: &watch::Sender<u64>, seen: &Arc<Table>) {
    epoch.send_if_modified(|known| {
        if seen.epoch <= *known {
            return false;
        }
        tables.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), Arc::clone(seen)));
        *known = seen.epoch;
        true
    });
}

async fn poll(http: &reqwest::Client, url: &str, epoch: u64) -> reqwest::Result<Arc<Assignments>> {
    let poll = http.get(url).query(&[("epoch", epoch), ("wait_ms", 10_000)]);
    poll.send().await?.error_for_status()?.json().await
}
