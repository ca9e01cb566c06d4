//! Metrics of the care of segments.

use std::collections::BTreeMap;

use contract::SegmentId;
use heartbeat::assign::NodeId;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, Result};
use segments::Health;

use super::running::{Ended, Kind, Outcome};

/// Outcomes of a block report.
pub const REPORT_OUTCOMES: [&str; 6] = ["accepted", "unauthenticated", "invalid", "not_admitted", "late", "incomplete"];

#[derive(Clone)]
pub struct SegmentMetrics {
    copies: IntGaugeVec,
    repairs: IntCounterVec,
    failures: IntCounter,
    blocks_moved: IntCounter,
    bytes_moved: IntCounter,
    pub conflicts: IntCounter,
    reports: IntCounterVec,
    pub under_replicated: Gauge,
}

impl SegmentMetrics {
    pub fn new(registry: &Registry) -> Result<Self> {
        let metrics = Self {
            copies: IntGaugeVec::new(
                opts("copies", "Holders of the segment by the state of their copy, as this monitor knows it"),
                &["segment", "state"],
            )?,
            repairs: IntCounterVec::new(opts("repairs_total", "Orders that workers carried out, by kind"), &["kind"])?,
            failures: counter("repair_failures_total", "Orders that failed, or whose end was not reported in time")?,
            blocks_moved: counter("blocks_moved_total", "Blocks that were ordered to be copied, and were")?,
            bytes_moved: counter("bytes_moved_total", "Bytes that workers received for orders")?,
            conflicts: counter("conflicts_total", "Times that two copies of one version had different contents")?,
            reports: IntCounterVec::new(opts("reports_total", "Block reports, by outcome"), &["outcome"])?,
            under_replicated: Gauge::with_opts(opts(
                "under_replicated_seconds",
                "How long some segment has had fewer good copies than holders; 0: none has",
            ))?,
        };
        registry.register(Box::new(metrics.copies.clone()))?;
        for vector in [&metrics.repairs, &metrics.reports] {
            registry.register(Box::new(vector.clone()))?;
        }
        for counter in [&metrics.failures, &metrics.blocks_moved, &metrics.bytes_moved, &metrics.conflicts] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(metrics.under_replicated.clone()))?;
        // A known series exists at zero before the first event.
        for segment in SegmentId::all() {
            metrics.set_copies(segment, &BTreeMap::new());
        }
        for kind in Kind::ALL {
            metrics.repairs.with_label_values(&[kind.as_str()]);
        }
        for outcome in REPORT_OUTCOMES {
            metrics.reports.with_label_values(&[outcome]);
        }
        Ok(metrics)
    }

    pub fn set_copies(&self, segment: SegmentId, holders: &BTreeMap<NodeId, Health>) {
        for state in Health::ALL {
            let count = holders.values().filter(|&&health| health == state).count();
            self.copies.with_label_values(&[&*segment.number().to_string(), state.as_str()]).set(count as i64);
        }
    }

    /// `outcome`: one of `REPORT_OUTCOMES`.
    pub fn reported(&self, outcome: &str) {
        self.reports.with_label_values(&[outcome]).inc();
    }

    pub fn ended(&self, ended: &Ended) {
        match ended.outcome {
            Outcome::Done { bytes } => {
                self.repairs.with_label_values(&[ended.kind().as_str()]).inc();
                // An order that was overtaken moves nothing.
                if bytes > 0 {
                    self.blocks_moved.inc_by(ended.blocks() as u64);
                }
                self.bytes_moved.inc_by(bytes);
            }
            Outcome::Failed(_) | Outcome::TimedOut => self.failures.inc(),
            Outcome::Offline => {}
        }
    }
}

fn opts(thing: &str, help: &str) -> Opts {
    Opts::new(format!("testbed_segment_{thing}"), help)
}

fn counter(thing: &str, help: &str) -> Result<IntCounter> {
    IntCounter::with_opts(opts(thing, help))
}
