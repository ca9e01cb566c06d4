//! The client span of a request.

use std::time::Instant;

use contract::{http::Source, spans::attribute};
use reqwest::Url;
use runtime::telemetry::{Context, Kind, Telemetry};

/// Outcome of a request.
pub(crate) struct Outcome<E> {
    /// `None`: no response.
    pub status: Option<u16>,
    /// Source of a good response that names one.
    pub result: Result<Option<Source>, E>,
}

/// Records the span of a completed request. A request that was not sampled is recorded if it failed or was slow; the API does the same,
/// so both spans are in one trace.
pub(crate) fn record<E: AsRef<str>>(
    telemetry: &Telemetry,
    departure: Option<Context>,
    started: Instant,
    url: impl FnOnce() -> String,
    outcome: &Outcome<E>,
) {
    let Some(context) = departure else { return };
    if !context.sampled && outcome.result.is_ok() && !telemetry.is_slow(started.elapsed()) {
        return;
    }
    let span = telemetry.record((context, 0), Kind::Client, "GET", started);
    span.set(attribute::HTTP_REQUEST_METHOD, "GET");
    let url = url();
    if let Ok(url) = Url::parse(&url) {
        span.set(attribute::SERVER_ADDRESS, url.host_str().unwrap_or_default());
        span.set(attribute::SERVER_PORT, url.port_or_known_default().unwrap_or_default());
    }
    span.set(attribute::URL_FULL, url.as_str());
    if !context.sampled {
        span.set(attribute::RETROSPECTIVE, true);
    }
    if let Some(status) = outcome.status {
        span.set(attribute::HTTP_RESPONSE_STATUS_CODE, status);
    }
    match &outcome.result {
        Ok(Some(source)) => span.set(attribute::ANSWER_SOURCE, source.as_str()),
        Ok(None) => {}
        Err(class) => span.fail(class.as_ref()),
    }
}
