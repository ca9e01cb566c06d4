//! Step 3, second half: the reports to one monitor. All copies once per interval, and what has changed at once.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, anyhow};
use heartbeat::{
    assign::NodeId,
    auth::{FrameKind, Keys},
    frame,
};
use segments::rpc::{
    Accepted, BlockReport, MAX_MESSAGE_BYTES, Orders, OrdersWanted, ReportedSegment, SegmentCareClient, Signed,
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, transport::Channel};

use super::{Segments, copies::News};
use crate::incarnation::Incarnation;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Beyond the wait of a poll.
const POLL_SLACK: Duration = Duration::from_secs(3);
/// Changes within this time go into one report.
const GATHER: Duration = Duration::from_millis(20);
/// Pauses after an error, before jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Talks to one monitor. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    me: NodeId,
    keys: Keys,
    incarnation: Incarnation,
    /// Of the last report.
    number: Arc<AtomicU64>,
    address: String,
    /// `None`: the address is not one.
    grpc: Option<SegmentCareClient<Channel>>,
}

impl Client {
    /// `address`: `host:port`. Connects with the first message.
    pub fn new(address: &str, me: &NodeId, keys: &Keys, incarnation: &Incarnation) -> Self {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).ok();
        let channel = channel.map(|endpoint| endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy());
        let limited = |channel| {
            let client = SegmentCareClient::new(channel);
            client.max_encoding_message_size(MAX_MESSAGE_BYTES).max_decoding_message_size(MAX_MESSAGE_BYTES)
        };
        Self {
            me: Arc::clone(me),
            keys: keys.clone(),
            incarnation: incarnation.clone(),
            number: Arc::default(),
            address: address.to_owned(),
            grpc: channel.map(limited),
        }
    }

    pub fn log(&self, refused: &Refused, what: &str) {
        tracing::debug!(error = refused as &dyn Error, monitor = self.address, "{what}");
    }

    /// Sends a report of these news.
    async fn report(&self, news: News, complete: bool, table_epoch: u64) -> Result<Accepted, Refused> {
        let report = BlockReport {
            worker: self.me.to_string(),
            incarnation: self.incarnation.current(),
            number: self.number.fetch_add(1, Ordering::Relaxed) + 1,
            table_epoch,
            complete,
            segments: news.copies.iter().map(|(segment, copy)| ReportedSegment::new(*segment, copy.as_ref())).collect(),
            finished: news.finished,
        };
        let mut question = Vec::new();
        frame::sign_protobuf(&self.keys, FrameKind::BlockReport, &report, &mut question);
        let mut grpc = self.grpc()?;
        let call = async { grpc.report(request(question.clone(), REPORT_TIMEOUT)).await };
        let reply = call.await.map_err(Refused::from)?.into_inner();
        let reply = frame::verify_protobuf_reply(&self.keys, FrameKind::ReportAccepted, &question, &reply.frame);
        Ok(reply.context("the reply to a block report is not authentic")?)
    }

    /// Polls for orders.
    pub async fn orders(&self, wait: Duration) -> Result<Orders, Refused> {
        let wanted = OrdersWanted {
            worker: self.me.to_string(),
            incarnation: self.incarnation.current(),
            wait_ms: wait.as_millis() as u64,
            nonce: rand::random(),
        };
        let mut question = Vec::new();
        frame::sign_protobuf(&self.keys, FrameKind::OrdersWanted, &wanted, &mut question);
        let mut grpc = self.grpc()?;
        let reply = grpc.orders(request(question.clone(), wait + POLL_SLACK)).await.map_err(Refused::from)?;
        let reply = reply.into_inner();
        let reply = frame::verify_protobuf_reply(&self.keys, FrameKind::Orders, &question, &reply.frame);
        Ok(reply.context("the reply to a poll for orders is not authentic")?)
    }

    fn grpc(&self) -> anyhow::Result<SegmentCareClient<Channel>> {
        self.grpc.clone().ok_or_else(|| anyhow!("{} is no address (monitors.NAME.rpc)", self.address))
    }
}

fn request(frame: Vec<u8>, timeout: Duration) -> tonic::Request<Signed> {
    let mut request = tonic::Request::new(Signed::from(frame));
    request.set_timeout(timeout);
    request
}

/// Why a monitor did not take a message.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It does not know this worker's copies, or its report was late: it wants all of them.
    #[error("the monitor wants a complete report: {0}")]
    Incomplete(String),
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl From<tonic::Status> for Refused {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            Code::FailedPrecondition => Self::Incomplete(status.message().to_owned()),
            code => Self::Failed(anyhow!("{code}: {}", status.message())),
        }
    }
}

/// Reports to the monitor for ever.
pub async fn run(segments: Segments, client: Client) {
    let every = Duration::from_millis(segments.0.config.report_every_ms);
    // The last change that the monitor knows; 0: nothing.
    let (mut known, mut complete_due, mut pause) = (0, Instant::now(), FIRST_PAUSE);
    loop {
        let is_complete = Instant::now() >= complete_due;
        let news = segments.0.copies.since(if is_complete { 0 } else { known });
        let (change, table_epoch) = (news.change, segments.0.ownership.table().epoch);
        match client.report(news, is_complete, table_epoch).await {
            Ok(_accepted) => {
                segments.0.metrics.reported("accepted");
                (known, pause) = (change, FIRST_PAUSE);
                if is_complete {
                    complete_due = Instant::now() + every;
                }
                timeout_at(complete_due, segments.0.copies.changed(known)).await.ok();
                sleep(GATHER).await;
            }
            Err(refused) => {
                segments.0.metrics.reported("failed");
                client.log(&refused, "a monitor did not take a block report");
                complete_due = Instant::now();
                sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
