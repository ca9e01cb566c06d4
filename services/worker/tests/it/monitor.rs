//! A monitor that the test controls: it receives heartbeats and registrations, and answers polls with the test's table.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use heartbeat::{
    assign::{Membership, Table},
    auth::{FrameKind, Keys},
    codec::{Codec as _, Protobuf},
    frame,
    message::{Beat, WorkerReport},
    registry::{InMemoryRegistry, Registration, Request, Response},
    transport::assignments::{self, Assignments},
};
use serde_json::json;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
};

pub const KEY: &str = "a key for tests";
/// Heartbeats that are kept.
const MAX_BEATS: usize = 1_000;

#[derive(Clone)]
struct Shared {
    keys: Keys,
    registry: Arc<Mutex<InMemoryRegistry>>,
    beats: Arc<Mutex<VecDeque<Beat>>>,
}

/// Ends when it is dropped.
pub struct Monitor {
    pub http: SocketAddr,
    pub beats: SocketAddr,
    shared: Shared,
    latest: watch::Sender<Arc<Assignments>>,
    _tasks: JoinSet<()>,
}

impl Monitor {
    pub async fn start() -> Self {
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (at, beats) = (http.local_addr().unwrap(), udp.local_addr().unwrap());
        let shared = Shared { keys: Keys::new(KEY.as_bytes()), registry: Arc::default(), beats: Arc::default() };
        let (latest, following) = watch::channel(Arc::default());
        let router = Router::new().route("/register", post(register)).with_state(shared.clone());
        let router = router.merge(assignments::authenticated(following, shared.keys.clone(), 16, |_, _| ()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(http, router).await.unwrap() });
        let receiver = shared.clone();
        tasks.spawn(async move {
            let mut datagram = [0; 2_048];
            loop {
                let (length, _) = udp.recv_from(&mut datagram).await.unwrap();
                let (_, payload) = receiver.keys.verify(&datagram[..length]).unwrap();
                let mut beats = receiver.beats.lock().unwrap();
                beats.push_back(Protobuf.decode(payload).unwrap());
                if beats.len() > MAX_BEATS {
                    beats.pop_front();
                }
            }
        });
        Self { http: at, beats, shared, latest, _tasks: tasks }
    }

    /// Heartbeats, oldest first.
    pub fn heard(&self) -> MutexGuard<'_, VecDeque<Beat>> {
        self.shared.beats.lock().unwrap()
    }

    /// The report in the worker's newest heartbeat.
    pub fn report(&self, worker: &str) -> Option<WorkerReport> {
        self.heard().iter().rev().find(|beat| beat.node_id == worker)?.report.clone()
    }

    pub fn registered(&self, worker: &str) -> Option<Registration> {
        self.shared.registry.lock().unwrap().state().nodes.get(worker).cloned()
    }

    /// Registers a process of this name directly.
    pub fn register(&self, node: Registration) {
        let response = self.shared.registry.lock().unwrap().apply(0, Request::Register(node));
        assert_eq!(response, Response::Registered);
    }

    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.latest.borrow().table)
    }

    pub fn publish(&self, table: Table) {
        let addresses: BTreeMap<_, _> = {
            let registry = self.shared.registry.lock().unwrap();
            registry.state().nodes.values().map(|node| (node.id.clone(), node.http.clone())).collect()
        };
        self.latest.send_replace(Arc::new(Assignments { table: table.into(), addresses }));
    }

    /// The next table: the registered process of this worker is online, and gets these partitions in addition.
    pub fn assign(&self, worker: &str, partitions: &[usize]) {
        let mut table = Table::clone(&self.table());
        let node = self.registered(worker).unwrap();
        let is_new = !table.is_admitted(worker, node.incarnation, node.process);
        let Registration { id, incarnation, process, .. } = node;
        table.epoch += 1;
        table.history = 7;
        table.nodes.insert(id.clone(), Membership { incarnation, process, online: true });
        let epoch = table.epoch;
        for (number, assignment) in table.partitions.iter_mut().enumerate() {
            if partitions.contains(&number) || is_new && assignment.primary.as_ref() == Some(&id) {
                (assignment.primary, assignment.epoch) = (Some(id.clone()), epoch);
            }
        }
        self.publish(table);
    }

    /// Admits the registered process once a heartbeat of its incarnation was received, as monitors do. Returns whether the table changed.
    pub fn admit(&self, worker: &str, partitions: &[usize]) -> bool {
        let Some(node) = self.registered(worker) else { return false };
        let is_heard = self.heard().iter().any(|beat| beat.node_id == worker && beat.incarnation == node.incarnation);
        let admitted = self.table().nodes.get(worker).map_or(0, |membership| membership.incarnation);
        if !is_heard || admitted >= node.incarnation {
            return false;
        }
        self.assign(worker, partitions);
        true
    }
}

async fn register(State(shared): State<Shared>, body: Bytes) -> Vec<u8> {
    let node: Registration = frame::verify_control(&shared.keys, &body).unwrap();
    let reply = match shared.registry.lock().unwrap().apply(0, Request::Register(node)) {
        Response::Superseded { incarnation } => json!({"outcome": "outlived", "incarnation": incarnation}),
        _ => json!({"outcome": "registered"}),
    };
    frame::sign_reply(&shared.keys, FrameKind::Registered, &body, reply.to_string().as_bytes())
}
