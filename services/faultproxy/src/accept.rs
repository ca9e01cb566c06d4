//! Accepts connections, and applies faults to new ones: refuse, reset, dropped SYNs.

use std::{io, net::SocketAddr, time::Duration};

use runtime::{
    Endpoint,
    net::{Listener, Stream},
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    close::reset,
    fault::{Conditions, EventsAtAccept},
};

/// Pause after a failed accept, receive or bind (out of descriptors, port in use meanwhile).
pub(crate) const RETRY: Duration = Duration::from_millis(100);
/// Backlog of tokio's listeners.
const BACKLOG: i32 = 1024;
/// More connections than fit into the accept queue of a listener with backlog 0.
const MAX_FILLERS: usize = 8;
/// A connection attempt on loopback without an answer by then has had its SYN dropped.
const FILLER_TIMEOUT: Duration = Duration::from_millis(200);

/// A new connection that no fault stopped.
pub(crate) struct NewConnection {
    pub(crate) stream: Stream,
    pub(crate) conditions: watch::Receiver<Conditions>,
    pub(crate) at_accept: EventsAtAccept,
}

/// Why a listener does not accept.
enum Closed {
    Refusing,
    DroppingSyn,
}

/// Runs until cancelled.
pub(crate) async fn accept(
    mut socket: Listener,
    listen: Endpoint,
    mut conditions: watch::Receiver<Conditions>,
    mut admit: impl FnMut(NewConnection),
) {
    // Our own connections in the accept queue: see `drop_syn`.
    let mut fillers: Vec<TcpStream> = Vec::new();
    loop {
        let accepted = tokio::select! {
            biased;
            closed = closed(&mut conditions, &listen) => Err(closed),
            accepted = socket.accept() => Ok(accepted),
        };
        match accepted {
            Ok(Ok(stream)) => {
                if take_filler(&mut fillers, &stream) {
                    continue;
                }
                let conditions = conditions.clone();
                let (at_accept, reset_new) = {
                    let now = conditions.borrow();
                    (now.at_accept(), now.reset_new)
                };
                if reset_new {
                    reset(&stream);
                } else {
                    admit(NewConnection { stream, conditions, at_accept });
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(%listen, %error, "cannot accept");
                sleep(RETRY).await;
            }
            Err(Closed::Refusing) => {
                // Only a closed socket refuses connections. Connections in its accept queue get RST.
                drop(socket);
                fillers.clear();
                conditions.wait_for(|now| !now.refuse).await.ok();
                socket = bind_again(&listen).await;
            }
            Err(Closed::DroppingSyn) => {
                if let Listener::Tcp(listener) = &socket {
                    let dropped = drop_syn(listener, &mut fillers).await;
                    if let Err(error) = dropped {
                        tracing::error!(%listen, %error, "cannot make the kernel drop SYNs: new connections wait in the accept queue");
                    }
                    conditions.wait_for(|now| !now.drop_syn || now.refuse).await.ok();
                    if let Err(error) = SockRef::from(listener).listen(BACKLOG) {
                        tracing::error!(%listen, %error, "cannot restore the backlog: the accept queue stays short");
                    }
                }
            }
        }
    }
}

/// Waits for a fault that stops this listener from accepting.
async fn closed(conditions: &mut watch::Receiver<Conditions>, listen: &Endpoint) -> Closed {
    let deaf = |now: &Conditions| now.drop_syn && listen.is_tcp();
    match conditions.wait_for(|now| now.refuse || deaf(now)).await {
        Ok(now) if deaf(&now) && !now.refuse => Closed::DroppingSyn,
        // The control outlives its listeners.
        _ => Closed::Refusing,
    }
}

/// Fills the listener's accept queue with our own connections: while it is full, the kernel drops further SYNs (tcp(7), unless
/// `tcp_abort_on_overflow` is set). It is full when a connection attempt gets no answer. Our connections are closed as soon as they are
/// accepted.
async fn drop_syn(listener: &TcpListener, fillers: &mut Vec<TcpStream>) -> io::Result<()> {
    let address = listener.local_addr()?;
    // `listen` may be called again to change the backlog.
    SockRef::from(listener).listen(0)?;
    for _ in 0..MAX_FILLERS {
        match timeout(FILLER_TIMEOUT, TcpStream::connect(address)).await {
            Ok(connected) => fillers.push(connected?),
            Err(_elapsed) => return Ok(()),
        }
    }
    Err(io::Error::other(format!("{MAX_FILLERS} connections do not fill the accept queue")))
}

fn take_filler(fillers: &mut Vec<TcpStream>, accepted: &Stream) -> bool {
    let Stream::Tcp(accepted) = accepted else { return false };
    let Ok(peer) = accepted.peer_addr() else { return false };
    let is_ours = |filler: &TcpStream| filler.local_addr().is_ok_and(|address: SocketAddr| address == peer);
    let found = fillers.iter().position(is_ours);
    found.map(|at| fillers.swap_remove(at)).is_some()
}

async fn bind_again(listen: &Endpoint) -> Listener {
    let mut logged = false;
    loop {
        match listen.bind().await {
            Ok(socket) => return socket,
            Err(error) if !logged => {
                tracing::error!(%listen, %error, "cannot listen again, retrying");
                logged = true;
            }
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}
