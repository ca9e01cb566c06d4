//! A shared value as JSON, serialised once for all its readers.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use serde::Serialize;

/// The JSON of the latest value.
#[derive(Debug)]
pub struct Rendered<T>(Mutex<Option<(Arc<T>, Bytes)>>);

impl<T> Default for Rendered<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Serialize> Rendered<T> {
    /// The value's JSON. A reader of a new value serialises it, and the others wait for it.
    ///
    /// # Errors
    /// The value cannot be serialised.
    pub fn json(&self, value: &Arc<T>) -> serde_json::Result<Bytes> {
        // A panic leaves the JSON of an earlier value, complete.
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, json)) = &*latest
            && Arc::ptr_eq(of, value)
        {
            return Ok(json.clone());
        }
        let json = Bytes::from(serde_json::to_vec(value)?);
        *latest = Some((Arc::clone(value), json.clone()));
        Ok(json)
    }
}
