//! `GET /items/{id}/neighbours` and `GET /popular`: items without a user.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
};
use contract::{
    ItemId,
    http::{IdText, ItemList, Problem},
};

use crate::{AppState, error::ApiError, query};

/// Items that are most often liked together with this one.
///
/// The best come first. There may be fewer than `limit`.
#[utoipa::path(
    get, path = "/items/{id}/neighbours", tag = "items", operation_id = "item_neighbours",
    params(
        ("id" = IdText, Path, description = "Item id", example = "i00042"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Number of items, default 20"),
    ),
    responses(
        (status = 200, body = ItemList, description = "The items"),
        (status = 400, body = Problem, content_type = "application/problem+json",
            description = "A parameter is invalid or unknown; `field` names it"),
        (status = 404, body = Problem, content_type = "application/problem+json",
            description = "The model does not know this item"),
    ),
)]
pub async fn neighbours(
    State(app): State<AppState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<ItemList>, ApiError> {
    let limit = query::parse(query.as_deref().unwrap_or_default(), &["limit"])?.limit()?;
    let id: ItemId = id.parse().map_err(|error: contract::IdError| ApiError::invalid("id", error.to_string()))?;
    let model = app.model.current();
    let index = model
        .neighbours
        .index_of(id.as_str())
        .ok_or_else(|| ApiError::NotFound("the model does not know this item".into()))?;
    let items = model.scored(model.neighbours.neighbours(index), limit);
    Ok(Json(ItemList { model_version: model.version, items }))
}

/// The items that most users like now.
///
/// Unknown users and users without behaviour get these recommendations.
#[utoipa::path(
    get, path = "/popular", tag = "items", operation_id = "popular_items",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Number of items, default 20")),
    responses(
        (status = 200, body = ItemList, description = "The items"),
        (status = 400, body = Problem, content_type = "application/problem+json",
            description = "A parameter is invalid or unknown; `field` names it"),
    ),
)]
pub async fn popular(State(app): State<AppState>, RawQuery(query): RawQuery) -> Result<Json<ItemList>, ApiError> {
    let limit = query::parse(query.as_deref().unwrap_or_default(), &["limit"])?.limit()?;
    let model = app.model.current();
    let items = model.scored(model.neighbours.popular(), limit);
    Ok(Json(ItemList { model_version: model.version, items }))
}
