//! Workers that hold segments: real directories, real bytes on sockets. Their files are a function of segment and version, as the fold's are.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path as Part, Query, State},
    http::{HeaderMap, StatusCode, header},
    routing::get,
};
use contract::{SegmentId, VersionVector};
use heartbeat::{
    auth::{FrameKind, Keys},
    clock::wall_ms,
    frame::{sign_protobuf, verify_protobuf_reply},
};
use segments::{
    BLOCK_BYTES, CopyReport, Found, Manifest, SegmentDirectory, Version,
    rpc::{
        Accepted, BlockReport, Finished, MAX_WAIT_MS, Order, Orders, OrdersWanted, ReportedSegment, SegmentCareClient,
        Signed, Step,
    },
};
use tempfile::TempDir;
use tokio::{
    sync::{RwLock, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Status, transport::Channel};

use crate::support::{KEY, Monitors, Worker};

const REPORT_EVERY: Duration = Duration::from_millis(500);

/// What folding the logs gives: five blocks, of which only the first is the same in all versions.
pub fn file(segment: SegmentId, version: Version) -> Vec<u8> {
    let position = version.vector.positions()[0];
    let block =
        |number: u64| if number == 0 { [7; BLOCK_BYTES] } else { [(number * 50 + position) as u8; BLOCK_BYTES] };
    let mut bytes = (0..5).flat_map(block).collect::<Vec<u8>>();
    bytes.truncate(4 * BLOCK_BYTES + 100 + segment.index());
    bytes
}

pub fn version(epoch: u64, position: u64) -> Version {
    Version { epoch, vector: VersionVector::new([position; 16]) }
}

/// A worker's connection to one monitor.
#[derive(Clone)]
pub struct Care {
    pub id: String,
    pub incarnation: u64,
    pub keys: Keys,
    pub grpc: SegmentCareClient<Channel>,
}

impl Care {
    pub fn new(monitors: &Monitors, n: usize, id: &str, incarnation: u64) -> Self {
        let url = format!("http://{}", monitors.configs[n].listen.rpc);
        let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect_lazy();
        let grpc = SegmentCareClient::new(channel);
        Self { id: id.into(), incarnation, keys: Keys::new(KEY.as_bytes()), grpc }
    }

    pub async fn report(&self, report: &BlockReport) -> Result<Accepted, Status> {
        let mut question = Vec::new();
        sign_protobuf(&self.keys, FrameKind::BlockReport, report, &mut question);
        let reply = self.grpc.clone().report(Signed::from(question.clone())).await?.into_inner();
        Ok(verify_protobuf_reply(&self.keys, FrameKind::ReportAccepted, &question, &reply.frame).unwrap())
    }

    /// Sends these bytes as a report.
    pub async fn send(&self, frame: Vec<u8>) -> Result<Signed, Status> {
        Ok(self.grpc.clone().report(Signed::from(frame)).await?.into_inner())
    }

    pub async fn orders(&self, wait_ms: u64) -> Result<Orders, Status> {
        let wanted =
            OrdersWanted { worker: self.id.clone(), incarnation: self.incarnation, wait_ms, nonce: rand::random() };
        let mut question = Vec::new();
        sign_protobuf(&self.keys, FrameKind::OrdersWanted, &wanted, &mut question);
        let reply = self.grpc.clone().orders(Signed::from(question.clone())).await?.into_inner();
        Ok(verify_protobuf_reply(&self.keys, FrameKind::Orders, &question, &reply.frame).unwrap())
    }
}

/// Stops when it is dropped.
pub struct Holder {
    pub disk: Arc<Disk>,
    pub worker: Worker,
    _tasks: JoinSet<()>,
}

pub struct Disk {
    pub directory: SegmentDirectory,
    dir: TempDir,
    /// Held for writing while a test damages copies, so that no repair runs meanwhile.
    pub gate: Arc<RwLock<()>>,
    /// Orders wait while it is set.
    pub holds: watch::Sender<bool>,
    /// The next reply with orders is lost.
    pub loses: AtomicBool,
    /// Fetched from others, and folded.
    pub blocks: AtomicU64,
    pub manifests: AtomicU64,
    pub rebuilds: AtomicU64,
    /// An order waits.
    waits: AtomicBool,
    begun: Mutex<BTreeSet<u64>>,
    finished: Mutex<Vec<Finished>>,
    changes: watch::Sender<u64>,
    http: reqwest::Client,
}

impl Holder {
    pub async fn start(monitors: &Monitors, id: &str, gate: &Arc<RwLock<()>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk {
            directory: SegmentDirectory::open(dir.path().join("segments")).unwrap(),
            dir,
            gate: Arc::clone(gate),
            holds: watch::Sender::new(false),
            loses: AtomicBool::new(false),
            blocks: AtomicU64::new(0),
            manifests: AtomicU64::new(0),
            rebuilds: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            begun: Mutex::default(),
            finished: Mutex::default(),
            changes: watch::Sender::new(0),
            http: monitors.http.clone(),
        });
        let routes = Router::new()
            .route("/segments/{segment}/manifest", get(manifest))
            .route("/segments/{segment}/blocks/{content}", get(blocks))
            .with_state(Arc::clone(&disk));
        let incarnation = wall_ms();
        let worker = Worker::with_routes(monitors, id, incarnation, routes).await;
        let mut tasks = JoinSet::new();
        for n in 0..monitors.configs.len() {
            let care = Care::new(monitors, n, id, incarnation);
            tasks.spawn(keep_reporting(care.clone(), Arc::clone(&disk)));
            tasks.spawn(keep_following(care, Arc::clone(&disk)));
        }
        Self { disk, worker, _tasks: tasks }
    }
}

