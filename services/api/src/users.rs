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
    clock::unix_ms,
    error::ApiError,
    trace,
    writes::{self, STORE_TIMEOUT},
};

/// Creates a user.
///
/// If the user exists, nothing changes and the status is 200.
#[utoipa::path(
    post, path = "/users", tag = "users", operation_id = "create_user",
    request_body = NewUser,
    responses(
        (status = 201, body = UserCreated, description = "Created"),
        (status = 200, body = UserCreated, description = "The user existed already"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "`field` names the invalid field"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "The request body is too long"),
        (status = 415, body = Problem, content_type = "application/problem+json",
            description = "The content type is not application/json"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds to wait before the next attempt")),
            description = "Overloaded, or a server is down. The user may not have been created: retry"),
        (status = 504, body = Problem, content_type = "application/problem+json",
            description = "The deadline was exceeded. The user may not have been created: retry"),
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
    let created = writes::run_to_completion(&app, &trace::request_span(span), write).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(UserCreated { user_id: user_id.as_str().to_owned(), created })))
}

/// Announces the user before the insert, so that a crash in between leaves no user that the guards report as absent. Announces it again
/// after the insert, because Redis may have lost the first announcement in a restart while a filter was being built.
async fn register(app: &AppState, user_id: &UserId, span: &Span) -> Result<bool, ApiError> {
    let redis = &mut app.redis.traced(span);
    stores::announce(&[user_id], redis).await.map_err(ApiError::Redis)?;
    let created = timeout(STORE_TIMEOUT, app.store.create_user(user_id, unix_ms() as i64, span)).await;
    app.memory.forget(user_id);
    let created = created.map_err(|_elapsed| ApiError::Deadline(STORE_TIMEOUT.as_millis() as u64))??;
    stores::announce(&[user_id], redis).await.map_err(ApiError::Redis)?;
    Ok(created)
}
