//! Sends many datagrams per system call.

use std::{
    io::{self, IoSlice},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};

use crate::{
    auth::Keys,
    codec::Protobuf,
    frame::sign_beat,
    message::Beat,
    sender::{BatchWriter, DATAGRAM_BYTES},
};

/// Datagrams per `sendmmsg`; the receiver takes as many.
const MANY: usize = 32;
/// The kernel's limit for one segmented message is 64 segments and 64 KB.
const SEGMENTS: usize = 44;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) beats: u64,
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
}

pub(super) struct Sender {
    socket: UdpSocket,
    monitor: SocketAddr,
    state: UdpSocketState,
    keys: Keys,
    batches: Option<BatchWriter>,
    /// By length: the datagrams of a segmented message have the same length. Without segmentation only the first is used.
    waiting: Vec<Waiting>,
    segmented: bool,
    frame: Vec<u8>,
    totals: Totals,
}

/// Signed datagrams, and the end of each.
#[derive(Debug, Clone, Default)]
struct Waiting {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Sender {
    pub(super) fn connect(monitor: SocketAddr, keys: Keys, batched: bool, segmented: bool) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(monitor)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        socket.set_nonblocking(false)?;
        let batches = batched.then(|| {
            let writer = BatchWriter::new(keys.clone(), "bench".into(), 1, DATAGRAM_BYTES);
            if segmented { writer.padded() } else { writer }
        });
        let waiting = vec![Waiting::default(); if segmented { DATAGRAM_BYTES + 1 } else { 1 }];
        let (frame, totals) = (Vec::new(), Totals::default());
        Ok(Self { socket, monitor, state, keys, batches, waiting, segmented, frame, totals })
    }

    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    pub(super) fn push(&mut self, beat: &Beat) -> io::Result<()> {
        self.totals.beats += 1;
        self.frame.clear();
        match &mut self.batches {
            Some(writer) => writer.push(beat, |datagram| self.frame.extend_from_slice(datagram)),
            None => sign_beat(&self.keys, &mut Protobuf, beat, false, &mut self.frame).map_err(io::Error::other)?,
        }
        self.queue()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.frame.clear();
        if let Some(writer) = &mut self.batches {
            writer.flush(|datagram| self.frame.extend_from_slice(datagram));
        }
        self.queue()?;
        (0..self.waiting.len()).try_for_each(|length| self.send(length))
    }

    /// Queues the signed datagram with others of its length.
    fn queue(&mut self) -> io::Result<()> {
        let length = self.frame.len();
        if length == 0 {
            return Ok(());
        }
        self.totals.datagrams += 1;
        self.totals.bytes += length as u64;
        let (place, most) = if self.segmented { (length, SEGMENTS) } else { (0, MANY) };
        let waiting = &mut self.waiting[place];
        waiting.bytes.extend_from_slice(&self.frame);
        waiting.ends.push(waiting.bytes.len());
        if waiting.ends.len() == most { self.send(place) } else { Ok(()) }
    }

    fn send(&mut self, place: usize) -> io::Result<()> {
        match &self.waiting[place] {
            waiting if waiting.ends.is_empty() => return Ok(()),
            waiting if self.segmented => {
                let (contents, segment_size) = (&waiting.bytes[..], (waiting.ends.len() > 1).then_some(place));
                let transmit = Transmit { destination: self.monitor, ecn: None, contents, segment_size, src_ip: None };
                self.state.send(UdpSockRef::from(&self.socket), &transmit)?;
            }
            waiting => self.send_many(waiting)?,
        }
        self.waiting[place].bytes.clear();
        self.waiting[place].ends.clear();
        Ok(())
    }

    fn send_many(&self, waiting: &Waiting) -> io::Result<()> {
        let starts = std::iter::once(0).chain(waiting.ends.iter().copied());
        let slices: Vec<_> = std::iter::zip(starts, &waiting.ends)
            .map(|(start, &end)| [IoSlice::new(&waiting.bytes[start..end])])
            .collect();
        let to: Vec<Option<SockaddrIn>> = vec![None; slices.len()];
        let mut sent = 0;
        while sent < slices.len() {
            let rest = &slices[sent..];
            let mut headers = MultiHeaders::preallocate(rest.len(), None);
            let results = sendmmsg(self.socket.as_raw_fd(), &mut headers, rest, &to[sent..], [], MsgFlags::empty())?;
            sent += results.count();
        }
        Ok(())
    }
}
