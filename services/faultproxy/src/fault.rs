//! Faults, in addition to the law. They can be switched at run time. Each is in force on the links that it names and in its direction, or
//! on all links and in both. At most one of a kind has the same links and direction; where several apply, the newest does.
//!
//! A "link" here is a listener of the proxy, in front of MySQL or not.

mod conditions;
mod control;
mod form;

use serde::{Deserialize, Serialize};

use crate::direction::Direction;

pub(crate) use self::{
    conditions::{Conditions, EventsAtAccept, unstalled},
    control::{Control, ControlledLink},
    form::FaultForm,
};

pub const DEFAULT_SEED: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    Latency,
    Stall,
    Reset,
    Refuse,
    Loss,
    Blackhole,
    FailWrites,
    StallWrites,
}

impl FaultKind {
    pub const ALL: [Self; 8] = [
        Self::Latency,
        Self::Stall,
        Self::Reset,
        Self::Refuse,
        Self::Loss,
        Self::Blackhole,
        Self::FailWrites,
        Self::StallWrites,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Stall => "stall",
            Self::Reset => "reset",
            Self::Refuse => "refuse",
            Self::Loss => "loss",
            Self::Blackhole => "blackhole",
            Self::FailWrites => "fail-writes",
            Self::StallWrites => "stall-writes",
        }
    }

    /// Whether the fault can be in force in one direction only.
    pub fn has_direction(self) -> bool {
        matches!(self, Self::Latency | Self::Stall | Self::Loss | Self::Blackhole)
    }

    /// Whether the fault needs the MySQL protocol.
    pub fn needs_mysql(self) -> bool {
        matches!(self, Self::FailWrites | Self::StallWrites)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Adds `ms` ± `jitter_ms` (uniform) to every command, in addition to the law. On a link without MySQL: to everything sent. A command
    /// is delayed once, also if the fault has both directions.
    Latency { ms: f64, jitter_ms: f64 },
    /// Accepts connections and reads commands, but sends no byte to clients until it is removed. On a link without MySQL nothing passes:
    /// bytes wait, datagrams are lost. To the server only: commands and bytes wait before the server. To the client only: responses wait.
    Stall,
    /// Closes every existing connection with RST, once. With `for_ms`: for that time also each new one after it was accepted. UDP links
    /// have no connections and continue.
    Reset,
    /// Closes the listening sockets (ECONNREFUSED). Existing connections continue; flows of a UDP link do not.
    Refuse,
    /// Loses each datagram of a UDP link with this probability. TCP loses nothing: commands and bytes are delayed by their modelled
    /// retransmission (`loss.rs`).
    Loss { pct: f64, seed: u64 },
    /// The host has vanished: everything sent is accepted and lost, without RST. A connection that was open during the fault stays silent
    /// after it: the host has lost its state. In one direction, only what is sent in it is lost: commands to the server are never executed,
    /// or executed and never answered. With `drop_syn` (both directions) TCP connections are not accepted: SYNs are dropped, as the kernel
    /// does when a listener's accept queue is full.
    Blackhole { drop_syn: bool },
    /// MySQL answers each INSERT, UPDATE, DELETE, REPLACE and COMMIT with this error, with this probability, and does not execute it. A
    /// transaction whose COMMIT failed stays open. Also prepared statements.
    FailWrites { pct: f64, seed: u64, error: WriteError },
    /// These statements wait before the server until the fault is removed; all others pass.
    StallWrites,
}

/// The error of a failed write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteError {
    /// 1290, ER_OPTION_PREVENTS_STATEMENT: the server is read-only.
    #[default]
    ReadOnly,
    /// 1021, ER_DISK_FULL.
    DiskFull,
}

impl WriteError {
    /// Number, SQL state and message of the ERR packet.
    pub(crate) fn packet(self) -> (u16, &'static [u8; 5], &'static str) {
        match self {
            Self::ReadOnly => {
                let message =
                    "The MySQL server is running with the --read-only option so it cannot execute this statement";
                (1290, b"HY000", message)
            }
            Self::DiskFull => {
                (1021, b"HY000", "Disk full; waiting for someone to free some space (fault of faultproxy)")
            }
        }
    }
}

impl Fault {
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Latency { .. } => FaultKind::Latency,
            Self::Stall => FaultKind::Stall,
            Self::Reset => FaultKind::Reset,
            Self::Refuse => FaultKind::Refuse,
            Self::Loss { .. } => FaultKind::Loss,
            Self::Blackhole { .. } => FaultKind::Blackhole,
            Self::FailWrites { .. } => FaultKind::FailWrites,
            Self::StallWrites => FaultKind::StallWrites,
        }
    }

    /// The fault for this time.
    pub fn for_ms(self, ms: u64) -> FaultSpec {
        FaultSpec { for_ms: Some(ms), ..self.into() }
    }

    /// The fault on the links that `pattern` matches: see `Scope::link`.
    pub fn on(self, pattern: &str) -> FaultSpec {
        let spec = FaultSpec::from(self);
        FaultSpec { scope: Scope { link: Some(pattern.to_owned()), ..spec.scope }, ..spec }
    }
}

/// Where a fault is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Name or listen address of a link; `*` stands for any text. `None`: all links.
    pub link: Option<String>,
    /// `None`: both.
    pub direction: Option<Direction>,
}

impl Scope {
    /// Whether the fault is in force on the link with this name and listen address.
    pub(crate) fn covers(&self, name: &str, listen: &str) -> bool {
        self.link.as_ref().is_none_or(|pattern| matches(pattern, name) || matches(pattern, listen))
    }

    pub(crate) fn has(&self, direction: Direction) -> bool {
        self.direction.is_none_or(|only| only == direction)
    }
}

/// Whether the text is the pattern, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(before) else { return false };
    (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))
}

/// JSON: `{"kind":"latency","ms":20,"jitter_ms":5,"for_ms":10000}`, `{"kind":"loss","pct":20,"seed":1}`,
/// `{"kind":"blackhole","link":"worker-0>*","direction":"to-server"}`, `{"kind":"fail-writes","pct":10,"error":"disk-full"}`. Optional:
/// `jitter_ms`, `seed`, `drop_syn`, `error`, `link`, `direction` and `for_ms`. `ms` and `jitter_ms` belong to latency, `pct` and `seed` to
/// loss and fail-writes, `drop_syn` to blackhole, `error` to fail-writes, `direction` to latency, stall, loss and blackhole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FaultForm", into = "FaultForm")]
pub struct FaultSpec {
    pub fault: Fault,
    pub scope: Scope,
    /// Milliseconds after which the fault ends; `None`: until it is removed (a reset then leaves nothing to remove).
    pub for_ms: Option<u64>,
}

impl From<Fault> for FaultSpec {
    fn from(fault: Fault) -> Self {
        Self { fault, scope: Scope::default(), for_ms: None }
    }
}

impl FaultSpec {
    /// The fault in this direction only.
    #[must_use]
    pub fn toward(mut self, direction: Direction) -> Self {
        self.scope.direction = Some(direction);
        self
    }

    /// Whether `other` is the same kind of fault in the same place: then it replaces this one.
    fn is_replaced_by(&self, other: &Self) -> bool {
        self.fault.kind() == other.fault.kind() && self.scope == other.scope
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidFault {
    pub field: &'static str,
    pub reason: String,
}

/// A fault in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActiveFault {
    #[serde(flatten)]
    pub spec: FaultSpec,
    /// `None`: until it is removed.
    pub remaining_ms: Option<u64>,
}

#[cfg(test)]
mod tests;
