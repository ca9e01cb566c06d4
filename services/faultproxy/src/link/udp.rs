//! Relays datagrams by flow: each client address has its own socket towards the server, so that answers reach the client.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use runtime::Endpoint;
use tokio::{
    net::UdpSocket,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::Shared;
use crate::{accept::RETRY, direction::Direction, fault::Conditions, loss::LossSampler, metrics::OpenConnection};

/// Maximum length of a datagram.
const DATAGRAM_BYTES: usize = 65_536;
/// Maximum datagrams delayed at a time on one link; more are lost, as in a full router queue.
const IN_THE_AIR: usize = 16_384;
/// A flow without datagrams for this long may be replaced by another.
const QUIET: Duration = Duration::from_secs(60);

pub(super) struct Relay {
    shared: Shared,
    air: Arc<Semaphore>,
    flows: HashMap<SocketAddr, Flow>,
    /// Number of flows so far: each has its own random sequence.
    number: u64,
}

struct Flow {
    there: Path,
    heard: Instant,
    _back: AbortOnDropHandle<()>,
    _room: OwnedSemaphorePermit,
    _open: OpenConnection,
}

impl Relay {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared, air: Arc::new(Semaphore::new(IN_THE_AIR)), flows: HashMap::new(), number: 0 }
    }

    pub(super) async fn run(mut self, socket: UdpSocket) {
        let mut conditions = self.shared.conditions.clone();
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let mut socket = Arc::new(socket);
        loop {
            // All users of the socket end with it: otherwise the port would not refuse.
            let open = CancellationToken::new();
            let refused = async {
                conditions.wait_for(|now| now.refuse).await.ok();
            };
            let closing = open.clone().drop_guard();
            tokio::select! {
                biased;
                () = refused => {}
                () = self.relay(&socket, &mut buffer, &open) => {}
            }
            drop((socket, closing));
            self.flows.clear();
            conditions.wait_for(|now| !now.refuse).await.ok();
            socket = Arc::new(self.bind_again().await);
        }
    }

    /// Runs until cancelled.
    async fn relay(&mut self, socket: &Arc<UdpSocket>, buffer: &mut [u8], open: &CancellationToken) {
        loop {
            match socket.recv_from(buffer).await {
                Ok((length, client)) => self.relay_there(socket, client, &buffer[..length], open).await,
                // Error of an earlier answer to a client that is gone, or out of memory.
                Err(error) => {
                    tracing::debug!(listen = %self.shared.link.listen, %error, "cannot receive");
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn relay_there(
        &mut self,
        socket: &Arc<UdpSocket>,
        client: SocketAddr,
        datagram: &[u8],
        open: &CancellationToken,
    ) {
        if !self.flows.contains_key(&client) {
            match self.open_flow(socket, client, open).await {
                Ok(Some(flow)) => _ = self.flows.insert(client, flow),
                Ok(None) => return self.shared.counts().overflow.inc(),
                Err(error) => {
                    tracing::warn!(listen = %self.shared.link.listen, %error, "no socket for a new flow");
                    return self.shared.counts().overflow.inc();
                }
            }
        }
        if let Some(flow) = self.flows.get_mut(&client) {
            flow.heard = Instant::now();
            flow.there.pass(datagram).await;
        }
    }

    /// `None`: the limit is reached.
    async fn open_flow(
        &mut self,
        socket: &Arc<UdpSocket>,
        client: SocketAddr,
        open: &CancellationToken,
    ) -> io::Result<Option<Flow>> {
        let Some(room) = self.room() else { return Ok(None) };
        let Endpoint::Tcp(upstream) = self.shared.link.upstream else { return Ok(None) };
        let local: SocketAddr = if upstream.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let server = Arc::new(UdpSocket::bind(local).await?);
        server.connect(upstream).await?;
        self.number += 1;
        let path = |socket: &Arc<UdpSocket>, to, direction| Path {
            shared: self.shared.clone(),
            conditions: self.shared.conditions.clone(),
            direction,
            air: Arc::clone(&self.air),
            open: open.clone(),
            sampler: LossSampler::new(self.number, direction),
            socket: Arc::clone(socket),
            to,
        };
        let there = path(&server, None, Direction::ToServer);
        let back = answers(server, path(socket, Some(client), Direction::ToClient));
        let back = AbortOnDropHandle::new(self.shared.connections.spawn(back));
        let counted = OpenConnection::new(self.shared.counts().flows.clone());
        Ok(Some(Flow { there, heard: Instant::now(), _back: back, _room: room, _open: counted }))
    }

    fn room(&mut self) -> Option<OwnedSemaphorePermit> {
        if self.shared.room.available_permits() == 0 {
            let now = Instant::now();
            self.flows.retain(|_, flow| now.saturating_duration_since(flow.heard) < QUIET);
        }
        Arc::clone(&self.shared.room).try_acquire_owned().ok()
    }

    async fn bind_again(&self) -> UdpSocket {
        loop {
            if let Endpoint::Tcp(listen) = self.shared.link.listen
                && let Ok(socket) = UdpSocket::bind(listen).await
            {
                return socket;
            }
            sleep(RETRY).await;
        }
    }
}

/// Relays the server's answers. Runs until cancelled.
async fn answers(server: Arc<UdpSocket>, mut path: Path) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        match server.recv(&mut buffer).await {
            Ok(length) => path.pass(&buffer[..length]).await,
            // The server does not listen. Each error belongs to one datagram sent.
            Err(error) => {
                tracing::debug!(upstream = %path.shared.link.upstream, %error, "no answer");
                path.shared.counts().unreachable.inc();
            }
        }
    }
}

/// One direction of a flow.
struct Path {
    shared: Shared,
    conditions: watch::Receiver<Conditions>,
    direction: Direction,
    air: Arc<Semaphore>,
    open: CancellationToken,
    sampler: LossSampler,
    socket: Arc<UdpSocket>,
    /// `None`: the socket is connected.
    to: Option<SocketAddr>,
}

impl Path {
    /// Drops the datagram, sends it, or sends it later.
    async fn pass(&mut self, datagram: &[u8]) {
        let arrival = Instant::now();
        let counts = self.shared.counts();
        let (stall, blackhole, loss, latency) = {
            let now = self.conditions.borrow();
            let now = now.toward(self.direction);
            (now.stall, now.blackhole, now.loss, now.latency(&mut rand::rng()))
        };
        // Drawn for every datagram, so that a stall does not change the sequence.
        let lost = self.sampler.lost(loss);
        if stall {
            return counts.stalled.inc();
        }
        if lost || blackhole {
            return counts.lost.inc();
        }
        if latency == Duration::ZERO {
            return sent(send(&self.socket, self.to, datagram).await, &self.shared);
        }
        let Ok(flying) = Arc::clone(&self.air).try_acquire_owned() else { return counts.overflow.inc() };
        let (shared, socket, to, datagram) =
            (self.shared.clone(), Arc::clone(&self.socket), self.to, datagram.to_vec());
        let late = async move {
            shared.delays.wait(arrival, latency).await;
            sent(send(&socket, to, &datagram).await, &shared);
            drop(flying);
        };
        self.shared.connections.spawn(self.open.clone().run_until_cancelled_owned(late));
    }
}

async fn send(socket: &UdpSocket, to: Option<SocketAddr>, datagram: &[u8]) -> io::Result<usize> {
    match to {
        Some(client) => socket.send_to(datagram, client).await,
        None => socket.send(datagram).await,
    }
}

fn sent(result: io::Result<usize>, shared: &Shared) {
    match result {
        Ok(_) => shared.counts().passed.inc(),
        // The server refused an earlier datagram.
        Err(_) => shared.counts().unreachable.inc(),
    }
}
