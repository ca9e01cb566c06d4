//! Step 5 of a heartbeat's path: polls all monitors for the partition table (the latest answer counts), and registers with them while the
//! table does not list this process as online.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::anyhow;
use heartbeat::{
    assign::NodeId,
    auth::{FrameKind, Keys},
    frame::{self, Poll},
    ownership,
    registry::{Registered, Registration},
    transport::{assignments::Assignments, http::AUTHENTICATED},
};
use runtime::Readiness;
use tokio::{sync::watch, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    beats::{ResumedBy, Senders},
    config::Monitor,
    incarnation::{Incarnation, Step},
};

/// How long a monitor may hold a poll without news, and the extra time for the network.
const POLL: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(2);
/// More than a table with a million workers has.
const MAX_TABLE_BYTES: usize = 256 << 20;
/// Of a registration.
const MAX_REPLY_BYTES: usize = 1_024;
const REGISTER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest pause, in intervals, of a process that competes with another one of its name.
const MAX_RIVAL_PAUSES: u32 = 32;

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
                        let epoch = assignments.table.epoch;
                        latest.send_if_modified(|known| {
                            let is_next = ownership::is_next(&known.table, &assignments.table);
                            if is_next {
                                *known = assignments;
                            }
                            is_next
                        });
                        if epoch > latest.borrow().table.epoch {
                            tracing::warn!(epoch, url, "ignoring a partition table: its epochs are not plausible");
                            sleep(pause).await;
                        }
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
    /// This worker.
    pub node: NodeId,
    pub http: reqwest::Client,
    pub keys: Keys,
}

/// Registers this process with one monitor after the other while it is not admitted, until `stop`.
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
        let (mut rivals, mut gave_way_to) = (0, None);
        for monitor in monitors.values().cycle() {
            let (me, table) = (&registration.id, Arc::clone(&latest.borrow().table));
            match incarnation.next_step(me, &table) {
                Step::Stay => (rivals, gave_way_to) = (0, None),
                Step::GiveWay { to_process, to_incarnation } => {
                    if gave_way_to.replace(to_process) != Some(to_process) {
                        tracing::error!(
                            process = format!("{:016x}", incarnation.process()),
                            incarnation = incarnation.current(),
                            other_process = format!("{to_process:016x}"),
                            other_incarnation = to_incarnation,
                            "another process has this worker's name (node.id) and replaced it: this process serves nothing; give each worker its own name"
                        );
                    }
                }
                Step::Register => {
                    let registration = Registration { incarnation: incarnation.current(), ..registration.clone() };
                    match client.send(monitor, &registration).await {
                        Ok(Registered::Registered) => {}
                        Ok(Registered::Superseded { incarnation: registered }) => {
                            let is_first = rivals == 0;
                            rivals += 1;
                            if !is_first {
                                // Two processes compete: one of them is admitted while the other one waits.
                                let pauses = (1 << rivals.min(MAX_RIVAL_PAUSES.ilog2())) as f64;
                                sleep(pause.mul_f64(rand::random_range(1.0..=pauses))).await;
                            }
                            if rise_above(&incarnation, registered) && is_first {
                                continue;
                            }
                        }
                        Err(error) => tracing::debug!(%error, monitor = monitor.http, "cannot register"),
                    }
                }
            }
            sleep(pause).await;
        }
    };
    stop.run_until_cancelled(keep_registering).await;
}

/// Returns whether this process has a new incarnation.
fn rise_above(incarnation: &Incarnation, registered: u64) -> bool {
    let former = incarnation.current();
    let rises = incarnation.rise_above(registered);
    if rises {
        tracing::warn!(
            incarnation = incarnation.current(),
            former,
            registered,
            "another incarnation of this worker is registered: registering above it; the clock was set back, or another process has this name"
        );
    } else if former <= registered {
        tracing::error!(
            incarnation = former,
            registered,
            "cannot register: the registered incarnation of this worker is more than a day ahead of the clock; correct the clock, or give the worker another name (node.id)"
        );
    }
    rises
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
            // Another process has the name: this one owns nothing.
            Ok(Registered::Superseded { .. }) => return,
            Ok(Registered::Registered) => {
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
        let (node, wait_ms) = (self.node.clone(), POLL.as_millis() as u64);
        let poll = Poll { node, epoch, wait_ms, nonce: rand::random() };
        let question = frame::sign_control(&self.keys, &poll)?;
        let post = self.http.post(url).header("content-type", AUTHENTICATED).body(question.clone());
        let response = post.timeout(POLL + SLACK).send().await?.error_for_status()?;
        let reply = runtime::http::body_within(response, MAX_TABLE_BYTES).await?;
        let table = frame::verify_reply(&self.keys, FrameKind::Table, &question, &reply);
        table.map_err(|reason| anyhow!("the partition table is not authentic: {}", reason.label()))
    }

    async fn send(&self, monitor: &Monitor, registration: &Registration) -> anyhow::Result<Registered> {
        let url = format!("http://{}/register", monitor.http);
        let signed = frame::sign_control(&self.keys, registration)?;
        let post = self.http.post(url).header("content-type", AUTHENTICATED).header("accept", AUTHENTICATED);
        let response = post.body(signed.clone()).timeout(REGISTER_TIMEOUT).send().await?.error_for_status()?;
        let reply = runtime::http::body_within(response, MAX_REPLY_BYTES).await?;
        // A forged "outlived" would drive this worker's incarnation up.
        let reply = frame::verify_reply(&self.keys, FrameKind::Registered, &signed, &reply);
        reply.map_err(|reason| anyhow!("the reply to the registration is not authentic: {}", reason.label()))
    }
}
