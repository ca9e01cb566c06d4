//! The heartbeat path behind the transports: what came in → the observer (sweep, decide: pure) → act. One task, which
//! alone holds the observer, and waits for nobody.

use std::{sync::Arc, time::Duration};

use heartbeat::{
    Nanos,
    assign::NodeId,
    clock::Clock,
    observer::{Effect, Observer},
    registry::{Request, Response},
    soft::{State, Transition},
    transport::{Ingest, assignments::Assignments},
};
use runtime::{Readiness, telemetry::Telemetry};
use tokio::{
    sync::{mpsc, watch},
    task::{self, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    etcd::{Registry, RegistryError},
    input::Input,
    metrics::Metrics,
    peers::Peers,
    probes::Probes,
    status::{Changes, Node, Status, What},
    suspicions::Suspicions,
    switch::Switch,
};

/// Inputs taken together before the observer is asked what to do.
const MAX_TOGETHER: usize = 1_024;
/// A node that nobody registered is forgotten after so long without a beat: its place is another's.
const FORGET_AFTER: Nanos = 600_000_000_000;

pub struct Sweep {
    pub me: NodeId,
    pub monitors: usize,
    pub observer: Observer,
    pub clock: Clock,
    pub inbox: mpsc::Receiver<Input>,
    pub registry: Registry,
    pub peers: Peers,
    pub probes: Probes,
    pub ingest: Arc<Ingest>,
    /// For those who follow.
    pub assignments: watch::Sender<Arc<Assignments>>,
    pub metrics: Metrics,
    pub telemetry: Telemetry,
    pub readiness: Readiness,
}

/// What is told of later.
struct Told {
    changes: Changes,
    suspicions: Suspicions,
    /// The commit under way.
    switch: Option<Switch>,
}

/// Requests to the registry under way, and how it is.
#[derive(Default)]
struct Asked {
    tasks: JoinSet<(Nanos, &'static str, Result<Response, RegistryError>)>,
    /// One at a time.
    commit: Option<task::Id>,
    reading: bool,
    /// Something has changed since the reading under way began.
    read_again: bool,
    is_up: bool,
}

impl Sweep {
    /// Until `stop`. Then lets go of the lead, so that another monitor need not wait for the end of the term.
    pub async fn run(mut self, stop: CancellationToken) {
        let suspicions = Suspicions::new(self.telemetry.clone(), self.clock);
        let mut told = Told { changes: Changes::default(), suspicions, switch: None };
        let (mut asked, mut last_forgotten) = (Asked::default(), 0);
        loop {
            let wake = Instant::from_std(self.clock.instant(self.observer.next_wake()));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Few: a full inbox must not keep the lead waiting.
                Some(answer) = asked.tasks.join_next() => self.answered(answer, &mut asked, &mut told),
                Some(input) = self.inbox.recv() => self.take_in(input, &mut asked, &told.changes),
                () = sleep_until(wake) => {}
            }
            let now = self.clock.now();
            for effect in self.observer.tick(now) {
                self.act(effect, now, &mut asked, &mut told);
            }
            self.publish(now, &mut told);
            if now > last_forgotten + FORGET_AFTER / 10 {
                last_forgotten = now;
                self.ingest.table().forget_before(now.saturating_sub(FORGET_AFTER));
            }
        }
        self.registry.resign().await;
    }

    fn take_in(&mut self, first: Input, asked: &mut Asked, changes: &Changes) {
        let mut next = Some(first);
        for _ in 0..MAX_TOGETHER {
            let Some(input) = next else { return };
            self.take(input, asked, changes);
            next = self.inbox.try_recv().ok();
        }
        if let Some(input) = next {
            self.take(input, asked, changes);
        }
    }

    fn take(&mut self, input: Input, asked: &mut Asked, changes: &Changes) {
        let now = self.clock.now();
        match input {
            Input::Beat { id, incarnation, sequence } => {
                let known = || self.observer.incarnation(&id).unwrap_or(0);
                let incarnation = if incarnation == 0 { known() } else { incarnation };
                // What nobody counted is as new as it is late.
                let sequence = if sequence == 0 { now } else { sequence };
                self.observer.heard(now, &id, incarnation, sequence);
            }
            Input::Answer { node, incarnation, round } => self.observer.answered(now, &node, incarnation, round),
            Input::Ballot(ballot) => {
                self.metrics.ballots_received.inc();
                self.observer.ballot(now, ballot);
            }
            Input::Changed => self.ask(Request::Read, now, asked),
            // Whoever asked may have gone.
            Input::Status(reply) => _ = reply.send(self.status(now, asked, changes)),
        }
    }

    fn act(&mut self, effect: Effect, now: Nanos, asked: &mut Asked, told: &mut Told) {
        match effect {
            Effect::Probe { node, round } => self.probe(&node, round),
            Effect::Share(ballot) => {
                self.peers.share(&ballot);
                self.gauge(now);
            }
            Effect::Ask(mut request) => {
                if let Request::Commit { table, .. } = &mut request {
                    let known = (&self.observer, &told.suspicions);
                    let switch = Switch::begin(&self.telemetry, self.clock, now, known, table);
                    table.traceparent = switch.traceparent();
                    self.observer.trace(table.traceparent.clone());
                    told.switch = Some(switch);
                }
                self.ask(request, now, asked);
            }
            Effect::Changed { node, incarnation, transition } => {
                self.changed(&node, &transition);
                if let Some(lasted) = told.suspicions.note(now, &node, incarnation, &transition) {
                    self.metrics.mistakes.inc();
                    self.metrics.mistaken_seconds.inc_by(lasted.as_secs_f64());
                }
                told.changes.note(What::transition(&node, &transition));
            }
            Effect::Paused(gap) => {
                let pause = Duration::from_nanos(gap);
                tracing::warn!(ms = pause.as_millis() as u64, "this monitor stood still: nobody is blamed for it");
                self.metrics.pauses.inc();
                self.metrics.paused_seconds.inc_by(pause.as_secs_f64());
                told.changes.note(What::Paused { ms: pause.as_secs_f64() * 1e3 });
            }
        }
    }

    fn probe(&self, node: &str, round: u64) {
        let nodes = &self.observer.snapshot().nodes;
        let Some(registration) = nodes.get(node) else { return };
        // Another one for each round: the first may be cut off itself.
        let well: Vec<_> = nodes
            .values()
            .filter(|other| *other.id != *node && self.observer.state(&other.id) == Some(State::Healthy))
            .collect();
        let via = (!well.is_empty()).then(|| well[round as usize % well.len()]);
        self.probes.send(registration, via, round);
    }

    fn changed(&self, node: &NodeId, transition: &Transition) {
        let Transition { from, to, cause, silent } = *transition;
        let silent = Duration::from_nanos(silent);
        let silent_ms = silent.as_millis() as u64;
        let (from, to, cause) = (from.as_str(), to.as_str(), cause.as_str());
        tracing::info!(%node, from, to, cause, silent_ms, "state changed");
        self.metrics.transitions.with_label_values(&[from, to, cause]).inc();
        if transition.to == State::Failed {
            self.metrics.silence.observe(silent.as_secs_f64());
        }
    }

    /// One reading at a time: what changes meanwhile is one more reading after it.
    fn ask(&self, request: Request, now: Nanos, asked: &mut Asked) {
        if request == Request::Read {
            asked.read_again = asked.reading;
            if std::mem::replace(&mut asked.reading, true) {
                return;
            }
        }
        let (registry, name) = (self.registry.clone(), name(&request));
        let task = asked.tasks.spawn(async move { (now, name, registry.apply(request).await) });
        if name == COMMIT {
            asked.commit = Some(task.id());
        }
    }

    fn answered(
        &mut self,
        answer: Result<(Nanos, &'static str, Result<Response, RegistryError>), tokio::task::JoinError>,
        asked: &mut Asked,
        told: &mut Told,
    ) {
        let (when, name, response) = match answer {
            Ok(answer) => answer,
            Err(panic) => {
                // A bug of ours; the monitor goes on as if etcd had not answered.
                let to_commit = asked.commit == Some(panic.id());
                asked.reading &= to_commit;
                return self.observer.no_answer(self.clock.now(), to_commit);
            }
        };
        if name == READ {
            asked.reading = false;
        }
        let outcome = if response.is_ok() { "ok" } else { "failed" };
        self.metrics.registry_requests.with_label_values(&[name, outcome]).inc();
        if name == COMMIT
            && let Some(switch) = told.switch.take()
        {
            match &response {
                Ok(Response::Conflict) => switch.fail("conflict"),
                Ok(_) => {}
                Err(_) => switch.fail("unanswered"),
            }
        }
        let was_up = std::mem::replace(&mut asked.is_up, response.is_ok());
        self.metrics.registry_up.set(response.is_ok().into());
        let now = self.clock.now();
        match response {
            Ok(response) => {
                if !was_up {
                    tracing::info!("etcd answers");
                }
                if matches!(response, Response::Snapshot(_)) {
                    self.readiness.ready();
                }
                self.observer.answer(now, when, response);
                if std::mem::take(&mut asked.read_again) {
                    self.ask(Request::Read, now, asked);
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                if was_up {
                    tracing::warn!(error, request = name, "etcd is away: nodes are watched on, nothing is switched");
                } else {
                    tracing::debug!(error, request = name, "etcd is still away");
                }
                self.observer.no_answer(now, name == COMMIT);
            }
        }
    }

    /// Tells those who follow of a later table.
    fn publish(&self, now: Nanos, told: &mut Told) {
        let snapshot = self.observer.snapshot();
        let later = &snapshot.table;
        let before = Arc::clone(&self.assignments.borrow().table);
        if later.epoch <= before.epoch {
            return;
        }
        for what in What::between(&before, later) {
            if let What::Offline { node, .. } = &what {
                self.confirmed(now, node);
                told.suspicions.confirmed(now, node, later.traceparent.as_deref());
            }
            tracing::info!(epoch = later.epoch, change = ?what, "the table has changed");
            told.changes.note(what);
        }
        self.metrics.epoch.set(later.epoch.cast_signed());
        for (number, assignment) in later.partitions.iter().enumerate() {
            let gauge = self.metrics.partition_epoch.with_label_values(&[number.to_string()]);
            gauge.set(assignment.epoch.cast_signed());
        }
        let addresses = snapshot.nodes.values().map(|node| (node.id.clone(), node.http.clone())).collect();
        self.assignments.send_replace(Arc::new(Assignments { table: Arc::clone(later), addresses }));
    }

    /// The table has taken the node off-line. One that left by itself has not failed.
    fn confirmed(&self, now: Nanos, node: &NodeId) {
        if self.observer.snapshot().is_leaving(node) {
            return;
        }
        self.metrics.confirmed.inc();
        // The others may hear of it late, for reasons of their own.
        if let Some(silent) = self.observer.silence(now, node).filter(|_| self.observer.is_leading(now)) {
            self.metrics.detection.observe(Duration::from_nanos(silent).as_secs_f64());
        }
    }

    fn gauge(&self, now: Nanos) {
        let mut counts = [0; State::ALL.len()];
        for (node, soft) in self.observer.states() {
            // Whoever has left is in no state, and the series stay.
            let is_here = !self.observer.snapshot().has_left(node);
            counts[soft.state() as usize] += i64::from(is_here);
            for state in State::ALL {
                let gauge = self.metrics.node_state.with_label_values(&[&**node, state.as_str()]);
                gauge.set((is_here && soft.state() == state).into());
            }
            let votes = self.observer.votes_against(now, node, soft.incarnation());
            self.metrics.votes.with_label_values(&[&**node]).set(votes as i64);
        }
        for state in State::ALL {
            self.metrics.nodes.with_label_values(&[state.as_str()]).set(counts[state as usize]);
        }
        self.metrics.leading.set(self.observer.is_leading(now).into());
        self.metrics.present.set(self.observer.present(now) as i64);
        self.metrics.count_beats(self.ingest.counts());
    }

    fn status(&self, now: Nanos, asked: &Asked, changes: &Changes) -> Status {
        let snapshot = self.observer.snapshot();
        let table = Arc::clone(&snapshot.table);
        let nodes = self.observer.states().map(|(id, soft)| Node {
            id: id.clone(),
            state: soft.state(),
            incarnation: soft.incarnation(),
            online: table.is_online(id),
            left: snapshot.has_left(id),
            silent_ms: now.saturating_sub(soft.heard_at()) as f64 / 1e6,
            primary_of: table.partitions.iter().filter(|a| a.primary.as_ref() == Some(id)).count(),
            replica_of: table.partitions.iter().filter(|a| a.replicas.contains(id)).count(),
        });
        Status {
            monitor: self.me.clone(),
            leading: self.observer.is_leading(now),
            leader: snapshot.leader.as_ref().map(|leader| leader.monitor.clone()),
            monitors: self.monitors,
            present: self.observer.present(now),
            registry_up: asked.is_up,
            nodes: nodes.collect(),
            table,
            changes: changes.list(),
        }
    }
}

const READ: &str = "read";
const COMMIT: &str = "commit";

fn name(request: &Request) -> &'static str {
    match request {
        Request::Read => READ,
        Request::Campaign { .. } => "campaign",
        Request::Register(_) => "register",
        Request::Commit { .. } => COMMIT,
    }
}
