//! Relays bytes in both directions, in order: a delayed piece delays all after it.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use runtime::net::{Listener, Stream};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::{
    accept::{NewConnection, accept},
    close::{BlackholeEnd, discard_input, reset},
    direction::Direction,
    fault::{Conditions, EventsAtAccept, unstalled},
    loss::LossSampler,
    metrics::OpenConnection,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum bytes per read; a piece is counted and delayed as one segment.
const PIECE_BYTES: usize = 16 * 1024;
/// Maximum pieces in flight per direction; then the sender waits, as for a full TCP window.
const PIECES: usize = 64;

pub(super) struct TcpLink {
    shared: Shared,
    stop: CancellationToken,
    /// Number of connections so far: each has its own random sequence.
    number: u64,
}

impl TcpLink {
    pub(super) fn new(shared: Shared, stop: CancellationToken) -> Self {
        Self { shared, stop, number: 0 }
    }

    pub(super) async fn accept(mut self, socket: Listener) {
        let (listen, conditions) = (self.shared.link.listen.clone(), self.shared.conditions.clone());
        accept(socket, listen, conditions, |arrived| self.admit(arrived)).await;
    }

    fn admit(&mut self, NewConnection { stream, conditions, at_accept }: NewConnection) {
        let Ok(permit) = Arc::clone(&self.shared.room).try_acquire_owned() else {
            tracing::warn!(listen = %self.shared.link.listen, "too many connections");
            return self.shared.counts().overflow.inc();
        };
        self.number += 1;
        let open = OpenConnection::new(self.shared.counts().flows.clone());
        let (shared, stop, number) = (self.shared.clone(), self.stop.clone(), self.number);
        self.shared.connections.spawn(async move {
            connection(shared, stream, conditions, number, at_accept, stop).await;
            drop((open, permit));
        });
    }
}

async fn connection(
    shared: Shared,
    stream: Stream,
    conditions: watch::Receiver<Conditions>,
    number: u64,
    at_accept: EventsAtAccept,
    stop: CancellationToken,
) {
    let mut changes = conditions.clone();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let half = |direction| Half {
        shared: &shared,
        conditions: conditions.clone(),
        direction,
        at_accept,
        sampler: LossSampler::new(number, direction),
    };
    let (there, back) = (half(Direction::ToServer), half(Direction::ToClient));
    let relayed = async {
        let server = timeout(CONNECT_TIMEOUT, shared.link.upstream.connect()).await;
        let server = server.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).inspect_err(|error| {
            tracing::warn!(upstream = %shared.link.upstream, %error, "unreachable, connection closed");
            shared.counts().unreachable.inc();
        })?;
        let (mut from_server, mut to_server) = tokio::io::split(server);
        // The end of one direction leaves the other open; an error ends both.
        tokio::try_join!(there.opened(&mut reader, &mut to_server), back.relay(&mut from_server, &mut writer))
    };
    let cut_off = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        now = changes.wait_for(|now| now.abort || now.resets(at_accept) || now.is_in_blackhole(at_accept)) => match now {
            Ok(now) if !now.abort => *now,
            _ => return,
        },
        ended = relayed => {
            if let Err(error) = ended {
                tracing::debug!(listen = %shared.link.listen, %error, "connection ended");
            }
            return;
        }
    };
    let mut stream = reader.unsplit(writer);
    let is_reset = cut_off.resets(at_accept) || {
        let swallowed = stop.run_until_cancelled(discard_input(&mut stream, &mut changes, at_accept)).await;
        swallowed == Some(BlackholeEnd::Reset)
    };
    if is_reset {
        reset(&stream);
    }
}

/// One direction of a connection.
struct Half<'a> {
    shared: &'a Shared,
    conditions: watch::Receiver<Conditions>,
    direction: Direction,
    at_accept: EventsAtAccept,
    sampler: LossSampler,
}

impl Half<'_> {
    /// As `relay`, but waits first as long as a lost SYN would take. The kernel has accepted the client already: it sees its first bytes
    /// answered late.
    async fn opened(
        mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let arrival = Instant::now();
        let loss = self.conditions.borrow().toward(self.direction).loss;
        let (late, lost) = self.sampler.retransmission_of_syn(loss);
        self.shared.counts().lost.inc_by(u64::from(lost));
        if late > Duration::ZERO {
            self.shared.delays.wait(arrival, late).await;
        }
        self.relay(from, to).await
    }

    /// Relays until the end of the stream, and closes the other side.
    async fn relay(
        mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let (pieces, mut on_the_way) = mpsc::channel::<(Instant, Duration, Vec<u8>)>(PIECES);
        let (shared, direction, at_accept) = (self.shared, self.direction, self.at_accept);
        let mut conditions = self.conditions.clone();
        let reading = async move {
            let mut buffer = vec![0; PIECE_BYTES];
            loop {
                let length = from.read(&mut buffer).await?;
                if length == 0 {
                    return Ok::<_, io::Error>(());
                }
                let piece = (Instant::now(), self.delay(), buffer[..length].to_vec());
                if pieces.send(piece).await.is_err() {
                    return Ok(());
                }
            }
        };
        let writing = async move {
            while let Some((arrival, delay, bytes)) = on_the_way.recv().await {
                if delay > Duration::ZERO {
                    shared.delays.wait(arrival, delay).await;
                }
                unstalled(&conditions, direction).await;
                if conditions.borrow().loses(direction, at_accept) {
                    shared.counts().lost.inc();
                    continue;
                }
                to.write_all(&bytes).await?;
                shared.counts().passed.inc();
            }
            if !conditions.borrow().loses(direction, at_accept) {
                return to.shutdown().await;
            }
            // The end of the stream is lost too. When the direction is open again, the other side learns that the connection is gone.
            conditions.wait_for(|now| !now.toward(direction).blackhole).await.ok();
            Err(io::ErrorKind::ConnectionAborted.into())
        };
        tokio::try_join!(reading, writing).map(|_| ())
    }

    fn delay(&mut self) -> Duration {
        let (latency, loss) = {
            let now = self.conditions.borrow();
            let now = now.toward(self.direction);
            (now.latency(&mut rand::rng()), now.loss)
        };
        let (late, lost) = self.sampler.retransmission(loss);
        self.shared.counts().lost.inc_by(u64::from(lost));
        latency + late
    }
}
