//! The criticality of a request, from its header. Pure.

use axum::http::HeaderMap;
use contract::http::{CRITICALITY, Criticality};

use crate::error::ApiError;

/// `Default` without the header.
///
/// # Errors
/// `Invalid`: the header has another value, or there is more than one.
pub fn of(headers: &HeaderMap) -> Result<Criticality, ApiError> {
    let mut values = headers.get_all(CRITICALITY).iter();
    let Some(value) = values.next() else { return Ok(Criticality::Default) };
    let known = Criticality::ALL.into_iter().find(|criticality| value.as_bytes() == criticality.as_str().as_bytes());
    known.filter(|_| values.next().is_none()).ok_or_else(|| {
        let names = Criticality::ALL.map(Criticality::as_str).join(", ");
        ApiError::invalid(CRITICALITY, format!("must be one of {names}"))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(values: &[&'static str]) -> Result<Criticality, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CRITICALITY, HeaderValue::from_static(value));
        }
        of(&headers)
    }

    #[test]
    fn each_value_is_read_and_others_are_refused() {
        assert_eq!(read(&[]).unwrap(), Criticality::Default);
        for criticality in Criticality::ALL {
            assert_eq!(read(&[criticality.as_str()]).unwrap(), criticality);
        }
        for bad in [&[""][..], &["Critical"], &["critical "], &["high"], &["critical", "critical"]] {
            let error = read(bad).unwrap_err();
            assert!(matches!(&error, ApiError::Invalid { field, .. } if field == "x-criticality"), "{error}");
            assert!(error.to_string().ends_with("must be one of critical, default, sheddable"), "{error}");
        }
    }
}