/// Complete reports of what is on the disk.
async fn keep_reporting(care: Care, disk: Arc<Disk>) {
    let mut changes = disk.changes.subscribe();
    for number in 1.. {
        let reading = disk.gate.read().await;
        let copies = SegmentId::all().map(|segment| (segment, disk.directory.report(segment).unwrap()));
        let segments = copies.map(|(segment, copy)| ReportedSegment::new(segment, copy.as_ref())).collect();
        let finished = disk.finished.lock().unwrap().clone();
        let worker = care.id.clone();
        let incarnation = care.incarnation;
        let report = BlockReport { worker, incarnation, number, table_epoch: 1, complete: true, segments, finished };
        // A monitor that is down, or that has not admitted the worker: the next report is complete too.
        care.report(&report).await.ok();
        drop(reading);
        timeout(REPORT_EVERY, changes.changed()).await.ok();
    }
}

async fn keep_following(care: Care, disk: Arc<Disk>) {
    let mut holds = disk.holds.subscribe();
    loop {
        let Ok(found) = care.orders(MAX_WAIT_MS).await else {
            sleep(REPORT_EVERY / 4).await;
            continue;
        };
        if !found.orders.is_empty() && disk.loses.swap(false, SeqCst) {
            continue;
        }
        for order in found.orders.into_iter().map(|order| Order::try_from(order).unwrap()) {
            if !disk.begun.lock().unwrap().insert(order.id) {
                continue;
            }
            disk.waits.store(*holds.borrow(), SeqCst);
            holds.wait_for(|holds| !holds).await.unwrap();
            let error = match disk.carry_out(&order).await {
                Ok(()) => String::new(),
                Err(error) => format!("{error:#}"),
            };
            disk.finished.lock().unwrap().push(Finished { order: order.id, error, bytes: 1 });
            disk.changes.send_modify(|changes| *changes += 1);
        }
    }
}

