//! Metrics of the gateway; all series exist from the start.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, Opts, Registry};

use crate::line::{Class, Line, Route};

/// Seconds; nginx measures whole milliseconds. 0.3 is the latency objective, 3 the time after which the load generator's users give up.
const BUCKETS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0];

#[derive(Debug)]
pub(crate) struct Metrics {
    /// By route and class, in the order of their `ALL`.
    requests: [[Histogram; Class::ALL.len()]; Route::ALL.len()],
    pub(crate) malformed: IntCounter,
    pub(crate) dropped: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let options = HistogramOpts::new(
            "gateway_request_duration_seconds",
            "Requests that the gateway answered: from their first byte to the last byte of the response",
        );
        let requests = HistogramVec::new(options.buckets(BUCKETS.to_vec()), &["http_route", "status_class"])?;
        registry.register(Box::new(requests.clone()))?;
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::with_opts(Opts::new(name, help))?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        Ok(Self {
            requests: Route::ALL
                .map(|route| Class::ALL.map(|class| requests.with_label_values(&[route.label(), class.label()]))),
            malformed: counter("gateway_log_lines_malformed_total", "Datagrams that are not lines of the access log")?,
            dropped: counter(
                "gateway_log_lines_dropped_total",
                "Datagrams that the kernel dropped because the receive buffer was full: requests that are not counted",
            )?,
        })
    }

    pub(crate) fn count(&self, line: &Line) {
        self.requests[line.route as usize][line.class as usize].observe(line.seconds);
    }
}
