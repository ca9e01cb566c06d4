//! Which messages arrive, and when.

use heartbeat::Nanos;

use super::{MS, World};
use crate::{
    events::{Event, Message},
    faults::{Kind, Who},
};

impl World {
    pub(super) fn is_cut(&self, from: Who, to: Who) -> bool {
        self.in_force.contains(&Kind::Cut { from, to })
    }

    pub(super) fn send_datagram(&mut self, from: Who, to: Who, message: Message) {
        let more =
            self.in_force.iter().map(|kind| if let Kind::Loss(rate) = kind { *rate } else { 0.0 }).fold(0.0, f64::max);
        let loss = self.config.loss.max(more);
        if self.is_cut(from, to) || self.random.chance(loss) {
            return;
        }
        let delay = self.delay();
        self.after(delay, Event::Deliver { from, to, message });
    }

    /// Over a connection a loss is a retransmission, 200 ms later.
    pub(super) fn send_stream(&mut self, from: Who, to: Who, message: Message) {
        if self.is_cut(from, to) {
            return;
        }
        let again = if self.random.chance(self.config.loss) { 200 * MS } else { 0 };
        let delay = self.delay() + again;
        self.after(delay, Event::Deliver { from, to, message });
    }

    pub(super) fn delay(&mut self) -> Nanos {
        self.random.range(MS / 10, 3 * MS)
    }
}
