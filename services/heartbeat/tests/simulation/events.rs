//! Events of the simulation, ordered by time.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use heartbeat::{
    Nanos,
    assign::{NodeId, Table},
    message::{Alive, Beat},
    registry::{Registration, Request, Response},
    vote::Ballot,
};

use crate::{
    faults::Who,
    log::{Action, Batch, Features, Payload},
};

/// A table, and the number of the process behind each name.
pub struct Published {
    pub table: Arc<Table>,
    pub addresses: BTreeMap<NodeId, usize>,
}

pub enum Message {
    Beat(Arc<Beat>),
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
        alive: Alive,
        round: u64,
    },
    Ballot(Ballot),
    Register(Registration),
    RegisterAnswer(Response),
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
    /// The worker has the table of this epoch.
    Follows {
        epoch: u64,
    },
    /// The registry has changed.
    Changed,
    Table(Arc<Published>),
    Write(Write),
    Refused {
        write: Write,
        /// Where the worker sends the client.
        redirect: Option<usize>,
        /// It had no effect, and never will.
        is_certain: bool,
    },
    Acknowledged {
        write: Write,
        epoch: u64,
        counter: u64,
    },
}

/// One attempt of a client to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub operation: u64,
    pub attempt: u8,
    pub partition: usize,
    /// The epoch that the client knows.
    pub epoch: Option<u64>,
    /// Process that it goes to.
    pub to: usize,
    /// Workers that the client had no success with.
    pub unserved_by: Vec<NodeId>,
}

/// A worker's request to the store. It arrives even if its sender has died.
#[derive(Debug, Clone)]
pub struct StoreRequest {
    pub worker: usize,
    pub life: u64,
    pub number: u64,
    pub process_id: u64,
    pub incarnation: u64,
    pub partition: usize,
    pub epoch: u64,
    /// `None`: a fence.
    pub write: Option<Write>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreAnswer {
    Done {
        counter: u64,
    },
    /// The epoch in the store.
    Stale {
        current: u64,
    },
    Error,
}

/// A consumer's step; the next one makes all replies to this one obsolete.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub worker: usize,
    pub life: u64,
    pub partition: usize,
    pub number: u64,
}

/// Of a consumer to the store or the broker. It arrives even if its sender has died.
#[derive(Clone)]
pub enum Command {
    /// The message that the store expects next.
    Position,
    /// The first `Fetch`.
    Subscribe {
        offset: u64,
    },
    /// Answered once the topic has messages from `offset` on.
    Fetch {
        offset: u64,
    },
    /// Messages that cannot be decoded become dead letters.
    Park(Vec<u64>),
    /// Which of these the log has.
    Logged(Vec<Action>),
    /// Of these users.
    Features(BTreeSet<u64>),
    Write(Arc<BatchWrite>),
}

/// One transaction under the fence.
pub struct BatchWrite {
    pub batch: Batch,
    pub epoch: u64,
    pub process_id: u64,
    pub incarnation: u64,
}

pub enum Reply {
    Position(u64),
    Fetched(Vec<Payload>),
    Parked,
    Logged(BTreeSet<Action>),
    Features(BTreeMap<u64, Features>),
    Written,
    /// The store expects another message. The batch changed nothing.
    OtherPosition,
    /// The epoch in the store. The batch changed nothing.
    Overruled {
        current: u64,
    },
    /// Error or timeout: the command may have an effect, now or later.
    Failed,
    /// The pause after a failure is over.
    Continue,
}

/// What a client sends to a topic.
#[derive(Clone)]
pub struct Sending {
    pub partition: usize,
    pub payload: Payload,
    /// This one and those that may follow.
    pub attempts: u8,
}

pub enum Event {
    /// `received`: when the process's socket received it, if that was earlier.
    Deliver {
        from: Who,
        to: Who,
        message: Message,
        received: Option<Nanos>,
    },
    /// A timer of this start of the process.
    Timer {
        who: Who,
        life: u64,
    },
    NoAnswer {
        monitor: usize,
        life: u64,
        number: u64,
    },
    Store(StoreRequest),
    StoreAnswered {
        request: StoreRequest,
        answer: StoreAnswer,
    },
    /// The worker waited long enough for the store.
    StoreTimeout {
        worker: usize,
        life: u64,
        number: u64,
    },
    FenceAgain {
        worker: usize,
        life: u64,
        partition: usize,
    },
    /// Arrives. `is_answered`: false if the connection breaks before the answer.
    Command {
        step: Step,
        command: Command,
        is_answered: bool,
    },
    Reply {
        step: Step,
        reply: Reply,
    },
    /// Clients send behaviour events.
    SendActions,
    /// Arrives at the broker.
    Send(Sending),
    /// The client waited long enough for this attempt.
    AttemptTimeout {
        operation: u64,
        attempt: u8,
    },
    /// Looks whether partitions are served, and keeps a copy of the registry.
    Look,
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
            Message::Beat(_) => 0,
            Message::Probe { .. } => 1,
            Message::Answer { .. } => 2,
            Message::Ballot(_) => 3,
            Message::Register(_) => 4,
            Message::Ask { .. } => 5,
            Message::Told { .. } => 6,
            Message::Table(_) => 7,
            Message::Write(_) => 8,
            Message::Refused { .. } => 9,
            Message::Acknowledged { .. } => 10,
            Message::RegisterAnswer(_) => 11,
            Message::Changed => 12,
            Message::Follows { .. } => 13,
        }
    }
}
