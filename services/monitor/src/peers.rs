//! Step 4 of a heartbeat's path: sends this monitor's ballots to the other monitors. One task per monitor sends the latest ballot only.

use std::{collections::BTreeMap, time::Duration};

use axum::body::Bytes;
use heartbeat::{auth::Keys, frame, transport::http::AUTHENTICATED, vote::Ballot};
use prometheus::IntCounterVec;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub struct Peers {
    latest: watch::Sender<Bytes>,
    keys: Keys,
}

impl Peers {
    /// `addresses`: name → `host:port`. `interval` is the timeout of a request; then the next ballot is sent.
    pub fn spawn(
        addresses: &BTreeMap<String, String>,
        (http, keys): (&reqwest::Client, &Keys),
        interval: Duration,
        sent: &IntCounterVec,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (ballots, latest) = watch::channel(Bytes::new());
        for (name, address) in addresses {
            let (url, mut latest, http) = (format!("http://{address}/ballot"), latest.clone(), http.clone());
            let outcomes = ["sent", "failed"].map(|outcome| sent.with_label_values(&[name.as_str(), outcome]));
            let keep_sending = async move {
                while latest.changed().await.is_ok() {
                    let ballot = latest.borrow_and_update().clone();
                    let post = http.post(&url).header("content-type", AUTHENTICATED).body(ballot);
                    let answer = post.timeout(interval).send().await.and_then(reqwest::Response::error_for_status);
                    if let Err(error) = &answer {
                        // Counted as a metric: an unreachable monitor would fill the log.
                        tracing::debug!(%error, url, "a ballot was not delivered");
                    }
                    outcomes[usize::from(answer.is_err())].inc();
                }
            };
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(keep_sending).await });
        }
        Self { latest: ballots, keys: keys.clone() }
    }

    pub fn share(&self, ballot: &Ballot) {
        // Maps with string keys, strings and numbers always serialise. Without peers there is no receiver.
        self.latest.send_replace(frame::sign_control(&self.keys, ballot).unwrap_or_default().into());
    }
}