impl Disk {
    async fn carry_out(&self, order: &Order) -> anyhow::Result<()> {
        let _acting = self.gate.read().await;
        let segment = order.segment;
        match &order.step {
            Step::Rebuild { version } => {
                self.rebuilds.fetch_add(1, SeqCst);
                self.directory.write(segment, *version, &file(segment, *version))?;
            }
            Step::Remove => self.directory.remove(segment)?,
            Step::Transfer { version, content, address, manifest, blocks, .. } => {
                let url = format!("http://{address}/segments/{}", segment.number());
                let get = async |request: reqwest::RequestBuilder| {
                    anyhow::Ok(request.send().await?.error_for_status()?.bytes().await?)
                };
                let manifest = if *manifest {
                    self.manifests.fetch_add(1, SeqCst);
                    let bytes = get(self.http.get(format!("{url}/manifest?content={content}"))).await?;
                    Manifest::decode(&bytes, segment)?
                } else {
                    let known = self.directory.manifests(segment)?.into_iter();
                    let mut known = known.filter(|manifest| manifest.version() == *version);
                    known.next().ok_or_else(|| anyhow::anyhow!("another version by now"))?
                };
                anyhow::ensure!(manifest.version() == *version, "the source has another version by now");
                let mut incoming = self.directory.begin(manifest)?;
                // An order can come twice: from a leader that lost its lease, and from itself when it leads again.
                let missing = incoming.missing();
                for &block in blocks.iter().filter(|block| missing.contains(block)) {
                    let (first, length) = (block as usize * BLOCK_BYTES, incoming.manifest().block_length(block));
                    let range = format!("bytes={first}-{}", first + length - 1);
                    let request = self.http.get(format!("{url}/blocks/{content}")).header(header::RANGE, range);
                    incoming.put(block, &get(request).await?)?;
                    self.blocks.fetch_add(1, SeqCst);
                }
                incoming.finish()?;
            }
        }
        Ok(())
    }

    pub fn waits(&self) -> bool {
        self.waits.load(SeqCst)
    }

    pub fn publish(&self, segment: SegmentId, version: Version) {
        self.directory.write(segment, version, &file(segment, version)).unwrap();
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("segments")
    }

    pub fn report(&self, segment: SegmentId) -> Option<CopyReport> {
        self.directory.report(segment).unwrap()
    }

    /// The bytes of the current version, if it is complete.
    pub fn bytes(&self, segment: SegmentId) -> Option<(Version, Vec<u8>)> {
        let Found::Version(found) = self.directory.find(segment).unwrap() else { return None };
        Some((found.manifest().version(), found.all().ok()?))
    }
}

type Query1 = Query<std::collections::BTreeMap<String, String>>;

async fn manifest(
    State(disk): State<Arc<Disk>>,
    Part(segment): Part<u8>,
    Query(query): Query1,
) -> (StatusCode, Vec<u8>) {
    let known = disk.directory.manifests(SegmentId::new(segment).unwrap()).unwrap();
    match known.into_iter().find(|manifest| manifest.content().to_string() == query["content"]) {
        Some(manifest) => (StatusCode::OK, manifest.encode()),
        None => (StatusCode::NOT_FOUND, Vec::new()),
    }
}

async fn blocks(
    State(disk): State<Arc<Disk>>,
    Part((segment, content)): Part<(u8, String)>,
    headers: HeaderMap,
) -> (StatusCode, Vec<u8>) {
    let segment = SegmentId::new(segment).unwrap();
    let known = disk.directory.manifests(segment).unwrap().into_iter().map(|manifest| manifest.content());
    let mut known = known.filter(|known| known.to_string() == content);
    let range = headers[header::RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
    let file = known.next().and_then(|content| disk.directory.by_content(segment, content).unwrap());
    match file.map(|file| file.range(first, last - first + 1)) {
        Some(Ok(bytes)) => (StatusCode::PARTIAL_CONTENT, bytes),
        Some(Err(_)) => (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
        None => (StatusCode::NOT_FOUND, Vec::new()),
    }
}
