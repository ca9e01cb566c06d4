//! Step 2 of a heartbeat's path: inputs → `heartbeat::observer` (decides, pure) → actions. A single task owns the observer and never waits
//! for I/O.

use std::{
    collections::HashMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
    time::Duration,
};

use heartbeat::{
    Nanos,
    assign::NodeId,
    clock::Clock,
    message::Beat,
    node_state::{State, Transition},
    observer::{Effect, Observer, ReceivedBeat},
    registry::{Monitors, Registration, Request, Response},
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
    commit_trace::CommitTrace,
    etcd::{Registry, RegistryError},
    input::Input,
    metrics::Metrics,
    peers::Peers,
    probes::Probes,
    segments::Segments,
    status::{Event, EventLog, Node, Status},
    status_snapshots,
    suspicions::Suspicions,
};

/// Inputs that are handled before the observer decides again.
const MAX_BATCH: usize = 1_024;
/// An unregistered worker is forgotten after this silence, so that its place in the table is free again.
const FORGET_AFTER: Nanos = 600_000_000_000;
/// Workers that are looked at to find one that passes a probe on.
const MAX_CHOICES: usize = 64;

pub struct ControlLoop {
    pub me: NodeId,
    pub configured: Monitors,
    pub observer: Observer,
    pub clock: Clock,
    pub inbox: mpsc::Receiver<Input>,
    pub registry: Registry,
    pub peers: Peers,
    pub probes: Probes,
    pub status: status_snapshots::Publisher,
    pub ingest: Arc<Ingest>,
    /// The partition table for workers that poll.
    pub assignments: watch::Sender<Arc<Assignments>>,
    /// Whether this monitor leads.
    pub leads: watch::Sender<bool>,
    pub segments: Segments,
    pub metrics: Metrics,
    pub telemetry: Telemetry,
    pub readiness: Readiness,
}

/// State behind logs, metrics, spans and `GET /status`.
struct Reporting {
    changes: EventLog,
    suspicions: Suspicions,
    /// The commit in flight.
    commit_trace: Option<CommitTrace>,
}

/// Requests to the registry in flight, and whether it answers.
#[derive(Default)]
struct RegistryRequests {
    tasks: JoinSet<(Nanos, &'static str, Result<Response, RegistryError>)>,
    /// At most one at a time.
    commit: Option<task::Id>,
    reading: bool,
    /// Something has changed since the read in flight began.
    read_again: bool,
    is_up: bool,
}

impl ControlLoop {
    /// Runs until `stop`. Then it gives up the leadership, so that no monitor waits for the end of the lease.
    pub async fn run(mut self, stop: CancellationToken) {
        let suspicions = Suspicions::new(self.telemetry.clone(), self.clock);
        let mut reporting = Reporting { changes: EventLog::default(), suspicions, commit_trace: None };
        let (mut requests, mut last_forgotten) = (RegistryRequests::default(), 0);
        loop {
            let wake = self.observer.next_wake().min(self.status.due());
            let wake = Instant::from_std(self.clock.instant(wake));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Before the inputs: a full queue must not delay the renewal of the lease.
                Some(answer) = requests.tasks.join_next() => self.handle_response(answer, &mut requests, &mut reporting),
                Some(input) = self.inbox.recv() => self.drain_inbox(input, &mut requests),
                () = self.status.wanted() => self.status.request(self.clock.now()),
                () = sleep_until(wake) => {}
            }
            let now = self.clock.now();
            for effect in self.observer.tick(now) {
                self.act(effect, now, &mut requests, &mut reporting);
            }
            self.publish(now, &mut reporting);
            let is_leading = self.observer.is_leading(now);
            self.leads.send_if_modified(|leads| std::mem::replace(leads, is_leading) != is_leading);
            if now >= self.status.due() {
                let status = self.status_now(now, &requests, &reporting.changes);
                self.status.publish(now, status);
            }
            if now > last_forgotten + FORGET_AFTER / 10 {
                last_forgotten = now;
                self.ingest.table().forget_before(now.saturating_sub(FORGET_AFTER));
            }
        }
        self.registry.resign().await;
    }

