//! The user's own span of a request: what it asked for, and how that ended for it.

use std::time::Instant;

use contract::{http::Source, spans::attribute};
use reqwest::Url;
use runtime::telemetry::{Context, Kind, Telemetry};

/// How a request ended.
pub(crate) struct Asked<E> {
    /// `None`: no answer.
    pub status: Option<u16>,
    pub result: Result<Source, E>,
}

/// To be called when it has ended. A request that was not sampled is told of after all if it failed or was slow, as the api does with its
/// side of it: the two are one trace.
pub(crate) fn tell<E: AsRef<str>>(
    telemetry: &Telemetry,
    departure: Option<Context>,
    started: Instant,
    url: impl FnOnce() -> String,
    asked: &Asked<E>,
) {
    let Some(context) = departure else { return };
    if !context.sampled && asked.result.is_ok() && !telemetry.is_slow(started.elapsed()) {
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
    if let Some(status) = asked.status {
        span.set(attribute::HTTP_RESPONSE_STATUS_CODE, status);
    }
    match &asked.result {
        Ok(source) => span.set(attribute::ANSWER_SOURCE, source.as_str()),
        Err(class) => span.fail(class.as_ref()),
    }
}
