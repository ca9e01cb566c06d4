//! In front of the router: `GET /recommendations`, nearly all requests, does without routing and the router's layers, each of which boxes
//! the request once more.
//!
//! What this process has in memory is answered here at once: such an answer takes a microsecond and waits for nothing, so it needs no place
//! among those who are worked on and no deadline.

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

use crate::{
    AppState,
    error::ApiError,
    recommend::{self, PATH},
    trace::Traced,
};

#[derive(Clone)]
pub struct Front {
    pub app: AppState,
    pub router: Router,
}

type Answer = Result<Response, Infallible>;

impl Service<Request> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<
        Ready<Answer>,
        Either<Pin<Box<dyn Future<Output = Answer> + Send>>, <Router as Service<Request>>::Future>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.method() != Method::GET || request.uri().path() != PATH {
            return Either::Right(Either::Right(self.router.call(request)));
        }
        match recommend::from_memory(&self.app, &request) {
            Some(response) => Either::Left(ready(Ok(response))),
            None => Either::Right(Either::Left(Box::pin(recommended(self.app.clone(), request)))),
        }
    }
}

/// What the router's layers do around a handler, for this one: counted, timed and traced, and a panic is a problem document.
async fn recommended(app: AppState, request: Request) -> Answer {
    let started = Instant::now();
    let _active = app.metrics.http.enter();
    let traced = Traced::of(&app.telemetry, &request, Some(PATH), started);
    let answer = AssertUnwindSafe(recommend::recommended(&app, request.uri().query(), &traced.span));
    let answer = answer.catch_unwind().await;
    let mut response = answer.unwrap_or(Err(ApiError::Internal)).into_response();
    let durations = app.metrics.http.of(Some(PATH), response.status().as_u16());
    traced.end(&app.telemetry, durations, Some(PATH), &mut response);
    Ok(response)
}