    fn drain_inbox(&mut self, first: Input, requests: &mut RegistryRequests) {
        let mut next = Some(first);
        for _ in 0..MAX_BATCH {
            let Some(input) = next else { return };
            self.handle_input(input, requests);
            next = self.inbox.try_recv().ok();
        }
        if let Some(input) = next {
            self.handle_input(input, requests);
        }
    }

    fn handle_input(&mut self, input: Input, requests: &mut RegistryRequests) {
        let now = self.clock.now();
        match input {
            Input::Beat { at, beat } => {
                let Beat { node_id: id, incarnation, sequence, timestamp: sent_ms, report, .. } = beat;
                let known = || self.observer.incarnation(&id).unwrap_or(0);
                let incarnation = if incarnation == 0 { known() } else { incarnation };
                // Heartbeats with a MAC are numbered. One without a number counts as the newest.
                let is_authenticated = sequence != 0;
                let sequence = if is_authenticated { sequence } else { now };
                let beat = ReceivedBeat { at, incarnation, sequence, sent_ms, is_authenticated, report };
                self.observer.heard(now, &id, beat);
            }
            Input::Answer { node, alive, round } => self.observer.answered(now, &node, alive, round),
            Input::Ballot(ballot) => {
                self.metrics.ballots_received.inc();
                self.observer.ballot(now, ballot);
            }
            Input::Follows { node, epoch } => self.observer.follows(now, &node, epoch),
            Input::Copies(caught_up) => self.observer.copies(caught_up),
            Input::Changed => self.send_request(Request::Read, now, requests),
        }
    }

    fn act(&mut self, effect: Effect, now: Nanos, requests: &mut RegistryRequests, reporting: &mut Reporting) {
        match effect {
            Effect::MonitorsChanged(monitors) => self.set_monitors(&monitors),
            Effect::Unserved { node, partitions, source } => {
                let evidence = source.as_str();
                tracing::warn!(
                    %node,
                    ?partitions,
                    evidence,
                    "a worker sends heartbeats but does not serve these partitions: others take them over"
                );
                self.metrics.unserved.with_label_values(&[evidence]).inc_by(partitions.len() as u64);
                reporting.changes.push(Event::Unserved { node, partitions, evidence: source });
            }
            Effect::TablesLost { epoch } => {
                tracing::error!(
                    epoch,
                    "etcd has lost partition tables up to this epoch: the next table is above it, and all partitions get its epoch"
                );
                reporting.changes.push(Event::TablesLost { epoch });
            }
            Effect::Forgotten(node) => self.metrics.forget(&node),
            Effect::Probe { node, round } => self.probe(&node, round),
            Effect::Share(ballot) => {
                self.peers.share(&ballot);
                self.update_gauges(now);
            }
            Effect::Request(mut request) => {
                if let Request::Commit { table, .. } = &mut request {
                    let known = (&self.observer, &reporting.suspicions);
                    let commit_trace = CommitTrace::begin(&self.telemetry, self.clock, now, known, table);
                    table.traceparent = commit_trace.traceparent();
                    self.observer.set_traceparent(table.traceparent.clone());
                    reporting.commit_trace = Some(commit_trace);
                }
                self.send_request(request, now, requests);
            }
            Effect::StateChanged { node, incarnation, transition } => {
                self.record_transition(&node, &transition);
                if let Some(lasted) = reporting.suspicions.record_transition(now, &node, incarnation, &transition) {
                    self.metrics.mistakes.inc();
                    self.metrics.mistaken_seconds.inc_by(lasted.as_secs_f64());
                }
                reporting.changes.push(Event::transition(&node, &transition));
            }
            Effect::Paused(gap) => {
                let pause = Duration::from_nanos(gap);
                tracing::warn!(
                    ms = pause.as_millis() as u64,
                    "this monitor's process paused: no worker is suspected for this time"
                );
                self.metrics.pauses.inc();
                self.metrics.paused_seconds.inc_by(pause.as_secs_f64());
                reporting.changes.push(Event::Paused { ms: pause.as_secs_f64() * 1e3 });
            }
        }
    }

