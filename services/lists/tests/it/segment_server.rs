//! A worker's HTTP server for segments, with faults. The tests of `lists` and of `api` use it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use contract::{
    Event, SegmentId,
    http::{Problem, problem},
};
use model::{Dataset, Fold, GenerateParams, PublishedSegment};
use segments::{BlockError, Found, SegmentDirectory, VerifiedFile, Version, encode};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    /// A block failed verification on the worker: 503.
    DamagedBlock,
    /// One byte of each range is another one, and the worker does not notice.
    WrongByte,
    /// The connection ends in the middle of a range.
    Truncated,
    /// A range has fewer bytes than the request asks for.
    TooShort,
    /// 503 for all requests.
    Unavailable,
    /// No answer.
    Hangs,
    /// An answer of another server.
    NotASegment,
}

type Action = Box<dyn FnOnce(&Worker) + Send>;

pub struct SegmentServer {
    pub address: String,
    pub worker: Arc<Worker>,
    task: JoinHandle<()>,
    _root: TempDir,
}

pub struct Worker {
    directory: SegmentDirectory,
    pub fault: Mutex<Fault>,
    /// The primary of all segments, if it is another worker.
    pub primary: Mutex<Option<String>>,
    /// Done before the next range is read.
    pub before_range: Mutex<Option<Action>>,
    /// Requests answered with a manifest, without one as it is unchanged, and with a range.
    pub manifests: AtomicU64,
    pub unchanged: AtomicU64,
    pub ranges: AtomicU64,
}

impl SegmentServer {
    pub async fn start() -> Self {
        let root = TempDir::new().unwrap();
        let worker = Arc::new(Worker {
            directory: SegmentDirectory::open(root.path().join("segments")).unwrap(),
            fault: Mutex::default(),
            primary: Mutex::default(),
            before_range: Mutex::default(),
            manifests: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
            ranges: AtomicU64::new(0),
        });
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new()
            .route("/segments/{segment}/manifest", get(manifest))
            .route("/segments/{segment}/blocks/{content}", get(blocks))
            .with_state(Arc::clone(&worker));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, worker, task, _root: root }
    }

    pub fn fault(&self, fault: Fault) {
        *self.worker.fault.lock().unwrap() = fault;
    }

    pub fn redirects_to(&self, primary: &Self) {
        *self.worker.primary.lock().unwrap() = Some(primary.address.clone());
    }
}

impl Drop for SegmentServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Worker {
    pub fn publish_all(&self, fold: &Fold, epoch: u64) {
        SegmentId::all().for_each(|segment| self.publish(&fold.publish(segment).unwrap(), epoch));
    }

    pub fn publish(&self, segment: &PublishedSegment, epoch: u64) {
        self.publish_as(segment, Version { epoch, vector: segment.version });
    }

    pub fn publish_as(&self, segment: &PublishedSegment, version: Version) {
        self.directory.write(segment.segment, version, &encode(segment)).unwrap();
    }

    fn find(&self, segment: u8) -> Option<VerifiedFile> {
        match self.directory.find(SegmentId::new(segment).unwrap()).unwrap() {
            Found::Version(file) => Some(file),
            _ => None,
        }
    }

    /// The answer of a worker with this fault.
    async fn failed(&self) -> Option<Response> {
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::Unavailable => Some(refused(StatusCode::SERVICE_UNAVAILABLE, problem::TAKING_OVER)),
            Fault::NotASegment => Some("a page of another server".into_response()),
            Fault::Hangs => std::future::pending().await,
            _ => None,
        }
    }
}

fn refused(status: StatusCode, kind: &str) -> Response {
    let detail = "as the test wants it".to_owned();
    let problem = Problem { kind: kind.to_owned(), title: String::new(), status: status.as_u16(), detail, field: None };
    (status, Json(problem)).into_response()
}

fn not_here() -> Response {
    refused(StatusCode::NOT_FOUND, problem::NOT_FOUND)
}

