//! `GET /status` asks the control loop for at most one snapshot at a time, however many clients wait for it.

use std::{sync::Arc, time::Duration};

use axum::body::Bytes;
use heartbeat::{Nanos, transport::rendered::Rendered};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::status::Status;

/// Minimum time between two snapshots.
const MIN_GAP: Nanos = 100_000_000;
/// The control loop makes a snapshot within this time, unless it is overloaded or stopped.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Both ends: for the control loop, and for the requests.
pub fn channel() -> (Publisher, Reader) {
    let (wanted, (latest, seen)) = (Arc::new(Notify::new()), watch::channel(None));
    let publisher = Publisher { wanted: Arc::clone(&wanted), latest, due: None, earliest: 0 };
    (publisher, Reader { wanted, latest: seen, json: Arc::default() })
}

pub struct Publisher {
    wanted: Arc<Notify>,
    latest: watch::Sender<Option<Arc<Status>>>,
    due: Option<Nanos>,
    /// No snapshot before this time.
    earliest: Nanos,
}

impl Publisher {
    /// Returns when a request waits. Cancel safe.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A request waits.
    pub fn request(&mut self, now: Nanos) {
        self.due = Some(now.max(self.earliest));
    }

    /// When the next snapshot is due; `Nanos::MAX`: no request waits.
    pub fn due(&self) -> Nanos {
        self.due.unwrap_or(Nanos::MAX)
    }

    pub fn publish(&mut self, now: Nanos, status: Status) {
        (self.due, self.earliest) = (None, now + MIN_GAP);
        self.latest.send_replace(Some(Arc::new(status)));
    }
}

#[derive(Clone)]
pub struct Reader {
    wanted: Arc<Notify>,
    latest: watch::Receiver<Option<Arc<Status>>>,
    json: Arc<Rendered<Status>>,
}

impl Reader {
    /// The JSON of a snapshot made after this call; `None`: the control loop does not answer.
    pub async fn json(mut self) -> Option<Bytes> {
        self.latest.mark_unchanged();
        self.wanted.notify_one();
        timeout(TIMEOUT, self.latest.changed()).await.ok()?.ok()?;
        let latest = self.latest.borrow().clone()?;
        self.json.json(&latest).ok()
    }
}