    fn set_monitors(&mut self, monitors: &Monitors) {
        let is_same = monitors.members.keys().eq(self.configured.members.keys());
        if !is_same && monitors.version >= self.configured.version {
            let members: Vec<&str> = monitors.members.keys().map(|name| &**name).collect();
            tracing::warn!(
                version = monitors.version,
                ?members,
                "etcd has other monitors than this one's configuration (peers): those in etcd vote. To change them, raise peers_version"
            );
        }
        self.peers.set(&self.me, monitors);
    }

    fn probe(&self, id: &str, round: u64) {
        let nodes = &self.observer.snapshot().nodes;
        let Some(registration) = nodes.get(id) else { return };
        // A different worker in each round: the first may be unreachable too.
        let others =
            nodes.range::<str, _>((Excluded(id), Unbounded)).chain(nodes.range::<str, _>((Unbounded, Excluded(id))));
        let skipped = round as usize % (nodes.len() - 1).clamp(1, MAX_CHOICES / 2);
        let is_well = |other: &&Registration| self.observer.state(&other.id) == Some(State::Healthy);
        let via = others.map(|(_, other)| other).skip(skipped).take(MAX_CHOICES).find(is_well);
        match self.observer.state(id) {
            // It is not suspected: it shall prove that its heartbeats are no recorded ones.
            Some(State::Healthy) => self.probes.prove(registration, via, round),
            _ => self.probes.send(registration, via, round),
        }
    }

