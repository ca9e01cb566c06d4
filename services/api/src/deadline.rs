//! The deadline of a request: `http.deadline_ms` after its arrival, or earlier if its client says so (`http.honour_deadline`). Pure.

use std::time::Duration;

use axum::http::HeaderMap;
use contract::http::REQUEST_DEADLINE;
use tokio::time::Instant;

use crate::error::ApiError;

/// The most that a load ends before its request, in milliseconds: enough to answer with an expired list.
const LOAD_MARGIN_MS: u64 = 50;

/// A request is answered by this instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    pub at: Instant,
    /// Time from the arrival of the request to its deadline, in milliseconds. Errors state it.
    pub allowed_ms: u64,
}

impl Deadline {
    pub fn after(arrival: Instant, allowed_ms: u64) -> Self {
        Self { at: arrival + Duration::from_millis(allowed_ms), allowed_ms }
    }

    /// The earlier one of this deadline and the client's, which is in the header as Unix time in milliseconds. `arrival_ms` is the arrival as
    /// Unix time in milliseconds. Without the header: this deadline.
    ///
    /// # Errors
    /// `Invalid`: the header is no such time, or there is more than one. `DeadlinePassed`: the request arrived at its deadline or later.
    pub fn or_clients(self, headers: &HeaderMap, arrival: Instant, arrival_ms: u64) -> Result<Self, ApiError> {
        let mut values = headers.get_all(REQUEST_DEADLINE).iter();
        let Some(value) = values.next() else { return Ok(self) };
        let text = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let deadline_ms = text.and_then(|text| text.parse::<u64>().ok()).filter(|_| values.next().is_none());
        let deadline_ms = deadline_ms.ok_or_else(|| {
            ApiError::invalid(REQUEST_DEADLINE, "must be one Unix time in milliseconds, such as 1767225600000")
        })?;
        match deadline_ms.saturating_sub(arrival_ms) {
            0 => Err(ApiError::DeadlinePassed { late_ms: arrival_ms - deadline_ms }),
            left_ms => Ok(Self::after(arrival, left_ms.min(self.allowed_ms))),
        }
    }

    /// A load ends shortly before its request, which leaves time to answer with an expired list.
    #[must_use]
    pub fn of_load(self) -> Self {
        let margin = Duration::from_millis((self.allowed_ms / 10).min(LOAD_MARGIN_MS));
        Self { at: self.at.checked_sub(margin).unwrap_or(self.at), ..self }
    }

    /// The error of a request without an answer by then.
    pub fn exceeded(self) -> ApiError {
        ApiError::Deadline(self.allowed_ms)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const ARRIVAL_MS: u64 = 1_767_225_600_000;

    fn of(values: &[&[u8]], arrival: Instant) -> Result<Deadline, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(REQUEST_DEADLINE, HeaderValue::from_bytes(value).unwrap());
        }
        Deadline::after(arrival, 5_000).or_clients(&headers, arrival, ARRIVAL_MS)
    }

    #[test]
    fn the_earlier_deadline_counts() {
        let arrival = Instant::now();
        assert_eq!(of(&[], arrival).unwrap(), Deadline::after(arrival, 5_000));
        for (left_ms, allowed_ms) in
            [(1, 1), (1_000, 1_000), (5_000, 5_000), (5_001, 5_000), (u64::MAX - ARRIVAL_MS, 5_000)]
        {
            let header = (ARRIVAL_MS + left_ms).to_string();
            assert_eq!(of(&[header.as_bytes()], arrival).unwrap(), Deadline::after(arrival, allowed_ms), "{left_ms}");
        }
    }

    #[test]
    fn a_deadline_from_the_past_says_how_late_the_request_is() {
        for late_ms in [0, 1, ARRIVAL_MS] {
            let header = (ARRIVAL_MS - late_ms).to_string();
            let error = of(&[header.as_bytes()], Instant::now()).unwrap_err();
            assert!(matches!(error, ApiError::DeadlinePassed { late_ms: found } if found == late_ms), "{error}");
        }
    }

    #[test]
    fn garbage_is_refused_with_the_name_of_the_header() {
        let twice: [&[u8]; 2] = [b"1767225600001", b"1767225600001"];
        let long = "9".repeat(1_000);
        let all: [&[&[u8]]; 10] = [
            &[b""],
            &[b"soon"],
            &[b"-1"],
            &[b"+1767225600001"],
            &[b"1767225600.5"],
            &[b"1767225600001 "],
            &[b"\xff"],
            &[b"18446744073709551616"],
            &[long.as_bytes()],
            &twice,
        ];
        for bad in all {
            let error = of(bad, Instant::now()).unwrap_err();
            assert!(matches!(&error, ApiError::Invalid { field, .. } if field == "x-request-deadline-ms"), "{error}");
            assert!(error.to_string().contains("Unix time in milliseconds"), "{error}");
        }
    }

    #[test]
    fn a_load_ends_a_little_before_its_request() {
        let arrival = Instant::now();
        for (allowed_ms, load_ms) in [(5_000, 4_950), (500, 450), (100, 90), (9, 9)] {
            let load = Deadline::after(arrival, allowed_ms).of_load();
            assert_eq!((load.at - arrival).as_millis() as u64, load_ms);
            assert_eq!(load.allowed_ms, allowed_ms);
        }
    }

    proptest! {
        /// Neither a panic nor a deadline beyond the server's own, for any value that HTTP permits.
        #[test]
        fn no_value_lengthens_the_deadline(value in "[ -~]{0,24}", number in any::<u64>(), is_number in any::<bool>()) {
            let arrival = Instant::now();
            let value = if is_number { number.to_string() } else { value };
            if let Ok(deadline) = of(&[value.as_bytes()], arrival) {
                prop_assert!(deadline.at > arrival && deadline.at <= arrival + Duration::from_secs(5));
                prop_assert!((1..=5_000).contains(&deadline.allowed_ms));
            }
        }
    }
}
