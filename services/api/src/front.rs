//! In front of the router: what this process has in memory is answered here, at once.
//!
//! Such an answer takes a microsecond and waits for nothing, so it needs no place among those who are worked on, no deadline and none of
//! the router's layers, which together cost several times as much as the answer.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use axum::{Router, extract::Request, response::Response};
use futures::future::Either;
use tower::Service;

use crate::{AppState, recommend};

#[derive(Clone)]
pub struct Front {
    pub app: AppState,
    pub router: Router,
}

impl Service<Request> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, <Router as Service<Request>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match recommend::from_memory(&self.app, &request) {
            Some(response) => Either::Left(ready(Ok(response))),
            None => Either::Right(self.router.call(request)),
        }
    }
}
