//! The gRPC port of a monitor that the test controls: it keeps block reports by the rules of real monitors, and hands out the test's orders.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::Router;
use contract::SegmentId;
use heartbeat::{
    auth::{FrameKind, Keys},
    frame,
};
use segments::{
    CopyReport, Reports, WorkerReport,
    rpc::{
        Accepted, BlockReport, Finished, MAX_MESSAGE_BYTES, OrderId, OrderMessage, Orders, OrdersWanted, ReadReport,
        SegmentCare, SegmentCareServer, Signed,
    },
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};
use tonic::{Request, Response, Status};

use crate::{monitor::KEY, relay::until};

/// Accepted reports that are kept.
const MAX_ACCEPTED: usize = 1_000;

/// Ends when it is dropped.
pub struct Care {
    pub address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    keys: Keys,
    refuses: AtomicBool,
    refused: AtomicU64,
    heard: Mutex<Heard>,
    /// Not handed out yet, by worker.
    orders: watch::Sender<BTreeMap<String, Vec<OrderMessage>>>,
}

#[derive(Default)]
struct Heard {
    reports: Reports,
    accepted: Vec<ReadReport>,
}

impl Care {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            keys: Keys::new(KEY.as_bytes()),
            refuses: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            heard: Mutex::default(),
            orders: watch::Sender::default(),
        });
        let service = SegmentCareServer::new(Server(Arc::clone(&state)));
        let service = service.max_decoding_message_size(MAX_MESSAGE_BYTES);
        let router = Router::new().route_service("/testbed.segments.v1.SegmentCare/{method}", service);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state, _tasks: tasks }
    }

    /// From now on all reports are refused, or those that break no rule are accepted.
    pub fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::SeqCst);
    }

    /// Number of refused reports.
    pub fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::SeqCst)
    }

    /// Accepted reports, oldest first.
    pub fn accepted(&self) -> Vec<ReadReport> {
        self.state.heard.lock().unwrap().accepted.clone()
    }

    /// What the monitor knows of the worker's copies.
    pub fn copies(&self, worker: &str) -> BTreeMap<SegmentId, CopyReport> {
        let heard = self.state.heard.lock().unwrap();
        heard.reports.of_worker(worker).map(|report| report.copies.clone()).unwrap_or_default()
    }

    /// The worker's next poll gets these orders, once.
    pub fn order(&self, worker: &str, orders: impl IntoIterator<Item = OrderMessage>) {
        self.state.orders.send_modify(|all| all.entry(worker.to_owned()).or_default().extend(orders));
    }

    /// Waits for a report that the order has ended.
    pub async fn ended(&self, order: OrderId) -> Finished {
        let mut found = None;
        until("the order's end is reported", async || {
            let accepted = self.accepted();
            found = accepted.iter().flat_map(|report| &report.finished).find(|ended| ended.order == order).cloned();
            found.is_some()
        })
        .await;
        found.unwrap()
    }
}

struct Server(Arc<State>);

#[tonic::async_trait]
impl SegmentCare for Server {
    async fn report(&self, request: Request<Signed>) -> Result<Response<Signed>, Status> {
        let question = request.into_inner().frame;
        let report = frame::verify_protobuf::<BlockReport>(&self.0.keys, FrameKind::BlockReport, &question);
        let report = report.ok_or_else(unauthenticated)?;
        if let Err(refused) = self.accept(ReadReport::try_from(report)?) {
            self.0.refused.fetch_add(1, Ordering::SeqCst);
            return Err(refused);
        }
        let reply = Accepted { leads: true };
        let reply = frame::sign_protobuf_reply(&self.0.keys, FrameKind::ReportAccepted, &question, &reply);
        Ok(Response::new(reply.into()))
    }

    async fn orders(&self, request: Request<Signed>) -> Result<Response<Signed>, Status> {
        let question = request.into_inner().frame;
        let wanted = frame::verify_protobuf(&self.0.keys, FrameKind::OrdersWanted, &question);
        let OrdersWanted { worker, wait_ms, .. } = wanted.ok_or_else(unauthenticated)?;
        let mut changes = self.0.orders.subscribe();
        let is_there = async { changes.wait_for(|orders| orders.contains_key(&worker)).await.map(drop) };
        timeout(Duration::from_millis(wait_ms), is_there).await.ok();
        let mut orders = Vec::new();
        self.0.orders.send_if_modified(|all| {
            orders = all.remove(&worker).unwrap_or_default();
            false
        });
        let reply = Orders { leads: true, orders };
        let reply = frame::sign_protobuf_reply(&self.0.keys, FrameKind::Orders, &question, &reply);
        Ok(Response::new(reply.into()))
    }
}

impl Server {
    fn accept(&self, report: ReadReport) -> Result<(), Status> {
        if self.0.refuses.load(Ordering::SeqCst) {
            return Err(Status::failed_precondition("as the test wants it"));
        }
        let mut heard = self.0.heard.lock().unwrap();
        let ReadReport { worker, incarnation, number, table_epoch, complete, copies, .. } = report.clone();
        let accepted = if complete {
            let copies = copies.into_iter().filter_map(|(segment, copy)| Some((segment, copy?))).collect();
            heard.reports.accept(WorkerReport { worker, incarnation, number, table_epoch, copies })
        } else {
            heard.reports.update_all(&worker, incarnation, number, table_epoch, copies)
        };
        accepted.map_err(|refused| Status::failed_precondition(refused.to_string()))?;
        assert!(heard.accepted.len() < MAX_ACCEPTED, "a worker reports without end");
        heard.accepted.push(report);
        Ok(())
    }
}

fn unauthenticated() -> Status {
    Status::unauthenticated("as real monitors")
}
