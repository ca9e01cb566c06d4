//! The response to a request for recommendations.

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use contract::http::Source;
use lists::{RankedList, push_json_string};

pub fn json(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The first `limit` items of the list as a JSON document. `source` comes first, so that a client reads it before the items.
pub fn body(source: Source, user_id: &str, list: &RankedList, limit: usize) -> Vec<u8> {
    let items = list.items_json(limit);
    let mut body = Vec::with_capacity(items.len() + 160);
    body.extend(b"{\"source\":\"");
    body.extend(source.as_str().as_bytes());
    body.extend(b"\",\"model_version\":");
    body.extend(list.model_version().to_string().as_bytes());
    body.extend(b",\"user_id\":");
    push_json_string(&mut body, user_id);
    body.extend(b",\"items\":[");
    body.extend(items);
    body.extend(b"]}");
    body
}
