//! `POST /users`.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use contract::{
    UserId,
    http::{NewUser, Problem, UserCreated},
};
use runtime::telemetry::Span;
use tokio::time::timeout;

use crate::{
    AppState, body,
    error::ApiError,
    recommend::{guard, unix_ms},
    trace,
    writes::{self, STORE_PATIENCE},
};

/// Creates a user.
///
/// Asked again it changes nothing and answers 200.
#[utoipa::path(
    post, path = "/users", tag = "users", operation_id = "create_user",
    request_body = NewUser,
    responses(
        (status = 201, body = UserCreated, description = "Created"),
        (status = 200, body = UserCreated, description = "The user existed already"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "`field` names what is wrong"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "The body is too long"),
        (status = 415, body = Problem, content_type = "application/problem+json",
            description = "The content type is not application/json"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds to wait before the next attempt")),
            description = "Overloaded, or a server is down. Perhaps not created: send it again"),
        (status = 504, body = Problem, content_type = "application/problem+json",
            description = "The deadline ran out. Perhaps not created: send it again"),
    ),
)]
pub async fn create(
    State(app): State<AppState>,
    span: Option<Extension<Span>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<(StatusCode, Json<UserCreated>), ApiError> {
    let new: NewUser = body::json(&headers, &bytes)?;
    let user_id: UserId =
        new.user_id.parse().map_err(|error: contract::IdError| ApiError::invalid("user_id", error.to_string()))?;
    let registered = user_id.clone();
    let write = async move |app: AppState, span: Span| register(&app, &registered, &span).await;
    let created = writes::run_to_completion(&app, &trace::of_request(span), write).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(UserCreated { user_id: user_id.as_str().to_owned(), created })))
}

/// Announced before the insert, so that a crash in between leaves no user whom the guards call unknown, and after it, in
/// case Redis lost the first announcement to a restart while a filter was being built.
async fn register(app: &AppState, user_id: &UserId, span: &Span) -> Result<bool, ApiError> {
    let redis = &mut app.redis.traced(span);
    guard::announce(&[user_id], redis).await.map_err(ApiError::Cache)?;
    let created = timeout(STORE_PATIENCE, app.store.create_user(user_id, unix_ms() as i64, span)).await;
    app.memory.forget(user_id);
    let created = created.map_err(|_elapsed| ApiError::Deadline(STORE_PATIENCE.as_millis() as u64))??;
    guard::announce(&[user_id], redis).await.map_err(ApiError::Cache)?;
    Ok(created)
}
