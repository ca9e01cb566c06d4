//! The service in front of the router. It answers `GET /recommendations`, nearly all requests, without routing and without the router's
//! layers: each of these boxes the request once more.
//!
//! A request whose list is in memory is answered here, before admission and without a deadline: it takes a microsecond and waits for nothing.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    Router,
    extract::Request,
    http::Method,
    response::{IntoResponse, Response},
};
use futures::{FutureExt, future::Either};
use tower::Service;

use crate::{AppState, error::ApiError, recommend, routes::RECOMMENDATIONS, trace::RequestTrace};

#[derive(Clone)]
pub struct Front {
    pub app: AppState,
    pub router: Router,
}

type Answered = Result<Response, Infallible>;

impl Service<Request> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<
        Ready<Answered>,
        Either<Pin<Box<dyn Future<Output = Answered> + Send>>, <Router as Service<Request>>::Future>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.method() != Method::GET || request.uri().path() != RECOMMENDATIONS {
            return Either::Right(Either::Right(self.router.call(request)));
        }
        match recommend::respond_from_memory(&self.app, &request) {
            Some(response) => Either::Left(ready(Ok(response))),
            None => Either::Right(Either::Left(Box::pin(respond(self.app.clone(), request)))),
        }
    }
}

/// As the router's layers: counts, times and traces the request, and turns a panic into a problem document.
async fn respond(app: AppState, request: Request) -> Answered {
    let started = Instant::now();
    let active = app.metrics.http.enter(Some(RECOMMENDATIONS));
    let trace = RequestTrace::start(&app.telemetry, &request, Some(RECOMMENDATIONS), started);
    let answer = AssertUnwindSafe(recommend::respond(&app, request.uri().query(), request.headers(), &trace.span));
    let answer = answer.catch_unwind().await;
    let mut response = answer.unwrap_or(Err(ApiError::Internal)).into_response();
    let durations = app.metrics.http.of(Some(RECOMMENDATIONS), response.status().as_u16());
    trace.finish(&app, durations, Some(RECOMMENDATIONS), &mut response);
    active.end();
    Ok(response)
}
