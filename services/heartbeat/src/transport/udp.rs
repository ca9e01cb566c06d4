//! Heartbeats over UDP. The receiver takes up to 32 messages per system call, each with up to 64 KB of datagrams that the kernel coalesced
//! (`UDP_GRO`). A `ReliableSender` waits for an `Ack` and repeats.

mod sender;

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use tokio::{io::Interest, net::UdpSocket, time::sleep};
use tokio_util::sync::CancellationToken;

pub use self::sender::{Acknowledged, ReliableSender, Retries, SendError};
use super::{Ingest, Scratch};
use crate::frame::sign_ack;

/// Maximum bytes of a datagram, or of several in one message.
const MESSAGE_BYTES: usize = 65_536;
/// Requested from the kernel; it grants at most `net.core.rmem_max`.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Pause after an error of the socket.
const RETRY: Duration = Duration::from_millis(10);

pub struct Receiver {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Receiver {
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address).await?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        state.set_recv_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_BYTES)?;
        Ok(Self { socket, state })
    }

    /// # Errors
    /// The socket has no address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Receives until `stop`.
    ///
    /// # Errors
    /// Out of memory at the start.
    pub async fn run(self, ingest: Arc<Ingest>, stop: CancellationToken) -> io::Result<()> {
        let mut inbox = Inbox::new()?;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                received = self.receive(&mut inbox) => match received {
                    Ok(messages) => inbox.deliver(messages, &ingest, |peer, ack| {
                        // No room in the socket counts as a loss.
                        self.socket.try_send_to(ack, peer).ok();
                    }),
                    Err(error) => {
                        tracing::warn!(%error, "cannot receive heartbeats");
                        sleep(RETRY).await;
                    }
                },
            }
        }
    }

    async fn receive(&self, inbox: &mut Inbox) -> io::Result<usize> {
        self.socket.async_io(Interest::READABLE, || inbox.fill(UdpSockRef::from(&self.socket), &self.state)).await
    }
}

/// Buffers of one receiving task: 2 MB, of which only used pages are touched.
pub struct Inbox {
    buffers: Vec<Vec<u8>>,
    metas: [RecvMeta; BATCH_SIZE],
    scratch: Scratch,
    answer: Vec<u8>,
}

impl Inbox {
    /// # Errors
    /// Out of memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            buffers: vec![vec![0; MESSAGE_BYTES]; BATCH_SIZE],
            metas: [RecvMeta::default(); BATCH_SIZE],
            scratch: Scratch::default(),
            answer: Vec::new(),
        })
    }

    /// One system call; returns the number of messages.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` without data.
    pub fn fill(&mut self, socket: UdpSockRef<'_>, state: &UdpSocketState) -> io::Result<usize> {
        let mut buffers = self.buffers.iter_mut();
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().map_or(&mut [], |buffer| &mut buffer[..])));
        state.recv(socket, &mut slices, &mut self.metas)
    }

    /// Passes every datagram of the first `messages` to the ingest; `answer` receives the acknowledgements.
    pub fn deliver(&mut self, messages: usize, ingest: &Ingest, mut answer: impl FnMut(SocketAddr, &[u8])) {
        let at = ingest.clock().now();
        for (meta, buffer) in self.metas[..messages].iter().zip(&self.buffers) {
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                let handled = ingest.frame(&mut self.scratch, at, meta.addr, datagram);
                if let Some(ack) = handled.ok().and_then(|handled| handled.ack) {
                    self.answer.clear();
                    sign_ack(ingest.keys(), &ack, &mut self.answer);
                    answer(meta.addr, &self.answer);
                }
            }
        }
    }
}
