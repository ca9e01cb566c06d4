//! Faults, in addition to the law. They can be switched at run time, at most one of each kind. `Faults` is pure; `Control` publishes the
//! current conditions to all connections and listeners.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{law::Law, loss::Loss};

const MAX_LATENCY_MS: f64 = 60_000.0;
const MAX_FOR_MS: u64 = 86_400_000;
pub const DEFAULT_SEED: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    Latency,
    Stall,
    Reset,
    Refuse,
    Loss,
    Blackhole,
}

impl FaultKind {
    pub const ALL: [Self; 6] = [Self::Latency, Self::Stall, Self::Reset, Self::Refuse, Self::Loss, Self::Blackhole];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Stall => "stall",
            Self::Reset => "reset",
            Self::Refuse => "refuse",
            Self::Loss => "loss",
            Self::Blackhole => "blackhole",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Adds `ms` ± `jitter_ms` (uniform) to every command, in addition to the law. On a link: to everything sent in either direction.
    Latency { ms: f64, jitter_ms: f64 },
    /// Accepts connections and reads commands, but sends no byte to clients until it is removed. On a link nothing passes: bytes wait,
    /// datagrams are lost.
    Stall,
    /// Closes every existing connection with RST, once. With `for_ms`: for that time also each new one after it was accepted. UDP links
    /// have no connections and continue.
    Reset,
    /// Closes the listening sockets (ECONNREFUSED). Existing connections continue; flows of a UDP link do not.
    Refuse,
    /// Loses each datagram of a UDP link with this probability, in either direction. TCP loses nothing: commands and bytes are delayed by
    /// their modelled retransmission (`loss.rs`).
    Loss { pct: f64, seed: u64 },
    /// The host has vanished: everything sent in either direction is accepted and lost, without RST. A connection that was open during the
    /// fault stays silent after it: the host has lost its state. With `drop_syn` TCP connections are not accepted: SYNs are dropped, as the
    /// kernel does when a listener's accept queue is full.
    Blackhole { drop_syn: bool },
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
        }
    }
}

/// JSON: `{"kind":"latency","ms":20,"jitter_ms":5,"for_ms":10000}`, `{"kind":"loss","pct":20,"seed":1}`,
/// `{"kind":"blackhole","drop_syn":true}`. `jitter_ms`, `seed`, `drop_syn` and `for_ms` are optional. `ms` and `jitter_ms` belong to
/// latency, `pct` and `seed` to loss, `drop_syn` to blackhole.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FaultForm", into = "FaultForm")]
pub struct FaultSpec {
    pub fault: Fault,
    /// Milliseconds after which the fault ends; `None`: until it is removed (a reset then leaves nothing to remove).
    pub for_ms: Option<u64>,
}

