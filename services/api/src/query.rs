//! Query strings. Every parameter is known, given once and well-formed; otherwise the error names it.

use std::str::FromStr;

use contract::{Id, IdError};

use crate::{
    error::ApiError,
    limits::{DEFAULT_LIMIT, MAX_LIMIT},
};

pub struct Query(Vec<(&'static str, String)>);

/// # Errors
/// A parameter is not in `known`, is given twice, or is not percent-encoded UTF-8.
pub fn parse(query: &str, known: &[&'static str]) -> Result<Query, ApiError> {
    let mut given: Vec<(&'static str, String)> = Vec::with_capacity(known.len());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(key) = known.iter().find(|name| **name == key) else {
            let key: String = decode(key).unwrap_or_default().chars().take(64).collect();
            return Err(ApiError::invalid(
                key,
                format!("is not a parameter of this path; known parameters: {}", known.join(", ")),
            ));
        };
        if given.iter().any(|(name, _)| name == key) {
            return Err(ApiError::invalid(*key, "is given twice"));
        }
        let value = decode(value).ok_or_else(|| ApiError::invalid(*key, "is not percent-encoded UTF-8"))?;
        given.push((key, value));
    }
    Ok(Query(given))
}

/// User id and limit of a query in the usual form, which needs no decoding. `None`: use `parse`. The id is not checked.
pub fn parse_plain(query: &str) -> Option<(&str, usize)> {
    let rest = query.strip_prefix("user_id=")?;
    let (user_id, limit) = match rest.split_once('&') {
        None => (rest, DEFAULT_LIMIT),
        Some((user_id, rest)) => (user_id, limit(rest.strip_prefix("limit=")?)?),
    };
    (!user_id.contains(['%', '+'])).then_some((user_id, limit))
}

/// Accepts digits only: `str::parse` also accepts a plus sign.
fn limit(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|limit| digits && (1..=MAX_LIMIT).contains(limit))
}

impl Query {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// The parameter is missing or not a valid id.
    pub fn id<K>(&self, key: &str) -> Result<Id<K>, ApiError> {
        let text = self.get(key).ok_or_else(|| ApiError::invalid(key, "is required"))?;
        Id::from_str(text).map_err(|error: IdError| ApiError::invalid(key, error.to_string()))
    }

    /// The parameter `limit`, 1 to 100; 20 if it is missing.
    ///
    /// # Errors
    /// It is out of range or not a number.
    pub fn limit(&self) -> Result<usize, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(DEFAULT_LIMIT) };
        limit(text).ok_or_else(|| ApiError::invalid("limit", format!("must be a whole number from 1 to {MAX_LIMIT}")))
    }
}

/// Percent-decodes, with `+` for a space. `None`: an escape is malformed or the result is not UTF-8.
///
/// Not `form_urlencoded` or `percent-encoding`: they keep malformed escapes as text, and the former replaces what is not UTF-8. A bad id would
/// then be answered as another user instead of refused with 400.
fn decode(text: &str) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(query: &str) -> String {
        let result =
            parse(query, &["user_id", "limit"]).and_then(|q| Ok((q.id::<contract::id::User>("user_id")?, q.limit()?)));
        match result {
            Err(ApiError::Invalid { field, .. }) => field,
            other => panic!("{query}: {other:?}"),
        }
    }

    #[test]
    fn the_error_names_the_field() {
        for (query, expected) in [
            ("", "user_id"),
            ("user_id=", "user_id"),
            ("user_id=a&user_id=b", "user_id"),
            ("user_id=%ff", "user_id"),
            ("user_id=%4", "user_id"),
            ("user_id=a%00", "user_id"),
            ("user_id=a&limit=0", "limit"),
            ("user_id=a&limit=101", "limit"),
            ("user_id=a&limit=-1", "limit"),
            ("user_id=a&limit=+1", "limit"),
            ("user_id=a&limit=%2B1", "limit"),
            ("user_id=a&limit=ten", "limit"),
            ("user_id=a&limit=", "limit"),
            ("user_id=a&colour=red", "colour"),
        ] {
            assert_eq!(field(query), expected, "{query}");
        }
        assert_eq!(field(&format!("user_id={}", "x".repeat(65))), "user_id");
    }

    #[test]
    fn plain_queries_are_read_as_parse_reads_them() {
        for (query, expected) in [
            ("user_id=a", Some(("a", 20))),
            ("user_id=a.b-c_d~e", Some(("a.b-c_d~e", 20))),
            ("user_id=a&limit=7", Some(("a", 7))),
            ("user_id=a&limit=0", None),
            ("user_id=a&limit=+7", None),
            ("user_id=a&limit=7&limit=8", None),
            ("user_id=a&user_id=b", None),
            ("user_id=a&", None),
            ("user_id=a%20b", None),
            ("user_id=a+b", None),
            ("limit=7&user_id=a", None),
            ("user", None),
            ("", None),
        ] {
            assert_eq!(parse_plain(query), expected, "{query}");
            if let Some((user_id, limit)) = expected {
                let parsed = parse(query, &["user_id", "limit"]).unwrap();
                let id = parsed.id::<contract::id::User>("user_id").unwrap();
                assert_eq!((id.as_str(), parsed.limit().unwrap()), (user_id, limit), "{query}");
            }
        }
    }

    #[test]
    fn ids_are_percent_decoded() {
        let query = parse("user_id=k%C3%A4se+%26%3D1&limit=7", &["user_id", "limit"]).unwrap();
        assert_eq!(query.id::<contract::id::User>("user_id").unwrap().as_str(), "käse &=1");
        assert_eq!(query.limit().unwrap(), 7);
    }
}
