//! Accepts the connections of one MySQL instance.

use std::{sync::Arc, time::Duration};

use prometheus::IntGauge;
use runtime::net::{Listener, Stream};
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::task::TaskTracker;

use crate::{
    Route,
    connection::{self, Accepted},
    fault::Control,
    metrics::Metrics,
    release::Releases,
};

/// Pause after an accept or bind that failed (out of descriptors, port taken meanwhile).
const RETRY: Duration = Duration::from_millis(100);
/// ERR 1040 in the place of a greeting, as a server says it (no SQL state: capabilities are not known yet).
const TOO_MANY_CONNECTIONS: &[u8] = b"\x17\0\0\0\xff\x10\x04Too many connections";

pub(crate) struct Accepting {
    pub(crate) index: usize,
    pub(crate) route: Route,
    pub(crate) control: Arc<Control>,
    pub(crate) releases: Arc<Releases>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) connections: TaskTracker,
    /// Connections so far: their dice differ.
    pub(crate) number: u64,
}

impl Accepting {
    /// Accepts for ever; cancelled from outside.
    pub(crate) async fn accept(mut self, mut socket: Listener) {
        let mut conditions = self.control.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                refused = conditions.wait_for(|now| now.refuse) => {
                    // The control outlives its listeners.
                    drop(refused);
                    None
                }
                accepted = socket.accept() => Some(accepted),
            };
            match accepted {
                Some(Ok(stream)) => self.admit(stream),
                Some(Err(error)) => {
                    tracing::warn!(listen = %self.route.listen, %error, "cannot accept");
                    sleep(RETRY).await;
                }
                None => {
                    // Only a closed socket refuses; what waits in its line gets RST.
                    drop(socket);
                    conditions.wait_for(|now| !now.refuse).await.ok();
                    socket = self.bind_again().await;
                }
            }
        }
    }

    fn admit(&mut self, stream: Stream) {
        let conditions = self.control.subscribe();
        let (resets, reset_new) = {
            let now = conditions.borrow();
            (now.resets, now.reset_new)
        };
        if reset_new {
            connection::reset(&stream);
            return;
        }
        let counts = &self.metrics.listeners[self.index];
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            counts.rejected.inc();
            tracing::warn!(listen = %self.route.listen, "too many connections");
            // The send buffer of a new connection is empty; if it fails the client sees it closed all the same.
            stream.try_write(TOO_MANY_CONNECTIONS).ok();
            return;
        };
        let open = Open::new(counts.connections.clone());
        self.number += 1;
        let accepted = Accepted {
            stream,
            route: self.route.clone(),
            listener: self.index,
            number: self.number,
            metrics: Arc::clone(&self.metrics),
            conditions,
            releases: Arc::clone(&self.releases),
            resets,
        };
        self.connections.spawn(async move {
            connection::serve(accepted).await;
            drop((open, permit));
        });
    }

    async fn bind_again(&self) -> Listener {
        let mut told = false;
        loop {
            match self.route.listen.bind().await {
                Ok(socket) => return socket,
                Err(error) if !told => {
                    tracing::error!(listen = %self.route.listen, %error, "cannot listen again, trying on");
                    told = true;
                }
                Err(_) => {}
            }
            sleep(RETRY).await;
        }
    }
}

/// Counts an open connection until dropped.
pub(crate) struct Open(IntGauge);

impl Open {
    pub(crate) fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