impl From<Fault> for FaultSpec {
    fn from(fault: Fault) -> Self {
        Self { fault, for_ms: None }
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidFault {
    pub field: &'static str,
    pub reason: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FaultForm {
    kind: FaultKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jitter_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pct: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drop_syn: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    for_ms: Option<u64>,
}

impl FaultForm {
    /// The first field that does not belong to this kind of fault.
    fn stray(&self) -> Option<(&'static str, FaultKind)> {
        let belongs = [
            ("ms", self.ms.is_some(), FaultKind::Latency),
            ("jitter_ms", self.jitter_ms.is_some(), FaultKind::Latency),
            ("pct", self.pct.is_some(), FaultKind::Loss),
            ("seed", self.seed.is_some(), FaultKind::Loss),
            ("drop_syn", self.drop_syn.is_some(), FaultKind::Blackhole),
        ];
        belongs.into_iter().find(|&(_, given, to)| given && to != self.kind).map(|(field, _, to)| (field, to))
    }
}

impl TryFrom<FaultForm> for FaultSpec {
    type Error = InvalidFault;
    fn try_from(form: FaultForm) -> Result<Self, InvalidFault> {
        let invalid = |field, reason: String| Err(InvalidFault { field, reason });
        if let Some(for_ms) = form.for_ms.filter(|for_ms| !(1..=MAX_FOR_MS).contains(for_ms)) {
            return invalid("for_ms", format!("is {for_ms}, must be between 1 and {MAX_FOR_MS}"));
        }
        if let Some((field, kind)) = form.stray() {
            return invalid(field, format!("belongs to {} only", kind.as_str()));
        }
        let fault = match form.kind {
            FaultKind::Latency => {
                let Some(ms) = form.ms else { return invalid("ms", "missing".into()) };
                let jitter_ms = form.jitter_ms.unwrap_or(0.0);
                if !(0.0..=MAX_LATENCY_MS).contains(&ms) {
                    return invalid("ms", format!("is {ms}, must be between 0 and {MAX_LATENCY_MS}"));
                }
                if !(0.0..=ms).contains(&jitter_ms) {
                    return invalid("jitter_ms", format!("is {jitter_ms}, must be between 0 and ms ({ms})"));
                }
                Fault::Latency { ms, jitter_ms }
            }
            FaultKind::Loss => {
                let Some(pct) = form.pct else { return invalid("pct", "missing".into()) };
                if !(0.0..=100.0).contains(&pct) {
                    return invalid("pct", format!("is {pct}, must be between 0 and 100"));
                }
                Fault::Loss { pct, seed: form.seed.unwrap_or(DEFAULT_SEED) }
            }
            FaultKind::Stall => Fault::Stall,
            FaultKind::Reset => Fault::Reset,
            FaultKind::Refuse => Fault::Refuse,
            FaultKind::Blackhole => Fault::Blackhole { drop_syn: form.drop_syn.unwrap_or(false) },
        };
        Ok(Self { fault, for_ms: form.for_ms })
    }
}

impl From<FaultSpec> for FaultForm {
    fn from(FaultSpec { fault, for_ms }: FaultSpec) -> Self {
        let kind = fault.kind();
        let none = Self { kind, ms: None, jitter_ms: None, pct: None, seed: None, drop_syn: None, for_ms };
        match fault {
            Fault::Latency { ms, jitter_ms } => Self { ms: Some(ms), jitter_ms: Some(jitter_ms), ..none },
            Fault::Loss { pct, seed } => Self { pct: Some(pct), seed: Some(seed), ..none },
            Fault::Blackhole { drop_syn } => Self { drop_syn: Some(drop_syn), ..none },
            Fault::Stall | Fault::Reset | Fault::Refuse => none,
        }
    }
}

/// A fault in force.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ActiveFault {
    #[serde(flatten)]
    pub spec: FaultSpec,
    /// `None`: until it is removed.
    pub remaining_ms: Option<u64>,
}

/// Conditions in force for connections and listeners.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Conditions {
    pub(crate) law: Law,
    /// (ms, jitter_ms)
    latency: Option<(f64, f64)>,
    pub(crate) loss: Option<Loss>,
    pub(crate) stall: bool,
    pub(crate) refuse: bool,
    pub(crate) reset_new: bool,
    pub(crate) blackhole: bool,
    pub(crate) drop_syn: bool,
    events: Events,
    /// Connections end when they have no command in flight.
    pub(crate) draining: bool,
    /// All connections end immediately.
    pub(crate) abort: bool,
}

/// Faults that affect each connection open at that moment. They are counted, so that no connection misses a short one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Events {
    resets: u64,
    blackholes: u64,
}

/// Event counts when a connection was accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventsAtAccept(Events);

impl Conditions {
    pub(crate) fn at_accept(&self) -> EventsAtAccept {
        EventsAtAccept(self.events)
    }

    /// Whether the connection must be closed with RST.
    pub(crate) fn resets(&self, EventsAtAccept(then): EventsAtAccept) -> bool {
        self.events.resets != then.resets
    }

    /// Whether the connection is in a black hole, now or for ever.
    pub(crate) fn is_in_blackhole(&self, EventsAtAccept(then): EventsAtAccept) -> bool {
        self.blackhole || self.events.blackholes != then.blackholes
    }

    pub(crate) fn latency(&self, rng: &mut impl Rng) -> Duration {
        self.latency.map_or(Duration::ZERO, |(ms, jitter_ms)| {
            let ms = ms + jitter_ms * rng.random_range(-1.0..=1.0);
            Duration::from_secs_f64(ms.max(0.0) / 1000.0)
        })
    }
}

/// Waits until the stall ends; returns immediately without one.
pub(crate) async fn unstalled(conditions: &watch::Receiver<Conditions>) {
    if conditions.borrow().stall {
        // The sender outlives all connections: an error means that the proxy stops, which the caller's `select` notices too.
        conditions.clone().wait_for(|now| !now.stall).await.ok();
    }
}

