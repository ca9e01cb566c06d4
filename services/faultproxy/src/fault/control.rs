//! The faults in force and their times. `Faults` is pure; `Control` publishes to each link the conditions there.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use super::{
    ActiveFault, Fault, FaultKind, FaultSpec, InvalidFault,
    conditions::{Conditions, DirectionConditions, WriteFailures},
};
use crate::{direction::Direction, law::Law, loss::Loss};

/// Maximum number of faults in force.
const MAX_FAULTS: usize = 1_000;

/// Newest last.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(FaultSpec, Option<Instant>)>);

impl Faults {
    pub(super) fn add(&mut self, spec: FaultSpec, now: Instant) {
        self.0.retain(|(other, _)| !other.is_replaced_by(&spec));
        if spec.fault.kind() == FaultKind::Reset && spec.for_ms.is_none() {
            return;
        }
        let until = spec.for_ms.map(|ms| now + Duration::from_millis(ms));
        self.0.push((spec, until));
    }

    /// `None`: all of them.
    fn lift(&mut self, kind: Option<FaultKind>, link: Option<&str>) {
        self.0.retain(|(spec, _)| {
            let is_other_kind = kind.is_some_and(|kind| kind != spec.fault.kind());
            let is_other_link = link.is_some() && link != spec.scope.link.as_deref();
            is_other_kind || is_other_link
        });
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|(_, until)| until.is_none_or(|until| until > now));
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.0.iter().filter_map(|(_, until)| *until).min()
    }

    pub(super) fn active(&self, now: Instant) -> Vec<ActiveFault> {
        let remaining = |until: Instant| until.saturating_duration_since(now).as_millis() as u64;
        let active = |(spec, until): &(FaultSpec, Option<Instant>)| ActiveFault {
            spec: spec.clone(),
            remaining_ms: until.map(remaining),
        };
        self.0.iter().map(active).collect()
    }

    pub(super) fn apply(&self, link: &ControlledLink, conditions: &mut Conditions) {
        let here = || self.0.iter().rev().map(|(spec, _)| spec).filter(|spec| spec.covers(link));
        let has = |kind| here().any(|spec| spec.fault.kind() == kind);
        let toward = |direction: Direction, before: DirectionConditions| {
            let mut here = here().filter(|spec| spec.scope.has(direction)).map(|spec| &spec.fault);
            let has = |kind| here.clone().any(|fault| fault.kind() == kind);
            let (stall, blackhole) = (has(FaultKind::Stall), has(FaultKind::Blackhole));
            let loss = here.clone().find_map(|fault| match *fault {
                Fault::Loss { pct, seed } => Some(Loss { pct, seed }),
                _ => None,
            });
            let latency = here.find_map(|fault| match *fault {
                Fault::Latency { ms, jitter_ms } => Some((ms, jitter_ms)),
                _ => None,
            });
            DirectionConditions { latency, loss, stall, blackhole, ..before }
        };
        conditions.to_server = toward(Direction::ToServer, conditions.to_server);
        conditions.to_client = toward(Direction::ToClient, conditions.to_client);
        conditions.refuse = has(FaultKind::Refuse);
        conditions.reset_new = has(FaultKind::Reset);
        conditions.drop_syn = here().any(|spec| spec.fault == Fault::Blackhole { drop_syn: true });
        conditions.stall_writes = has(FaultKind::StallWrites);
        conditions.fail_writes = here().find_map(|spec| match spec.fault {
            Fault::FailWrites { pct, seed, error } => Some(WriteFailures { share: Loss { pct, seed }, error }),
            _ => None,
        });
    }
}

impl FaultSpec {
    fn covers(&self, link: &ControlledLink) -> bool {
        self.scope.covers(&link.name, &link.listen) && (link.is_mysql || !self.fault.kind().needs_mysql())
    }
}

/// A link as faults name it.
#[derive(Debug)]
pub(crate) struct ControlledLink {
    pub(crate) name: String,
    pub(crate) listen: String,
    pub(crate) is_mysql: bool,
}