async fn manifest(
    State(worker): State<Arc<Worker>>,
    Path(segment): Path<u8>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Response> {
    if let Some(failed) = worker.failed().await {
        return Err(failed);
    }
    let primary = worker.primary.lock().unwrap().clone();
    if let Some(primary) = primary.filter(|_| query.as_deref() != Some("holder=true")) {
        let location = format!("http://{primary}/segments/{segment}/manifest");
        return Ok((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response());
    }
    let file = worker.find(segment).ok_or_else(not_here)?;
    let etag = file.manifest().etag();
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        worker.unchanged.fetch_add(1, Ordering::SeqCst);
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    worker.manifests.fetch_add(1, Ordering::SeqCst);
    Ok(([(header::ETAG, etag)], file.manifest().encode()).into_response())
}

async fn blocks(
    State(worker): State<Arc<Worker>>,
    Path((segment, content)): Path<(u8, String)>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    if let Some(failed) = worker.failed().await {
        return Err(failed);
    }
    let before = worker.before_range.lock().unwrap().take();
    if let Some(before) = before {
        before(&worker);
    }
    let file = worker.find(segment).filter(|file| file.manifest().content().to_string() == content);
    let file = file.ok_or_else(not_here)?;
    let range = headers[header::RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
    let mut bytes = match file.range(first, last - first + 1) {
        Ok(bytes) => bytes,
        Err(BlockError::BeyondEnd { .. }) => {
            return Err(refused(StatusCode::RANGE_NOT_SATISFIABLE, problem::INVALID_REQUEST));
        }
        Err(_) => return Err(refused(StatusCode::SERVICE_UNAVAILABLE, problem::DAMAGED_BLOCK)),
    };
    worker.ranges.fetch_add(1, Ordering::SeqCst);
    let (middle, length) = (bytes.len() / 2, bytes.len());
    let fault = *worker.fault.lock().unwrap();
    let body = match fault {
        Fault::DamagedBlock => return Err(refused(StatusCode::SERVICE_UNAVAILABLE, problem::DAMAGED_BLOCK)),
        Fault::Truncated => {
            let half = bytes[..middle].to_vec();
            let parts = [Ok(half), Err(std::io::Error::other("the connection ends here"))];
            Body::from_stream(futures::stream::iter(parts))
        }
        Fault::TooShort => {
            bytes.truncate(middle);
            return Ok((StatusCode::PARTIAL_CONTENT, bytes).into_response());
        }
        Fault::WrongByte => {
            bytes[middle] ^= 1;
            Body::from(bytes)
        }
        _ => Body::from(bytes),
    };
    let content_range = format!("bytes {first}-{last}/{}", file.manifest().length());
    let headers = [(header::CONTENT_LENGTH, length.to_string()), (header::CONTENT_RANGE, content_range)];
    Ok((StatusCode::PARTIAL_CONTENT, headers, body).into_response())
}

/// Events of synthetic users, and their fold.
pub struct Folded {
    pub data: Dataset,
    pub fold: Fold,
    next: usize,
}

impl Folded {
    pub fn generate() -> Self {
        let params = GenerateParams { users: 200, items: 300, clusters: 10, ..GenerateParams::default() };
        Self::of(model::generate(&params).unwrap())
    }

    pub fn of(data: Dataset) -> Self {
        Self { data, fold: Fold::new(SegmentId::all()), next: 0 }
    }

    /// Folds further events. The place of an event in the dataset, from 1, is its arrival number.
    pub fn add(&mut self, events: usize) {
        let end = (self.next + events).min(self.data.events.len());
        for at in self.next..end {
            let event = &self.data.events[at];
            let event = Event {
                user_id: self.data.users[event.user as usize].clone(),
                item_id: self.data.items[event.item as usize].clone(),
                kind: event.kind,
                at_ms: event.at_ms,
                weight: event.weight,
            };
            self.fold.add(&event, at as u64 + 1);
        }
        self.next = end;
    }

    pub fn add_all_but(&mut self, last: usize) {
        self.add(self.data.events.len() - self.next - last);
    }

    /// By segment.
    pub fn published(&self) -> BTreeMap<SegmentId, PublishedSegment> {
        SegmentId::all().map(|segment| (segment, self.fold.publish(segment).unwrap())).collect()
    }
}
