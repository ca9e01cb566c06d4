//! Metrics of the segments that a worker holds.

use contract::{SegmentId, VersionVector};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result};

/// From a small segment to 16 large ones.
const PUBLISH_S: [f64; 9] = [0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0];
/// Values of the label `outcome` of reports.
const REPORTS: [&str; 2] = ["accepted", "failed"];
/// Values of the label `outcome` of orders.
const ORDERS: [&str; 2] = ["done", "failed"];

#[derive(Clone)]
pub struct SegmentMetrics {
    pub primaries: IntGauge,
    pub folded: IntCounter,
    pub publish_seconds: Histogram,
    versions: IntGaugeVec,
    bytes: IntGaugeVec,
    pub served_bytes: IntCounter,
    pub refused: IntCounter,
    pub received_bytes: IntCounter,
    pub scrubs: IntCounter,
    pub scrubbed_bytes: IntCounter,
    pub damage_found: IntCounter,
    reports: IntCounterVec,
    orders: IntCounterVec,
}

impl SegmentMetrics {
    pub fn new(registry: &Registry) -> Result<Self> {
        let counter = |name: &str, help: &str| IntCounter::new(name, help);
        let by_outcome = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["outcome"]);
        let by_segment = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["segment"]);
        let publish = HistogramOpts::new(
            "testbed_worker_segment_publish_seconds",
            "Time to compute and write a version of all segments of which this worker is the primary",
        );
        let metrics = Self {
            primaries: IntGauge::new(
                "testbed_worker_segments_primary",
                "Segments of the model of which this worker is the primary",
            )?,
            folded: counter("testbed_worker_segment_events_folded_total", "Events of the logs folded into segments")?,
            publish_seconds: Histogram::with_opts(publish.buckets(PUBLISH_S.to_vec()))?,
            versions: by_segment(
                "testbed_worker_segment_version",
                "Sum of the positions of the version that this worker published last; 0: none yet",
            )?,
            bytes: by_segment("testbed_worker_segment_bytes", "Size of the file that this worker published last")?,
            served_bytes: counter("testbed_worker_segment_served_bytes_total", "Verified bytes of segments sent")?,
            refused: counter(
                "testbed_worker_segment_blocks_refused_total",
                "Requests for blocks that were refused because a block is damaged",
            )?,
            received_bytes: counter(
                "testbed_worker_segment_received_bytes_total",
                "Bytes of segments fetched from other workers",
            )?,
            scrubs: counter("testbed_worker_segment_scrubs_total", "Complete passes of the scrubber")?,
            scrubbed_bytes: counter("testbed_worker_segment_scrubbed_bytes_total", "Bytes compared by the scrubber")?,
            damage_found: counter(
                "testbed_worker_segment_damage_found_total",
                "Copies in which the scrubber found a block that had changed",
            )?,
            reports: by_outcome("testbed_worker_segment_reports_total", "Block reports to monitors, by outcome")?,
            orders: by_outcome("testbed_worker_segment_orders_total", "Orders carried out, by outcome")?,
        };
        registry.register(Box::new(metrics.primaries.clone()))?;
        registry.register(Box::new(metrics.publish_seconds.clone()))?;
        for counter in [
            &metrics.folded,
            &metrics.served_bytes,
            &metrics.refused,
            &metrics.received_bytes,
            &metrics.scrubs,
            &metrics.scrubbed_bytes,
            &metrics.damage_found,
        ] {
            registry.register(Box::new(counter.clone()))?;
        }
        for gauges in [&metrics.versions, &metrics.bytes] {
            registry.register(Box::new(gauges.clone()))?;
        }
        for counters in [&metrics.reports, &metrics.orders] {
            registry.register(Box::new(counters.clone()))?;
        }
        REPORTS.iter().for_each(|outcome| drop(metrics.reports.with_label_values(&[outcome])));
        ORDERS.iter().for_each(|outcome| drop(metrics.orders.with_label_values(&[outcome])));
        for segment in SegmentId::all() {
            metrics.published(segment, &VersionVector::default(), 0);
        }
        Ok(metrics)
    }

    pub(super) fn published(&self, segment: SegmentId, vector: &VersionVector, bytes: usize) {
        // As the monitors' series name it.
        let label = segment.number().to_string();
        let sum = vector.positions().iter().fold(0_u64, |sum, position| sum.saturating_add(*position));
        self.versions.with_label_values(&[&label]).set(i64::try_from(sum).unwrap_or(i64::MAX));
        self.bytes.with_label_values(&[&label]).set(bytes as i64);
    }

    pub(super) fn reported(&self, outcome: &str) {
        self.reports.with_label_values(&[outcome]).inc();
    }

    pub(super) fn ordered(&self, is_done: bool) {
        self.orders.with_label_values(&[if is_done { "done" } else { "failed" }]).inc();
    }
}
