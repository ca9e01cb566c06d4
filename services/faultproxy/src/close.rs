//! Ends of connections that faults cause: RST, and silence in a black hole.

use runtime::net::Stream;
use tokio::{io::AsyncReadExt as _, sync::watch};

use crate::fault::{Conditions, EventsAtAccept};

/// How a connection in a black hole ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlackholeEnd {
    /// The client closed it, or this process ends.
    Ended,
    /// The proxy closes it with RST.
    Reset,
}

/// Reads and discards what the client sends, and sends nothing.
pub(crate) async fn discard_input(
    stream: &mut Stream,
    conditions: &mut watch::Receiver<Conditions>,
    at_accept: EventsAtAccept,
) -> BlackholeEnd {
    let mut lost = vec![0; 4096];
    let sent = async { while let Ok(1..) = stream.read(&mut lost).await {} };
    tokio::select! {
        biased;
        now = conditions.wait_for(|now| now.abort || now.draining || now.resets(at_accept)) => match now {
            Ok(now) if now.resets(at_accept) => BlackholeEnd::Reset,
            _ => BlackholeEnd::Ended,
        },
        () = sent => BlackholeEnd::Ended,
    }
}

/// Makes the socket send RST when it is dropped.
pub(crate) fn reset(stream: &Stream) {
    if let Err(error) = stream.reset_on_drop() {
        tracing::warn!(%error, "cannot reset the connection, it is closed");
    }
}
