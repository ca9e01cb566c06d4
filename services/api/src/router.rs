//! All routes on one screen, all layers on another. `GET /recommendations` is answered in front of them (`front`); it stands here for
//! other methods and `HEAD`.

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

use crate::{AppState, error::ApiError, events, items, recommend, trace::Traced, users};

/// As they stand in the label `http_route`.
pub const ROUTES: [&str; 6] =
    ["/recommendations", "/items/{id}/neighbours", "/popular", "/users", "/events", "/openapi.json"];

pub fn router(app: AppState) -> Router {
    let routes = Router::new()
        .route("/recommendations", get(recommend::get))
        .route("/items/{id}/neighbours", get(items::neighbours))
        .route("/popular", get(items::popular))
        .route("/users", post(users::create))
        .route("/events", post(events::create))
        .route("/openapi.json", get(async || Json(ApiDoc::openapi())))
        .merge(SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json")))
        .fallback(async || ApiError::NotFound("there is nothing here; see /openapi.json".into()))
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed);
    layered(routes, app)
}

/// Outermost first. Together in one `layer`: each of these boxes and copies the service of every request.
fn layered(routes: Router<AppState>, app: AppState) -> Router {
    let layers = (
        middleware::from_fn_with_state(app.clone(), measured),
        CatchPanicLayer::custom(|_panic: Box<dyn std::any::Any + Send>| ApiError::Internal.into_response()),
        DefaultBodyLimit::max(app.config.http.max_body_bytes),
    );
    routes.layer(layers).with_state(app)
}

/// Counts, times and traces every answer, and gives those that axum itself refused (a body that is too long, a path that is no UTF-8) the
/// shape of ours.
async fn measured(
    State(app): State<AppState>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let _active = app.metrics.http.enter();
    let route = path.as_ref().map(MatchedPath::as_str);
    let traced = Traced::begin(&app.telemetry, &mut request, route, started);
    let mut response = next.run(request).await;
    if response.status().is_client_error() && !is_problem(&response) {
        response = refusal(response.status(), app.config.http.max_body_bytes).into_response();
    }
    let durations = app.metrics.http.of(route, response.status().as_u16());
    traced.end(&app.telemetry, durations, route, &mut response);
    response
}

fn refusal(status: StatusCode, max_body_bytes: usize) -> ApiError {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge(format!("the body is longer than {max_body_bytes} bytes")),
        StatusCode::NOT_FOUND => ApiError::NotFound("there is nothing here; see /openapi.json".into()),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::MethodNotAllowed,
        _ => ApiError::invalid("request", "could not be understood"),
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
            cause. Beside what stands at the operations: 404 for an unknown path, 405 with `Allow` for a method that a path does not have, \
            500 for a fault of the service. The gateway in front answers 413 and 414 where a request is larger than it takes, 502 and 504 \
            where no replica answers.",
    ),
    // Where the document was read is where the service is.
    servers((url = "/")),
    tags(
        (name = "recommendations", description = "Items for a user"),
        (name = "items", description = "Items without a user"),
        (name = "users", description = "Users are created"),
        (name = "events", description = "What users did"),
    ),
    paths(recommend::get, items::neighbours, items::popular, users::create, events::create)
)]
struct ApiDoc;
