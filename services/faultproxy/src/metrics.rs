//! Metrics of the proxy; handles are resolved once per listener.

use std::sync::atomic::AtomicU64;

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use runtime::{Endpoint, vitals, vitals::Watch};

use crate::{
    config::Link,
    fault::{Control, FaultKind},
    law::Law,
    packet::Malformed,
};

/// Seconds. From laws and latencies of tests (ms) up to a stall (minutes).
const DELAY_BUCKETS: &[f64] = &[
    0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0,
    10.0, 30.0, 60.0,
];
/// Seconds. A ping on loopback takes about 50 µs.
const UPSTREAM_BUCKETS: &[f64] =
    &[0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Commands in flight in the whole store. The law needs its value atomically, which a Prometheus gauge does not return.
    pub(crate) in_flight: AtomicU64,
    in_flight_gauge: IntGauge,
    /// By `FaultKind`.
    faults: [IntGauge; FaultKind::ALL.len()],
    law_base: Gauge,
    law_slope: Gauge,
    law_crosstalk: Gauge,
    /// Process metrics, without this registry's prefix.
    vitals: Registry,
    pub(crate) added_delay: Histogram,
    pub(crate) upstream: Histogram,
    pub(crate) listeners: Vec<ListenerMetrics>,
    pub(crate) links: Vec<LinkMetrics>,
}

/// Metrics of a link: datagrams, or pieces of a TCP stream as they were read.
#[derive(Debug)]
pub(crate) struct LinkMetrics {
    /// Connections, or flows of datagrams.
    pub(crate) flows: IntGauge,
    pub(crate) passed: IntCounter,
    /// Lost by the fault; over TCP: modelled lost transmissions.
    pub(crate) lost: IntCounter,
    /// Datagrams lost by a stall.
    pub(crate) stalled: IntCounter,
    /// Datagrams and connections over a limit.
    pub(crate) overflow: IntCounter,
    /// The server, or the client when its answer arrived.
    pub(crate) unreachable: IntCounter,
}

#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    pub(crate) commands: IntCounter,
    pub(crate) connections: IntGauge,
    /// Refused at `max_connections`.
    pub(crate) rejected: IntCounter,
    pub(crate) unreachable: IntCounter,
    pub(crate) lost: IntCounter,
    /// Answered with the error of a fault.
    pub(crate) failed_writes: IntCounter,
    /// In the order of `Malformed::ALL`.
    malformed: Vec<IntCounter>,
}

