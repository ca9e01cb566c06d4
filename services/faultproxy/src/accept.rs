//! Accepts connections, and does to new ones what the faults say: refuse, reset.

use std::{sync::Arc, time::Duration};

use prometheus::IntGauge;
use runtime::{
    Endpoint,
    net::{Listener, Stream},
};
use tokio::{sync::watch, time::sleep};

use crate::{
    connection::reset,
    fault::{Conditions, Control},
};

/// Pause after an accept, receive or bind that failed (out of descriptors, port taken meanwhile).
pub(crate) const RETRY: Duration = Duration::from_millis(100);

/// A connection that no fault hindered, and the resets there had been when it came.
pub(crate) struct Arrived {
    pub(crate) stream: Stream,
    pub(crate) conditions: watch::Receiver<Conditions>,
    pub(crate) resets: u64,
}

/// For ever; cancelled from outside.
pub(crate) async fn accept(
    mut socket: Listener,
    listen: Endpoint,
    control: Arc<Control>,
    mut admit: impl FnMut(Arrived),
) {
    let mut conditions = control.subscribe();
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
            Some(Ok(stream)) => {
                let conditions = control.subscribe();
                let (resets, reset_new) = {
                    let now = conditions.borrow();
                    (now.resets, now.reset_new)
                };
                if reset_new {
                    reset(&stream);
                } else {
                    admit(Arrived { stream, conditions, resets });
                }
            }
            Some(Err(error)) => {
                tracing::warn!(%listen, %error, "cannot accept");
                sleep(RETRY).await;
            }
            None => {
                // Only a closed socket refuses; what waits in its line gets RST.
                drop(socket);
                conditions.wait_for(|now| !now.refuse).await.ok();
                socket = bind_again(&listen).await;
            }
        }
    }
}

async fn bind_again(listen: &Endpoint) -> Listener {
    let mut told = false;
    loop {
        match listen.bind().await {
            Ok(socket) => return socket,
            Err(error) if !told => {
                tracing::error!(%listen, %error, "cannot listen again, trying on");
                told = true;
            }
            Err(_) => {}
        }
        sleep(RETRY).await;
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
