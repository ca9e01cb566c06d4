//! Which messages arrive, and when.

use std::collections::BTreeMap;

use heartbeat::Nanos;

use super::World;
use crate::{
    config::MS,
    events::{Event, Message},
    faults::{Kind, Who},
};

/// Faults of one direction.
#[derive(Clone, Copy, Default)]
pub(super) struct Link {
    is_cut: bool,
    /// No acknowledgements pass the other way: a stream is stuck.
    is_stuck: bool,
    holds_back: bool,
    loss: f64,
    most: Nanos,
}

/// First timeout of a retransmission; doubles.
const RETRANSMISSION: Nanos = 200 * MS;
/// A stream that needs longer is broken: its sender gives up.
const STREAM_PATIENCE: Nanos = 3_000 * MS;

#[derive(Default)]
pub(super) struct Network {
    links: BTreeMap<(Who, Who), Link>,
    /// Loss of datagrams on all links.
    loss: f64,
    held_back: BTreeMap<(Who, Who), Vec<Message>>,
}

impl Network {
    /// The state of all links under these faults.
    pub(super) fn set<'a>(&mut self, loss: f64, faults: impl Iterator<Item = &'a Kind>) {
        self.loss = loss;
        self.links.clear();
        for kind in faults {
            match *kind {
                Kind::Loss(rate) => self.loss = self.loss.max(rate),
                Kind::Cut { from, to } => {
                    self.link(from, to).is_cut = true;
                    self.link(to, from).is_stuck = true;
                }
                Kind::HeldBack { from, to } => self.link(from, to).holds_back = true,
                Kind::LossyLink { from, to, rate } => {
                    let link = self.link(from, to);
                    link.loss = link.loss.max(rate);
                }
                Kind::SlowLink { from, to, most } => {
                    let link = self.link(from, to);
                    link.most = link.most.max(most);
                }
                _ => {}
            }
        }
    }

    fn link(&mut self, from: Who, to: Who) -> &mut Link {
        self.links.entry((from, to)).or_default()
    }

    fn get(&self, from: Who, to: Who) -> Link {
        if self.links.is_empty() { Link::default() } else { self.links.get(&(from, to)).copied().unwrap_or_default() }
    }

    pub(super) fn is_cut(&self, from: Who, to: Who) -> bool {
        self.get(from, to).is_cut
    }
}

impl World {
    pub(super) fn send_datagram(&mut self, from: Who, to: Who, message: Message) {
        let link = self.network.get(from, to);
        if link.is_cut || self.random.chance(self.network.loss.max(link.loss)) {
            return;
        }
        if link.holds_back && matches!(message, Message::Beat(_)) {
            self.network.held_back.entry((from, to)).or_default().push(message);
            return;
        }
        let delay = self.delay() + self.more(link.most);
        self.after(delay, Event::Deliver { from, to, message, received: None });
    }

    /// Over a connection a loss is a retransmission. After several of them the connection breaks.
    pub(super) fn send_stream(&mut self, from: Who, to: Who, message: Message) {
        let link = self.network.get(from, to);
        if link.is_cut || link.is_stuck {
            return;
        }
        let (mut again, mut timeout) = (0, RETRANSMISSION);
        while self.random.chance(self.network.loss.max(link.loss)) {
            again += timeout;
            timeout *= 2;
            if again > STREAM_PATIENCE {
                return;
            }
        }
        let delay = self.delay() + self.more(link.most) + again;
        self.after(delay, Event::Deliver { from, to, message, received: None });
    }

    pub(super) fn delay(&mut self) -> Nanos {
        self.random.range(MS / 10, 3 * MS)
    }

    fn more(&mut self, most: Nanos) -> Nanos {
        if most == 0 { 0 } else { self.random.range(0, most) }
    }

    /// Heartbeats that were held back arrive one by one.
    pub(super) fn let_through(&mut self, from: Who, to: Who) {
        let messages = self.network.held_back.remove(&(from, to)).unwrap_or_default();
        for (n, message) in messages.into_iter().enumerate() {
            let delay = n as u64 * self.config.interval;
            self.after(delay, Event::Deliver { from, to, message, received: None });
        }
    }
}
