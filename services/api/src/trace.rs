//! What is told of a request: its span, and its line in the log if it failed.

use std::{error::Error, fmt, sync::Arc, time::Instant};

use axum::{
    Extension,
    extract::Request,
    http::{HeaderName, HeaderValue, Method},
    response::Response,
};
use contract::spans::attribute;
use runtime::telemetry::{self, Arrival, Context, Kind, Span, Telemetry};

use crate::{error::ApiError, metrics::Durations};

static TRACEPARENT: HeaderName = HeaderName::from_static(telemetry::TRACEPARENT);

/// A request under way.
pub struct Traced {
    arrival: Arrival,
    method: Method,
    started: Instant,
    /// `NONE` if it is not sampled.
    pub span: Span,
}

/// What an answer of 5xx is about, from where it was made to where it is logged.
#[derive(Clone)]
pub struct Failure(pub Arc<ApiError>);

impl Traced {
    /// Nothing is built unless the request is sampled; if it is, its handler finds the span among its extensions.
    pub fn begin(telemetry: &Telemetry, request: &mut Request, route: Option<&str>, started: Instant) -> Self {
        let traced = Self::of(telemetry, request, route, started);
        if traced.span.is_recorded() {
            request.extensions_mut().insert(traced.span.clone());
        }
        traced
    }

    /// The same where nobody looks among the request's extensions.
    pub fn of(telemetry: &Telemetry, request: &Request, route: Option<&str>, started: Instant) -> Self {
        let traceparent = request.headers().get(&TRACEPARENT).map(HeaderValue::as_bytes);
        let (arrival, method) = (telemetry.arrival(traceparent), request.method().clone());
        if !arrival.is_sampled {
            return Self { arrival, method, started, span: Span::NONE };
        }
        let span = server_span(telemetry, arrival.place(), &method, route, started);
        span.set(attribute::URL_PATH, request.uri().path());
        if let Some(query) = request.uri().query() {
            span.set(attribute::URL_QUERY, query);
        }
        Self { arrival, method, started, span }
    }

    /// Counts and times it. A request that was not sampled is told of after all if it failed or was slow. What failed gets one line in the
    /// log, sampled or not.
    pub fn end(self, telemetry: &Telemetry, durations: &Durations, route: Option<&str>, response: &mut Response) {
        let status = response.status();
        let (failed, took) = (status.is_server_error(), self.started.elapsed());
        let mut span = self.span;
        if !span.is_recorded() {
            if !failed && !telemetry.is_slow(took) {
                return durations.observe(self.started, took, &Span::NONE);
            }
            // Its place is also that of the log line, where nothing is recorded.
            let place = self.arrival.place();
            span = server_span(telemetry, place, &self.method, route, self.started);
            span.set(attribute::RETROSPECTIVE, true);
            if failed {
                log_failure(response, &span, place.0, &self.method, route, took.as_secs_f64());
            }
        } else if let Some(context) = span.context() {
            if failed {
                log_failure(response, &span, context, &self.method, route, took.as_secs_f64());
            } else if telemetry.is_logged(context) {
                let (trace_id, span_id) = ids(context);
                let (route, status, seconds) = (route.unwrap_or_default(), status.as_u16(), took.as_secs_f64());
                tracing::info!(trace_id, span_id, method = %self.method, route, status, seconds, "request answered");
            }
        }
        span.set(attribute::HTTP_RESPONSE_STATUS_CODE, status.as_u16());
        durations.observe(self.started, took, &span);
        span.ended(self.started + took);
    }
}

/// A handler's request's own: there only if the request is sampled.
pub fn of_request(extension: Option<Extension<Span>>) -> Span {
    extension.map(|Extension(span)| span).unwrap_or_default()
}

fn server_span(
    telemetry: &Telemetry,
    place: (Context, u64),
    method: &Method,
    route: Option<&str>,
    started: Instant,
) -> Span {
    if !telemetry.is_on() {
        return Span::NONE;
    }
    // Names are few: a method or a path that a client made up is none.
    let known = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];
    let method = if known.contains(method) { method.as_str() } else { "_OTHER" };
    let verb = if method == "_OTHER" { "HTTP" } else { method };
    let span = match route {
        None => telemetry.record(place, Kind::Server, verb, started),
        Some(route) => telemetry.record(place, Kind::Server, format_args!("{verb} {route}"), started),
    };
    span.set_all([(attribute::HTTP_REQUEST_METHOD, method.into()), (attribute::URL_SCHEME, "http".into())]);
    if let Some(route) = route {
        span.set(attribute::HTTP_ROUTE, route);
    }
    span
}

fn log_failure(
    response: &mut Response,
    span: &Span,
    context: Context,
    method: &Method,
    route: Option<&str>,
    seconds: f64,
) {
    let failure = response.extensions_mut().remove::<Failure>();
    let error: &ApiError = failure.as_ref().map_or(&ApiError::Internal, |failure| &failure.0);
    span.fail(error.word());
    let (trace_id, span_id) = ids(context);
    let (route, status) = (route.unwrap_or_default(), response.status().as_u16());
    let (problem, error) = (error.word(), Chain(error));
    tracing::warn!(trace_id, span_id, %method, route, status, seconds, problem, %error, "request failed");
}

fn ids(context: Context) -> (String, String) {
    (format!("{:032x}", context.trace_id), format!("{:016x}", context.span_id))
}

/// An error and what it came from; none of ours repeats its source.
struct Chain<'a>(&'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
