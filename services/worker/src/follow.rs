//! Follows the monitors: a long poll at each of them, the latest answer counts. And registers with them while the table does
//! not have this life of the worker as online.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use heartbeat::{
    assign::NodeId,
    auth::Keys,
    frame,
    registry::Registration,
    transport::{assignments::Assignments, http::SEALED},
};
use runtime::Readiness;
use tokio::{sync::watch, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    beats::{By, Senders},
    config::Monitor,
    life::Life,
};

/// How long a monitor keeps a poll that it has nothing new for, and what the network gets besides.
const POLL: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(2);
const REGISTER_PATIENCE: Duration = Duration::from_secs(2);

pub type Latest = watch::Sender<Arc<Assignments>>;

/// Starts a poller for each monitor. A monitor that is away is asked again every `pause`.
pub fn spawn(
    monitors: &BTreeMap<String, Monitor>,
    http: &reqwest::Client,
    latest: &Latest,
    senders: &Senders,
    pause: Duration,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    for (name, monitor) in monitors {
        let (url, http, latest) = (format!("http://{}/partitions", monitor.http), http.clone(), latest.clone());
        let (name, senders) = (name.clone(), senders.clone());
        let poll_for_ever = async move {
            loop {
                let known = latest.borrow().table.epoch;
                match poll(&http, &url, known).await {
                    Ok(assignments) => {
                        // It was in touch: beats that it was given up for begin again.
                        senders.resume(&name, By::Contact);
                        latest.send_if_modified(|known| {
                            let is_later = assignments.table.epoch > known.table.epoch;
                            if is_later {
                                *known = assignments;
                            }
                            is_later
                        });
                    }
                    Err(error) => {
                        tracing::debug!(%error, url, "a monitor did not say who owns what");
                        sleep(pause).await;
                    }
                }
            }
        };
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(poll_for_ever).await });
    }
}

async fn poll(http: &reqwest::Client, url: &str, epoch: u64) -> Result<Arc<Assignments>, reqwest::Error> {
    let wait_ms = POLL.as_millis() as u64;
    let poll = http.get(url).query(&[("epoch", epoch), ("wait_ms", wait_ms)]).timeout(POLL + SLACK);
    poll.send().await?.error_for_status()?.json().await
}

/// What it takes to be believed by a monitor. Cheap to clone.
#[derive(Clone)]
pub struct Speaker {
    pub http: reqwest::Client,
    pub keys: Keys,
}

/// Registers this life, asking one monitor after the other, until `stop`.
pub async fn register(
    registration: Registration,
    life: Life,
    monitors: BTreeMap<String, Monitor>,
    speaker: Speaker,
    latest: watch::Receiver<Arc<Assignments>>,
    pause: Duration,
    stop: CancellationToken,
) {
    let keep_registering = async {
        for monitor in monitors.values().cycle() {
            let (me, table) = (&registration.id, Arc::clone(&latest.borrow().table));
            if life.learn(me, &table) {
                tracing::warn!(incarnation = life.incarnation(), "this worker was failed while it went on: a new life");
            }
            if !life.is_admitted(me, &table) {
                let registration = Registration { incarnation: life.incarnation(), ..registration.clone() };
                if let Err(error) = speaker.say(monitor, &registration).await {
                    tracing::debug!(%error, monitor = monitor.http, "cannot register");
                }
            }
            sleep(pause).await;
        }
    };
    stop.run_until_cancelled(keep_registering).await;
}

/// Says that this life ends, to the first monitor that listens, and waits until its partitions are others': they are served
/// until then.
pub async fn leave(
    last: Registration,
    monitors: &BTreeMap<String, Monitor>,
    speaker: &Speaker,
    mut latest: watch::Receiver<Arc<Assignments>>,
) {
    for monitor in monitors.values() {
        match speaker.say(monitor, &last).await {
            Ok(()) => {
                // An error: nobody follows any more.
                latest.wait_for(|latest| !latest.table.is_online(&last.id)).await.map(drop).ok();
                return;
            }
            Err(error) => tracing::debug!(%error, monitor = monitor.http, "cannot say that this worker leaves"),
        }
    }
    tracing::warn!("no monitor was told that this worker leaves: it will be failed");
}

/// Ready while the table has this life as online.
pub async fn readiness(
    me: NodeId,
    life: Life,
    mut latest: watch::Receiver<Arc<Assignments>>,
    readiness: Readiness,
    stop: CancellationToken,
) {
    let follow = async {
        while latest.changed().await.is_ok() {
            let is_admitted = life.is_admitted(&me, &latest.borrow_and_update().table);
            if is_admitted { readiness.ready() } else { readiness.step("waiting to be admitted") }
        }
    };
    stop.run_until_cancelled(follow).await;
}

impl Speaker {
    async fn say(&self, monitor: &Monitor, registration: &Registration) -> anyhow::Result<()> {
        let url = format!("http://{}/register", monitor.http);
        let sealed = frame::sign_control(&self.keys, registration)?;
        let post = self.http.post(url).header("content-type", SEALED).body(sealed).timeout(REGISTER_PATIENCE);
        Ok(post.send().await?.error_for_status().map(drop)?)
    }
}