#[derive(Debug, Default)]
struct Faults(Vec<(FaultSpec, Option<Instant>)>);

impl Faults {
    fn add(&mut self, spec: FaultSpec, now: Instant) {
        self.lift(spec.fault.kind());
        if spec.fault.kind() == FaultKind::Reset && spec.for_ms.is_none() {
            return;
        }
        self.0.push((spec, spec.for_ms.map(|ms| now + Duration::from_millis(ms))));
    }

    fn lift(&mut self, kind: FaultKind) {
        self.0.retain(|(spec, _)| spec.fault.kind() != kind);
    }

    fn expire(&mut self, now: Instant) {
        self.0.retain(|(_, until)| until.is_none_or(|until| until > now));
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.0.iter().filter_map(|(_, until)| *until).min()
    }

    fn active(&self, now: Instant) -> Vec<ActiveFault> {
        let remaining = |until: Instant| until.saturating_duration_since(now).as_millis() as u64;
        self.0.iter().map(|&(spec, until)| ActiveFault { spec, remaining_ms: until.map(remaining) }).collect()
    }

    fn apply(&self, conditions: &mut Conditions) {
        let has = |kind| self.0.iter().any(|(spec, _)| spec.fault.kind() == kind);
        conditions.latency = self.0.iter().find_map(|(spec, _)| match spec.fault {
            Fault::Latency { ms, jitter_ms } => Some((ms, jitter_ms)),
            _ => None,
        });
        conditions.loss = self.0.iter().find_map(|(spec, _)| match spec.fault {
            Fault::Loss { pct, seed } => Some(Loss { pct, seed }),
            _ => None,
        });
        conditions.stall = has(FaultKind::Stall);
        conditions.refuse = has(FaultKind::Refuse);
        conditions.reset_new = has(FaultKind::Reset);
        conditions.blackhole = has(FaultKind::Blackhole);
        conditions.drop_syn = self.0.iter().any(|(spec, _)| spec.fault == Fault::Blackhole { drop_syn: true });
    }
}

/// Law and faults: changed by the admin API, observed by all connections and listeners.
#[derive(Debug)]
pub(crate) struct Control {
    faults: Mutex<Faults>,
    conditions: watch::Sender<Conditions>,
}

impl Control {
    pub(crate) fn new(law: Law) -> Self {
        let conditions = Conditions { law, ..Conditions::default() };
        Self { faults: Mutex::default(), conditions: watch::Sender::new(conditions) }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Conditions> {
        self.conditions.subscribe()
    }

    pub(crate) fn law(&self) -> Law {
        self.conditions.borrow().law
    }

    pub(crate) fn set_law(&self, law: Law) {
        self.conditions.send_modify(|conditions| conditions.law = law);
    }

    pub(crate) fn active(&self) -> Vec<ActiveFault> {
        self.lock().active(Instant::now())
    }

    pub(crate) fn add(&self, spec: FaultSpec) {
        self.change(
            |faults| faults.add(spec, Instant::now()),
            |events| match spec.fault.kind() {
                FaultKind::Reset => events.resets += 1,
                FaultKind::Blackhole => events.blackholes += 1,
                _ => {}
            },
        );
    }

    /// `None`: all of them.
    pub(crate) fn lift(&self, kind: Option<FaultKind>) {
        let kinds = FaultKind::ALL.into_iter().filter(|&each| kind.is_none_or(|kind| kind == each));
        self.change(|faults| kinds.for_each(|kind| faults.lift(kind)), |_| ());
    }

    pub(crate) fn drain(&self) {
        self.conditions.send_modify(|conditions| conditions.draining = true);
    }

    pub(crate) fn abort(&self) {
        self.conditions.send_modify(|conditions| conditions.abort = true);
    }

    /// Removes faults when their time is over. Runs until cancelled.
    pub(crate) async fn expire(&self) {
        let mut changes = self.subscribe();
        loop {
            let next = self.lock().next_expiry();
            let expiry = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = expiry => self.change(|faults| faults.expire(Instant::now()), |_| ()),
                _ = changes.changed() => {}
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Faults), happens: impl FnOnce(&mut Events)) {
        let mut faults = self.lock();
        change(&mut faults);
        self.conditions.send_modify(|conditions| {
            faults.apply(conditions);
            happens(&mut conditions.events);
        });
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        // Every change is a single step: no other thread sees half of one.
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