impl Metrics {
    /// Also returns the watch of the current runtime.
    pub(crate) fn new(listeners: &[Endpoint], links: &[Link]) -> prometheus::Result<(Self, Watch)> {
        let registry = Registry::new_custom(Some("faultproxy".into()), None)?;
        let commands = IntCounterVec::new(Opts::new("commands_total", "Commands with a response"), &["listener"])?;
        let connections = IntGaugeVec::new(Opts::new("connections", "Client connections open"), &["listener"])?;
        let rejected = Opts::new("connections_rejected_total", "Connections refused at max_connections");
        let rejected = IntCounterVec::new(rejected, &["listener"])?;
        let upstream_failures = Opts::new(
            "upstream_failures_total",
            "Failures of the real store: unreachable at connect, or lost with a command in flight",
        );
        let upstream_failures = IntCounterVec::new(upstream_failures, &["listener", "kind"])?;
        let malformed =
            Opts::new("malformed_total", "Connections closed because of malformed or unsupported packets, by reason");
        let malformed = IntCounterVec::new(malformed, &["listener", "reason"])?;
        let failed_writes = Opts::new("writes_failed_total", "Writes answered with the error of a fault, not executed");
        let failed_writes = IntCounterVec::new(failed_writes, &["listener"])?;
        let in_flight_gauge = IntGauge::new("commands_in_flight", "Commands in flight in the whole store")?;
        let faults =
            IntGaugeVec::new(Opts::new("fault_active", "1 while a fault of this kind is in force"), &["kind"])?;
        let law_base =
            Gauge::new("law_base_seconds", "Response time of the law without commands in flight; 0: no law")?;
        let law_slope = Gauge::new("law_slope_seconds", "Response time that each command in flight adds")?;
        let law_crosstalk =
            Gauge::new("law_crosstalk_seconds", "Response time that each ordered pair of commands in flight adds")?;
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[])
        };
        let added_delay = histogram(
            "added_delay_seconds",
            "Delay that law and faults added to a command and its response",
            DELAY_BUCKETS,
        )?;
        let upstream =
            histogram("upstream_seconds", "Response time of the real store until the last byte", UPSTREAM_BUCKETS)?;
        registry.register(Box::new(commands.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(rejected.clone()))?;
        registry.register(Box::new(upstream_failures.clone()))?;
        registry.register(Box::new(malformed.clone()))?;
        registry.register(Box::new(failed_writes.clone()))?;
        registry.register(Box::new(in_flight_gauge.clone()))?;
        registry.register(Box::new(faults.clone()))?;
        registry.register(Box::new(law_base.clone()))?;
        registry.register(Box::new(law_slope.clone()))?;
        registry.register(Box::new(law_crosstalk.clone()))?;
        registry.register(Box::new(added_delay.clone()))?;
        registry.register(Box::new(upstream.clone()))?;
        let listeners = listeners.iter().map(|listen| {
            let listen = listen.to_string();
            ListenerMetrics {
                commands: commands.with_label_values(&[&listen]),
                connections: connections.with_label_values(&[&listen]),
                rejected: rejected.with_label_values(&[&listen]),
                unreachable: upstream_failures.with_label_values(&[listen.as_str(), "unreachable"]),
                lost: upstream_failures.with_label_values(&[listen.as_str(), "lost"]),
                failed_writes: failed_writes.with_label_values(&[&listen]),
                malformed: Malformed::ALL
                    .map(|reason| malformed.with_label_values(&[listen.as_str(), reason.label()]))
                    .into(),
            }
        });
        let vitals = Registry::new();
        let watch = vitals::register(&vitals)?;
        let links = link_metrics(&registry, links)?;
        let metrics = Self {
            in_flight: AtomicU64::new(0),
            in_flight_gauge,
            faults: FaultKind::ALL.map(|kind| faults.with_label_values(&[kind.as_str()])),
            law_base,
            law_slope,
            law_crosstalk,
            vitals,
            added_delay: added_delay.with_label_values::<&str>(&[]),
            upstream: upstream.with_label_values::<&str>(&[]),
            listeners: listeners.collect(),
            links,
            registry,
        };
        Ok((metrics, watch))
    }

    pub(crate) fn text(&self, control: &Control) -> prometheus::Result<String> {
        let active = control.active();
        for (gauge, kind) in self.faults.iter().zip(FaultKind::ALL) {
            gauge.set(i64::from(active.iter().any(|fault| fault.spec.fault.kind() == kind)));
        }
        let (base_ms, slope_ms, crosstalk_ms) = match control.law() {
            Law::None => (0.0, 0.0, 0.0),
            Law::Linear { base_ms, slope_ms, crosstalk_ms, .. } => (base_ms, slope_ms, crosstalk_ms),
        };
        self.law_base.set(base_ms / 1000.0);
        self.law_slope.set(slope_ms / 1000.0);
        self.law_crosstalk.set(crosstalk_ms / 1000.0);
        let in_flight = self.in_flight.load(std::sync::atomic::Ordering::Relaxed);
        self.in_flight_gauge.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        let families = [self.registry.gather(), self.vitals.gather()].concat();
        TextEncoder::new().encode_to_string(&families)
    }
}

/// Counts an open connection until it is dropped.
pub(crate) struct OpenConnection(IntGauge);

impl OpenConnection {
    pub(crate) fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn link_metrics(registry: &Registry, links: &[Link]) -> prometheus::Result<Vec<LinkMetrics>> {
    let flows = Opts::new("link_flows", "Connections of a TCP link, or flows of a UDP link");
    let flows = IntGaugeVec::new(flows, &["transport", "listener"])?;
    let items = Opts::new(
        "link_items_total",
        "Datagrams, or pieces of a TCP stream, by outcome; lost over TCP: modelled retransmissions",
    );
    let items = IntCounterVec::new(items, &["transport", "listener", "outcome"])?;
    registry.register(Box::new(flows.clone()))?;
    registry.register(Box::new(items.clone()))?;
    let each = links.iter().map(|link| {
        let (transport, listen) = (link.transport.as_str(), link.listen.to_string());
        let count = |outcome| items.with_label_values(&[transport, &listen, outcome]);
        LinkMetrics {
            flows: flows.with_label_values(&[transport, &listen]),
            passed: count("passed"),
            lost: count("lost"),
            stalled: count("stalled"),
            overflow: count("overflow"),
            unreachable: count("unreachable"),
        }
    });
    Ok(each.collect())
}

impl ListenerMetrics {
    pub(crate) fn malformed(&self, reason: Malformed) {
        if let Some(at) = Malformed::ALL.iter().position(|&each| each == reason) {
            self.malformed[at].inc();
        }
    }

    pub(crate) fn malformed_total(&self) -> u64 {
        self.malformed.iter().map(IntCounter::get).sum()
    }
}
