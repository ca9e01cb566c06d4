//! `GET /status` asks the control loop for at most one snapshot at a time, however many clients wait for it.

use std::{sync::Arc, time::Duration};

use axum::body::Bytes;
use heartbeat::{Nanos, transport::rendered::Rendered};
use serde::Serialize;
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
pub fn channel<T>() -> (Publisher<T>, Reader<T>) {
    let (wanted, (latest, seen)) = (Arc::new(Notify::new()), watch::channel(None));
    let publisher = Publisher { wanted: Arc::clone(&wanted), latest, due: None, earliest: 0 };
    (publisher, Reader { wanted, latest: seen, json: Arc::default() })
}

pub struct Publisher<T = Status> {
    wanted: Arc<Notify>,
    latest: watch::Sender<Option<Arc<T>>>,
    due: Option<Nanos>,
    /// No snapshot before this time.
    earliest: Nanos,
}

impl<T> Publisher<T> {
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

    pub fn publish(&mut self, now: Nanos, snapshot: T) {
        (self.due, self.earliest) = (None, now + MIN_GAP);
        self.latest.send_replace(Some(Arc::new(snapshot)));
    }
}

pub struct Reader<T = Status> {
    wanted: Arc<Notify>,
    latest: watch::Receiver<Option<Arc<T>>>,
    json: Arc<Rendered<T>>,
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self { wanted: Arc::clone(&self.wanted), latest: self.latest.clone(), json: Arc::clone(&self.json) }
    }
}

impl<T: Serialize> Reader<T> {
    /// The JSON of a snapshot made after this call; `None`: the control loop does not answer.
    pub async fn json(mut self) -> Option<Bytes> {
        self.latest.mark_unchanged();
        self.wanted.notify_one();
        timeout(TIMEOUT, self.latest.changed()).await.ok()?.ok()?;
        let latest = self.latest.borrow().clone()?;
        self.json.json(&latest).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_that_wait_share_one_snapshot_and_none_gets_an_earlier_one() {
        let (mut publisher, reader) = channel();
        publisher.publish(0, 1_u64);
        let answered = async {
            publisher.wanted().await;
            publisher.request(7);
            assert_eq!(publisher.due(), MIN_GAP, "the snapshot before was made at 0");
            publisher.publish(MIN_GAP, 2);
            assert_eq!(publisher.due(), Nanos::MAX);
        };
        let (one, other, ()) = tokio::join!(reader.clone().json(), reader.json(), answered);
        assert_eq!((one.as_deref(), other.as_deref()), (Some(&b"2"[..]), Some(&b"2"[..])));
    }
}
