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
use bytes::Bytes;
use heartbeat::{
    assign::NodeId,
    auth::{FrameKind, Keys},
    frame,
};
use segments::rpc::{
    Accepted, BlockReport, MAX_MESSAGE_BYTES, Orders, OrdersWanted, ReportedSegment, SegmentCareClient, Signed,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};
use tonic::transport::Channel;

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

    pub fn log(&self, error: &anyhow::Error, what: &str) {
        tracing::debug!(error = &**error as &dyn Error, monitor = self.address, "{what}");
    }

    /// Sends a report of these news. It is made on a thread that may wait: its digests may be megabytes.
    async fn report(&self, news: News, complete: bool, table_epoch: u64) -> anyhow::Result<()> {
        let (client, number) = (self.clone(), self.number.fetch_add(1, Ordering::Relaxed) + 1);
        let signing = spawn_blocking(move || {
            let reported = news.copies.iter().map(|(segment, copy)| ReportedSegment::new(*segment, copy.as_ref()));
            let report = BlockReport {
                worker: client.me.to_string(),
                incarnation: client.incarnation.current(),
                number,
                table_epoch,
                complete,
                segments: reported.collect(),
                finished: news.finished,
            };
            let mut question = Vec::new();
            frame::sign_protobuf(&client.keys, FrameKind::BlockReport, &report, &mut question);
            Bytes::from(question)
        });
        let question = signing.await?;
        let reply = self.grpc()?.report(request(&question, REPORT_TIMEOUT)).await?.into_inner();
        let reply: Option<Accepted> =
            frame::verify_protobuf_reply(&self.keys, FrameKind::ReportAccepted, &question, &reply.frame);
        reply.map(drop).context("the reply to a block report is not authentic")
    }

    /// Polls for orders.
    pub async fn orders(&self, wait: Duration) -> anyhow::Result<Orders> {
        let wanted = OrdersWanted {
            worker: self.me.to_string(),
            incarnation: self.incarnation.current(),
            wait_ms: wait.as_millis() as u64,
            nonce: rand::random(),
        };
        let mut question = Vec::new();
        frame::sign_protobuf(&self.keys, FrameKind::OrdersWanted, &wanted, &mut question);
        let question = Bytes::from(question);
        let reply = self.grpc()?.orders(request(&question, wait + POLL_SLACK)).await?.into_inner();
        let reply = frame::verify_protobuf_reply(&self.keys, FrameKind::Orders, &question, &reply.frame);
        reply.context("the reply to a poll for orders is not authentic")
    }

    fn grpc(&self) -> anyhow::Result<SegmentCareClient<Channel>> {
        self.grpc.clone().ok_or_else(|| anyhow!("{} is no address (monitors.NAME.rpc)", self.address))
    }
}

fn request(frame: &Bytes, timeout: Duration) -> tonic::Request<Signed> {
    let mut request = tonic::Request::new(Signed { frame: frame.clone() });
    request.set_timeout(timeout);
    request
}

/// Reports to the monitor for ever.
pub async fn run(segments: Segments, client: Client) {
    let every = Duration::from_millis(segments.0.config.report_every_ms);
    // A complete report of what is not read yet would say that it is missing.
    segments.0.is_read.wait().await;
    // The last change that the monitor knows; 0: nothing.
    let (mut known, mut complete_due, mut pause) = (0, Instant::now(), FIRST_PAUSE);
    loop {
        let is_complete = Instant::now() >= complete_due;
        let news = segments.0.copies.since(if is_complete { 0 } else { known });
        let (change, table_epoch) = (news.change, segments.0.ownership.table().epoch);
        match client.report(news, is_complete, table_epoch).await {
            Ok(()) => {
                segments.0.metrics.reported("accepted");
                (known, pause) = (change, FIRST_PAUSE);
                if is_complete {
                    complete_due = Instant::now() + every;
                }
                timeout_at(complete_due, segments.0.copies.changed(known)).await.ok();
                sleep(GATHER).await;
            }
            Err(error) => {
                segments.0.metrics.reported("failed");
                client.log(&error, "a monitor did not take a block report");
                // It may know nothing of this worker's copies any more.
                complete_due = Instant::now();
                sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
