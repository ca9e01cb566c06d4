//! Query strings: every parameter known, given once and well-formed, or an error that names it.

use std::str::FromStr;

use contract::{Id, IdError};

use crate::{
    error::ApiError,
    recommend::{DEFAULT_LIMIT, MAX_LIMIT},
};

pub struct Query(Vec<(&'static str, String)>);

/// # Errors
/// A parameter that is not in `known`, comes twice, or is not percent-encoded UTF-8.
pub fn parse(query: &str, known: &[&'static str]) -> Result<Query, ApiError> {
    let mut given: Vec<(&'static str, String)> = Vec::with_capacity(known.len());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(key) = known.iter().find(|name| **name == key) else {
            let key: String = decode(key).unwrap_or_default().chars().take(64).collect();
            return Err(ApiError::invalid(key, format!("is no parameter here; known: {}", known.join(", "))));
        };
        if given.iter().any(|(name, _)| name == key) {
            return Err(ApiError::invalid(*key, "is given twice"));
        }
        let value = decode(value).ok_or_else(|| ApiError::invalid(*key, "is not percent-encoded UTF-8"))?;
        given.push((key, value));
    }
    Ok(Query(given))
}

/// User and limit of a query that needs no decoding, as nearly all do; `None`: `parse` will tell. The id may still be a bad one.
pub fn at_a_glance(query: &str) -> Option<(&str, usize)> {
    let rest = query.strip_prefix("user_id=")?;
    let (user_id, limit) = match rest.split_once('&') {
        None => (rest, DEFAULT_LIMIT),
        Some((user_id, rest)) => (user_id, limit(rest.strip_prefix("limit=")?)?),
    };
    (!user_id.contains(['%', '+'])).then_some((user_id, limit))
}

/// Digits only: `parse` would take a sign, which in a query is a space besides.
fn limit(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|limit| digits && (1..=MAX_LIMIT).contains(limit))
}

impl Query {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// Missing, or no valid id.
    pub fn id<K>(&self, key: &str) -> Result<Id<K>, ApiError> {
        let text = self.get(key).ok_or_else(|| ApiError::invalid(key, "is required"))?;
        Id::from_str(text).map_err(|error: IdError| ApiError::invalid(key, error.to_string()))
    }

    /// `limit`, 1..=100, default 20.
    ///
    /// # Errors
    /// Out of range or no number.
    pub fn limit(&self) -> Result<usize, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(DEFAULT_LIMIT) };
        limit(text).ok_or_else(|| ApiError::invalid("limit", format!("must be a whole number from 1 to {MAX_LIMIT}")))
    }
}

/// Percent-decoding with `+` for a space; `None` where an escape is broken or the result is no UTF-8.
pub fn decode(text: &str) -> Option<String> {
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
    fn the_field_at_fault_is_named() {
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
    fn what_is_read_at_a_glance_is_what_parsing_gives() {
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
            assert_eq!(at_a_glance(query), expected, "{query}");
            if let Some((user_id, limit)) = expected {
                let parsed = parse(query, &["user_id", "limit"]).unwrap();
                let id = parsed.id::<contract::id::User>("user_id").unwrap();
                assert_eq!((id.as_str(), parsed.limit().unwrap()), (user_id, limit), "{query}");
            }
        }
    }

    #[test]
    fn ids_may_hold_anything_that_is_encoded() {
        let query = parse("user_id=k%C3%A4se+%26%3D1&limit=7", &["user_id", "limit"]).unwrap();
        assert_eq!(query.id::<contract::id::User>("user_id").unwrap().as_str(), "käse &=1");
        assert_eq!(query.limit().unwrap(), 7);
    }
}
