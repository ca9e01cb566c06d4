//! Step 5: fetches orders from one monitor, and carries them out. Only the leading monitor has orders; it hands out at most a few at a time.

use std::{error::Error, time::Duration};

use contract::spans::{attribute, name};
use runtime::telemetry::{Kind, Span};
use segments::rpc::{Finished, Order, OrderMessage, Step};
use tokio::{task::JoinSet, time::sleep};

use super::{Segments, report::Client, transfer::Ordered};

const WAIT: Duration = Duration::from_secs(10);
/// Orders that run at a time. A monitor hands out fewer.
const MAX_RUNNING: usize = 4;
/// Pause after an error, before jitter.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Polls the monitor for ever.
pub async fn run(segments: Segments, client: Client) {
    let mut running = JoinSet::new();
    // The orders that run. A monitor that has not learned of their end yet hands them out again.
    let mut begun: Vec<u64> = Vec::new();
    loop {
        match client.orders(WAIT).await {
            Ok(found) => {
                for message in found.orders {
                    while running.len() >= MAX_RUNNING {
                        ended(running.join_next().await, &mut begun);
                    }
                    while let Some(end) = running.try_join_next() {
                        ended(Some(end), &mut begun);
                    }
                    if !begun.contains(&message.id) && !segments.0.copies.is_finished(message.id) {
                        begun.push(message.id);
                        let segments = segments.clone();
                        running.spawn(async move { segments.carry_out(message).await });
                    }
                }
            }
            Err(error) => {
                client.log(&error, "a monitor did not answer a poll for orders");
                sleep(RETRY_PAUSE.mul_f64(rand::random_range(0.5..=1.0))).await;
            }
        }
    }
}

fn ended(end: Option<Result<u64, tokio::task::JoinError>>, begun: &mut Vec<u64>) {
    match end {
        Some(Ok(id)) => begun.retain(|other| *other != id),
        // A bug. The monitor gives the order up after a while.
        Some(Err(panic)) => tracing::error!(error = &panic as &dyn Error, "an order about a segment panicked"),
        None => {}
    }
}

impl Segments {
    /// Returns the order's id.
    async fn carry_out(&self, message: OrderMessage) -> u64 {
        let id = message.id;
        let (bytes, result) = match Order::try_from(message) {
            Ok(order) => {
                let span = self.span(&order);
                let (bytes, result) = self.follow(&order, &span).await;
                if result.is_err() {
                    span.fail("order");
                }
                span.set(attribute::BYTES, bytes);
                (bytes, result)
            }
            Err(bad) => (0, Err(bad.into())),
        };
        let error = result.err().map(|error: anyhow::Error| format!("{error:#}")).unwrap_or_default();
        self.0.metrics.ordered(error.is_empty());
        if !error.is_empty() {
            tracing::warn!(error, order = id, "cannot carry out an order about a segment");
        }
        self.0.copies.finish(Finished { order: id, error, bytes });
        id
    }

    async fn follow(&self, order: &Order, span: &Span) -> (u64, anyhow::Result<()>) {
        let segment = order.segment;
        let mut received = 0;
        let result = match &order.step {
            Step::Transfer { version, content, address, manifest, blocks, .. } => {
                let (version, content, manifest) = (*version, *content, *manifest);
                let ordered = Ordered { version, content, address, manifest, blocks };
                self.transfer(segment, &ordered, span, &mut received).await
            }
            Step::Rebuild { version } => self.rebuild(segment, *version).await,
            Step::Remove => self.remove(segment).await,
        };
        // Also after an error: what is there now is what counts.
        self.refresh(segment).await;
        (received, result)
    }

    fn span(&self, order: &Order) -> Span {
        let Some(traceparent) = &order.traceparent else { return Span::NONE };
        let name = match &order.step {
            Step::Transfer { .. } => name::SEGMENT_TRANSFER,
            Step::Rebuild { .. } => name::SEGMENT_REBUILD,
            Step::Remove => name::SEGMENT_REMOVE,
        };
        let span = self.0.telemetry.follow(traceparent, Kind::Internal, name);
        span.set(attribute::SEGMENT, u16::from(order.segment.number()));
        if let Step::Transfer { from, blocks, .. } = &order.step {
            span.set(attribute::NODE, &**from);
            span.set(attribute::BLOCKS, blocks.len() as u64);
        }
        span
    }
}
