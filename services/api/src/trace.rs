//! The span of a request, its log line, and its entry in the duration histogram.

use std::{error::Error, fmt, time::Instant};

use axum::{
    Extension,
    extract::Request,
    http::{HeaderName, HeaderValue, Method},
    response::Response,
};
use contract::spans::attribute;
use runtime::telemetry::{self, Context, IncomingContext, Kind, Span, Telemetry};

use crate::{
    AppState,
    error::{ApiError, Failure},
    metrics::RequestDurations,
};

static TRACEPARENT: HeaderName = HeaderName::from_static(telemetry::TRACEPARENT);

/// The trace of a request in flight.
pub struct RequestTrace {
    incoming: IncomingContext,
    method: Method,
    started: Instant,
    /// `NONE` if the request is not sampled.
    pub span: Span,
}

impl RequestTrace {
    /// As `start`. If the request is sampled, its handler finds the span in the request's extensions.
    pub fn start_with_extension(
        telemetry: &Telemetry,
        request: &mut Request,
        route: Option<&str>,
        started: Instant,
    ) -> Self {
        let trace = Self::start(telemetry, request, route, started);
        if trace.span.is_recorded() {
            request.extensions_mut().insert(trace.span.clone());
        }
        trace
    }

    /// Decides whether the request is sampled. Builds no span if it is not.
    pub fn start(telemetry: &Telemetry, request: &Request, route: Option<&str>, started: Instant) -> Self {
        let traceparent = request.headers().get(&TRACEPARENT).map(HeaderValue::as_bytes);
        let (incoming, method) = (telemetry.incoming(traceparent), request.method().clone());
        if !incoming.is_sampled {
            return Self { incoming, method, started, span: Span::NONE };
        }
        let span = server_span(telemetry, incoming.new_span(), &method, route, started);
        span.set(attribute::URL_PATH, request.uri().path());
        if let Some(query) = request.uri().query() {
            span.set(attribute::URL_QUERY, query);
        }
        Self { incoming, method, started, span }
    }

    /// Records the duration. A request that was not sampled gets one span now if it failed or was slow. A failed request gets one log
    /// line, sampled or not. Of those that admission refused, and that are not sampled, only a few do (`refusals`).
    pub fn finish(self, app: &AppState, durations: &RequestDurations, route: Option<&str>, response: &mut Response) {
        let telemetry = &app.telemetry;
        let status = response.status();
        let (failed, now) = (status.is_server_error(), Instant::now());
        let duration = now - self.started;
        let mut span = self.span;
        if !span.is_recorded() {
            let is_silent = if failed {
                is_refusal(response) && !app.refusals.is_recorded(now)
            } else {
                !telemetry.is_slow(duration)
            };
            if is_silent {
                return durations.observe(self.started, duration, &Span::NONE);
            }
            // The log line has these ids even if no span is recorded.
            let context = self.incoming.new_span();
            span = server_span(telemetry, context, &self.method, route, self.started);
            span.set(attribute::RETROSPECTIVE, true);
            if failed {
                log_failure(response, &span, context.0, &self.method, route, duration.as_secs_f64());
            }
        } else if let Some(context) = span.context() {
            if failed {
                log_failure(response, &span, context, &self.method, route, duration.as_secs_f64());
            } else if telemetry.is_logged(context) {
                let (trace_id, span_id) = (context.trace_id_hex(), context.span_id_hex());
                let (route, status, seconds) = (route.unwrap_or_default(), status.as_u16(), duration.as_secs_f64());
                tracing::info!(trace_id, span_id, method = %self.method, route, status, seconds, "request answered");
            }
        }
        span.set(attribute::HTTP_RESPONSE_STATUS_CODE, status.as_u16());
        durations.observe(self.started, duration, &span);
        span.end_at(self.started + duration);
    }
}

/// The request's span, or `NONE` if the request is not sampled.
pub fn request_span(extension: Option<Extension<Span>>) -> Span {
    extension.map(|Extension(span)| span).unwrap_or_default()
}

fn server_span(
    telemetry: &Telemetry,
    context: (Context, u64),
    method: &Method,
    route: Option<&str>,
    started: Instant,
) -> Span {
    if !telemetry.is_on() {
        return Span::NONE;
    }
    // The number of span names is bounded: clients can send any method.
    let known = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];
    let method = if known.contains(method) { method.as_str() } else { "_OTHER" };
    let verb = if method == "_OTHER" { "HTTP" } else { method };
    let span = match route {
        None => telemetry.record(context, Kind::Server, verb, started),
        Some(route) => telemetry.record(context, Kind::Server, format_args!("{verb} {route}"), started),
    };
    span.set_all([(attribute::HTTP_REQUEST_METHOD, method.into()), (attribute::URL_SCHEME, "http".into())]);
    if let Some(route) = route {
        span.set(attribute::HTTP_ROUTE, route);
    }
    span
}

/// By admission.
fn is_refusal(response: &Response) -> bool {
    response.extensions().get::<Failure>().is_some_and(|failure| matches!(*failure.0, ApiError::Overloaded))
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
    span.fail(error.problem_name());
    let (trace_id, span_id) = (context.trace_id_hex(), context.span_id_hex());
    let (route, status) = (route.unwrap_or_default(), response.status().as_u16());
    let (problem, error) = (error.problem_name(), ErrorChain(error));
    tracing::warn!(trace_id, span_id, %method, route, status, seconds, problem, %error, "request failed");
}

/// An error with its sources. No error of this project repeats its source.
struct ErrorChain<'a>(&'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
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
