//! Classifies responses: the source of a good one, the error class of any other. Pure.

use std::borrow::Cow;

use contract::http::{Source, problem};
use serde::Deserialize;

use crate::client::Failure;

/// Error classes. The class of a problem document is the last part of its `type`: `store-checkout-timeout`, …
pub mod class {
    /// No complete response within the timeout.
    pub const CLIENT_TIMEOUT: &str = "client_timeout";
    /// Not sent: the client's own throttle refused it.
    pub const CLIENT_THROTTLED: &str = "client_throttled";
    /// No connection could be opened.
    pub const CONNECT: &str = "connect";
    /// The connection broke before the response was complete.
    pub const CONNECTION_RESET: &str = "connection_reset";
    /// Status 2xx, but the body does not name its source.
    pub const BAD_BODY: &str = "bad_body";
    /// Followed by the status: an error response without a problem document of the API.
    pub const BAD_STATUS: &str = "bad_status_";
}

/// Problem types that have a class of their own. The list bounds the number of classes.
pub(crate) const PROBLEMS: [&str; 13] = [
    problem::OVERLOADED,
    problem::INVALID_REQUEST,
    problem::NOT_FOUND,
    problem::METHOD_NOT_ALLOWED,
    problem::TOO_LARGE,
    problem::STORE_CHECKOUT_TIMEOUT,
    problem::STORE_OVERLOADED,
    problem::STORE_UNAVAILABLE,
    problem::EVENT_LOG_OVERLOADED,
    problem::EVENT_LOG_UNAVAILABLE,
    problem::CACHE_UNAVAILABLE,
    problem::DEADLINE_EXCEEDED,
    problem::INTERNAL,
];

/// Reads the source from the start of a good response body. `source` is the first field of the body, so no JSON is parsed.
pub(crate) fn source_of(head: &[u8]) -> Option<Source> {
    let rest = head.strip_prefix(b"{\"source\":\"")?;
    Source::ALL
        .into_iter()
        .find(|source| rest.strip_prefix(source.as_str().as_bytes()).is_some_and(|rest| rest.first() == Some(&b'"')))
}

/// The class of a response with a status other than 2xx.
pub(crate) fn class_of(status: u16, body: &[u8]) -> Cow<'static, str> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
    }
    let kind = serde_json::from_slice::<Head<'_>>(body).ok().map(|head| head.kind);
    let known = kind.and_then(|kind| PROBLEMS.into_iter().find(|known| *known == kind));
    match known {
        Some(known) => known.rsplit('/').next().unwrap_or(known).into(),
        None => format!("{}{status}", class::BAD_STATUS).into(),
    }
}

/// The result of a complete response: the source of a good one, or the class of the error.
pub(crate) fn result_of(status: u16, body: &[u8]) -> Result<Option<Source>, Cow<'static, str>> {
    match status {
        200..=299 => source_of(body).map(Some).ok_or(Cow::Borrowed(class::BAD_BODY)),
        status => Err(class_of(status, body)),
    }
}

/// As [`result_of`], from somebody else's endpoint: what its bodies mean is not known.
pub(crate) fn foreign_result_of(status: u16) -> Result<Option<Source>, Cow<'static, str>> {
    match status {
        200..=299 => Ok(None),
        status => Err(format!("{}{status}", class::BAD_STATUS).into()),
    }
}

/// The class of a request without a complete response.
pub(crate) fn class_of_failure(failure: Failure) -> &'static str {
    match failure {
        Failure::Timeout => class::CLIENT_TIMEOUT,
        Failure::Connect => class::CONNECT,
        Failure::Broken => class::CONNECTION_RESET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_the_body_names_the_source() {
        for source in Source::ALL {
            let body =
                contract::http::Recommendations { source, model_version: 1, user_id: "u".into(), items: Vec::new() };
            // The API's own serialisation must keep `source` first.
            assert_eq!(source_of(&serde_json::to_vec(&body).unwrap()), Some(source));
        }
        for bad in ["", "{", "{\"source\":\"", "{\"source\":\"cached\"", "{\"source\":\"cache", "<html>"] {
            assert_eq!(source_of(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn of_a_foreign_response_only_the_status_counts() {
        assert_eq!(foreign_result_of(200), Ok(None));
        assert_eq!(foreign_result_of(204), Ok(None));
        for status in [101, 302, 404, 503] {
            assert_eq!(foreign_result_of(status), Err(format!("bad_status_{status}").into()));
        }
        assert_eq!(result_of(200, b"<html>"), Err(class::BAD_BODY.into()));
        assert_eq!(result_of(200, b"{\"source\":\"cache\",\"model_version\":1}"), Ok(Some(Source::Cache)));
    }

    #[test]
    fn a_problem_document_is_classified_by_its_type() {
        let problem = |kind: &str| format!("{{\"title\":\"t\",\"type\":\"{kind}\",\"status\":503,\"detail\":\"d\"}}");
        let class = |body: &str| class_of(503, body.as_bytes()).into_owned();
        assert_eq!(class(&problem(problem::STORE_CHECKOUT_TIMEOUT)), "store-checkout-timeout");
        assert_eq!(class(&problem(problem::DEADLINE_EXCEEDED)), "deadline-exceeded");
        assert_eq!(class(&problem("/problems/of-another-service")), "bad_status_503");
        assert_eq!(class("<html>502 Bad Gateway</html>"), "bad_status_503");
        assert_eq!(class(""), "bad_status_503");
    }
}
