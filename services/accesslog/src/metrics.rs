//! Metrics of the gateway; all series exist from the start.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, Opts, Registry};

use crate::line::Line;

/// Seconds; nginx measures whole milliseconds. 0.3 is the latency objective, 3 the time after which the load generator's users give up.
const BUCKETS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0];

/// Labels are bounded: every other path is `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Recommendations,
    Other,
}

impl Route {
    const ALL: [Self; 2] = [Self::Recommendations, Self::Other];

    /// As `$gateway_route` of deploy/nginx/gateway/http.conf.
    pub(crate) fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|route| route.label() == text)
    }

    fn label(self) -> &'static str {
        match self {
            Self::Recommendations => "/recommendations",
            Self::Other => "other",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Success,
    Redirect,
    ClientError,
    /// nginx's 499: the client closed the connection before the answer came.
    ClientClosed,
    ServerError,
}

impl Class {
    const ALL: [Self; 5] = [Self::Success, Self::Redirect, Self::ClientError, Self::ClientClosed, Self::ServerError];

    pub(crate) fn of(status: u16) -> Option<Self> {
        match status {
            499 => Some(Self::ClientClosed),
            200..=299 => Some(Self::Success),
            300..=399 => Some(Self::Redirect),
            400..=498 => Some(Self::ClientError),
            500..=599 => Some(Self::ServerError),
            _ => None,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::ClientError => "4xx",
            Self::ClientClosed => "499",
            Self::ServerError => "5xx",
        }
    }
}

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
