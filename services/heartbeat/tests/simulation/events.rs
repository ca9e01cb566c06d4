//! Events of the simulation, ordered by time.

use std::{cmp::Ordering, sync::Arc};

use heartbeat::{
    Nanos,
    assign::Table,
    ownership::{Fence, Refusal},
    registry::{Registration, Request, Response},
    vote::Ballot,
};

use crate::faults::Who;

pub enum Message {
    Beat {
        worker: usize,
        incarnation: u64,
        sequence: u64,
    },
    /// `via`: a worker that relays the probe.
    Probe {
        monitor: usize,
        worker: usize,
        round: u64,
        via: Option<usize>,
    },
    Answer {
        monitor: usize,
        worker: usize,
        incarnation: u64,
        round: u64,
    },
    Ballot(Ballot),
    Register(Registration),
    Ask {
        monitor: usize,
        life: u64,
        number: u64,
        asked: Nanos,
        request: Request,
    },
    Told {
        life: u64,
        number: u64,
        asked: Nanos,
        response: Response,
    },
    Table(Arc<Table>),
    Write {
        partition: usize,
        epoch: u64,
        hops: u8,
    },
    Refused {
        partition: usize,
        refusal: Refusal,
        hops: u8,
    },
    Acknowledged {
        partition: usize,
    },
}

pub enum Event {
    Deliver {
        from: Who,
        to: Who,
        message: Message,
    },
    /// A timer of this incarnation.
    Timer {
        who: Who,
        life: u64,
    },
    NoAnswer {
        monitor: usize,
        life: u64,
        number: u64,
    },
    /// A request to the store arrives even if its sender has died.
    StoreWrite {
        worker: usize,
        incarnation: u64,
        partition: usize,
        epoch: u64,
    },
    StoreFence {
        worker: usize,
        life: u64,
        fence: Fence,
    },
    Begin(usize),
    End(usize),
}

pub struct Queued {
    pub at: Nanos,
    pub order: u64,
    /// Boxed: the heap moves its entries, and some messages are large.
    pub event: Box<Event>,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl Message {
    /// For the hash over all events.
    pub fn kind(&self) -> u64 {
        match self {
            Message::Beat { .. } => 0,
            Message::Probe { .. } => 1,
            Message::Answer { .. } => 2,
            Message::Ballot(_) => 3,
            Message::Register(_) => 4,
            Message::Ask { .. } => 5,
            Message::Told { .. } => 6,
            Message::Table(_) => 7,
            Message::Write { .. } => 8,
            Message::Refused { .. } => 9,
            Message::Acknowledged { .. } => 10,
        }
    }
}
