//! Step 4 of a heartbeat's path: sends this monitor's ballots to the other monitors. One task per monitor sends the latest ballot only.

use std::{collections::BTreeMap, time::Duration};

use axum::body::Bytes;
use heartbeat::{auth::Keys, frame, registry::Monitors, transport::http::AUTHENTICATED, vote::Ballot};
use prometheus::IntCounterVec;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub struct Peers {
    latest: watch::Sender<Bytes>,
    keys: Keys,
    /// `host:port` of the configuration. They win over those in etcd: this machine may know a peer by another name.
    configured: BTreeMap<String, String>,
    /// Address and task of each peer.
    tasks: BTreeMap<String, (String, AbortOnDropHandle<()>)>,
    http: reqwest::Client,
    interval: Duration,
    sent: IntCounterVec,
}

impl Peers {
    /// Without peers at first. `interval` is the timeout of a request; then the next ballot is sent.
    pub fn new(
        configured: &BTreeMap<String, String>,
        http: &reqwest::Client,
        keys: &Keys,
        interval: Duration,
        sent: &IntCounterVec,
    ) -> Self {
        let (latest, _) = watch::channel(Bytes::new());
        let (configured, http, keys, sent) = (configured.clone(), http.clone(), keys.clone(), sent.clone());
        Self { latest, keys, configured, tasks: BTreeMap::new(), http, interval, sent }
    }

    /// Sends ballots to these monitors from now on, except to `me`.
    pub fn set(&mut self, me: &str, monitors: &Monitors) {
        let others = monitors.members.iter().filter(|(name, _)| &***name != me);
        let addresses: BTreeMap<String, String> = others
            .map(|(name, address)| (name.to_string(), self.configured.get(&**name).unwrap_or(address).clone()))
            .collect();
        self.tasks.retain(|name, (known, _)| addresses.get(name) == Some(known));
        for (name, address) in addresses {
            if !self.tasks.contains_key(&name) {
                let task = tokio::spawn(self.keep_sending(&name, &address));
                self.tasks.insert(name, (address, AbortOnDropHandle::new(task)));
            }
        }
    }

    fn keep_sending(&self, name: &str, address: &str) -> impl Future<Output = ()> + use<> {
        let (url, mut latest, http) = (format!("http://{address}/ballot"), self.latest.subscribe(), self.http.clone());
        let outcomes = ["sent", "failed"].map(|outcome| self.sent.with_label_values(&[name, outcome]));
        let interval = self.interval;
        // The ballot that was cast before the peer was known.
        latest.mark_changed();
        async move {
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
        }
    }

    pub fn share(&self, ballot: &Ballot) {
        // Maps with string keys, strings and numbers always serialise. Without peers there is no receiver.
        self.latest.send_replace(frame::sign_control(&self.keys, ballot).unwrap_or_default().into());
    }
}
