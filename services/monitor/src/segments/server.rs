//! The gRPC service for workers: `segments::rpc`.

use std::{sync::Arc, time::Duration};

use axum::{Router, middleware};
use heartbeat::{
    assign::NodeId,
    auth::{FrameKind, Keys},
    frame,
    transport::connections::Connection,
};
use segments::{
    BadReport,
    rpc::{
        Accepted, BlockReport, MAX_WAIT_MS, Orders, OrdersWanted, ReadReport, SegmentCare, SegmentCareServer, Signed,
    },
};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    Segments,
    bodies::{self, Bodies, MAX_FRAME_BYTES},
    care::Refused,
};

const SERVICE: &str = "/testbed.segments.v1.SegmentCare/{method}";
const REPORT: &str = "/testbed.segments.v1.SegmentCare/Report";

struct Server {
    segments: Segments,
    keys: Keys,
    stop: CancellationToken,
}

/// All routes. Polls that wait are answered when `stop` is cancelled.
pub fn router(segments: Segments, keys: Keys, stop: CancellationToken) -> Router {
    let service = SegmentCareServer::new(Server { segments, keys, stop });
    let service = service.max_decoding_message_size(MAX_FRAME_BYTES).max_encoding_message_size(MAX_FRAME_BYTES);
    let read = middleware::from_fn_with_state(Bodies::new(REPORT), bodies::read);
    Router::new().route_service(SERVICE, service).layer(read)
}

#[tonic::async_trait]
impl SegmentCare for Server {
    async fn report(&self, request: Request<Signed>) -> Result<Response<Signed>, Status> {
        let metrics = &self.segments.0.metrics;
        let (connection, question) = parts(request);
        let (keys, read) = (self.keys.clone(), question.frame.clone());
        // Digests of up to 34 MiB are compared.
        let report = spawn_blocking(move || {
            let report = frame::verify_protobuf::<BlockReport>(&keys, FrameKind::BlockReport, &read)?;
            let worker = NodeId::from(report.worker.as_str());
            Some((worker, ReadReport::try_from(report)))
        });
        let Some((worker, report)) = report.await.map_err(|_| Status::internal("the report could not be checked"))?
        else {
            metrics.reported("unauthenticated");
            return Err(unauthenticated("block report"));
        };
        authenticate(connection);
        let refusals = &self.segments.0.refusals;
        let report = report.inspect_err(|bad| {
            metrics.reported("invalid");
            refusals.record(&worker, "invalid", bad);
        })?;
        if let Err(refused) = self.segments.report(report) {
            let outcome = refused.outcome();
            metrics.reported(outcome);
            // That is a question, which each worker answers after a monitor's start.
            if !matches!(refused, Refused::Incomplete(_)) {
                refusals.record(&worker, outcome, &refused);
            }
            return Err(refused.into());
        }
        metrics.reported("accepted");
        refusals.end(&worker);
        let reply =
            frame::sign_protobuf_reply(&self.keys, FrameKind::ReportAccepted, &question.frame, &Accepted::default());
        Ok(Response::new(reply.into()))
    }

    async fn orders(&self, request: Request<Signed>) -> Result<Response<Signed>, Status> {
        let (connection, question) = parts(request);
        let wanted = frame::verify_protobuf::<OrdersWanted>(&self.keys, FrameKind::OrdersWanted, &question.frame);
        let OrdersWanted { worker, incarnation, wait_ms, .. } =
            wanted.ok_or_else(|| unauthenticated("poll for orders"))?;
        authenticate(connection);
        let (worker, wait) = (NodeId::from(worker), Duration::from_millis(wait_ms.min(MAX_WAIT_MS)));
        let waiting = self.segments.orders(&worker, incarnation, wait);
        let Some(found) = self.stop.run_until_cancelled(waiting).await else {
            return Err(Status::unavailable("this monitor is stopping"));
        };
        let Some(orders) = found? else {
            return Err(Status::aborted("a newer poll of this worker has replaced this one"));
        };
        let reply = Orders { orders: orders.iter().map(Into::into).collect() };
        Ok(Response::new(frame::sign_protobuf_reply(&self.keys, FrameKind::Orders, &question.frame, &reply).into()))
    }
}

fn parts(request: Request<Signed>) -> (Option<Arc<Connection>>, Signed) {
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    (connection, request.into_inner())
}

/// The sender of this connection's message has a key.
fn authenticate(connection: Option<Arc<Connection>>) {
    if let Some(connection) = connection {
        connection.authenticate();
    }
}

fn unauthenticated(what: &str) -> Status {
    Status::unauthenticated(format!("a {what} needs a MAC with the key that all have (node.key)"))
}

impl Refused {
    /// One of `metrics::REPORT_OUTCOMES`.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Unknown(_) | Self::NotOnline { .. } => "not_admitted",
            Self::WildEpoch { .. } | Self::Bad(BadReport::ForeignSegment { .. }) => "invalid",
            Self::Bad(_) => "late",
            Self::Incomplete(_) => "incomplete",
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Unknown(_) => Self::permission_denied(message),
            Refused::WildEpoch { .. } | Refused::Bad(BadReport::ForeignSegment { .. }) => {
                Self::invalid_argument(message)
            }
            Refused::NotOnline { .. } | Refused::Bad(_) | Refused::Incomplete(_) => Self::failed_precondition(message),
        }
    }
}
