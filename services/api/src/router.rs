//! Routes and layers. `front` answers `GET /recommendations` before the router; its route here serves `HEAD` and refuses other methods.

use std::time::Instant;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

use crate::{AppState, error::ApiError, events, items, recommend, routes, trace::RequestTrace, users};

pub fn router(app: AppState) -> Router {
    let router = Router::new()
        .route(routes::RECOMMENDATIONS, get(recommend::get))
        .route(routes::NEIGHBOURS, get(items::neighbours))
        .route(routes::POPULAR, get(items::popular))
        .route(routes::USERS, post(users::create))
        .route(routes::EVENTS, post(events::create))
        .route(routes::OPENAPI, get(async || Json(ApiDoc::openapi())))
        .merge(SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json")))
        .fallback(async || ApiError::NotFound("there is no such path; see /openapi.json".into()))
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed);
    with_layers(router, app)
}

/// Outermost first. All in one `layer` call: each call boxes and clones the service for every request.
fn with_layers(router: Router<AppState>, app: AppState) -> Router {
    let layers = (
        middleware::from_fn_with_state(app.clone(), measure),
        CatchPanicLayer::custom(|_panic: Box<dyn std::any::Any + Send>| ApiError::Internal.into_response()),
        DefaultBodyLimit::max(app.config.http.max_body_bytes),
    );
    router.layer(layers).with_state(app)
}

/// Counts, times and traces every request. Turns axum's own rejections (a request body that is too long, a path that is not UTF-8) into
/// problem documents.
async fn measure(State(app): State<AppState>, path: Option<MatchedPath>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = path.as_ref().map(MatchedPath::as_str);
    let active = app.metrics.http.enter(route);
    let trace = RequestTrace::start_with_extension(&app.telemetry, &mut request, route, started);
    let mut response = next.run(request).await;
    if response.status().is_client_error() && !is_problem(&response) {
        response = rejection(response.status(), app.config.http.max_body_bytes).into_response();
    }
    let durations = app.metrics.http.of(route, response.status().as_u16());
    trace.finish(&app, durations, route, &mut response);
    active.end();
    response
}

fn rejection(status: StatusCode, max_body_bytes: usize) -> ApiError {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::TooLarge(format!("the request body is longer than {max_body_bytes} bytes"))
        }
        StatusCode::NOT_FOUND => ApiError::NotFound("there is no such path; see /openapi.json".into()),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::MethodNotAllowed,
        _ => ApiError::invalid("request", "is malformed"),
    }
}

fn is_problem(response: &Response) -> bool {
    response.headers().get("content-type").is_some_and(|value| value == "application/problem+json")
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Recommendations",
        description = "Items for users. Every error is an RFC 9457 problem document (`application/problem+json`) whose `type` names its \
            cause. In addition to the statuses of each operation: 404 for an unknown path, 405 with `Allow` for a method that a path does \
            not support, 500 for an internal error. The gateway answers 413 and 414 if a request is too large for it, 502 and 504 if no \
            replica answers.",
    ),
    // Relative to the address of this document.
    servers((url = "/")),
    tags(
        (name = "recommendations", description = "Items for a user"),
        (name = "items", description = "Items without a user"),
        (name = "users", description = "Creation of users"),
        (name = "events", description = "What users did"),
    ),
    paths(recommend::get, items::neighbours, items::popular, users::create, events::create)
)]
struct ApiDoc;
