//! Accepts the connections of one MySQL instance.

use std::sync::Arc;

use runtime::net::Listener;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::{
    accept::{NewConnection, accept},
    config::Route,
    connection::{self, StoreConnection},
    delay::DelayTimer,
    fault::Conditions,
    metrics::{Metrics, OpenConnection},
};

/// ERR 1040 instead of a greeting, as a server sends it (no SQL state: capabilities are not negotiated yet).
const TOO_MANY_CONNECTIONS: &[u8] = b"\x17\0\0\0\xff\x10\x04Too many connections";

pub(crate) struct StoreListener {
    pub(crate) index: usize,
    pub(crate) route: Route,
    pub(crate) conditions: watch::Receiver<Conditions>,
    pub(crate) delays: Arc<DelayTimer>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) connections: TaskTracker,
    /// Number of connections so far: each has its own random sequence.
    pub(crate) number: u64,
}

impl StoreListener {
    /// Runs until cancelled.
    pub(crate) async fn accept(mut self, socket: Listener) {
        let (listen, conditions) = (self.route.listen.clone(), self.conditions.clone());
        accept(socket, listen, conditions, |arrived| self.admit(arrived)).await;
    }

    fn admit(&mut self, NewConnection { stream, conditions, at_accept }: NewConnection) {
        let counts = &self.metrics.listeners[self.index];
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            counts.rejected.inc();
            tracing::warn!(listen = %self.route.listen, "too many connections");
            // The send buffer of a new connection is empty. If the write fails, the client sees the close.
            stream.try_write(TOO_MANY_CONNECTIONS).ok();
            return;
        };
        let open = OpenConnection::new(counts.connections.clone());
        self.number += 1;
        let accepted = StoreConnection {
            stream,
            route: self.route.clone(),
            listener: self.index,
            number: self.number,
            metrics: Arc::clone(&self.metrics),
            conditions,
            delays: Arc::clone(&self.delays),
            at_accept,
        };
        self.connections.spawn(async move {
            connection::serve(accepted).await;
            drop((open, permit));
        });
    }
}