    fn record_transition(&self, node: &NodeId, transition: &Transition) {
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

    /// One read at a time: a change during a read causes one more read.
    fn send_request(&self, request: Request, now: Nanos, requests: &mut RegistryRequests) {
        if request == Request::Read {
            requests.read_again = requests.reading;
            if std::mem::replace(&mut requests.reading, true) {
                return;
            }
        }
        let (registry, name) = (self.registry.clone(), name(&request));
        let task = requests.tasks.spawn(async move { (now, name, registry.apply(request).await) });
        if name == COMMIT {
            requests.commit = Some(task.id());
        }
    }

    fn handle_response(
        &mut self,
        answer: Result<(Nanos, &'static str, Result<Response, RegistryError>), tokio::task::JoinError>,
        requests: &mut RegistryRequests,
        reporting: &mut Reporting,
    ) {
        let (when, name, response) = match answer {
            Ok(answer) => answer,
            Err(panic) => {
                // A bug. The monitor continues as if etcd had not answered.
                let to_commit = requests.commit == Some(panic.id());
                requests.reading &= to_commit;
                return self.observer.request_failed(self.clock.now(), to_commit);
            }
        };
        if name == READ {
            requests.reading = false;
        }
        let outcome = if response.is_ok() { "ok" } else { "failed" };
        self.metrics.registry_requests.with_label_values(&[name, outcome]).inc();
        if name == COMMIT
            && let Some(commit_trace) = reporting.commit_trace.take()
        {
            match &response {
                Ok(Response::Conflict) => commit_trace.fail("conflict"),
                Ok(_) => {}
                Err(_) => commit_trace.fail("unanswered"),
            }
        }
        let was_up = std::mem::replace(&mut requests.is_up, response.is_ok());
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
                self.observer.response(now, when, response);
                if std::mem::take(&mut requests.read_again) {
                    self.send_request(Request::Read, now, requests);
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                if was_up {
                    tracing::warn!(
                        error,
                        request = name,
                        "etcd does not answer: workers are still watched, but no partition is reassigned"
                    );
                } else {
                    tracing::debug!(error, request = name, "etcd still does not answer");
                }
                self.observer.request_failed(now, name == COMMIT);
            }
        }
    }

    /// Publishes a later table to the workers that poll.
    fn publish(&self, now: Nanos, reporting: &mut Reporting) {
        let snapshot = self.observer.snapshot();
        let later = &snapshot.table;
        let before = Arc::clone(&self.assignments.borrow().table);
        if later.epoch <= before.epoch {
            return;
        }
        for event in Event::between(&before, later) {
            if let Event::Offline { node, .. } = &event {
                self.record_failure(now, node);
                reporting.suspicions.confirmed(now, node, later.traceparent.as_deref());
            }
            tracing::info!(epoch = later.epoch, change = ?event, "partition table changed");
            reporting.changes.push(event);
        }
        self.metrics.epoch.set(later.epoch.cast_signed());
        for (number, assignment) in later.partitions.iter().enumerate() {
            let gauge = self.metrics.partition_epoch.with_label_values(&[number.to_string()]);
            gauge.set(assignment.epoch.cast_signed());
        }
        let addresses = snapshot.nodes.values().map(|node| (node.id.clone(), node.http.clone())).collect();
        self.assignments.send_replace(Arc::new(Assignments { table: Arc::clone(later), addresses }));
    }

    /// The table took the worker offline. A worker that left has not failed.
    fn record_failure(&self, now: Nanos, node: &NodeId) {
        if self.observer.snapshot().is_leaving(node) {
            return;
        }
        self.metrics.confirmed.inc();
        // Followers learn of it later: only the leader measures.
        if let Some(silent) = self.observer.silence(now, node).filter(|_| self.observer.is_leading(now)) {
            self.metrics.detection.observe(Duration::from_nanos(silent).as_secs_f64());
        }
    }

    fn update_gauges(&self, now: Nanos) {
        let mut counts = [0; State::ALL.len()];
        for (node, observed) in self.observer.states() {
            // A worker that left is in no state, but its series stay.
            let is_here = !self.observer.snapshot().has_left(node);
            counts[observed.state() as usize] += i64::from(is_here);
            for state in State::ALL {
                let gauge = self.metrics.node_state.with_label_values(&[&**node, state.as_str()]);
                gauge.set((is_here && observed.state() == state).into());
            }
            let votes = self.observer.votes_against(now, node, observed.incarnation());
            self.metrics.votes.with_label_values(&[&**node]).set(votes as i64);
        }
        for state in State::ALL {
            self.metrics.nodes.with_label_values(&[state.as_str()]).set(counts[state as usize]);
        }
        self.metrics.leading.set(self.observer.is_leading(now).into());
        self.metrics.present.set(self.observer.present(now) as i64);
        self.metrics.count_beats(self.ingest.counts());
    }

    fn status_now(&self, now: Nanos, requests: &RegistryRequests, changes: &EventLog) -> Status {
        let snapshot = self.observer.snapshot();
        let table = Arc::clone(&snapshot.table);
        // Partitions as primary and as replica.
        let mut partitions: HashMap<&NodeId, (usize, usize)> = HashMap::new();
        for assignment in &table.partitions {
            if let Some(primary) = &assignment.primary {
                partitions.entry(primary).or_default().0 += 1;
            }
            for replica in &assignment.replicas {
                partitions.entry(replica).or_default().1 += 1;
            }
        }
        let nodes = self.observer.states().map(|(id, observed)| {
            let (primary_of, replica_of) = partitions.get(id).copied().unwrap_or_default();
            Node {
                id: id.clone(),
                state: observed.state(),
                incarnation: observed.incarnation(),
                online: table.is_online(id),
                left: snapshot.has_left(id),
                silent_ms: now.saturating_sub(observed.heard_at()) as f64 / 1e6,
                weight: self.observer.weight(now, id),
                primary_of,
                replica_of,
            }
        });
        Status {
            monitor: self.me.clone(),
            leading: self.observer.is_leading(now),
            leader: snapshot.leader.as_ref().map(|leader| leader.monitor.clone()),
            monitors: self.observer.monitors(),
            present: self.observer.present(now),
            registry_up: requests.is_up,
            nodes: nodes.collect(),
            table: Arc::clone(&table),
            segments: self.segments.status(),
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
        Request::Resign { .. } => "resign",
        Request::SetMonitors(_) => "set_monitors",
        Request::Register(_) => "register",
        Request::Forget(_) => "forget",
        Request::Commit { .. } => COMMIT,
    }
}