/// Law and faults: changed by the admin API, observed by all connections and listeners.
#[derive(Debug)]
pub(crate) struct Control {
    faults: Mutex<Faults>,
    /// The set of faults has changed.
    changed: Notify,
    links: Vec<(ControlledLink, watch::Sender<Conditions>)>,
}

impl Control {
    pub(crate) fn new(law: Law, links: impl IntoIterator<Item = ControlledLink>) -> Self {
        let conditions = Conditions { law, ..Conditions::default() };
        let links = links.into_iter().map(|link| (link, watch::Sender::new(conditions))).collect();
        Self { faults: Mutex::default(), changed: Notify::new(), links }
    }

    /// Conditions of each link, in the order of `new`.
    pub(crate) fn subscribe(&self) -> impl Iterator<Item = watch::Receiver<Conditions>> {
        self.links.iter().map(|(_, conditions)| conditions.subscribe())
    }

    pub(crate) fn law(&self) -> Law {
        self.links.first().map_or(Law::None, |(_, conditions)| conditions.borrow().law)
    }

    pub(crate) fn set_law(&self, law: Law) {
        self.modify_all(|_, conditions| conditions.law = law);
    }

    pub(crate) fn active(&self) -> Vec<ActiveFault> {
        self.lock().active(Instant::now())
    }

    /// # Errors
    /// No link can have this fault, or the limit of faults is reached.
    pub(crate) fn add(&self, spec: FaultSpec) -> Result<(), InvalidFault> {
        if !self.links.iter().any(|(link, _)| spec.covers(link)) {
            let kind = spec.fault.kind();
            let possible = self.links.iter().map(|(link, _)| link).filter(|link| link.is_mysql || !kind.needs_mysql());
            let names: Vec<&str> = possible.map(|link| link.name.as_str()).collect();
            let reason = format!("no link that can have {} matches; these can: [{}]", kind.as_str(), names.join(", "));
            return Err(InvalidFault { field: "link", reason });
        }
        let mut faults = self.lock();
        if faults.0.len() >= MAX_FAULTS {
            let reason = format!("{MAX_FAULTS} faults are in force; remove some");
            return Err(InvalidFault { field: "kind", reason });
        }
        let kind = spec.fault.kind();
        faults.add(spec.clone(), Instant::now());
        self.publish(&faults, |link, conditions| {
            if !spec.covers(link) {
                return;
            }
            match kind {
                FaultKind::Reset => conditions.resets += 1,
                FaultKind::Blackhole => {
                    conditions.to_server.blackholes += u64::from(spec.scope.has(Direction::ToServer));
                    conditions.to_client.blackholes += u64::from(spec.scope.has(Direction::ToClient));
                }
                _ => {}
            }
        });
        Ok(())
    }

    /// Removes the faults of this kind that name this link or pattern. `None`: of all kinds, and wherever they are in force.
    pub(crate) fn lift(&self, kind: Option<FaultKind>, link: Option<&str>) {
        let mut faults = self.lock();
        faults.lift(kind, link);
        self.publish(&faults, |_, _| ());
    }

    pub(crate) fn drain(&self) {
        self.modify_all(|_, conditions| conditions.draining = true);
    }

    pub(crate) fn abort(&self) {
        self.modify_all(|_, conditions| conditions.abort = true);
    }

    /// Removes faults when their time is over. Runs until cancelled.
    pub(crate) async fn expire(&self) {
        loop {
            let next = self.lock().next_expiry();
            let expiry = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = expiry => {
                    let mut faults = self.lock();
                    faults.expire(Instant::now());
                    self.publish(&faults, |_, _| ());
                }
                () = self.changed.notified() => {}
            }
        }
    }

    fn publish(&self, faults: &Faults, happens: impl Fn(&ControlledLink, &mut Conditions)) {
        self.modify_all(|link, conditions| {
            faults.apply(link, conditions);
            happens(link, conditions);
        });
        self.changed.notify_one();
    }

    /// Wakes up only those who observe a link whose conditions change.
    fn modify_all(&self, modify: impl Fn(&ControlledLink, &mut Conditions)) {
        for (link, conditions) in &self.links {
            conditions.send_if_modified(|conditions| {
                let before = *conditions;
                modify(link, conditions);
                before != *conditions
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        // Every change is a single step: no other thread sees half of one.
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
