//! Step 5 of a heartbeat's path: polls all monitors for the partition table (the latest answer counts), and registers with them while the table does not list this
//! incarnation as online.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::anyhow;
use heartbeat::{
    assign::NodeId,
    auth::{FrameKind, Keys},
    frame::{self, Poll},
    registry::Registration,
    transport::{assignments::Assignments, http::AUTHENTICATED},
};
use runtime::Readiness;
use tokio::{sync::watch, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    beats::{ResumedBy, Senders},
    config::Monitor,
    incarnation::Incarnation,
};

/// How long a monitor may hold a poll without news, and the extra time for the network.
const POLL: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(2);
/// More than a table with a million workers has.
const MAX_TABLE_BYTES: usize = 256 << 20;
const REGISTER_TIMEOUT: Duration = Duration::from_secs(2);

pub type AssignmentsSender = watch::Sender<Arc<Assignments>>;

/// Starts a poller for each monitor. It waits `pause` after an error.
pub fn spawn(
    monitors: &BTreeMap<String, Monitor>,
    client: &MonitorClient,
    latest: &AssignmentsSender,
    senders: &Senders,
    pause: Duration,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    for (name, monitor) in monitors {
        let (url, client, latest) = (format!("http://{}/partitions", monitor.http), client.clone(), latest.clone());
        let (name, senders) = (name.clone(), senders.clone());
        let poll_for_ever = async move {
            loop {
                let known = latest.borrow().table.epoch;
                match client.poll(&url, known).await {
                    Ok(assignments) => {
                        // The monitor is reachable: a sender that stopped reconnecting starts again.
                        senders.resume(&name, ResumedBy::Contact);
                        latest.send_if_modified(|known| {
                            let is_later = assignments.table.epoch > known.table.epoch;
                            if is_later {
                                *known = assignments;
                            }
                            is_later
                        });
                    }
                    Err(error) => {
                        tracing::debug!(%error, url, "cannot get the partition table from a monitor");
                        sleep(pause).await;
                    }
                }
            }
        };
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(poll_for_ever).await });
    }
}

/// Sends authenticated polls and registrations to monitors. Cheap to clone.
#[derive(Clone)]
pub struct MonitorClient {
    pub http: reqwest::Client,
    pub keys: Keys,
}

/// Registers this incarnation with one monitor after the other, until `stop`.
pub async fn register(
    registration: Registration,
    incarnation: Incarnation,
    monitors: BTreeMap<String, Monitor>,
    client: MonitorClient,
    latest: watch::Receiver<Arc<Assignments>>,
    pause: Duration,
    stop: CancellationToken,
) {
    let keep_registering = async {
        for monitor in monitors.values().cycle() {
            let (me, table) = (&registration.id, Arc::clone(&latest.borrow().table));
            if incarnation.replace_if_failed(me, &table) {
                tracing::warn!(
                    incarnation = incarnation.current(),
                    "the monitors failed this worker although it runs: it registers as a new incarnation"
                );
            }
            if !incarnation.is_admitted(me, &table) {
                let registration = Registration { incarnation: incarnation.current(), ..registration.clone() };
                if let Err(error) = client.send(monitor, &registration).await {
                    tracing::debug!(%error, monitor = monitor.http, "cannot register");
                }
            }
            sleep(pause).await;
        }
    };
    stop.run_until_cancelled(keep_registering).await;
}

/// Announces to the first reachable monitor that this worker leaves. Then waits until other workers own its partitions; it serves them
/// until then.
pub async fn leave(
    last: Registration,
    monitors: &BTreeMap<String, Monitor>,
    client: &MonitorClient,
    mut latest: watch::Receiver<Arc<Assignments>>,
) {
    for monitor in monitors.values() {
        match client.send(monitor, &last).await {
            Ok(()) => {
                // An error means that all pollers have ended.
                latest.wait_for(|latest| !latest.table.is_online(&last.id)).await.map(drop).ok();
                return;
            }
            Err(error) => tracing::debug!(%error, monitor = monitor.http, "cannot announce that this worker leaves"),
        }
    }
    tracing::warn!("no monitor could be reached to announce that this worker leaves: the monitors will fail it");
}

/// Ready while the table lists this incarnation as online.
pub async fn readiness(
    me: NodeId,
    incarnation: Incarnation,
    mut latest: watch::Receiver<Arc<Assignments>>,
    readiness: Readiness,
    stop: CancellationToken,
) {
    let follow = async {
        while latest.changed().await.is_ok() {
            let is_admitted = incarnation.is_admitted(&me, &latest.borrow_and_update().table);
            if is_admitted { readiness.ready() } else { readiness.step("waiting to be admitted") }
        }
    };
    stop.run_until_cancelled(follow).await;
}

impl MonitorClient {
    /// The partition table as the monitor replies to exactly this poll: neither a forged nor a recorded table passes.
    async fn poll(&self, url: &str, epoch: u64) -> anyhow::Result<Arc<Assignments>> {
        let poll = Poll { epoch, wait_ms: POLL.as_millis() as u64, nonce: rand::random() };
        let question = frame::sign_control(&self.keys, &poll)?;
        let post = self.http.post(url).header("content-type", AUTHENTICATED).body(question.clone());
        let response = post.timeout(POLL + SLACK).send().await?.error_for_status()?;
        let reply = runtime::http::body_within(response, MAX_TABLE_BYTES).await?;
        let table = frame::verify_reply(&self.keys, FrameKind::Table, &question, &reply);
        table.map_err(|reason| anyhow!("the partition table is not authentic: {}", reason.label()))
    }

    async fn send(&self, monitor: &Monitor, registration: &Registration) -> anyhow::Result<()> {
        let url = format!("http://{}/register", monitor.http);
        let signed = frame::sign_control(&self.keys, registration)?;
        let post = self.http.post(url).header("content-type", AUTHENTICATED).body(signed).timeout(REGISTER_TIMEOUT);
        Ok(post.send().await?.error_for_status().map(drop)?)
    }
}
